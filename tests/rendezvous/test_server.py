import asyncio
import signal
import socket
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path

import pytest
import zmq

from protocol.errors import ConfigError
from protocol.identity import Identity
from protocol.servers.rendezvous_messages import (
    MAX_FRAME_BYTES,
    Announce,
    Granted,
    Heartbeat,
    Joined,
    Leave,
    Left,
    Lookup,
    Records,
    Refused,
)
from protocol.statements.peer_record import PeerRecord, seal_record
from protocol.uri import HostPort, ServerUri
from rendezvous.server.limits import RegistryLimits
from tests.eventually import eventually
from tests.live_server import ServerProcess, unused_address
from tests.rendezvous.live import SWARM, Stranger, joined, serving
from tests.rendezvous.world import statement
from transport.clock import Clock

MIB = 1 << 20


StrangerMaker = Callable[..., Stranger]


@pytest.fixture
def stranger_at() -> Iterator[StrangerMaker]:
    """Makes strangers, and sends them away when the test is over."""
    with zmq.Context() as context, ExitStack() as strangers:

        def make(uri: ServerUri, routing_id: bytes | None = None) -> Stranger:
            stranger = Stranger(context, uri, routing_id)
            strangers.callback(stranger.close)
            return stranger

        yield make


async def still_serves(uri: ServerUri) -> None:
    async with joined(uri) as peer:
        assert await peer.client.find(SWARM, peer=peer.identity.peer_id) is not None


class TestStart:
    async def test_uri_is_the_same_after_a_restart_and_lies_in_its_file(
        self, tmp_path: Path
    ) -> None:
        async with serving(tmp_path) as uri:
            assert (tmp_path / "uri").read_text() == f"{uri}\n"
            assert uri.address.port != 0
        async with serving(tmp_path, uri.address) as again:
            assert again == uri
        key_mode = stat.S_IMODE((tmp_path / "curve.key").stat().st_mode)
        assert key_mode == 0o600

    @pytest.mark.parametrize("host", ["0.0.0.0", "::"])
    async def test_uri_of_a_server_that_listens_everywhere_names_an_address_to_dial(
        self, tmp_path: Path, host: str
    ) -> None:
        async with serving(tmp_path, HostPort(host, 0)) as uri:
            assert uri.address.host not in ("0.0.0.0", "::")
            await still_serves(uri)

    async def test_advertised_address_is_what_the_uri_names(self, tmp_path: Path) -> None:
        async with serving(tmp_path, advertise=HostPort("rendezvous.example", 5555)) as uri:
            assert uri.address == HostPort("rendezvous.example", 5555)
            assert ServerUri.parse((tmp_path / "uri").read_text().strip()) == uri

    async def test_two_servers_cannot_share_a_state_directory(self, tmp_path: Path) -> None:
        async with serving(tmp_path):
            with pytest.raises(ConfigError, match="another directory with --state-dir"):
                async with serving(tmp_path):
                    raise AssertionError("started twice")

    async def test_address_in_use_is_a_configuration_error(self, tmp_path: Path) -> None:
        async with serving(tmp_path / "one") as uri:
            with pytest.raises(ConfigError, match="cannot listen on"):
                async with serving(tmp_path / "two", uri.address):
                    raise AssertionError("started twice")

    async def test_what_is_wrong_with_its_own_address_is_told_before_anything_of_stun(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        with socket.socket() as taken, socket.socket(type=socket.SOCK_DGRAM) as beside:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            port = taken.getsockname()[1]
            with suppress(OSError, OverflowError):  # taken already, which does as well
                beside.bind(("127.0.0.1", port + 1))
            with pytest.raises(ConfigError, match=f"cannot listen on 127.0.0.1:{port}: Address"):
                async with serving(tmp_path / "taken", HostPort("127.0.0.1", port)):
                    raise AssertionError("listens where somebody else does")
        assert "STUN" not in caplog.text

    async def test_key_file_that_others_may_read_stops_it(self, tmp_path: Path) -> None:
        async with serving(tmp_path):
            pass
        (tmp_path / "curve.key").chmod(0o644)
        with pytest.raises(ConfigError, match="chmod 600"):
            async with serving(tmp_path):
                raise AssertionError("started")

    async def test_damaged_snapshot_does_not_stop_it(self, tmp_path: Path) -> None:
        (tmp_path / "snapshot").write_bytes(b"damaged")
        async with serving(tmp_path) as uri:
            await still_serves(uri)
        assert len(list(tmp_path.glob("snapshot.damaged-*"))) == 1

    async def test_each_change_of_state_is_one_line_in_the_log(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level("INFO", "rendezvous")
        async with serving(tmp_path) as uri, joined(uri) as peer:
            await peer.client.publish_statement(statement().raw)
            before = time.monotonic()
            peer.client.set_record(peer.record(sequence=2))
            await peer.announced_since(before)
            await peer.client.lookup(SWARM, 5)
            await peer.client.leave(SWARM)
        lines = [
            record.message
            for record in caplog.records
            if record.name == "rendezvous.server.service"
        ]
        assert [" ".join(line.split()[-4:]) for line in lines] == [
            "73737373, from this machine",
            f"swarm {statement().swarm_id.hex()[:8]} stored, {len(statement().raw)} bytes".split(
                maxsplit=1
            )[1],
            "of swarm 73737373: left",
        ]


class TestPeers:
    async def test_peers_find_each_other_and_hear_who_comes_and_goes(self, tmp_path: Path) -> None:
        async with serving(tmp_path) as uri, joined(uri) as one:
            async with joined(uri) as two:
                assert await two.client.lookup(SWARM, 50) == [one.record()]
                await eventually(lambda: one.notices == [Joined(record=two.record())])
                await two.client.leave(SWARM)
            left = Left(swarm=SWARM, peer=two.identity.public_key)
            await eventually(lambda: one.notices[1:] == [left])
            assert two.notices == []

    async def test_lease_of_a_peer_that_vanished_runs_out(self, tmp_path: Path) -> None:
        limits = RegistryLimits(lease_s=0.5, interval_s=0.15)
        async with serving(tmp_path, limits=limits) as uri, joined(uri) as stays:
            async with joined(uri) as goes:
                pass
            gone = Left(swarm=SWARM, peer=goes.identity.public_key)
            await eventually(lambda: stays.notices[-1:] == [gone])
            assert await stays.client.find(SWARM, peer=stays.identity.peer_id) is not None

    async def test_observed_address_is_the_connections_whatever_the_record_claims(
        self, tmp_path: Path
    ) -> None:
        async with serving(tmp_path) as uri, joined(uri, announce=False) as peer:
            content = PeerRecord(
                curve_key=peer.curve.public, addresses=("8.8.8.8:53",), name="", trains=True
            )
            now_ms = Clock().now_ms()
            raw = seal_record(peer.identity, content, swarm=SWARM, sequence=1, now_ms=now_ms)
            peer.client.set_record(raw)
            await peer.announced()
            assert peer.client.observed_address == "127.0.0.1"

    async def test_statement_survives_a_kill_once_it_was_called_published(
        self, tmp_path: Path
    ) -> None:
        server = ServerProcess("rendezvous", tmp_path)
        try:
            uri = await server.start()
            swarm = statement()
            async with joined(uri, announce=False) as founder:
                await founder.client.publish_statement(swarm.raw)
                server.kill()
                await server.start()
                assert await founder.client.fetch_statement(swarm.swarm_id) == swarm.raw
        finally:
            server.kill()


class TestHostile:
    async def test_record_announced_over_another_key_is_refused(
        self, tmp_path: Path, stranger_at: StrangerMaker
    ) -> None:
        async with serving(tmp_path) as uri, joined(uri) as victim:
            thief = stranger_at(uri)
            thief.send(Announce(request=1, record=victim.record(sequence=2)))
            reply = await thief.reply()
            assert isinstance(reply, Refused)
            assert reply.code == "denied"
            thief.send(Heartbeat(request=2, swarm=SWARM))
            reply = await thief.reply()
            assert isinstance(reply, Refused)
            assert reply.code == "unknown"

    async def test_routing_id_of_another_peer_gets_neither_replies_nor_the_lease(
        self, tmp_path: Path, stranger_at: StrangerMaker
    ) -> None:
        async with serving(tmp_path) as uri, joined(uri) as peer:
            victim = stranger_at(uri, routing_id=b"victim")
            other = replace(peer, identity=Identity.generate(), curve=victim.keys)
            victim.send(Announce(request=1, record=other.record()))
            assert isinstance(await victim.reply(), Granted)
            thief = stranger_at(uri, routing_id=b"victim")
            thief.send(Leave(request=2, swarm=SWARM))
            thief.send(Lookup(request=2, swarm=SWARM, want=5))
            victim.send(Heartbeat(request=3, swarm=SWARM))
            granted = await victim.reply()
            assert isinstance(granted, Granted)
            assert granted.request == 3
            assert await peer.client.lookup(SWARM, 5) == [other.record()]
            assert not thief.has_mail()

    async def test_garbage_in_frames_is_refused_and_others_are_served(
        self, tmp_path: Path, stranger_at: StrangerMaker
    ) -> None:
        async with serving(tmp_path) as uri, joined(uri) as peer:
            stranger = stranger_at(uri)
            for garbage in (b"", b"\xc1", b"\xdd\xff\xff\xff\xff", b"\x91" * 100_000):
                stranger.socket.send(garbage)
                reply = await stranger.reply()
                assert isinstance(reply, Refused)
                assert (reply.request, reply.code) == (0, "malformed")
            assert await peer.client.lookup(SWARM, 5) == []

    async def test_frame_above_the_limit_costs_the_connection_only(
        self, tmp_path: Path, stranger_at: StrangerMaker
    ) -> None:
        async with serving(tmp_path) as uri, joined(uri) as peer:
            stranger = stranger_at(uri)
            stranger.socket.send(bytes(MAX_FRAME_BYTES))
            assert isinstance(await stranger.reply(), Refused)
            stranger.socket.send(bytes(MAX_FRAME_BYTES + 1))
            assert await asyncio.to_thread(stranger.is_cut_off, 5.0)
            assert peer.client.state == "connected"
            await still_serves(uri)

    async def test_flood_is_slowed_down_then_disconnected_and_others_are_served(
        self, tmp_path: Path, stranger_at: StrangerMaker
    ) -> None:
        async with serving(tmp_path) as uri, joined(uri) as peer:
            stranger = stranger_at(uri)
            codes = set()
            while not stranger.is_cut_off():
                stranger.send(Lookup(request=1, swarm=SWARM, want=50))
                await eventually(lambda: stranger.has_mail() or stranger.is_cut_off())
                if stranger.has_mail():
                    reply = await stranger.reply()
                    codes.add(reply.code if isinstance(reply, Refused) else "records")
            assert codes == {"records", "retry_after"}
            assert await peer.client.find(SWARM, peer=peer.identity.peer_id) is not None

    async def test_lookup_in_a_crowd_is_clamped_and_others_learn_of_each_other(
        self, tmp_path: Path, stranger_at: StrangerMaker
    ) -> None:
        async with serving(tmp_path) as uri, joined(uri) as peer:
            strangers = []
            for number in range(70):
                stranger = stranger_at(uri)
                other = replace(peer, identity=Identity.generate(), curve=stranger.keys)
                stranger.send(Announce(request=number, record=other.record()))
                strangers.append(stranger)
            for stranger in strangers:
                assert isinstance(await stranger.reply(), Granted | Joined)
            asker = strangers[0]
            asker.send(Lookup(request=1000, swarm=SWARM, want=10**6))
            reply = await asker.reply()
            while isinstance(reply, Joined):
                reply = await asker.reply()
            assert isinstance(reply, Records)
            assert (len(reply.records), reply.total) == (50, 71)
            await eventually(lambda: len(peer.notices) >= 50)

    async def test_everything_at_once_leaves_memory_flat_and_the_server_alive(
        self, tmp_path: Path, stranger_at: StrangerMaker
    ) -> None:
        server = ServerProcess("rendezvous", tmp_path)
        try:
            uri = await server.start()
            async with joined(uri) as peer:
                before = server.rss_bytes()
                claim = b"\xff" + bytes(8) + b"\x7f\x02" + (1 << 30).to_bytes(8, "big")
                raw = [socket.create_connection(("127.0.0.1", uri.address.port)) for _ in range(50)]
                for number, connection in enumerate(raw):
                    connection.send(claim if number % 2 else b"GET / HTTP/1.1\r\n\r\n")
                strangers = [stranger_at(uri) for _ in range(10)]
                for stranger in strangers:
                    stranger.socket.setsockopt(zmq.SNDTIMEO, 1000)
                    stranger.socket.send(bytes(MAX_FRAME_BYTES))
                    stranger.socket.send_multipart([bytes(1000)] * 1000)
                    stranger.socket.send(bytes(4 * MIB))
                assert await peer.client.lookup(SWARM, 5) == []
                await still_serves(uri)
                assert server.rss_bytes() - before < 30 * MIB
                for connection in raw:
                    connection.close()
        finally:
            server.kill()


async def test_connected_client_is_not_disturbed_by_a_server_that_stops_orderly(
    tmp_path: Path,
) -> None:
    address = unused_address()
    async with serving(tmp_path, address) as uri, joined(uri) as peer:
        pass
    async with serving(tmp_path, address), joined(uri) as other:
        assert await other.client.lookup(SWARM, 5) == [peer.record()]


async def test_server_that_was_stopped_for_a_while_goes_on(tmp_path: Path) -> None:
    server = ServerProcess("rendezvous", tmp_path)
    try:
        uri = await server.start()
        async with joined(uri) as peer:
            server.signal(signal.SIGSTOP)
            waiting = asyncio.ensure_future(peer.client.lookup(SWARM, 5))
            done, _ = await asyncio.wait((waiting,), timeout=0.3)
            assert not done
            server.signal(signal.SIGCONT)
            assert await waiting == []
    finally:
        server.kill()


async def test_idle_server_uses_next_to_no_processor(tmp_path: Path) -> None:
    server = ServerProcess("rendezvous", tmp_path)
    try:
        uri = await server.start()
        async with joined(uri), joined(uri):
            before = server.cpu_s()
            await asyncio.sleep(1.0)  # The measurement is of this time.
            assert server.cpu_s() - before <= 0.1
    finally:
        server.kill()
