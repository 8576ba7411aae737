"""A headless Chromium for the tests, driven over its DevTools protocol."""

import asyncio
import base64
import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp

START_S = 120.0
ANSWER_S = 120.0
"""For a machine that has much else to do."""
LOOK_S = 0.1
STOP_S = 20.0
CHROMIUM = shutil.which("chromium")


class Browser:
    """One page of a browser of its own, and what it asked for and complained of."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._number = 0
        self._answers: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self.requests: list[str] = []
        """Addresses, in order."""
        self.complaints: list[str] = []
        """Errors and warnings of the console, exceptions, what a policy stopped."""

    async def read(self) -> None:
        """Take in what the browser says, until it ends; what it then owes fails, and says so."""
        try:
            async for message in self._socket:
                said = json.loads(message.data)
                if "id" in said:
                    self._answer(self._answers.pop(said["id"]), said)
                else:
                    self._note(said["method"], said["params"])
        finally:
            gone = {
                "error": f"the browser has ended; its socket closed with {self._socket.close_code}"
            }
            for answer in self._answers.values():
                self._answer(answer, gone)

    async def open(
        self, url: str, *, width: int = 1280, height: int = 900, dark: bool = False
    ) -> None:
        """Go to ``url`` in a window of that size."""
        for domain in ("Page", "Network", "Runtime", "Log", "Audits"):
            await self.ask(f"{domain}.enable")
        await self.ask(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=height, deviceScaleFactor=1, mobile=False,
        )  # fmt: skip
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        await self.ask("Emulation.setEmulatedMedia", features=[scheme])
        await self.ask("Page.navigate", url=url)

    async def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression."""
        answer = await self.ask(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    async def wait_for(self, expression: str, timeout_s: float = ANSWER_S) -> None:
        """Return once the JavaScript expression is true. Fails with what the page shows instead."""
        try:
            async with asyncio.timeout(timeout_s):
                while not await self.evaluate(f"Boolean({expression})"):  # noqa: ASYNC110 - no event
                    await asyncio.sleep(LOOK_S)
        except TimeoutError:
            shown = await self.evaluate("document.body.innerText")
            raise AssertionError(
                f"not within {timeout_s:g} s: {expression}; shown: {shown};"
                f" asked for: {self.requests[-20:]}; complaints: {self.complaints}"
            ) from None

    async def press(self, key: str) -> None:
        """Press and let go of one key."""
        text = {"Enter": "\r"}.get(key, key if len(key) == 1 else "")
        await self.ask("Input.dispatchKeyEvent", type="keyDown", key=key, text=text)
        await self.ask("Input.dispatchKeyEvent", type="keyUp", key=key)

    async def screenshot(self, path: Path, *, whole: bool = True) -> None:
        """The page, or what of it is in the window, as PNG."""
        answer = await self.ask("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(answer["data"]))

    async def ask(self, method: str, **parameters: Any) -> dict[str, Any]:
        """One command of the protocol; its result."""
        self._number += 1
        assert not self._socket.closed, "the browser has ended"
        answer = self._answers[self._number] = asyncio.get_running_loop().create_future()
        await self._socket.send_json({"id": self._number, "method": method, "params": parameters})
        async with asyncio.timeout(ANSWER_S):
            said = await answer
        assert "error" not in said, said
        result: dict[str, Any] = said["result"]
        return result

    def _answer(self, answer: asyncio.Future[dict[str, Any]], said: dict[str, Any]) -> None:
        if not answer.done():  # as it is when whoever asked waits no longer
            answer.set_result(said)

    def _note(self, method: str, parameters: dict[str, Any]) -> None:
        match method:
            case "Network.requestWillBeSent":
                self.requests.append(parameters["request"]["url"])
            case "Runtime.exceptionThrown":
                self.complaints.append(str(parameters["exceptionDetails"]))
            case "Runtime.consoleAPICalled" if parameters["type"] in ("error", "warning"):
                self.complaints.append(str(parameters["args"]))
            case "Log.entryAdded" if parameters["entry"]["level"] in ("error", "warning"):
                self.complaints.append(parameters["entry"]["text"])
            case "Audits.issueAdded":
                self.complaints.append(parameters["issue"]["code"])


@contextlib.asynccontextmanager
async def browser() -> AsyncIterator[Browser]:
    """A browser with one empty page, and nothing of it left afterwards."""
    assert CHROMIUM is not None
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        process = await asyncio.create_subprocess_exec(
            CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
            "--no-first-run", "--disable-background-networking", "--disable-component-update",
            "--disable-extensions", "--hide-scrollbars", "--remote-debugging-port=0",
            "--remote-allow-origins=*", f"--user-data-dir={profile}", "about:blank",
            stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
            env=os.environ | {"TMPDIR": profile},
        )  # fmt: skip
        try:
            port = await _debugging_port(Path(profile))
            async with aiohttp.ClientSession() as session:
                async with session.get(f"http://127.0.0.1:{port}/json/list") as response:
                    pages = [one for one in await response.json() if one["type"] == "page"]
                async with session.ws_connect(
                    pages[0]["webSocketDebuggerUrl"], max_msg_size=0
                ) as socket:
                    driven = Browser(socket)
                    reading = asyncio.ensure_future(driven.read())
                    try:
                        yield driven
                    finally:
                        reading.cancel()
                        await asyncio.gather(reading, return_exceptions=True)
        finally:
            process.terminate()
            try:
                await asyncio.wait_for(process.wait(), STOP_S)
            except TimeoutError:
                process.kill()
                await process.wait()


async def _debugging_port(profile: Path) -> int:
    async with asyncio.timeout(START_S):
        while True:
            with contextlib.suppress(FileNotFoundError, ValueError, IndexError):
                return int((profile / "DevToolsActivePort").read_text().splitlines()[0])
            await asyncio.sleep(LOOK_S)
