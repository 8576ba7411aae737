"""Why a tensor file is refused, in words for the log.

Only called for files that are refused already: nothing found here is believed.
"""

import json
import os

_LENGTH_BYTES = 8
_SLACK_BYTES = 4096
"""How much longer than expected a header may be and still be looked into."""


def explain_difference(descriptor: int, size_bytes: int, expected: bytes) -> str:
    """How the head of an open file differs from ``expected``; empty if it does not."""
    head = os.pread(descriptor, len(expected) + _SLACK_BYTES, 0)
    if head.startswith(expected):
        return ""
    if head.startswith((b"PK\x03\x04", b"\x80")) and head[8:9] != b"{":
        return "pickle or torch.save file; only safetensors is read"
    if len(head) <= _LENGTH_BYTES:
        return f"file of {size_bytes} bytes has no safetensors header"
    length = int.from_bytes(head[:_LENGTH_BYTES], "little")
    if length > size_bytes - _LENGTH_BYTES:
        return f"safetensors header claims {length} bytes in a file of {size_bytes}"
    if length > len(head) - _LENGTH_BYTES:
        return f"safetensors header of {length} bytes, {len(expected) - _LENGTH_BYTES} expected"
    try:
        found = json.loads(
            head[_LENGTH_BYTES : _LENGTH_BYTES + length], object_pairs_hook=_refuse_duplicates
        )
    except _DuplicateNameError as error:
        return f"tensor {error} appears twice"
    except (ValueError, RecursionError):
        return "safetensors header is no JSON"
    wanted = json.loads(expected[_LENGTH_BYTES:])
    return _difference(found, wanted) or "safetensors header is not in canonical form"


class _DuplicateNameError(Exception):
    pass


def _refuse_duplicates(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found: dict[str, object] = {}
    for name, value in pairs:
        if name in found:
            raise _DuplicateNameError(_shown(name))
        found[name] = value
    return found


def _difference(found: object, wanted: dict[str, object]) -> str:
    if not isinstance(found, dict):
        return "safetensors header is no JSON object"
    for name, value in found.items():
        if name not in wanted:
            return f"tensor {_shown(name)} is not in the model"
        if name == "__metadata__" and value != wanted[name]:
            return f"metadata {_shown(value)}, {wanted[name]} expected"
    for name, entry in wanted.items():
        if name not in found:
            return f"tensor {name} is missing" if name != "__metadata__" else "metadata is missing"
        assert isinstance(entry, dict)
        other = found[name]
        if not isinstance(other, dict):
            return f"tensor {name} has no description"
        for key, word in (("dtype", "dtype"), ("shape", "shape"), ("data_offsets", "offsets")):
            if key in entry and other.get(key) != entry[key]:
                return f"tensor {name} has {word} {_shown(other.get(key))}, {entry[key]} expected"
    return ""


def _shown(value: object) -> str:
    """A stranger's value, short and without escape codes."""
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
