"""A server's own page: numbers of a real server, for whoever has the token."""

import asyncio
import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.cli.conftest import CommandLine
from tests.cli.servers import server_process
from tests.web.browser import CHROMIUM, browser

WAIT_S = 60.0


@pytest.fixture
def p2pd(tmp_path: Path) -> CommandLine:
    return CommandLine.with_home_in(tmp_path)


@pytest.fixture
def server(p2pd: CommandLine, tmp_path: Path) -> Iterator[Path]:
    """The state directory of a server that runs, with a page."""
    state_dir = tmp_path / "server"
    with server_process(p2pd, state_dir, "serve", "--web", "127.0.0.1:0") as uri:
        assert uri.startswith("p2p://")
        yield state_dir
    assert not (state_dir / "page").exists()


def address(p2pd: CommandLine, state_dir: Path) -> str:
    told = p2pd("web", "--state-dir", state_dir)
    assert told.returncode == 0, told.stderr
    return told.stdout.strip()


def get(url: str, **headers: str) -> tuple[int, bytes]:
    try:
        with urllib.request.urlopen(
            urllib.request.Request(url, headers=headers), timeout=WAIT_S
        ) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def test_numbers_are_for_those_with_the_token_and_name_nobody(
    p2pd: CommandLine, server: Path
) -> None:
    uri = (server / "uri").read_text().strip()
    created = p2pd("create", "--task", "digits", "--rendezvous", uri)
    assert created.returncode == 0, created.stderr
    url = urlsplit(address(p2pd, server))
    site = f"http://{url.netloc}"
    code, body = get(f"{site}/state", Authorization=f"Bearer {url.fragment}")
    assert code == 200
    state = json.loads(body)
    assert (state["role"], state["uri"]) == ("rendezvous and relay", uri)
    assert state["rendezvous"]["swarms"] == 1
    assert state["relay"]["links"] == 0
    assert get(f"{site}/state", Authorization="Bearer wrong")[0] == 401
    assert get(f"{site}/", Host="evil.example")[0] == 403
    assert b"p2pd_rendezvous_swarms 1" in get(f"{site}/metrics")[1]
    assert get(f"{site}/app.js")[0] == 404
    assert (server / "page").stat().st_mode & 0o077 == 0


def test_page_of_a_server_is_served_on_this_machine_alone(p2pd: CommandLine) -> None:
    refused = p2pd("relay", "--listen", "127.0.0.1:0", "--web", "0.0.0.0:0")
    assert refused.returncode == 2
    assert "on this machine alone" in refused.stderr


@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium")
def test_browser_shows_the_numbers_and_asks_nobody_else(p2pd: CommandLine, server: Path) -> None:
    url = address(p2pd, server)

    async def look() -> None:
        async with browser() as driven:
            await driven.open(url, width=360)
            await driven.wait_for("document.querySelectorAll('#facts dt').length === 7")
            assert await driven.evaluate("document.title") == "p2pd rendezvous and relay"
            assert await driven.evaluate("document.documentElement.scrollWidth") <= 360
            assert driven.complaints == []
            hosts = {urlsplit(request).netloc for request in driven.requests}
            assert hosts == {urlsplit(url).netloc}

    asyncio.run(look())
