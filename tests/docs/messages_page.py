"""The manual's page of all messages on the wire, made from the messages' own types."""

import ast
import importlib
import inspect
import json
import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec

from protocol.codec import Message

DATA = Path(__file__).parents[1] / "data"

ROOMS = (
    ("Between two peers", "protocol.peers", (
        "hello", "session_frames", "peer_messages", "agreement_messages", "measure_messages",
        "lane_messages", "peer_signal", "signal_messages",
    )),
    ("Signed for all to keep", "protocol.statements", (
        "swarm", "admission", "peer_record", "nat_behavior", "nat_summary",
    )),
    ("Between a peer and a server", "protocol.servers", ("rendezvous_messages", "relay_messages")),
)  # fmt: skip
FILES = {
    "session_frames": "session_frames.json",
    "measure_messages": "measure_messages.json",
    "rendezvous_messages": "rendezvous_messages.json",
    "relay_messages": "relay_messages.json",
}
"""Where the bytes of a module's messages are kept, which tests compare."""

INTRODUCTION = """\
# Messages on the wire

Every message, field by field.

A message is one MessagePack array: its tag, if it has one, and then its fields in this order.
Unknown fields, missing ones and other types are refused. `bytes` are MessagePack's bin, `str` its
str, `int` its shortest integer. On a session, a byte before the array says what follows; large
files travel as chunks (`protocol/peers/chunk_frame.py`). The bytes below each message are an
example that a test holds in `tests/data/`.
"""


def messages_page() -> str:
    """The whole page."""
    parts = [INTRODUCTION]
    for title, room, modules in ROOMS:
        parts.append(f"## {title}\n")
        for name in modules:
            module = importlib.import_module(f"{room}.{name}")
            about = inspect.cleandoc(module.__doc__ or "").partition("\n\n")[0]
            parts.append(f"### {name.replace('_', ' ')}\n\n{_plain(about)}\n")
            examples = _examples(name)
            parts += [_message(kind, examples) for kind in _messages_of(module)]
    return "\n".join(parts)


def _messages_of(module: Any) -> Iterator[type[Message]]:
    for kind in vars(module).values():
        if (
            inspect.isclass(kind)
            and issubclass(kind, Message)
            and kind.__module__ == module.__name__
        ):
            yield kind


def _message(kind: type[Message], examples: dict[str, str]) -> str:
    tag = kind.__struct_config__.tag
    said = _said_of_fields(kind)
    rows = [
        f"| `{field.name}` | `{_type(field.type)}` | {said.get(field.name, '')} |"
        for field in msgspec.structs.fields(kind)
    ]
    head = f"**{kind.__name__}**" + (f", tag `{tag}`" if tag else "")
    about = _plain(inspect.cleandoc(kind.__doc__ or "").partition("\n\n")[0])
    table = ["| field | type | what it says |", "|---|---|---|", *rows] if rows else []
    example = examples.get(str(tag), "")
    shown = ["", f"    {example}"] if example else []
    return "\n".join([head, "", about, "", *table, *shown, ""])


def _type(kind: Any) -> str:
    text = kind.__name__ if inspect.isclass(kind) and not hasattr(kind, "__args__") else str(kind)
    text = re.sub(r"[\w.]+\.(\w+)", r"\1", text)
    while text != (
        plain := re.sub(r"Annotated\[((?:[^\[\],]|\[.*\])+), Meta\([^()]*\)\]", r"\1", text)
    ):
        text = plain
    return text.replace("|", "\\|")


def _said_of_fields(kind: type[Message]) -> dict[str, str]:
    (tree,) = ast.parse(inspect.getsource(kind)).body
    assert isinstance(tree, ast.ClassDef)
    return {
        name: _plain(text)
        for field, words in pairwise(tree.body)
        if isinstance(field, ast.AnnAssign)
        and isinstance(field.target, ast.Name)
        and isinstance(words, ast.Expr)
        and isinstance(words.value, ast.Constant)
        for name, text in ((field.target.id, str(words.value.value)),)
    }


def _plain(text: str) -> str:
    """On one line, without the code's marks."""
    plain = re.sub(r":\w+:`(?:[\w.]*\.)?(\w+)`", r"`\1`", " ".join(text.split()))
    return plain.replace("``", "`").replace("|", "\\|")


def _examples(module: str) -> dict[str, str]:
    """The first example of each tag, in hexadecimal digits, broken into lines."""
    if module not in FILES:
        return {}
    found: dict[str, str] = {}
    waiting: list[Any] = [json.loads((DATA / FILES[module]).read_text())]
    while waiting:
        one = waiting.pop(0)
        if isinstance(one, dict):
            waiting[:0] = list(one.values())
        elif isinstance(one, str):
            tag = _tag_in(one)
            if tag:
                found.setdefault(tag, "\n    ".join(re.findall(".{1,96}", one)))
    return found


def _tag_in(text: str) -> str:
    """Of the message in these digits, behind the byte that may stand before it."""
    raw = bytes.fromhex(text)
    for start in (0, 1):
        try:
            value = msgspec.msgpack.decode(raw[start:])
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            continue
        if isinstance(value, list) and value and isinstance(value[0], str):
            return value[0]
    return ""
