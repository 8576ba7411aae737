"""Every pair of the eleven kinds of NAT connects, over the best path that there can be.

With ``P2PD_WRITE_DOCS=1`` all pairs are measured with a delay too, and docs/nat-traversal.md is
written; for that the machine should have nothing else to do.
"""

from collections.abc import Iterator

import pytest

from daemon.net.path_kind import PathKind
from tests.natlab.lab import NatKind
from tests.natlab.requirements import natlab_marks
from tests.natlab.theory import PAIRS
from tests.net.paths.nats.nat_matrix import Cell, NatMatrix, possible_kinds
from tests.net.paths.nats.nat_report import PAGE, WRITES_DOCS, without_relay, write_pairs
from tests.net.paths.path_lab import path_lab

pytestmark = [*natlab_marks, pytest.mark.slow, pytest.mark.timeout(400)]

PAIRS_AT_ONCE = 4
"""Two cores are then busy for a third of the time, so that no pair waits for another one."""
LEAST_WITHOUT_RELAY = 52
"""Of 54. Where ports are found by chance it can take longer than anybody waits here."""
FIRST_MESSAGE_S = 2.0
ROUND_TRIP_MS = 60.0
ONE_OF_EACH = [
    (NatKind.OPEN, NatKind.HTTP_ONLY),
    (NatKind.FULL_CONE, NatKind.SYMMETRIC),
    (NatKind.PORT_RESTRICTED, NatKind.DOUBLE),
    (NatKind.SYMMETRIC_SEQUENTIAL, NatKind.SYMMETRIC_SEQUENTIAL),
    (NatKind.MASQUERADE, NatKind.SYMMETRIC),
    (NatKind.SYMMETRIC, NatKind.SYMMETRIC),
    (NatKind.HTTP_ONLY, NatKind.HTTP_ONLY),
]
"""Each way that there is to connect two peers."""


@pytest.fixture(scope="module")
def matrix(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatMatrix]:
    with path_lab(tmp_path_factory.mktemp("servers")) as lab:
        yield NatMatrix(lab, pairs_at_once=PAIRS_AT_ONCE)


@pytest.fixture(scope="module")
def measured() -> Iterator[dict[float, list[Cell]]]:
    """Cells by round trip; at the end they become the page, if it is asked for."""
    cells: dict[float, list[Cell]] = {}
    yield cells
    if WRITES_DOCS and len(cells) == 2:
        write_pairs(PAGE, cells, least_without_relay=LEAST_WITHOUT_RELAY)


def check(cells: list[Cell]) -> None:
    for cell in cells:
        assert cell.path in possible_kinds(*cell.pair), cell
        assert all(cell.reasons), cell
        assert cell.first_message_s != float("inf"), cell
        if WRITES_DOCS:
            assert cell.first_message_s <= FIRST_MESSAGE_S, cell


def test_all_pairs_connect_most_of_them_without_the_relay(
    matrix: NatMatrix, measured: dict[float, list[Cell]]
) -> None:
    cells = matrix.run(PAIRS)
    check(cells)
    assert {cell.pair for cell in cells} == set(PAIRS)
    assert len(cells) == 66
    assert len(without_relay(cells)) >= LEAST_WITHOUT_RELAY
    measured[0.0] = cells


def test_long_ways_change_nothing(matrix: NatMatrix, measured: dict[float, list[Cell]]) -> None:
    pairs = PAIRS if WRITES_DOCS else ONE_OF_EACH
    matrix.set_round_trip(ROUND_TRIP_MS)
    cells = matrix.run(pairs)
    check(cells)
    possible = [pair for pair in pairs if possible_kinds(*pair)[0] is not PathKind.RELAY]
    assert {cell.pair for cell in without_relay(cells)} == set(possible)
    measured[ROUND_TRIP_MS] = cells
