"""A message of any type, made from what the type says: so that a new message is fuzzed as it is."""

import types
from typing import Any, Union, get_args, get_origin

import msgspec
import msgspec.inspect as inspect

from protocol.codec import encode


def examples(kind: Any) -> list[bytes]:
    """The encoding of one message of the type, or of each type of the union ``kind``."""
    members = get_args(kind) if get_origin(kind) in (Union, types.UnionType) else (kind,)
    return [encode(make(member)) for member in members]


def make(kind: Any) -> Any:
    """A value of the type: small, with something in each collection."""
    return _make(msgspec.inspect.type_info(kind))


def _make(info: inspect.Type) -> Any:
    match info:
        case inspect.StructType():
            return info.cls(**{field.name: _make(field.type) for field in info.fields})
        case inspect.VarTupleType():
            return (_make(info.item_type),)
        case inspect.TupleType():
            return tuple(map(_make, info.item_types))
        case inspect.UnionType():
            return _make(info.types[0])
        case inspect.BytesType():
            return b"k" * 32
        case inspect.StrType():
            return "192.0.2.1:5555"
        case inspect.BoolType():
            return True
        case inspect.IntType():
            return info.ge or 1
        case inspect.FloatType():
            return 0.5
        case inspect.EnumType():
            return next(iter(info.cls))
        case inspect.LiteralType():
            return info.values[0]
        case inspect.NoneType():
            return None
    raise TypeError(f"no example of {info}")
