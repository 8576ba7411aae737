"""Real relays, real clients, real sockets on loopback."""

import asyncio
import os
import socket
import stat
import time
from pathlib import Path

import pytest
import uvloop
import zmq

from protocol.errors import ConfigError, TransportError, VerificationError
from protocol.identity import Identity
from protocol.servers.relay_messages import (
    DATA_HEADER,
    RELAY_VERSION,
    Close,
    Code,
    Consent,
    FrameKind,
    Hello,
    NotOpened,
    Open,
    Opened,
    Ping,
    Pong,
    Welcome,
)
from protocol.statements.peer_record import PeerRecord, seal_record
from protocol.uri import HostPort, ServerUri
from relay.client.client import RelayState
from relay.client.events import LinkRefusedError
from relay.server.limits import RelayLimits
from tests.eventually import eventually
from tests.live_server import ServerProcess
from tests.relay.relay_live import SWARM, RawSocket, connected, serving
from tests.relay.tapped_relay import tapped_relay
from transport.curve import CurveKeys

FRAME = os.urandom(64 * 1024)
MEBI = 1 << 20


async def exchange(state_dir: Path) -> None:
    """Two clients send each other 20 MB over one relay, both at once."""
    async with serving(state_dir) as uri, connected(uri) as alice, connected(uri) as bob:
        await alice.ready()
        await bob.ready()
        ours, theirs = await alice.link_to(bob)
        assert ours.link.channel_binding == theirs.link.channel_binding
        there = [os.urandom(n % 65_537) for n in range(0, 65_536 * 10, 1031)]
        back = there[::-1]
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(ours.send_all(there))
            tasks.create_task(theirs.send_all(back))
        await eventually(lambda: len(theirs.frames) == len(ours.frames) == len(there))
        assert theirs.frames == there
        assert ours.frames == back


async def test_two_peers_exchange_frames_over_a_relay(tmp_path: Path) -> None:
    await exchange(tmp_path)


def test_it_works_under_uvloop_too(tmp_path: Path) -> None:
    uvloop.run(exchange(tmp_path))


async def test_one_connection_carries_many_links(tmp_path: Path) -> None:
    async with serving(tmp_path) as uri, connected(uri) as alice, connected(uri) as bob:
        await alice.ready()
        await bob.ready()
        pairs = [await alice.link_to(bob) for _ in range(12)]
        for number, (ours, _) in enumerate(pairs):
            await ours.send_all([b"%d" % number] * 50)
        await eventually(lambda: all(len(theirs.frames) == 50 for _, theirs in pairs))
        assert all(
            set(theirs.frames) == {b"%d" % number} for number, (_, theirs) in enumerate(pairs)
        )
        assert alice.client.status().link_count == 12


async def test_peer_is_found_by_its_identity(tmp_path: Path) -> None:
    async with serving(tmp_path) as uri, connected(uri) as alice, connected(uri) as bob:
        record = PeerRecord(curve_key=bob.curve.public, addresses=(), name="bob", trains=True)
        bob.client.set_record(
            SWARM,
            seal_record(
                bob.identity, record, swarm=SWARM, sequence=1, now_ms=time.time_ns() // 1_000_000
            ),
        )
        bob.client.allow(SWARM, {alice.curve.public: alice.identity.peer_id}, ask=False)
        await alice.ready()
        await bob.ready()
        link = await alice.client.open_link(SWARM, bob.identity.peer_id)
        assert link.curve_key == bob.curve.public


async def test_unknown_destination_is_peer_gone(tmp_path: Path) -> None:
    async with serving(tmp_path) as uri, connected(uri) as alice:
        await alice.ready()
        with pytest.raises(LinkRefusedError) as refusal:
            await alice.client.open_link(
                SWARM, Identity.generate().peer_id, curve_key=CurveKeys.generate().public
            )
        assert refusal.value.code == Code.PEER_GONE


async def test_destination_that_did_not_agree_is_forbidden(tmp_path: Path) -> None:
    async with serving(tmp_path) as uri, connected(uri) as alice, connected(uri) as bob:
        await alice.ready()
        await bob.ready()
        with pytest.raises(LinkRefusedError) as refusal:
            await alice.client.open_link(SWARM, bob.identity.peer_id, curve_key=bob.curve.public)
        assert refusal.value.code == Code.FORBIDDEN
        assert bob.incoming == []


async def test_peer_with_another_identity_is_found_out(tmp_path: Path) -> None:
    async with serving(tmp_path) as uri, connected(uri) as alice, connected(uri) as mallory:
        await alice.ready()
        await mallory.ready()
        bob = Identity.generate()
        mallory.knows[alice.curve.public] = alice.identity.peer_id
        with pytest.raises(VerificationError) as refusal:
            await alice.client.open_link(SWARM, bob.peer_id, curve_key=mallory.curve.public)
        assert bob.peer_id in str(refusal.value)
        assert mallory.identity.peer_id in str(refusal.value)


async def test_cancelled_call_leaves_no_link_behind(tmp_path: Path) -> None:
    async with serving(tmp_path) as uri, connected(uri) as alice, connected(uri) as bob:
        await alice.ready()
        await bob.ready()
        bob.knows[alice.curve.public] = alice.identity.peer_id
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0):
                await alice.client.open_link(
                    SWARM, bob.identity.peer_id, curve_key=bob.curve.public
                )
        ours, theirs = await alice.link_to(bob)
        await eventually(lambda: bob.client.status().link_count == 1)
        assert alice.client.status().link_count == 1
        await ours.send_all([b"frame"])
        await eventually(lambda: theirs.frames == [b"frame"])


async def test_closing_a_link_is_told_to_the_other_end(tmp_path: Path) -> None:
    async with serving(tmp_path) as uri, connected(uri) as alice, connected(uri) as bob:
        await alice.ready()
        await bob.ready()
        ours, theirs = await alice.link_to(bob)
        await ours.send_all([b"last"])
        ours.link.close("done")
        await eventually(lambda: len(theirs.closed) == 1)
        assert theirs.frames == [b"last"]
        assert not ours.link.send(b"more")


async def test_client_that_leaves_ends_its_links(tmp_path: Path) -> None:
    async with serving(tmp_path) as uri, connected(uri) as alice:
        async with connected(uri) as bob:
            await alice.ready()
            await bob.ready()
            ours, _ = await alice.link_to(bob)
        await eventually(lambda: len(ours.closed) == 1)
        assert alice.client.state is RelayState.READY


async def test_stopped_relay_says_so_and_is_found_again(tmp_path: Path) -> None:
    async with serving(tmp_path) as uri:
        client = connected(uri)
        alice = await client.__aenter__()
        await alice.ready()
    try:
        await eventually(lambda: alice.client.state is RelayState.UNREACHABLE)
        with pytest.raises(TransportError):
            await alice.client.open_link(SWARM, Identity.generate().peer_id)
        async with serving(tmp_path, uri.address) as again:
            assert again == uri
            await alice.ready()
    finally:
        await client.__aexit__(None, None, None)


async def test_killed_relay_ends_the_links_and_its_successor_carries_new_ones(
    tmp_path: Path,
) -> None:
    relay = ServerProcess("relay", tmp_path)
    uri = await relay.start()
    try:
        async with connected(uri) as alice, connected(uri) as bob:
            await alice.ready()
            await bob.ready()
            ours, theirs = await alice.link_to(bob)
            relay.kill()
            await eventually(lambda: len(ours.closed) == len(theirs.closed) == 1)
            await eventually(lambda: alice.client.state is RelayState.UNREACHABLE)
            assert alice.client.status().reason
            assert await relay.start() == uri
            await alice.ready()
            await bob.ready()
            ours, theirs = await alice.link_to(bob)
            await ours.send_all([FRAME] * 100)
            await eventually(lambda: len(theirs.frames) == 100)
    finally:
        relay.kill()


async def test_peer_that_never_reads_leaves_the_relays_memory_flat(tmp_path: Path) -> None:
    """A sender opens link after link to it, and sends more on each than it may."""
    relay = ServerProcess("relay", tmp_path)
    uri = await relay.start()
    try:
        with RawSocket(uri, queue_messages=1) as deaf, RawSocket(uri) as sender:
            for peer in (deaf, sender):
                peer.say(Hello(RELAY_VERSION, 4 * MEBI))
                await peer.expect(Welcome)
            deaf.say(Consent(SWARM, (sender.curve.public,), ask=False))
            deaf.say(Ping(1))
            await deaf.expect(Pong)
            before = relay.rss_bytes()
            await flood(sender, deaf, links=12)
            full = relay.rss_bytes()
            await flood(sender, deaf, links=24)
            assert full - before < RelayLimits().max_peer_unread_bytes + 16 * MEBI
            assert relay.rss_bytes() - full < 4 * MEBI
        async with connected(uri) as alice, connected(uri) as bob:
            await alice.ready()
            await bob.ready()
            ours, theirs = await alice.link_to(bob)
            await ours.send_all([FRAME])
            await eventually(lambda: theirs.frames == [FRAME])
    finally:
        relay.kill()


async def flood(sender: RawSocket, deaf: RawSocket, *, links: int) -> None:
    """Open links one after the other, and send 6.5 MB on each; wait until the relay has seen it."""
    for request in range(links):
        sender.say(Open(request, SWARM, deaf.curve.public, b""))
        answer: Opened | NotOpened = await sender.expect(Opened | NotOpened)
        if isinstance(answer, Opened):
            for _ in range(100):
                sender.socket.send(DATA_HEADER.pack(FrameKind.DATA, answer.link) + FRAME)
            sender.say(Close(answer.link, ""))
    sender.say(Ping(7))
    await sender.expect(Pong)


async def test_what_passes_the_relay_is_ciphertext() -> None:
    async with (
        tapped_relay() as relay,
        connected(relay.uri) as alice,
        connected(relay.uri) as bob,
    ):
        service, seen = relay.service, relay.seen
        await alice.ready()
        await bob.ready()
        ours, theirs = await alice.link_to(bob)
        secret = b"weights that nobody else may see "
        await ours.send_all([secret * 1000] * 50)
        await theirs.send_all([secret[::-1] * 1000] * 50)
        await eventually(lambda: len(theirs.frames) == len(ours.frames) == 50)
        private = [peer.identity.secret for peer in (alice, bob)]
        statistics = service.statistics()
        ours.link.close("done")
        await eventually(lambda: service.statistics().troubles == {"closed by a peer": 1})
    assert (statistics.peers, statistics.links) == (2, 1)
    assert statistics.forwarded_bytes > 100 * 1000 * len(secret)
    assert statistics.forwarded_bytes > 100 * 1000 * len(secret)
    assert not statistics.troubles
    captured = b"".join(seen)
    assert len(captured) > 100 * 1000 * len(secret)
    for plaintext in (secret, secret[::-1], *private):
        assert plaintext not in captured


async def admit_everyone(curve_key: bytes, remote_ip: str) -> bool:
    return True


async def test_second_client_with_the_same_key_replaces_the_first(tmp_path: Path) -> None:
    identity, curve = Identity.generate(), CurveKeys.generate()
    async with serving(tmp_path) as uri, connected(uri, curve=curve, identity=identity) as first:
        await first.ready()
        async with connected(uri, curve=curve, identity=identity) as second:
            await second.ready()
            await eventually(lambda: first.client.state is RelayState.UNREACHABLE)
            assert "another connection" in first.client.status().reason


async def test_wrong_key_in_the_uri_is_no_relay(tmp_path: Path) -> None:
    async with serving(tmp_path) as uri:
        wrong = ServerUri(CurveKeys.generate().public, uri.address)
        async with connected(wrong) as alice:
            await eventually(lambda: alice.client.state is RelayState.UNREACHABLE)
            assert "key" in alice.client.status().reason


async def test_status_has_what_netcheck_shows(tmp_path: Path) -> None:
    async with serving(tmp_path) as uri, connected(uri) as alice:
        await alice.ready()
        await eventually(lambda: alice.client.status().round_trip_s is not None)
        status = alice.client.status()
        assert (status.uri, status.state, status.reason) == (uri, RelayState.READY, "")
        assert 0 < (status.round_trip_s or 0) < 10
        assert alice.states == [RelayState.READY]


@pytest.mark.parametrize("frame", [b"", b"\x00garbage", b"\x01" * 500, b"\x02" * 17, bytes(66_000)])
async def test_stranger_with_bad_manners_is_cut_off_and_the_others_go_on(
    tmp_path: Path, frame: bytes
) -> None:
    async with serving(tmp_path) as uri, connected(uri) as alice, connected(uri) as bob:
        await alice.ready()
        await bob.ready()
        ours, theirs = await alice.link_to(bob)
        with RawSocket(uri) as stranger:
            monitor = stranger.socket.get_monitor_socket(zmq.EVENT_DISCONNECTED)
            try:
                stranger.socket.send(frame)
                await eventually(lambda: bool(monitor.poll(0)))
            finally:
                stranger.socket.disable_monitor()
                monitor.close()
        await ours.send_all([FRAME])
        await eventually(lambda: theirs.frames == [FRAME])


async def test_frames_of_a_stranger_do_not_get_onto_a_link(tmp_path: Path) -> None:
    async with serving(tmp_path) as uri, connected(uri) as alice, connected(uri) as bob:
        await alice.ready()
        await bob.ready()
        ours, theirs = await alice.link_to(bob)
        with RawSocket(uri) as mallory:
            mallory.say(Hello(RELAY_VERSION, MEBI))
            await mallory.expect(Welcome)
            mallory.socket.send(DATA_HEADER.pack(FrameKind.DATA, ours.link.number) + b"forged")
            mallory.say(Close(ours.link.number, "forged"))
            mallory.say(Ping(1))
            await mallory.expect(Pong)
        await ours.send_all([b"genuine"])
        await eventually(lambda: theirs.frames == [b"genuine"])
        assert ours.link.is_open


async def test_key_is_private_and_kept_and_the_uri_is_stored(tmp_path: Path) -> None:
    state_dir = tmp_path / "relay"
    async with serving(state_dir) as first:
        assert (state_dir / "uri").read_text() == f"{first}\n"
        key_file = state_dir / "curve.key"
        assert stat.S_IMODE(key_file.stat().st_mode) == 0o600
    async with serving(state_dir) as second:
        assert second.key == first.key


async def test_port_that_is_taken_is_a_configuration_error(tmp_path: Path) -> None:
    async with serving(tmp_path / "one") as uri:
        with pytest.raises(ConfigError, match="cannot listen"):
            async with serving(tmp_path / "two", uri.address):
                pass


async def test_one_relay_listens_on_several_addresses(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.2", 0)) as free:
        second = HostPort("127.0.0.2", free.getsockname()[1])
    async with (
        serving(tmp_path, also_listen=[second]) as uri,
        connected(uri) as alice,
        connected(ServerUri(uri.key, second)) as bob,
    ):
        assert uri.address.host == "127.0.0.1"
        await alice.ready()
        await bob.ready()
        ours, theirs = await alice.link_to(bob)
        await ours.send_all([FRAME])
        await eventually(lambda: theirs.frames == [FRAME])


async def test_second_relay_in_one_directory_is_a_configuration_error(tmp_path: Path) -> None:
    async with serving(tmp_path):
        with pytest.raises(ConfigError, match="another server runs"):
            async with serving(tmp_path):
                pass


async def test_two_relays_run_in_one_process(tmp_path: Path) -> None:
    async with (
        serving(tmp_path / "one") as one,
        serving(tmp_path / "two") as two,
        connected(one) as alice,
        connected(two) as bob,
    ):
        await alice.ready()
        await bob.ready()
        assert one.key != two.key
