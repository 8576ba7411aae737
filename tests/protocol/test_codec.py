"""Bytes that decoders elsewhere disagree about: here each message has one form, or is refused."""

import importlib
import math
import pkgutil

import pytest

import protocol
from protocol.codec import Message, decode, encode
from protocol.errors import RemoteProtocolError
from protocol.servers.rendezvous_messages import Granted, Refused
from transport.backoff import bounded_wait_s

for module in pkgutil.walk_packages(protocol.__path__, "protocol."):
    importlib.import_module(module.name)


def kinds_of(kind: type[Message]) -> list[type[Message]]:
    """All messages of the protocol."""
    found = [each for each in kind.__subclasses__() if each.__module__.startswith("protocol.")]
    return found + [deeper for each in found for deeper in kinds_of(each)]


KINDS = kinds_of(Message)


def test_there_are_messages_to_look_at() -> None:
    assert len(KINDS) > 50


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: f"{kind.__module__}.{kind.__name__}")
def test_no_message_is_a_map_whose_keys_could_come_twice(kind: type[Message]) -> None:
    field = kind.__struct_fields__[0].encode() if kind.__struct_fields__ else b"x"
    pair = bytes([0xA0 | len(field)]) + field + b"\x01" if len(field) < 32 else b"\xa1x\x01"
    for raw in (b"\x81" + pair, b"\x82" + pair + pair):
        with pytest.raises(RemoteProtocolError):
            decode(raw, kind)


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf, -1.0, 0.0, 1e300])
def test_wait_that_is_no_number_or_none_to_wait_is_bounded(number: float) -> None:
    for message in (
        Refused(request=1, code="retry_after", text="", retry_after_s=number),
        Granted(1, number, number, 1_800_000_000_000, "", ()),
    ):
        received: Refused | Granted = decode(encode(message), type(message))
        wish = received.retry_after_s if isinstance(received, Refused) else received.interval_s
        assert 0.1 <= bounded_wait_s(wish) <= 300.0
