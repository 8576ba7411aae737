"""Ping, speed and netcheck between real processes on this machine."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import psutil
import pytest

from protocol.statements.invite import Invite
from protocol.uri import ServerUri
from rendezvous import RendezvousClient
from tests.net.measuring.observers import document, p2pd, running, until
from tests.net.swarm_peers import make_swarm
from transport.curve import CurveKeys

MAX_RSS_BYTES = 100e6


@pytest.fixture(scope="module")
def serve(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A rendezvous, STUN and relay; its URI."""
    directory = tmp_path_factory.mktemp("serve")
    with running(
        directory / "log", "serve", "--listen", "127.0.0.1:0", "--state-dir", directory / "state"
    ) as process:
        assert process.stdout is not None
        yield process.stdout.readline().strip()


async def found_swarm(serve: str, link: Path) -> None:
    uri = ServerUri.parse(serve)
    swarm = make_swarm(relays=(uri,))
    async with RendezvousClient(uri, CurveKeys.generate()) as client:
        await client.publish_statement(swarm.raw)
    link.write_text(str(Invite(swarm.swarm_id, b"", (uri,))))


async def test_observers_are_pinged_and_measured_over_direct_path_and_relay(
    serve: str, tmp_path: Path
) -> None:
    await found_swarm(serve, tmp_path / "link")
    one, other = tmp_path / "one", tmp_path / "other"
    join = ("join", tmp_path / "link", "--observe", "--no-port-mapping")
    here = ("--state-dir", one)
    with (
        running(tmp_path / "one.log", *join, "--name", "one", *here) as daemon,
        ExitStack() as stack,
    ):
        remote = stack.enter_context(
            running(tmp_path / "other.log", *join, "--name", "other", "--state-dir", other)
        )
        until(lambda: p2pd("ping", "other", "--until-direct", *here).returncode == 0)
        ping = document("ping", "other", "-c", "2", "--interval", "0.1", "--size", "1000", *here)
        assert (ping["replied"], ping["path"]) == (2, "direct")
        assert ping["reason"] == "there is no better kind"
        assert p2pd("ping", "nobody", *here).returncode == 5

        (relay,) = document("status", *here)["relays"]
        assert (relay["uri"], relay["state"]) == (serve, "ready")
        assert relay["round_trip_ms"] > 0

        speeds = {
            kind: document("speed", "other", "--size", "50M", "--path", kind, *here)
            for kind in ("direct", "relay")
        }
        for kind, speed in speeds.items():
            assert (speed["schema"], speed["path"], speed["bytes"]) == (1, kind, 50_000_000)
            assert speed["mb_per_s"] == pytest.approx(50 / speed["seconds"])
        # Nothing gets through two closed doors of one machine at once: the path is told as missing.
        punched = p2pd("speed", "other", "--size", "1M", "--path", "punched", *here)
        assert punched.returncode == 5
        assert "there is no punched path to it" in punched.stderr
        assert document("ping", "one", "-c", "1", "--state-dir", other)["path"] == "direct"
        found = document("netcheck", "--no-port-mapping", *here)
        assert found["health"] == []
        assert [server["uri"] for server in found["relays"]] == [serve]
        assert (found["udp"], found["public_ipv4"], found["expected"]) == (None, "", [])
        for process in (daemon, remote):
            assert psutil.Process(process.pid).memory_info().rss < MAX_RSS_BYTES

        stack.close()  # The other one leaves, in good order.
        until(lambda: document("peers", *here)["peers"] == [])
        assert document("status", *here)["health"] == []
