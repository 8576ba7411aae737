"""What the page's server answers, to whom, and what it keeps to itself."""

import re
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp
import pytest

from daemon.web.page_server import STATIC, PageServer
from daemon.web.server_page import STATIC as SERVER_STATIC
from protocol.errors import ConfigError
from protocol.uri import HostPort
from tests.web.invented import ROUNDS, InventedPeer

STATIC_FILES = Path(__file__).resolve().parent.parent.parent / "daemon" / "web" / "static"


@pytest.fixture
async def page() -> AsyncIterator[tuple[aiohttp.ClientSession, str]]:
    """A client of a running server, and the server's token."""
    async with PageServer(InventedPeer(3)) as server:
        url = urlsplit(await server.start())
        async with aiohttp.ClientSession(f"http://{url.netloc}") as client:
            yield client, url.fragment


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


async def test_data_are_for_those_with_the_token_of_this_run(
    page: tuple[aiohttp.ClientSession, str],
) -> None:
    client, token = page
    async with client.get("/state", headers=bearer(token)) as answer:
        state = await answer.json()
    assert len(state["status"]["peers"]) == 3
    assert [one["round"] for one in state["history"]["rounds"]] == list(range(1, ROUNDS + 1))
    for headers in ({}, bearer("wrong"), bearer(token[:-1]), {"Authorization": token}):
        async with client.get("/state", headers=headers) as refused:
            assert refused.status == 401
            assert "'p2pd web' prints the right one" in (await refused.json())["error"]


async def test_only_the_rounds_that_the_page_lacks_travel(
    page: tuple[aiohttp.ClientSession, str],
) -> None:
    client, token = page
    async with client.get(f"/state?after={ROUNDS - 1}", headers=bearer(token)) as answer:
        assert [one["round"] for one in (await answer.json())["history"]["rounds"]] == [ROUNDS]
    for wrong in ("-1", "x", "9" * 30):
        async with client.get(f"/state?after={wrong}", headers=bearer(token)) as refused:
            assert refused.status == 400


@pytest.mark.parametrize("path", ["/", "/state", "/metrics"])
async def test_a_foreign_name_that_leads_here_gets_nothing(
    page: tuple[aiohttp.ClientSession, str], path: str
) -> None:
    client, token = page
    for host in ("evil.example", "evil.example:80", "127.0.0.1.evil.example", "", "192.0.2.1"):
        async with client.get(path, headers={**bearer(token), "Host": host}) as answer:
            assert answer.status in (400, 403)
    for host in ("localhost:9999", "127.0.0.1", "[::1]:80"):
        async with client.get(path, headers={**bearer(token), "Host": host}) as answer:
            assert answer.status == 200


async def test_answers_forbid_all_that_the_page_does_not_need(
    page: tuple[aiohttp.ClientSession, str],
) -> None:
    client, _ = page
    for path in (*STATIC, "/state", "/metrics", "/nowhere"):
        async with client.get(path) as answer:
            policy = answer.headers["Content-Security-Policy"]
            assert "default-src 'none'" in policy
            assert "unsafe" not in policy
            assert answer.headers["Referrer-Policy"] == "no-referrer"
            assert answer.headers["X-Content-Type-Options"] == "nosniff"
            assert "Access-Control-Allow-Origin" not in answer.headers


async def test_there_is_nothing_but_the_pages_files_and_no_way_to_change_anything(
    page: tuple[aiohttp.ClientSession, str],
) -> None:
    client, token = page
    served = {name for name, _ in (*STATIC.values(), *SERVER_STATIC.values())}
    assert served == {path.name for path in STATIC_FILES.iterdir()}
    for path in ("/../api.py", "/%2e%2e/page_server.py", "/static/app.js", "/v1/status"):
        async with client.get(path, headers=bearer(token)) as answer:
            assert answer.status == 404
    for method in ("POST", "PUT", "DELETE"):
        async with client.request(method, "/state", headers=bearer(token)) as answer:
            assert answer.status == 405


def test_the_files_name_no_address_of_the_outside() -> None:
    for path in STATIC_FILES.iterdir():
        addresses = set(
            re.findall(r"(?:https?:)?//[a-z][\w.-]+\.[a-z]+[^\s\"']*", path.read_text())
        )
        assert addresses <= {"http://www.w3.org/2000/svg"}, path.name


async def test_it_listens_on_this_machine_alone() -> None:
    async with PageServer(InventedPeer(0)) as server:
        for host in ("0.0.0.0", "192.0.2.1", "::", "example.org"):
            with pytest.raises(ConfigError, match="on this machine alone"):
                await server.start(HostPort(host, 0))
        assert (await server.start()).startswith("http://127.0.0.1:")


async def test_asked_twice_it_names_the_same_page_and_a_taken_port_is_said() -> None:
    async with PageServer(InventedPeer(0)) as server, PageServer(InventedPeer(0)) as other:
        url = await server.start()
        assert await server.start() == url
        port = urlsplit(url).port
        assert port is not None
        with pytest.raises(ConfigError, match="name another port"):
            await other.start(HostPort("127.0.0.1", port))
