"""Metrics: their text by the format's own rules, their names by Prometheus's conventions."""

import asyncio
import json
import re
import shutil
import subprocess
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp
import pytest

from daemon.server import ServerOptions, serve
from daemon.web.metrics.document import metrics_page
from daemon.web.metrics.exposition import Metric, exposition
from daemon.web.metrics.peer import PEER_METRICS, peer_metrics
from daemon.web.metrics.server import SERVER_METRICS
from daemon.web.page_server import PageServer
from protocol.uri import HostPort, ServerUri
from relay.server.limits import RelayLimits
from rendezvous.server.limits import RegistryLimits
from tests.free_ports import free_port
from tests.web.invented import InventedPeer

ROOT = Path(__file__).resolve().parent.parent.parent
SAMPLE = re.compile(
    r'([a-z][a-z0-9_]*)(?:\{((?:[a-z_]+="(?:[^"\\\n]|\\["\\n])*",?)+)\})?'
    r" (-?[0-9.]+(?:e[+-][0-9]+)?)"
)
PROMTOOL = shutil.which("promtool")


def parsed(text: str) -> dict[str, dict[str, float]]:
    """Metric → labels → value; fails where the text breaks a rule of format 0.0.4."""
    assert text.endswith("\n")
    found: dict[str, dict[str, float]] = {}
    kinds: dict[str, str] = {}
    current = ""
    for line in text.splitlines():
        if line.startswith("# HELP "):
            current, _, explained = line.removeprefix("# HELP ").partition(" ")
            assert explained
            assert current not in found, f"{current} is in two places"
            found[current] = {}
        elif line.startswith("# TYPE "):
            name, kind = line.removeprefix("# TYPE ").split(" ")
            assert name == current
            assert kind in ("counter", "gauge")
            assert not found[name], "the type comes before the samples"
            kinds[name] = kind
        else:
            match = SAMPLE.fullmatch(line)
            assert match, line
            assert match[1] == current
            labels = match[2] or ""
            assert labels not in found[current], f"{line}: twice"
            found[current][labels] = float(match[3])
    assert found.keys() == kinds.keys()
    return found


@pytest.mark.parametrize(
    "metric",
    list(dict.fromkeys((*PEER_METRICS, *SERVER_METRICS))),
    ids=lambda one: one.name,
)
def test_names_follow_the_conventions(metric: Metric) -> None:
    assert re.fullmatch(r"p2pd_[a-z]+(_[a-z]+)*", metric.name)
    assert metric.name.endswith("_total") == (metric.kind == "counter")
    assert not re.search(r"_(ms|milliseconds|mb|kb|percent|minutes)(_|$)", metric.name)
    assert set(metric.labels) <= {"metric", "path", "outcome", "phase", "version", "who"}
    assert metric.help.endswith(".")


def test_a_peers_numbers_are_those_of_its_status() -> None:
    peer = InventedPeer(5)
    numbers = parsed(peer_metrics(peer.status()))
    assert numbers.keys() <= {metric.name for metric in PEER_METRICS}
    assert numbers["p2pd_build_info"] == {'version="0.1.0"': 1}
    assert numbers["p2pd_round"] == {"": 40}
    assert numbers["p2pd_healthy"] == {"": 0}
    assert numbers["p2pd_peers"]['path="relay"'] == 1
    assert numbers["p2pd_peers"]['path="connecting"'] == 0
    assert numbers["p2pd_peer_rounds_behind_max"] == {"": 1}
    assert numbers["p2pd_updates_total"] == {'outcome="accepted"': 200, 'outcome="refused"': 7}
    assert numbers["p2pd_phase"]['phase="exchanging"'] == 1
    assert sum(numbers["p2pd_phase"].values()) == 1
    assert numbers["p2pd_clock_offset_seconds"] == {"": 0.003}
    assert numbers["p2pd_evaluation"] == {'who="each"': 0, 'who="turn"': 1, 'who="none"': 0}
    assert numbers["p2pd_evaluated_round"] == {"": 40}
    assert numbers["p2pd_model_claimed"] == {"": 1}


@pytest.mark.interop
@pytest.mark.skipif(PROMTOOL is None, reason="there is no promtool")
def test_promtool_has_nothing_to_say_against_them() -> None:
    assert PROMTOOL is not None
    checked = subprocess.run(
        [PROMTOOL, "check", "metrics"],
        input=peer_metrics(InventedPeer(5).status()),
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")


def test_their_number_does_not_grow_with_the_swarm() -> None:
    def samples(peers: int) -> int:
        numbers = parsed(peer_metrics(InventedPeer(peers).status()))
        return sum(len(values) for values in numbers.values())

    assert samples(200) == samples(5)


def test_foreign_text_in_a_label_breaks_no_line() -> None:
    metric = Metric("p2pd_x", "gauge", "Back\\slash\nand line.", ("path",))
    numbers = parsed(exposition([(metric, [(('a"b\\c\nd',), 1.5)])]))
    assert numbers == {"p2pd_x": {r'path="a\"b\\c\nd"': 1.5}}


async def test_a_peer_answers_beside_its_page() -> None:
    async with PageServer(InventedPeer(200)) as server:
        address = urlsplit(await server.start()).netloc
        async with (
            aiohttp.ClientSession() as client,
            client.get(f"http://{address}/metrics") as answer,
        ):
            assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
            assert parsed(await answer.text())["p2pd_peers"]['path="failed"'] == 1


@pytest.fixture(params=["rendezvous", "relay", "both"])
async def server_metrics(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, str]:
    """What a running server has, and its metrics."""
    ready, stop, port = asyncio.Event(), asyncio.Event(), free_port()

    def on_ready(uri: ServerUri) -> None:
        ready.set()

    options = ServerOptions(
        listen=HostPort("127.0.0.1", 0),
        state_dir=tmp_path / "server",
        rendezvous=None if request.param == "relay" else RegistryLimits(),
        relay=None if request.param == "rendezvous" else RelayLimits(),
        metrics=HostPort("127.0.0.1", port),
    )
    async with asyncio.TaskGroup() as tasks, asyncio.timeout(60):
        tasks.create_task(serve(options, on_ready, stop))
        await ready.wait()
        url = f"http://127.0.0.1:{port}/metrics"
        async with aiohttp.ClientSession() as client, client.get(url) as answer:
            text = await answer.text()
        stop.set()
    return request.param, text


async def test_a_server_tells_of_the_parts_that_it_has(server_metrics: tuple[str, str]) -> None:
    kind, text = server_metrics
    numbers = parsed(text)
    assert numbers.keys() <= {metric.name for metric in SERVER_METRICS}
    assert ("p2pd_rendezvous_leases" in numbers) == (kind != "relay")
    assert ("p2pd_relay_forwarded_bytes_total" in numbers) == (kind != "rendezvous")
    assert len(numbers["p2pd_build_info"]) == 1


def test_the_page_in_docs_is_the_one_that_the_code_makes() -> None:
    assert (ROOT / "docs" / "metrics.md").read_text() == metrics_page()


def test_the_dashboard_asks_for_metrics_that_there_are() -> None:
    dashboard = json.loads((ROOT / "contrib" / "grafana-dashboard.json").read_text())
    asked = {
        name
        for panel in dashboard["panels"]
        for target in panel["targets"]
        for name in re.findall(r"p2pd_[a-z_]+", target["expr"])
    }
    known = {metric.name for metric in (*PEER_METRICS, *SERVER_METRICS)}
    assert asked <= known
    assert len(known - asked) < len(known) / 2
