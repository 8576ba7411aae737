"""Where the laboratory cannot run, it says why."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.natlab.requirements import missing_requirement

ALL_CAPABILITIES = "CapEff:\t000001ffffffffff\n"
NO_CAPABILITIES = "Name:\tpytest\nCapEff:\t0000000000000000\n"


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    for name in ("ip", "tc", "nft"):
        (tmp_path / name).touch(mode=0o755)
    return tmp_path


def test_missing_program_is_named(programs: Path) -> None:
    (programs / "nft").unlink()
    assert missing_requirement(search_path=str(programs)) == (
        "the NAT laboratory needs the program nft"
    )


@pytest.mark.parametrize(
    ("capabilities", "reason"),
    [
        (ALL_CAPABILITIES, None),
        (NO_CAPABILITIES, "the NAT laboratory needs root (CAP_NET_ADMIN)"),
        ("", "the NAT laboratory needs root (CAP_NET_ADMIN)"),
    ],
    ids=["root", "user", "unknown"],
)
def test_missing_root_is_named(programs: Path, capabilities: str, reason: str | None) -> None:
    status = programs / "status"
    status.write_text(capabilities)
    assert missing_requirement(search_path=str(programs), status=status, tun=status) == reason


def test_missing_tun_device_is_named(programs: Path) -> None:
    status = programs / "status"
    status.write_text(ALL_CAPABILITIES)
    tun = programs / "tun"
    assert missing_requirement(search_path=str(programs), status=status, tun=tun) == (
        f"the NAT laboratory needs {tun}"
    )
