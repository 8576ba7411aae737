"""The short pass over all decoders: what they know, and seeded mutations of it.

``make fuzz`` goes on from here, guided by coverage, for as long as one asks for.
"""

import zlib
from random import Random

import pytest

from protocol.errors import P2PDError
from tests.fuzz.decoders import DECODERS, feed
from tests.fuzz.samples import CORPUS, samples

MUTATIONS = 300
INTERESTING = (b"\x00", b"\xff", b"\x7f\xff\xff\xff", b"\xff" * 8, b"\xc0", b"\xdd\xff\xff\xff\xff")


def mutated(random: Random, data: bytes, others: list[bytes]) -> bytes:
    """``data`` after one to four small changes."""
    changed = bytearray(data)
    for _ in range(random.randint(1, 4)):
        at = random.randint(0, len(changed))
        match random.randrange(6):
            case 0 if changed:
                changed[at % len(changed)] ^= 1 << random.randrange(8)
            case 1:
                changed[at:at] = random.choice(INTERESTING)
            case 2:
                del changed[at : at + random.randint(1, 16)]
            case 3:
                changed[at : at + 4] = random.choice(INTERESTING)
            case 4:
                other = random.choice(others)
                start = random.randint(0, len(other))
                changed[at:at] = other[start : start + random.randint(1, 64)]
            case _:
                changed = changed[:at]
    return bytes(changed)


@pytest.mark.parametrize("name", DECODERS)
def test_only_refusals_come_out_of_a_decoder(name: str) -> None:
    known = samples()[name]
    random = Random(zlib.crc32(name.encode()))
    for data in known:
        feed(name, data)
    for _ in range(MUTATIONS):
        feed(name, mutated(random, random.choice(known), known))


@pytest.mark.parametrize("name", DECODERS)
def test_samples_hold_what_the_decoder_accepts(name: str) -> None:
    """So that mutations begin behind the first check, not before it."""
    accepted = 0
    for data in samples()[name]:
        try:
            DECODERS[name](data)
        except P2PDError:
            continue
        accepted += 1
    assert accepted


def test_corpus_names_decoders_that_there_are() -> None:
    assert {path.name for path in CORPUS.iterdir() if path.is_dir()} <= set(DECODERS)
