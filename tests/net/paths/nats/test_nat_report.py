"""The two writers of docs/nat-traversal.md."""

from pathlib import Path

from daemon.net.path_kind import PathKind
from tests.natlab.lab import NatKind
from tests.net.paths.nats.nat_matrix import Cell
from tests.net.paths.nats.nat_report import PAGE, write_faults, write_pairs

CELL = Cell((NatKind.OPEN, NatKind.DOUBLE), PathKind.DIRECT, 0.5, 0.5, ("", ""))


def test_each_leaves_the_others_part_as_it_is(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("")
    write_pairs(page, {0.0: [CELL]}, least_without_relay=1)
    pairs = page.read_text()
    write_faults(page, {"a router reboots": 3.21})
    both = page.read_text()
    assert both.startswith(pairs)
    assert both.endswith("|\n| a router reboots | 3.2 |\n")
    write_pairs(page, {0.0: [CELL]}, least_without_relay=1)
    assert page.read_text() == both
    write_faults(page, {"a router reboots": 3.21})
    assert page.read_text() == both


def test_page_as_it_is_keeps_its_tables_of_pairs(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(PAGE.read_text())
    write_faults(page, {"nothing": 1.0})
    before, _, _ = PAGE.read_text().partition("## When networks and servers fail")
    assert page.read_text().startswith(before.rstrip())
