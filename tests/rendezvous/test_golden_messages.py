"""The bytes of each message between peers and a rendezvous, as other versions will send them."""

import json
from pathlib import Path
from types import UnionType
from typing import get_args

import pytest

from protocol.codec import decode, encode
from protocol.errors import RemoteProtocolError
from protocol.servers.rendezvous_messages import (
    Announce,
    AskTime,
    Describe,
    Description,
    Done,
    FetchStatement,
    Find,
    FromServer,
    Granted,
    Heartbeat,
    Joined,
    Leave,
    Left,
    ListMembers,
    Lookup,
    MemberList,
    PublishStatement,
    Records,
    Refused,
    Request,
    SendSignal,
    ServerTime,
    Signal,
    Statement,
)

GOLDEN = json.loads(
    (Path(__file__).parent.parent / "data" / "rendezvous_messages.json").read_text()
)

SWARM = bytes(range(32))
PEER = bytes(range(32, 64))
CURVE_KEY = bytes(range(64, 96))

MESSAGES: dict[str, Request | FromServer] = {
    "announce": Announce(request=1, record=b"record"),
    "heartbeat": Heartbeat(request=2, swarm=SWARM),
    "leave": Leave(request=3, swarm=SWARM),
    "lookup": Lookup(request=4, swarm=SWARM, want=50),
    "find by identity": Find(request=5, swarm=SWARM, peer=PEER, curve_key=b""),
    "find by CURVE key": Find(request=300, swarm=SWARM, peer=b"", curve_key=CURVE_KEY),
    "list members": ListMembers(request=10, swarm=SWARM),
    "publish": PublishStatement(request=6, statement=b"statement"),
    "fetch": FetchStatement(request=7, swarm=SWARM),
    "signal": SendSignal(request=8, swarm=SWARM, to=PEER, sealed=b"sealed"),
    "describe": Describe(request=9),
    "time": AskTime(request=0),
    "server time": ServerTime(request=0, server_time_ms=1_800_000_000_000),
    "granted": Granted(
        request=1,
        lease_s=150.0,
        interval_s=54.5,
        server_time_ms=1_800_000_000_000,
        observed_address="198.51.100.7",
        stun_ports=(5556, 5557),
    ),
    "records": Records(request=4, records=(b"one", b"two"), total=70_000),
    "no records": Records(request=4, records=(), total=0),
    "member list": MemberList(request=10, peers=PEER + CURVE_KEY),
    "statement": Statement(request=7, statement=b"statement"),
    "description": Description(
        request=9,
        relays=True,
        other_ports=(443,),
        observed_address="198.51.100.7",
        stun_ports=(5556, 5557),
    ),
    "done": Done(request=6),
    "refused": Refused(request=1, code="retry_after", text="too many requests", retry_after_s=2.5),
    "joined": Joined(record=b"record"),
    "left": Left(swarm=SWARM, peer=PEER),
    "signaled": Signal(
        swarm=SWARM, sealed=b"sealed", sender=bytes(range(32)), seen_at="203.0.113.1"
    ),
}


def kind_of(name: str) -> UnionType:
    return Request if type(MESSAGES[name]) in get_args(Request) else FromServer


def test_every_kind_of_message_is_among_them() -> None:
    kinds = {type(message) for message in MESSAGES.values()}
    assert kinds == {*get_args(Request), *get_args(FromServer)}
    assert GOLDEN["messages"].keys() == MESSAGES.keys()


@pytest.mark.parametrize("name", MESSAGES)
def test_message_is_encoded_to_its_golden_bytes(name: str) -> None:
    assert encode(MESSAGES[name]).hex() == GOLDEN["messages"][name]


@pytest.mark.parametrize("name", MESSAGES)
def test_golden_bytes_are_decoded_to_their_message(name: str) -> None:
    golden = bytes.fromhex(GOLDEN["messages"][name])
    assert decode(golden, kind_of(name)) == MESSAGES[name]


@pytest.mark.parametrize("name", MESSAGES)
def test_each_cut_of_golden_bytes_is_refused(name: str) -> None:
    golden = bytes.fromhex(GOLDEN["messages"][name])
    for length in range(len(golden)):
        with pytest.raises(RemoteProtocolError):
            decode(golden[:length], kind_of(name))


@pytest.mark.parametrize("variant", GOLDEN["malformed"], ids=lambda variant: variant["why"])
def test_malformed_bytes_are_refused(variant: dict[str, str]) -> None:
    raw = bytes.fromhex(variant["hex"])
    for kind in (Request, FromServer):
        with pytest.raises(RemoteProtocolError):
            decode(raw, kind)
