"""The bits that encodings, rules and the outer step make of given updates: those of the last
release, on every machine. ``make same`` compares whole swarms.

A change here changes what peers of different versions agree on: it needs another
``NUMERICS_VERSION``.
"""

import functools
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from ml.aggregate.aggregation import parse_aggregation
from ml.aggregate.mixing import Partner, parse_mixing
from ml.aggregate.outer_optimizer import OuterOptimizer
from ml.update.codec import parse_encoding
from ml.update.encoding import Floats
from tests.ml.averaging.test_mixing import NoTrials

PEERS = 5
ELEMENTS = 9000
ROUNDS = 3
SAMPLE_COUNTS = [10, 200, 300, 301, 40_000]
ENCODINGS = ("none", "fp16", "int8", "int4", "topk", "topk:128")
RULES = ("mean", "trimmed_mean:0.2", "median", "krum:1", "centered_clip")
MIXINGS = ("mean", "trimmed_mean:0.2", "median", "centered_clip")
KNOWN: dict[str, str] = json.loads(
    (Path(__file__).parents[2] / "data" / "averages.json").read_text()
)
"""Digests by encoding and rule."""


def numbers(*key: int) -> Floats:
    """Of all sizes from 2^-24 to 16, of both signs, without a library's own distributions."""
    raw = np.random.Philox(key=hash_of(*key)).random_raw(ELEMENTS)
    even: Floats = (raw >> 40).astype(np.float32) / np.float32(2**19) - 16
    values: Floats = np.ldexp(even, -(raw % 28).astype(np.int32))
    return values


def hash_of(*key: int) -> int:
    return int.from_bytes(hashlib.sha256(repr(key).encode()).digest()[:8], "big")


def blocks(stack: Floats) -> Iterator[Floats]:
    yield stack[:, : ELEMENTS // 2]
    yield stack[:, ELEMENTS // 2 :]


def sent(encoding: str, round_number: int, digest: "hashlib._Hash") -> Floats:
    """What the peers' numbers are after their way, shape (peers, elements)."""
    codec = parse_encoding(encoding)
    rows = []
    for peer in range(PEERS):
        wire = codec.encode(numbers(round_number, peer))
        digest.update(wire.tobytes())
        rows.append(codec.decode(wire, ELEMENTS))
    return np.stack(rows)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_average_of_given_updates_has_the_known_bits(encoding: str, rule: str) -> None:
    digest = hashlib.sha256()
    outer = OuterOptimizer(0.7, 0.9)
    base, velocity = numbers(0), np.zeros(ELEMENTS, np.float32)
    for round_number in range(1, ROUNDS + 1):
        stack = sent(encoding, round_number, digest)
        plan = parse_aggregation(rule, 1_000_000).plan(
            SAMPLE_COUNTS, functools.partial(blocks, stack)
        )
        average = np.concatenate([plan.parameters(block) for block in blocks(stack)])
        digest.update(plan.buffers(stack).tobytes())
        base, moved = outer.step(base, velocity, average)
        assert moved is not None
        velocity = moved
        digest.update(base.tobytes() + velocity.tobytes())
    assert digest.hexdigest() == KNOWN[f"{encoding} {rule}"]


@pytest.mark.parametrize("rule", MIXINGS)
@pytest.mark.parametrize("encoding", ["none", "fp16", "int8"])
def test_mixture_of_given_parameters_has_the_known_bits(encoding: str, rule: str) -> None:
    digest = hashlib.sha256()
    partners = [
        Partner(f"peer {peer}", weight) for peer, weight in enumerate([0.1, 0.2, 0.25, 0.3])
    ]
    for round_number in range(1, ROUNDS + 1):
        stack = sent(encoding, round_number, digest)
        plan = parse_mixing(rule).plan(partners, functools.partial(blocks, stack), NoTrials())
        for block in blocks(stack):
            digest.update(plan.parameters(block).tobytes())
    assert digest.hexdigest() == KNOWN[f"gossip {encoding} {rule}"]
