"""The drawing of a table of states, as the documents have it."""

import enum
from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

DOCS = Path(__file__).resolve().parents[2] / "docs"

S = TypeVar("S", bound=enum.Enum)
C = TypeVar("C", bound=enum.Enum)


def drawing_in(page: str) -> str:
    """The first drawing of a page."""
    return (DOCS / page).read_text().split("```mermaid\n")[1].split("```")[0].strip()


def as_mermaid(start: S, transitions: Mapping[tuple[S, C], S]) -> str:
    """The table as a Mermaid state diagram."""
    lines = ["stateDiagram-v2", f"    [*] --> {start.value}"]
    lines += [
        f"    {state.value} --> {end.value}: {cause.value}"
        for (state, cause), end in transitions.items()
    ]
    return "\n".join(lines)
