"""A terminal of 80 columns for pictures: what a command shows in it, as text or as a moving SVG."""

import contextlib
import errno
import fcntl
import itertools
import os
import pty
import select
import signal
import struct
import termios
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple
from xml.sax.saxutils import escape

import pyte

COLUMNS, LINES = 80, 24
LOOK_S = 0.25
END_S = 60.0
LETTER, LINE_HEIGHT, MARGIN = 8.4, 19, 14
MOST_PICTURES = 70
WHOLE_S, LONGEST_S, LAST_S = 20.0, 0.8, 6.0
"""A film runs faster than life if it has to, stands still no longer than that, but at its end."""
INK, PAPER = "#d7dde3", "#161b22"
COLOURS = {"default": INK, "brown": "#e3b341", "red": "#ff7b72", "green": "#56d364"}


class Run(NamedTuple):
    """Letters of one line that look alike."""

    column: int
    text: str
    bold: bool
    colour: str


Picture = tuple[tuple[Run, ...], ...]
"""The lines of a screen."""


class Terminal:
    """One command in a terminal of its own."""

    def __init__(self, command: Sequence[str], environ: Mapping[str, str], cwd: Path) -> None:
        self._screen = pyte.Screen(COLUMNS, LINES)
        self._stream = pyte.ByteStream(self._screen)
        self._pid, self._descriptor = pty.fork()
        if self._pid == 0:
            os.chdir(cwd)
            os.execvpe(command[0], list(command), {**environ, "TERM": "xterm-256color"})
        size = struct.pack("HHHH", LINES, COLUMNS, 0, 0)
        fcntl.ioctl(self._descriptor, termios.TIOCSWINSZ, size)

    def run(self, within_s: float, until: Callable[[str], bool] = lambda _: False) -> bool:
        """Read until the screen's text is as wanted (True) or the command ends (False)."""
        return any(until(self.text) for _ in self._read(within_s))

    def film(self, within_s: float) -> list[tuple[float, Picture]]:
        """All that is seen until the command ends: when, and what."""
        began, seen = time.monotonic(), [(0.0, self._picture())]
        for _ in self._read(within_s):
            picture = self._picture()
            if picture != seen[-1][1]:
                seen.append((time.monotonic() - began, picture))
        return seen

    @property
    def text(self) -> str:
        """What is on the screen."""
        return "\n".join(line.rstrip() for line in self._screen.display).rstrip()

    def close(self) -> None:
        """End the command, as Ctrl-C does."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._pid, signal.SIGINT)
        self.run(END_S)
        os.waitpid(self._pid, 0)
        os.close(self._descriptor)

    def _read(self, within_s: float) -> Iterator[None]:
        """Yields whenever a look is due."""
        deadline, look_at = time.monotonic() + within_s, 0.0
        while time.monotonic() < deadline:
            if select.select([self._descriptor], [], [], LOOK_S)[0]:
                try:
                    data = os.read(self._descriptor, 1 << 16)
                except OSError as error:
                    if error.errno != errno.EIO:  # the command has ended
                        raise
                    data = b""
                if not data:
                    yield
                    return
                self._stream.feed(data)
            if time.monotonic() >= look_at:
                look_at = time.monotonic() + LOOK_S
                yield
        raise TimeoutError(f"the command runs on; the screen: {self.text}")

    def _picture(self) -> Picture:
        lines = [tuple(self._runs(number)) for number in range(LINES)]
        while lines and not lines[-1]:
            lines.pop()
        return tuple(lines)

    def _runs(self, number: int) -> Iterator[Run]:
        row = self._screen.buffer[number]
        last = max((at for at in range(COLUMNS) if row[at].data.strip()), default=-1)
        at = 0
        while at <= last:
            begin, look = at, (row[at].bold, row[at].fg)
            while at <= last and (row[at].bold, row[at].fg) == look:
                at += 1
            text = "".join(row[column].data for column in range(begin, at))
            if text.strip():
                yield Run(begin, text, *look)


def moving_svg(film: Sequence[tuple[float, Picture]], title: str) -> str:
    """The film as one SVG, as a strip of pictures that goes by in steps."""
    if len(film) > MOST_PICTURES:
        film = [
            film[round(at * (len(film) - 1) / (MOST_PICTURES - 1))] for at in range(MOST_PICTURES)
        ]
    pace = min(1.0, WHOLE_S / film[-1][0])
    pauses = [
        min(pace * (after - at), LONGEST_S) for (at, _), (after, _) in itertools.pairwise(film)
    ] + [LAST_S]
    whole = sum(pauses)
    width = COLUMNS * LETTER + 2 * MARGIN
    height = max(len(picture) for _, picture in film) * LINE_HEIGHT + 2 * MARGIN
    steps, drawn, at = [], [], 0.0
    known: dict[tuple[Run, ...], str] = {}
    for number, ((_, picture), pause) in enumerate(zip(film, pauses, strict=True)):
        steps.append(f"{100 * at / whole:.2f}%{{transform:translateY(-{number * height}px)}}")
        at += pause
        for line, runs in enumerate(picture):
            if not runs:
                continue
            name = known.setdefault(runs, f"l{len(known)}")
            top = number * height + MARGIN + (line + 0.75) * LINE_HEIGHT
            drawn.append(f'<use href="#{name}" y="{top:g}"/>')
    lines = "".join(
        f'<g id="{name}">{"".join(map(_run, runs))}</g>' for runs, name in known.items()
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}"'
        f' width="{width:g}" height="{height}" role="img"><title>{escape(title)}</title><style>'
        f"text{{font:14px ui-monospace,monospace;fill:{INK};white-space:pre}}"
        f".film{{animation:go {whole:.1f}s step-end infinite}}"
        f"@keyframes go{{{''.join(steps)}}}</style>"
        f'<rect width="100%" height="100%" rx="8" fill="{PAPER}"/><defs>{lines}</defs>'
        f'<g class="film">{"".join(drawn)}</g></svg>\n'
    )


def _run(run: Run) -> str:
    look = ' font-weight="700"' if run.bold else ""
    if run.colour != "default":
        look += f' style="fill:{COLOURS.get(run.colour, INK)}"'
    at, length = MARGIN + run.column * LETTER, len(run.text) * LETTER
    return (
        f'<text x="{at:g}" textLength="{length:g}" xml:space="preserve"{look}>'
        f"{escape(run.text)}</text>"
    )
