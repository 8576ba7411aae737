"""One punched path by itself, between two firewalls: whose keys get in, and which pair is kept."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import count

import pytest
import zmq

from daemon.net.paths.path import Path
from daemon.net.paths.punched.path import SETTLE_S, PunchedPath
from daemon.net.paths.punched.plan import PunchPlan
from daemon.net.paths.targets import Targets
from protocol.statements.peer_record import VerifiedRecord
from protocol.uri import HostPort
from tests.natlab.lab import NatKind, NatLab, Site
from tests.natlab.requirements import natlab_marks
from tests.net.nat.lab_loop import run_on
from tests.net.swarm_peers import Keys, in_order_of_id
from transport.clock import Clock
from transport.sockets.punch_socket import CandidatePair
from transport.sockets.zap import ZapAuthenticator

pytestmark = natlab_marks

FREE_PORTS = count(40001)
"""Each only once: a connection that has ended blocks its pair of endpoints for a minute."""
LOW, HIGH = in_order_of_id(2, first=20)
STRANGER = Keys(29)


@dataclass
class Outcome:
    """The owner of a path, and what it saw (:class:`PathOwner`)."""

    opened: list[str] = field(default_factory=list)
    frames: list[bytes] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    failure: str = ""

    def path_opened(self, path: Path) -> None:
        self.opened.append(path.remote_address)

    def path_received(self, path: Path, frame: bytes | memoryview) -> None:
        self.frames.append(bytes(frame))

    def path_writable(self, path: Path) -> None: ...

    def path_lost(self, path: Path, reason: str) -> None:
        self.lost.append(reason)


@pytest.fixture(scope="module")
def sites() -> Iterator[tuple[NatLab, Site, Site]]:
    with NatLab() as lab:
        one = lab.add_site("one", NatKind.FIREWALLED)
        two = lab.add_site("two", NatKind.FIREWALLED)
        yield lab, one, two


def make_plan(pairs: Sequence[CandidatePair]) -> PunchPlan:
    return PunchPlan(
        pairs=iter(pairs),
        hosts=frozenset(pair.remote.host for pair in pairs),
        once=frozenset(),
        syns_each=1.0,
        most_open=len(pairs),
        retry_s=0.02,
        lasts_s=3.0,
        is_heavy=False,
    )


async def punch(
    own: Keys,
    to: VerifiedRecord,
    plan: PunchPlan,
    *,
    is_server: bool,
    use: Callable[[PunchedPath, Outcome], Awaitable[None]],
) -> Outcome:
    """Try ``plan``; ``use`` is called beside, and the path closed when it returns."""
    outcome = Outcome()
    with zmq.Context() as context:
        async with ZapAuthenticator(context) as zap, asyncio.TaskGroup() as group:
            path = PunchedPath(
                context,
                zap,
                own.curve,
                plan,
                to=to,
                is_server=is_server,
                owner=outcome,
                targets=Targets(Clock()),
            )
            running = group.create_task(path.run())
            await use(path, outcome)
            path.close("done")
            await running
    outcome.failure = path.failure
    return outcome


def between(
    sites: tuple[NatLab, Site, Site],
    *,
    server: Keys,
    client: Keys,
    server_expects: Keys,
    client_expects: Keys,
    use: Callable[[PunchedPath, Outcome], Awaitable[None]],
    pair_count: int = 1,
    beside: Sequence[HostPort] = (),
) -> tuple[Outcome, Outcome]:
    """What the server's side saw, and the client's. ``pair_count`` pairs can come through; those
    to ``beside`` cannot."""
    lab, one, two = sites
    ports = [(next(FREE_PORTS), next(FREE_PORTS)) for _ in range(pair_count)]

    def run_side(own_site: Site, remote_site: Site, side: int, keys: Keys, to: Keys) -> Outcome:
        remote_host = remote_site.host.address
        pairs = [
            CandidatePair(HostPort("0.0.0.0", pair[side]), HostPort(remote_host, pair[1 - side]))
            for pair in ports
        ]
        pairs += [CandidatePair(HostPort("0.0.0.0", ports[0][side]), remote) for remote in beside]
        plan, record = make_plan(pairs), to.record()
        return run_on(
            lab, own_site.host, lambda: punch(keys, record, plan, is_server=side == 0, use=use)
        )

    with ThreadPoolExecutor(2) as threads:
        running = [
            threads.submit(run_side, one, two, 0, server, server_expects),
            threads.submit(run_side, two, one, 1, client, client_expects),
        ]
        return running[0].result(30), running[1].result(30)


async def exchange(path: PunchedPath, outcome: Outcome) -> None:
    """Send frames until one came, and then some more for the other side."""
    frames_left = 10
    async with asyncio.timeout(90):
        while frames_left:
            await asyncio.sleep(0.02)
            if outcome.opened:
                path.send(b"frame")
            if outcome.frames:
                frames_left -= 1


async def wait_for_end(path: PunchedPath, outcome: Outcome) -> None:
    async with asyncio.timeout(90):
        while not path.has_ended:  # noqa: ASYNC110 — there is no event for it.
            await asyncio.sleep(0.01)


def test_peers_that_expect_each_other_exchange_frames(
    sites: tuple[NatLab, Site, Site],
) -> None:
    outcomes = between(
        sites, server=LOW, client=HIGH, server_expects=HIGH, client_expects=LOW, use=exchange
    )
    for outcome in outcomes:
        assert len(outcome.opened) == 1
        assert outcome.frames


def test_key_that_is_not_the_expected_peers_is_refused(
    sites: tuple[NatLab, Site, Site],
) -> None:
    served, refused = between(
        sites,
        server=LOW,
        client=STRANGER,
        server_expects=HIGH,
        client_expects=LOW,
        use=wait_for_end,
    )
    assert served.opened == refused.opened == []
    assert served.failure == "no connection within 3 s"
    assert refused.failure == "the peer does not let this peer's key in"


def test_whoever_has_not_the_servers_key_is_not_believed(
    sites: tuple[NatLab, Site, Site],
) -> None:
    served, refused = between(
        sites,
        server=STRANGER,
        client=HIGH,
        server_expects=HIGH,
        client_expects=LOW,
        use=wait_for_end,
    )
    assert served.opened == refused.opened == []
    assert refused.failure == "no connection within 3 s"


def test_frames_pass_whatever_pairs_are_tried_beside(
    sites: tuple[NatLab, Site, Site],
) -> None:
    outcomes = between(
        sites,
        server=LOW,
        client=HIGH,
        server_expects=HIGH,
        client_expects=LOW,
        use=exchange,
        beside=[HostPort("198.51.100.200", 9), HostPort("198.51.100.200", 10)],
    )
    for outcome in outcomes:
        assert len(outcome.opened) == 1
        assert outcome.frames


def test_of_several_pairs_that_come_through_both_sides_keep_the_same_one(
    sites: tuple[NatLab, Site, Site],
) -> None:
    async def exchange_until_settled(path: PunchedPath, outcome: Outcome) -> None:
        await exchange(path, outcome)
        await asyncio.sleep(SETTLE_S)  # By then each side has dropped what it does not keep.
        before = len(outcome.frames)
        async with asyncio.timeout(90):
            while len(outcome.frames) < before + 10 and not outcome.lost:
                path.send(b"frame")
                await asyncio.sleep(0.02)
            await asyncio.sleep(0.2)

    outcomes = between(
        sites,
        server=LOW,
        client=HIGH,
        server_expects=HIGH,
        client_expects=LOW,
        use=exchange_until_settled,
        pair_count=4,
    )
    for outcome in outcomes:
        assert len(outcome.opened) == 1
        assert outcome.frames
    ours, theirs = outcomes
    assert ours.failure == "done" or theirs.failure == "done"
