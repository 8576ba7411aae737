"""Peers behind NATs of five kinds learn together. The relay's host sees nothing but ciphertext, and
what happens to networks in the middle of a round stops nobody for long.

That the relay itself, behind its CURVE, is handed nothing else either is shown in
tests/net/paths/test_relay_path.py.

With ``P2PD_WRITE_DOCS=1`` the seconds until all hear from each other go into docs/nat-traversal.md;
for that the machine should have nothing else to do.
"""

import contextlib
import re
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from daemon.net.path_kind import PathKind
from tests.nat_swarm.curve_stream import boxes
from tests.nat_swarm.five_sites import RELAYED, UPDATE_BYTES, FiveSites, Pair
from tests.nat_swarm.nat_swarm import PORT, NatSwarm
from tests.nat_swarm.plaintext import known_plaintext, looks_random
from tests.natlab.lab import NatLab, Site
from tests.natlab.requirements import natlab_marks
from tests.net.paths.nats.nat_report import PAGE, WRITES_DOCS, write_faults
from tests.system.real_swarm import (
    ROUND_S,
    Program,
    RealPeer,
    assert_equal_exports,
    assert_nobody_is_blamed,
    exports_of_one_round,
    wait_until,
)

pytestmark = [
    *natlab_marks,
    pytest.mark.skipif(shutil.which("tcpdump") is None, reason="it needs the program tcpdump"),
    pytest.mark.slow,
    pytest.mark.timeout(300),
]

ACCURACY = 0.95
LEARNED_S = 120.0
KNOWN_UPDATES = 3
"""Of each of the two peers that reach each other over the relay."""
LARGE_BYTES = 500_000
PATH_S = 60.0
"""Within so long every peer is to hear from every other one again: twice what p2pd promises, for a
machine that has much else to do."""
CUT_S = 20.0
REBOOTED = "a router reboots"
MOVED = "a provider gives a site behind its NAT another public address"
CUT = f"a site is cut off for {CUT_S:.0f} s; from when it is back"
KILLED = "the server of rendezvous, STUN and a relay is killed"
RETURNED = "it is started again; until it knows of all peers"
RELAY_KILLED = "the relay that two peers use is killed, and there is another one"
NOTHING = "nothing"


@pytest.fixture(scope="module")
def running_five(
    tmp_path_factory: pytest.TempPathFactory, with_forks: dict[str, str]
) -> Iterator[FiveSites]:
    with (
        NatLab() as lab,
        NatSwarm(tmp_path_factory.mktemp("five"), lab, with_forks, command=None) as swarm,
    ):
        try:
            founded = FiveSites.found(lab, swarm)
        except BaseException:
            swarm.print_logs()
            raise
        yield founded


@pytest.fixture(scope="module")
def recovery() -> Iterator[dict[str, float]]:
    """Seconds by what happened; at the end they go into the page, if it is asked for."""
    seconds: dict[str, float] = {}
    yield seconds
    if WRITES_DOCS and len(seconds) == 7:
        write_faults(PAGE, seconds)


@pytest.fixture
def five(running_five: FiveSites) -> Iterator[FiveSites]:
    """All five train together, and all servers run."""
    try:
        running_five.make_whole()
        yield running_five
    finally:
        running_five.swarm.print_logs()


def test_five_kinds_learn_digits_and_nothing_but_ciphertext_crosses_the_relay(
    five: FiveSites, recovery: dict[str, float], tmp_path: Path
) -> None:
    updates: dict[Path, bytes] = {}

    def enough_updates() -> bool:
        updates.update(own_updates(five))
        return len(updates) >= KNOWN_UPDATES * len(RELAYED)

    wait_until("some updates are made", enough_updates, LEARNED_S)
    peers = list(five.peers.values())
    for peer in peers:
        peer.wait_status(
            "has learned", lambda status: (status.accuracy or 0) >= ACCURACY, LEARNED_S
        )
    five.wait_all_average(five.log_ends())  # By now those updates have crossed the relay.
    assert_equal_exports(peers, tmp_path)
    assert_nobody_is_blamed(peers)
    wait_until(
        "all have the paths that they can have",
        lambda: all(five.sees(pair).path in possible_paths(pair) for pair in five.pairs),
        LEARNED_S,
    )

    one, two = RELAYED
    relayed = five.sees((one, two)).bytes_received + five.sees((two, one)).bytes_received
    assert relayed >= len(updates) * UPDATE_BYTES
    for capture in five.captures:
        capture.stop()
    streams = [
        (flow, stream) for capture in five.captures for flow, stream in capture.streams().items()
    ]
    through_relays = [
        stream for flow, stream in streams if PORT in (flow.source_port, flow.destination_port)
    ]
    ciphertexts = [b"".join(boxes(stream)) for stream in through_relays]
    assert sum(map(len, ciphertexts)) >= 2 * relayed  # In and out again.

    everything = b"\n".join(stream for _, stream in streams)
    for known in known_plaintext(updates.values()):
        assert known not in everything, known
    large = [ciphertext for ciphertext in ciphertexts if len(ciphertext) > LARGE_BYTES]
    assert large
    assert all(map(looks_random, large))
    assert not any(map(looks_random, updates.values()))  # One in the clear would have shown.
    if WRITES_DOCS:
        five.wait_mid_exchange("home")
        report(recovery, NOTHING, five.wait_heard(five.heard_bytes(), PATH_S))


def possible_paths(pair: Pair) -> set[str]:
    if set(pair) == set(RELAYED):
        return {PathKind.RELAY}
    if "public" in pair:
        return {PathKind.DIRECT}
    found = {PathKind.PUNCHED, PathKind.ICE}
    # Against random ports there is only luck, if mostly good.
    return {*found, PathKind.RELAY} if "random" in pair else {*found}


def own_updates(five: FiveSites) -> dict[Path, bytes]:
    """What those two have just made for the others that reach each other over the relay."""
    found = {}
    for name in RELAYED:
        for path in (five.peers[name].state_dir / "spool").glob("update-*.safetensors"):
            with contextlib.suppress(FileNotFoundError):  # its round is over
                found[path] = path.read_bytes()
    return {path: update for path, update in found.items() if len(update) >= UPDATE_BYTES}


@pytest.mark.parametrize(
    ("name", "fault", "what"),
    [("home", Site.reboot_nat, REBOOTED), ("carrier", Site.change_address, MOVED)],
    ids=["NAT reboots", "address changes"],
)
def test_peers_hear_from_each_other_again_when_a_site_has_lost_its_mappings(
    five: FiveSites,
    recovery: dict[str, float],
    tmp_path: Path,
    name: str,
    fault: Callable[[Site], None],
    what: str,
) -> None:
    five.wait_mid_exchange(name)
    heard = five.heard_bytes()
    fault(five.sites[name])
    began_at = five.log_ends()
    report(recovery, what, five.wait_heard(heard, PATH_S))
    check_all_go_on(five, began_at, tmp_path)


def test_site_that_was_cut_off_for_20_s_is_back_and_takes_the_others_line(
    five: FiveSites, recovery: dict[str, float], tmp_path: Path
) -> None:
    cut_off, *_ = RELAYED
    others = [peer for name, peer in five.peers.items() if name != cut_off]
    number = five.wait_mid_exchange(cut_off)
    five.sites[cut_off].cut()
    began_at = five.log_ends()
    time.sleep(CUT_S)

    def goes_on(peer: RealPeer) -> bool:
        rounds = peer.averaged(began_at[peer.name])
        return any(
            later > number and averaged.updates == len(others) for later, averaged in rounds.items()
        )

    for peer in others:
        wait_until(
            f"{peer.name} averages a round without the one that is cut off",
            lambda peer=peer: goes_on(peer),  # type: ignore[misc]  # bound at once
            ROUND_S,
        )
    five.sites[cut_off].mend()
    heard = five.heard_bytes()
    report(recovery, CUT, five.wait_heard(heard, PATH_S))
    check_all_go_on(five, began_at, tmp_path)


def test_rounds_go_on_without_the_rendezvous_and_peers_are_back_in_it(
    five: FiveSites, recovery: dict[str, float], tmp_path: Path
) -> None:
    five.wait_mid_exchange("public")
    heard = five.heard_bytes()
    kill(five.serving)
    began_at = five.log_ends()
    report(recovery, KILLED, five.wait_heard(heard, PATH_S))
    for peer in five.peers.values():
        peer.wait_status(
            "misses the rendezvous", lambda status: status.rendezvous.state == "unreachable"
        )
    check_all_go_on(five, five.log_ends(), tmp_path)
    gone_at = time.monotonic()
    five.start_servers()
    returned_at = time.monotonic()
    for peer in five.peers.values():
        peer.wait_status(
            "is back in the rendezvous",
            lambda status: (
                status.rendezvous.last_announce_s is not None
                and status.rendezvous.last_announce_s < time.monotonic() - gone_at
            ),
            PATH_S,
        )
    report(recovery, RETURNED, time.monotonic() - returned_at)
    check_all_go_on(five, began_at, tmp_path)


def test_other_relay_takes_over_when_the_one_in_use_is_killed(
    five: FiveSites, recovery: dict[str, float], tmp_path: Path
) -> None:
    one, two = RELAYED
    before = five.sees(RELAYED)
    assert before.path == PathKind.RELAY
    five.wait_mid_exchange(one)
    heard = five.heard_bytes()
    kill(five.relaying if five.second.address in before.address else five.serving)
    began_at = five.log_ends()
    report(recovery, RELAY_KILLED, five.wait_heard(heard, PATH_S))
    for pair in ((one, two), (two, one)):
        after = five.sees(pair)
        assert after.path == PathKind.RELAY
        assert after.address != before.address
    check_all_go_on(five, began_at, tmp_path)


def kill(program: Program) -> None:
    program.signal(signal.SIGKILL)
    program.wait_end()


def report(recovery: dict[str, float], what: str, seconds: float) -> None:
    print(f"{what}: all hear from each other after {seconds:.1f} s")
    recovery[what] = seconds


def check_all_go_on(five: FiveSites, since: dict[str, int], directory: Path) -> None:
    """By the logs from there on all average together, and hold the same model; no session was
    lost, so that each message came, and once; and nobody refused anything."""
    peers = list(five.peers.values())
    number = five.wait_all_average(since)
    assert len({peer.averaged(since[peer.name])[number].state for peer in peers}) == 1
    assert len({path.read_bytes() for path in exports_of_one_round(peers, directory).values()}) == 1
    assert_nobody_is_blamed(peers)
    for peer in peers:
        lost = re.findall("peer (.*): a new session, since (.*)", peer.logged(since[peer.name]))
        assert not lost, f"{peer.name} loses sessions: {lost}"
