"""``python -m tests.docs.pictures`` makes the manual's pictures from real swarms on this machine.

``docs/demo.svg`` is ``p2pd demo`` in a terminal; ``docs/page-*.png`` are the page of one of three
peers, in a headless Chromium; ``docs/screens.md`` is what commands show in a terminal meanwhile.
It takes some minutes. ``demo`` or ``swarm`` behind it makes only a part.
"""

import asyncio
import os
import sys
import tempfile
from pathlib import Path

from PIL import Image

from tests.docs.terminal import Terminal, moving_svg
from tests.interruption import unwind_when_interrupted
from tests.system.real_swarm import COMMAND, ROOT, START_S, RealSwarm
from tests.web.browser import browser

DOCS = ROOT / "docs"
DEMO_ROUNDS = 10
SHOWN_ROUND = 12
ROUNDS = 20
PEERS = ("ada", "ben", "cyd")
WITHIN_S = 1800.0
COLOURS = 128
PAGES = {"light": (1200, False), "dark": (1200, True), "narrow": (360, False)}
SCREENS = """\
# What you see

Three peers learn digits, each in a terminal of 80 columns. This page and the pictures are made from
a real swarm by `python -m tests.docs.pictures`.

`p2pd join`, while it trains. Elsewhere than on a terminal it prints one line a round instead.

```
{join}
```

`p2pd top`, for any peer that runs on this machine:

```
{top}
```

`p2pd status`:

```
{status}
```

`p2pd peers`:

```
{peers}
```

`p2pd history -n 5`:

```
{history}
```

And the page of `p2pd web`, on a dark desktop and on a narrow screen:

![The page in dark colours](page-dark.png)

![The page, 360 pixels wide](page-narrow.png)
"""


def film_demo() -> None:
    """The recording of ``p2pd demo``."""
    with tempfile.TemporaryDirectory() as directory:
        terminal = Terminal(
            [*COMMAND, "demo", "--rounds", str(DEMO_ROUNDS)],
            {**os.environ, "PYTHONPATH": str(ROOT)},
            Path(directory),
        )
        film = terminal.film(WITHIN_S)
        terminal.close()
    (DOCS / "demo.svg").write_text(moving_svg(film, "p2pd demo: three peers learn together"))


def show_swarm(directory: Path) -> None:
    """The page and the commands of a swarm that trains."""
    with RealSwarm(directory) as swarm:
        swarm.start_rendezvous()
        swarm.create(
            *("--task", "digits", "--rounds", str(ROUNDS), "--local-epochs", "5"),
            *("--first-peers", str(len(PEERS))),
            within_s=WITHIN_S,
        )
        for index, name in enumerate(PEERS[1:], 1):
            swarm.join(name, "--shard", f"{index}/{len(PEERS)}", "--listen", "127.0.0.1:0")
        state_dir = directory / PEERS[0]
        joined = Terminal(
            [
                *(*COMMAND, "join", str(swarm.link), "--name", PEERS[0]),
                *("--shard", f"0/{len(PEERS)}", "--listen", "127.0.0.1:0", "--threads", "1"),
                *("--state-dir", str(state_dir)),
            ],
            swarm.environ,
            directory,
        )
        try:
            assert joined.run(
                WITHIN_S, lambda text: f"trains round {SHOWN_ROUND + 1}, step" in text
            )
            screens = {"join": joined.text}
            for command in ("top", "status", "peers", "history -n 5"):
                done = swarm.run(*command.split(), "--state-dir", state_dir)
                lines = [line.rstrip() for line in done.stdout.splitlines()]
                screens[command.split()[0]] = "\n".join(lines)
            url = swarm.run("web", "--state-dir", state_dir).stdout.strip()
            asyncio.run(photograph(url))
        finally:
            joined.close()
    (DOCS / "screens.md").write_text(SCREENS.format(**screens))


async def photograph(url: str) -> None:
    """The page at ``url``, in each of its looks."""
    for name, (width, dark) in PAGES.items():
        async with browser() as driven:
            await driven.open(url, width=width, dark=dark)
            curves = "document.querySelectorAll('#losses path.curve').length"
            await driven.wait_for(f"{curves} === {len(PEERS)}", START_S)
            picture = DOCS / f"page-{name}.png"
            await driven.screenshot(picture)
            Image.open(picture).convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE).save(
                picture, optimize=True
            )


if __name__ == "__main__":
    unwind_when_interrupted()
    wanted = sys.argv[1:] or ["demo", "swarm"]
    if "demo" in wanted:
        film_demo()
    if "swarm" in wanted:
        with tempfile.TemporaryDirectory() as scratch:
            show_swarm(Path(scratch))
