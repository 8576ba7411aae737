"""What a peer's page costs: the processor, while nobody looks and while somebody does; and how soon
``/metrics`` answers.

    python -m benchmarks.page_cost [--peers 200] [--seconds 30]

The page's server runs in a process of its own, with an invented peer of so many others. Somebody
looks as the page itself does: it asks for what is new once a second. What the process uses of the
processor is what the kernel counts. Exits with 1 if more than promised is used.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from urllib.parse import urlsplit

import psutil

from benchmarks.promises import Promise, check, listed
from tests.interruption import unwind_when_interrupted

ASK_S = 1.0
PROMISED_IDLE_PERCENT = 1.0
PROMISED_WATCHED_PERCENT = 5.0
PROMISED_METRICS_MS = 50.0
SCRAPES = 50
SETTLE_S = 2.0
ANSWER_S = 30.0


def main() -> None:
    """Measure, and print what was promised beside it."""
    unwind_when_interrupted()
    parser = argparse.ArgumentParser(prog="python -m benchmarks.page_cost")
    parser.add_argument("--peers", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=30.0, help="for how long each is measured")
    arguments = parser.parse_args()
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.web.invented", str(arguments.peers)],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    try:
        url = urlsplit(process.stdout.readline().strip())
        page = Page(f"http://{url.netloc}", url.fragment)
        page.state(0)
        time.sleep(SETTLE_S)
        server = psutil.Process(process.pid)
        idle = percent_used(server, arguments.seconds, lambda: None)
        watched = percent_used(server, arguments.seconds, lambda: page.state(page.last_round))
        scrapes_ms = [1000 * timed(page.metrics) for _ in range(SCRAPES)]
    finally:
        process.terminate()
        process.wait(ANSWER_S)
    print(f"{arguments.peers} other peers; /metrics: median {statistics.median(scrapes_ms):.1f} ms")
    promises = [
        Promise("nobody looks", idle, at_most=PROMISED_IDLE_PERCENT, unit=" % of a core"),
        Promise("somebody looks", watched, at_most=PROMISED_WATCHED_PERCENT, unit=" % of a core"),
        Promise("slowest /metrics", max(scrapes_ms), at_most=PROMISED_METRICS_MS, unit=" ms"),
    ]
    print(listed(promises), end="")
    check(promises)


class Page:
    """Asks as the page in a browser does."""

    def __init__(self, address: str, token: str) -> None:
        self._address = address
        self._token = token
        self.last_round = 0

    def state(self, after: int) -> None:
        """What is new after a round."""
        request = urllib.request.Request(
            f"{self._address}/state?after={after}",
            headers={"Authorization": f"Bearer {self._token}"},
        )
        with urllib.request.urlopen(request, timeout=ANSWER_S) as answer:
            state = json.load(answer)
        rounds = state["history"]["rounds"]
        self.last_round = rounds[-1]["round"] if rounds else after

    def metrics(self) -> None:
        """What Prometheus gets."""
        with urllib.request.urlopen(f"{self._address}/metrics", timeout=ANSWER_S) as answer:
            assert b"p2pd_build_info" in answer.read()


def percent_used(server: psutil.Process, seconds: float, ask: Callable[[], None]) -> float:
    """Of one core, while ``ask`` is called once a second."""
    before, began = sum(server.cpu_times()[:2]), time.monotonic()
    while time.monotonic() < began + seconds:
        ask()
        time.sleep(ASK_S)
    return float(100 * (sum(server.cpu_times()[:2]) - before) / (time.monotonic() - began))


def timed(call: Callable[[], None]) -> float:
    """How many seconds it takes."""
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
