"""What ``p2pd status`` and ``p2pd peers`` write of what they know."""

import pytest

from daemon.cli.watch.status import peer_table
from daemon.control.status import PeerStatus, RendezvousStatus
from daemon.control.trouble import of_connections
from daemon.net.peers.peer_status import shown_address
from daemon.rounds.phase import Phase
from protocol.text import counted


@pytest.mark.parametrize(("lag", "shown"), [(4, "165 (-4)"), (-4, "165 (+4)"), (0, "165")])
def test_round_of_a_peer_says_how_far_behind_or_ahead_it_is(lag: int, shown: str) -> None:
    peer = PeerStatus(
        peer_id="a" * 52, name="", path="direct", reason="-", address="-", round=165, round_lag=lag
    )
    assert f"  {shown}  " in peer_table((peer,)).splitlines()[1]


RECORDED = ("10.0.0.7:6000", "[2001:db8::7]:6001")


@pytest.mark.parametrize(
    ("remote", "shown"),
    [
        (None, "10.0.0.7:6000, [2001:db8::7]:6001"),
        ("10.0.0.7", "10.0.0.7:6000"),
        ("2001:db8::7", "[2001:db8::7]:6001"),
        ("192.0.2.1", "192.0.2.1"),
        ("192.0.2.1:4711", "192.0.2.1:4711"),
        ("[2001:db8::7]:4711", "[2001:db8::7]:4711"),
        ("relay p2p://k@10.0.0.7:6000", "relay p2p://k@10.0.0.7:6000"),
    ],
)
def test_address_of_a_peer_that_called_has_the_port_at_which_it_listens(
    remote: str | None, shown: str
) -> None:
    assert shown_address(remote, RECORDED) == shown


def test_rendezvous_that_has_not_the_key_of_the_link_is_told_with_that() -> None:
    reason = "whoever answers there does not hold the expected key"
    server = RendezvousStatus(uri="p2p://k@h:1", state="unreachable", reason=reason)
    (item,) = of_connections([server], [], [], phase=Phase.STARTING, knows_swarm=False)
    assert reason in item.text
    assert "needs a new invite link" in item.fix


def test_one_of_a_kind_is_no_plural() -> None:
    assert (counted(1, "peer"), counted(2, "peer")) == ("1 peer", "2 peers")
