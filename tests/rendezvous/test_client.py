import asyncio
import signal
import time
from dataclasses import replace
from pathlib import Path

import pytest
import uvloop

from protocol.errors import ConfigError, RemoteProtocolError, TransportError
from protocol.identity import Identity
from protocol.servers.rendezvous_messages import Joined, Signal
from protocol.uri import HostPort, ServerUri
from rendezvous.client.client import RendezvousClient
from rendezvous.client.connection import Timeouts
from rendezvous.server.limits import RegistryLimits
from tests.eventually import eventually
from tests.live_server import ServerProcess, unused_address
from tests.rendezvous.live import SWARM, LivePeer, joined, serving
from tests.rendezvous.world import statement
from transport.clock import Clock
from transport.curve import CurveKeys


class TenMinutesSlow(Clock):
    def own_ms(self) -> int:
        return super().own_ms() - 600_000


def signal_of(sender: LivePeer) -> Signal:
    """As the rendezvous passes on what ``sender`` says, who is on this machine."""
    return Signal(SWARM, b"sealed", sender.identity.public_key, "127.0.0.1")


class TestRequests:
    async def test_statement_is_published_and_fetched(self, tmp_path: Path) -> None:
        swarm = statement()
        async with (
            serving(tmp_path) as uri,
            joined(uri, announce=False) as founder,
            joined(uri, announce=False) as newcomer,
        ):
            await founder.client.publish_statement(swarm.raw)
            assert await newcomer.client.fetch_statement(swarm.swarm_id) == swarm.raw

    async def test_refusals_are_configuration_errors_with_the_servers_words(
        self, tmp_path: Path
    ) -> None:
        async with serving(tmp_path) as uri, joined(uri, announce=False) as peer:
            with pytest.raises(ConfigError, match="unknown: no such swarm was published here"):
                await peer.client.fetch_statement(SWARM)
            with pytest.raises(ConfigError, match="malformed"):
                await peer.client.publish_statement(b"nonsense")

    async def test_find_by_either_key_and_nobody(self, tmp_path: Path) -> None:
        async with serving(tmp_path) as uri, joined(uri) as one, joined(uri) as two:
            find = two.client.find
            assert await find(SWARM, peer=one.identity.peer_id) == one.record()
            assert await find(SWARM, curve_key=one.curve.public) == one.record()
            assert await find(SWARM, peer=Identity.generate().peer_id) is None
            assert await find(b"x" * 32, curve_key=one.curve.public) is None

    async def test_signal_arrives_or_its_sender_is_told(self, tmp_path: Path) -> None:
        async with serving(tmp_path) as uri, joined(uri) as one, joined(uri) as two:
            await one.client.send_signal(SWARM, two.identity.peer_id, b"sealed")
            await eventually(lambda: two.notices == [signal_of(one)])
            with pytest.raises(TransportError, match="not connected to the rendezvous"):
                await one.client.send_signal(SWARM, Identity.generate().peer_id, b"sealed")

    async def test_many_requests_at_once_get_each_their_own_answer(self, tmp_path: Path) -> None:
        async with serving(tmp_path) as uri, joined(uri) as one, joined(uri) as two:
            answers = await asyncio.gather(
                *(two.client.find(SWARM, peer=one.identity.peer_id) for _ in range(20)),
                *(two.client.find(SWARM, peer=two.identity.peer_id) for _ in range(20)),
            )
            assert answers == [one.record()] * 20 + [two.record()] * 20

    async def test_request_that_came_too_fast_is_made_again_when_it_may(
        self, tmp_path: Path
    ) -> None:
        async with serving(tmp_path) as uri, joined(uri) as peer:
            answers = await asyncio.gather(*(peer.client.lookup(SWARM, 5) for _ in range(60)))
            assert answers == [[]] * 60

    async def test_request_before_the_server_is_up_is_answered_when_it_comes(
        self, tmp_path: Path
    ) -> None:
        async with serving(tmp_path) as uri:
            pass
        async with joined(uri, announce=False) as peer:
            await eventually(lambda: peer.client.state == "unreachable")
            waiting = asyncio.ensure_future(peer.client.lookup(SWARM, 5))
            async with serving(tmp_path, uri.address):
                assert await waiting == []

    async def test_absent_server_is_reported_in_bounded_time(self) -> None:
        uri = ServerUri(CurveKeys.generate().public, unused_address())
        async with joined(uri, announce=False, timeouts=Timeouts(request_s=0.3)) as peer:
            with pytest.raises(TransportError, match=r"no answer from rendezvous .* nobody"):
                await peer.client.fetch_statement(SWARM)
            await peer.client.leave(SWARM)

    async def test_record_that_does_not_verify_is_not_taken(self, tmp_path: Path) -> None:
        async with serving(tmp_path) as uri, joined(uri, announce=False) as peer:
            with pytest.raises(RemoteProtocolError):
                peer.client.set_record(b"nonsense")


def test_client_and_server_work_under_uvloop(tmp_path: Path) -> None:
    async def meet() -> None:
        async with serving(tmp_path) as uri, joined(uri) as one, joined(uri) as two:
            assert await one.client.lookup(SWARM, 5) == [two.record()]
            both = {one.identity.peer_id, two.identity.peer_id}
            assert await one.client.members(SWARM) == both
            await two.client.send_signal(SWARM, one.identity.peer_id, b"sealed")
            await eventually(lambda: signal_of(two) in one.notices)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(meet())


class TestState:
    async def test_absent_server_is_a_state_and_said_once(self) -> None:
        uri = ServerUri(CurveKeys.generate().public, unused_address())
        async with joined(uri, announce=False) as peer:
            assert peer.client.state == "connecting"
            peer.client.set_record(peer.record())
            await eventually(lambda: peer.client.state == "unreachable")
            assert "nobody answers there" in peer.client.trouble
            await asyncio.sleep(1.0)  # Several attempts fail meanwhile.
            assert peer.states == ["unreachable"]
            assert peer.client.last_announce_s is None
            assert peer.client.clock_offset_ms is None

    async def test_server_with_another_key_is_unreachable_and_the_reason_is_told(
        self, tmp_path: Path
    ) -> None:
        async with serving(tmp_path) as uri:
            wrong = ServerUri(CurveKeys.generate().public, uri.address)
            async with joined(wrong, announce=False) as peer:
                await eventually(lambda: peer.client.state == "unreachable")
                assert "does not hold the expected key" in peer.client.trouble

    async def test_name_that_does_not_exist_is_unreachable(self) -> None:
        uri = ServerUri(CurveKeys.generate().public, HostPort("no-such-host.invalid", 5555))
        async with joined(uri, announce=False) as peer:
            await eventually(lambda: peer.client.state == "unreachable")
            assert "cannot look up 'no-such-host.invalid'" in peer.client.trouble

    async def test_name_is_looked_up_whatever_family_the_server_listens_on(
        self, tmp_path: Path
    ) -> None:
        async with serving(tmp_path) as uri:
            by_name = ServerUri(uri.key, HostPort("localhost", uri.address.port))
            async with joined(by_name) as peer:
                assert peer.client.state == "connected"

    async def test_refused_record_is_a_state_with_its_reason(self, tmp_path: Path) -> None:
        async with (
            serving(tmp_path, limits=RegistryLimits(max_leases=1)) as uri,
            joined(uri),
            joined(uri, announce=False) as peer,
        ):
            peer.client.set_record(peer.record())
            await eventually(lambda: peer.client.state.startswith("refused: quota: no room"))
            assert await peer.client.lookup(SWARM, 5) != []
            assert peer.states == ["connected", peer.client.state]

    async def test_clock_offset_and_round_trip_are_measured(self, tmp_path: Path) -> None:
        async with serving(tmp_path) as uri, joined(uri) as peer:
            curve = CurveKeys.generate()
            async with RendezvousClient(uri, curve, clock=TenMinutesSlow()) as client:
                client.set_record(replace(peer, curve=curve).record(swarm=b"c" * 32))
                await eventually(lambda: client.clock_offset_ms is not None)
                assert client.clock_offset_ms is not None
                assert client.round_trip_s is not None
                assert abs(client.clock_offset_ms - 600_000) <= client.round_trip_s * 1000 + 10

    async def test_new_record_is_announced_at_once(self, tmp_path: Path) -> None:
        async with serving(tmp_path) as uri, joined(uri) as one, joined(uri) as two:
            newer = one.record(sequence=2)
            one.client.set_record(newer)
            await eventually(lambda: two.notices == [Joined(record=newer)])

    async def test_lease_is_renewed_for_as_long_as_it_runs(self, tmp_path: Path) -> None:
        limits = RegistryLimits(lease_s=0.6, interval_s=0.2)
        async with serving(tmp_path, limits=limits) as uri, joined(uri) as peer:
            for _ in range(6):
                await peer.announced_since(time.monotonic())
            assert peer.states == ["connected"]
            async with joined(uri) as other:
                assert await other.client.lookup(SWARM, 5) == [peer.record()]


class TestReturn:
    async def test_killed_server_is_announced_to_again_soon_after_its_return(
        self, tmp_path: Path
    ) -> None:
        server = ServerProcess("rendezvous", tmp_path)
        try:
            uri = await server.start()
            async with joined(uri) as one, joined(uri) as two:
                server.kill()
                await eventually(lambda: one.client.state == two.client.state == "unreachable")
                await asyncio.sleep(2.0)  # It stays away for a while, and the waits grow.
                returned = time.monotonic()
                await server.start()
                await one.announced_since(returned)
                await two.announced_since(returned)
                assert await one.client.lookup(SWARM, 5) == [two.record()]
                await one.client.send_signal(SWARM, two.identity.peer_id, b"sealed")
                await eventually(lambda: signal_of(one) in two.notices)
                assert one.states == ["connected", "connecting", "unreachable", "connected"]
        finally:
            server.kill()

    async def test_server_that_lost_its_state_is_announced_to_again(self, tmp_path: Path) -> None:
        async with serving(tmp_path) as uri, joined(uri) as peer:
            pass
        async with joined(uri, announce=False) as peer:
            peer.client.set_record(peer.record())
            (tmp_path / "snapshot").unlink()
            async with serving(tmp_path, uri.address):
                await peer.announced()
            (tmp_path / "snapshot").unlink()
            returned = time.monotonic()
            async with serving(tmp_path, uri.address):
                await peer.announced_since(returned)
                async with joined(uri) as other:
                    assert await other.client.lookup(SWARM, 5) == [peer.record()]

    async def test_server_that_hangs_is_noticed_by_the_next_heartbeat(self, tmp_path: Path) -> None:
        server = ServerProcess("rendezvous", tmp_path)
        try:
            uri = await server.start()
            async with joined(uri, timeouts=Timeouts(reply_s=0.3)) as peer:
                server.signal(signal.SIGSTOP)
                peer.client.set_record(peer.record(sequence=2))
                await eventually(lambda: "connecting" in peer.states[1:])
                assert "no reply in" in peer.client.trouble
                server.signal(signal.SIGCONT)
                await peer.announced_since(time.monotonic())
        finally:
            server.kill()
