"""The page in a real browser: what it shows, that it stays quiet, and that it stays small."""

import asyncio
import contextlib
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from daemon.web.page_server import PageServer
from protocol.metric import MetricValue
from tests.web.browser import CHROMIUM, Browser, browser
from tests.web.invented import EVIL_NAME, ROUNDS, InventedPeer, peer_id

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium"),
]

ROOT = Path(__file__).resolve().parent.parent.parent
MOST_ELEMENTS = 2500
FIRST_ROUNDS_S = 180.0
FIRST_DRAWN = "document.querySelector('#peers')?.children.length"


@contextlib.asynccontextmanager
async def showing(others: int, *, width: int = 1280) -> AsyncIterator[tuple[Browser, str]]:
    """A browser with the page of an invented peer, drawn."""
    async with PageServer(InventedPeer(others)) as server, browser() as driven:
        url = await server.start()
        await driven.open(url, width=width)
        await driven.wait_for(FIRST_DRAWN)
        yield driven, url


def assert_quiet(driven: Browser, url: str) -> None:
    assert driven.complaints == []
    page = urlsplit(url)
    assert {urlsplit(request).netloc for request in driven.requests} == {page.netloc}
    assert not any(page.fragment in request for request in driven.requests[1:])


async def test_numbers_are_written_as_python_writes_them() -> None:
    async with showing(0) as (driven, _):
        for form in (".1%", ".0%", ".2f", ",.0f", "+.3e", ".4g", ".1g", "g", "G", ".2E", " .3f"):
            for value in (0.0, 0.7, 1.0, -0.04, 12345.678, 1e-7, 123456789.0, -2.5e-5, 99.96):
                text = await driven.evaluate(
                    f"import('./dom.js').then((dom) => dom.formatted({value!r}, {form!r}))"
                )
                assert text == MetricValue("m", value, "", form).text, (form, value)


async def text_of(driven: Browser, selector: str) -> str:
    text = await driven.evaluate(f"document.querySelector({selector!r}).textContent")
    assert isinstance(text, str)
    return text


def says(selector: str, text: str) -> str:
    """That an element holds this text, in JavaScript."""
    return f"document.querySelector({selector!r}).textContent.includes({text!r})"


async def test_page_tells_who_is_how_reached_who_lags_and_who_is_refused_and_why() -> None:
    async with showing(5) as (driven, url):
        assert await text_of(driven, "#swarm") == "handwriting"
        assert f"round{ROUNDS} of 100" in await text_of(driven, "#facts")
        for metric in InventedPeer(5).status().metrics:
            assert f"{metric.name}{metric.text}" in await text_of(driven, "#facts")
            assert f"{metric.name}, round {ROUNDS}: {metric.text}" in await text_of(
                driven, "#quality"
            )
        assert f"as is said by{peer_id(0)[:8]}" in await text_of(driven, "#facts")
        assert "1 of these rounds are as others say" in await text_of(driven, "#quality")
        assert "waiting for peer-2 (1 behind). Waits 18 s more" in await text_of(driven, "#waiting")
        health = await text_of(driven, "#health")
        assert "no path to peer-4" in health
        assert "What to do:" in health
        refused = await text_of(driven, f"[data-row='{peer_id(1)}']")
        assert "relay" in refused
        assert "layer1.weight holds NaN" in refused
        legend = await text_of(driven, "#map-legend")
        for part in ("1 direct", "1 over a relay", "1 no path", "1 behind", "1 refused"):
            assert part in legend
        assert await driven.evaluate("document.querySelectorAll('#losses path.curve').length") == 6
        assert_quiet(driven, url)


async def test_names_of_others_are_text_and_nothing_else() -> None:
    assert "<img" in EVIL_NAME
    async with showing(5) as (driven, url):
        row = await text_of(driven, f"[data-row='{peer_id(3)}']")
        assert '<img src=x onerror="alert(1)">' in row
        assert "\x1b" not in row
        assert "\u202e" not in row
        assert await driven.evaluate("document.images.length") == 0
        assert_quiet(driven, url)


async def test_two_hundred_peers_take_a_bounded_number_of_elements() -> None:
    async with showing(200) as (driven, url):
        assert await driven.evaluate("document.querySelectorAll('.node').length") == 200
        assert await driven.evaluate("document.querySelectorAll('*').length") < MOST_ELEMENTS
        assert (
            await text_of(driven, "#peers tbody tr:first-child .name") == "peer-4" + peer_id(4)[:8]
        )
        assert "mean of all" in await text_of(driven, "#losses")
        assert_quiet(driven, url)


@pytest.mark.parametrize("width", [360, 768, 1280, 2560])
async def test_nothing_is_wider_than_the_window(width: int) -> None:
    async with showing(5, width=width) as (driven, _):
        assert await driven.evaluate("document.documentElement.scrollWidth") == width


async def test_keys_find_choose_and_let_go_of_a_peer() -> None:
    async with showing(200) as (driven, url):
        await driven.press("/")
        await driven.evaluate(
            "(() => { const box = document.getElementById('filter'); box.value = 'peer-177';"
            " box.dispatchEvent(new Event('input')); })()"
        )
        assert await driven.evaluate("document.activeElement.id") == "filter"
        assert await driven.evaluate("document.querySelectorAll('#peers tbody tr').length") == 1
        await driven.evaluate("document.querySelector('#peers tbody tr').focus()")
        await driven.press("Enter")
        chosen = "document.querySelectorAll('.node.chosen, tr.chosen').length"
        assert await driven.evaluate(chosen) == 2
        await driven.press("Escape")
        assert await driven.evaluate(chosen) == 0
        assert_quiet(driven, url)


async def test_wrong_token_is_explained_on_the_page() -> None:
    async with PageServer(InventedPeer(1)) as server, browser() as driven:
        url = await server.start()
        await driven.open(url.partition("#")[0] + "#wrong")
        await driven.wait_for("document.getElementById('connection')?.hidden === false")
        assert "'p2pd web' prints the right one" in await text_of(driven, "#connection")


@pytest.mark.timeout(400)
async def test_page_of_a_real_swarm_shows_its_three_peers_training(tmp_path: Path) -> None:
    # What it says of each round goes to a file: nobody reads a pipe meanwhile, and it would fill.
    with (tmp_path / "demo.log").open("wb") as log:
        demo = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "daemon.cli", "demo", "--rounds", "100000", "--web",
            cwd=ROOT, stdout=asyncio.subprocess.PIPE, stderr=log,
        )  # fmt: skip
    try:
        assert demo.stdout is not None
        said = ""
        while "http://" not in said:
            said = (await demo.stdout.readline()).decode()
            assert said, "the demo ended without the page's address"
        url = said[said.index("http://") :].strip()
        async with browser() as driven:
            await driven.open(url)
            curves = "document.querySelectorAll('#losses path.curve').length"
            await driven.wait_for(f"{curves} === 3", FIRST_ROUNDS_S)
            for shown in (
                "document.querySelectorAll('.node').length === 2",
                says("#map-legend", "2 direct"),
                says("#peers", "peer-1"),
                says("#peers", "peer-2"),
                says("#phase-legend", "training"),
                says("#phase-legend", "averaging"),
            ):
                await driven.wait_for(shown, FIRST_ROUNDS_S)
            assert_quiet(driven, url)
    finally:
        demo.send_signal(signal.SIGINT)
        await demo.communicate()
