"""MessagePack at the edge: one place where bytes from outside become typed values.

Past :func:`decode` types are trusted; before it nothing is. msgspec checks every length claim
against the bytes that are really there, so a claim of 4 GiB allocates nothing.

>>> class Note(Message, tag="note"):
...     text: str
>>> encode(Note("hi")).hex(" ")
'92 a4 6e 6f 74 65 a2 68 69'
>>> decode(bytes.fromhex("92 a4 6e 6f 74 65 a2 68 69"), Note)
Note(text='hi')
>>> decode(bytes.fromhex("92 a4 6e 6f 74 65 07"), Note)
Traceback (most recent call last):
protocol.errors.RemoteProtocolError: malformed message: Expected `str`, got `int` - at `$[1]`
"""

from collections.abc import Callable
from functools import lru_cache, partial
from types import UnionType
from typing import Any, TypeVar, dataclass_transform, overload

import msgspec

from protocol.errors import RemoteProtocolError

T = TypeVar("T")

MAX_MESSAGE_BYTES = 1 << 20
"""Largest control message, in bytes. Model bytes travel in chunks and have their own bound."""


# Subclasses are frozen too; type checkers have to be told.
@dataclass_transform(frozen_default=True, field_specifiers=(msgspec.field,))
class Message(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Base of everything that goes on a wire. Subclasses that share a channel set ``tag``."""


def encode(message: msgspec.Struct) -> bytes:
    """The wire bytes of ``message``; equal messages give equal bytes."""
    return msgspec.msgpack.encode(message)


@lru_cache(maxsize=256)
def _decoder(kind: Any) -> msgspec.msgpack.Decoder[Any]:
    # Kept, since making one takes fifty times as long as decoding a small message of a union.
    return msgspec.msgpack.Decoder(kind)


@overload
def decode(data: bytes | memoryview, kind: type[T], *, max_bytes: int = ...) -> T: ...


# Type checkers cannot take a union's value for a type: its caller annotates the result.
@overload
def decode(data: bytes | memoryview, kind: UnionType, *, max_bytes: int = ...) -> Any: ...


def decode(data: bytes | memoryview, kind: Any, *, max_bytes: int = MAX_MESSAGE_BYTES) -> Any:
    """The message of type ``kind`` (a Message, or a union of tagged ones) in ``data``.

    Raises :class:`RemoteProtocolError` for anything else: too long, malformed, unknown tag, wrong
    types, missing or additional fields, trailing bytes, nesting without end.
    """
    return _decode(_decoder(kind), data, max_bytes)


def decoder(
    kind: Any, *, max_bytes: int = MAX_MESSAGE_BYTES
) -> Callable[[bytes | memoryview], Any]:
    """:func:`decode` of one ``kind``, for whoever decodes many: that looks its kind up each time,
    which for a union of ten takes three times as long as to decode a small message of it.

    >>> decoder(int)(b"\\x07")
    7
    """
    return partial(_decode, msgspec.msgpack.Decoder(kind), max_bytes=max_bytes)


def _decode(decoder: msgspec.msgpack.Decoder[Any], data: bytes | memoryview, max_bytes: int) -> Any:
    if len(data) > max_bytes:
        raise RemoteProtocolError(f"message of {len(data)} bytes, at most {max_bytes} allowed")
    try:
        return decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, OverflowError) as error:
        raise RemoteProtocolError(f"malformed message: {error}") from error
    except RecursionError:
        raise RemoteProtocolError("malformed message: nested without end") from None
