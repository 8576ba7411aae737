import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from ml.update.codec import parse_encoding
from ml.update.dense import Float16Encoding, Float32Encoding, Int4Encoding, Int8Encoding
from ml.update.encoding import MAX_MAGNITUDE, Encoding
from ml.update.topk import CHUNK_ELEMENTS, TopKEncoding
from protocol.errors import ConfigError, VerificationError

ENCODINGS: list[Encoding] = [
    Float32Encoding(),
    Float16Encoding(),
    Int8Encoding(),
    Int4Encoding(),
    TopKEncoding(64),
    TopKEncoding(4),
    TopKEncoding(65),
]
COUNTS = st.sampled_from([1, 2, 255, 256, 257, 4095, 4096, 4097, 10_000])


def normal(count: int, seed: int = 0, scale: float = 0.01) -> NDArray[np.float32]:
    return (scale * np.random.default_rng(seed).standard_normal(count)).astype(np.float32)


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(ENCODINGS), COUNTS, st.integers(0, 99), st.sampled_from([1e-30, 1e-3, 1e9]))
def test_size_follows_from_the_count_and_decoding_gives_the_count(
    encoding: Encoding, count: int, seed: int, scale: float
) -> None:
    values = normal(count, seed, scale)
    wire = encoding.encode(values)
    assert wire.shape == (encoding.wire_count(count),)
    decoded = encoding.decode(wire, count)
    assert decoded.dtype == np.float32
    assert decoded.shape == (count,)
    assert np.abs(decoded).max() <= np.abs(values).max() * 1.01 + 1e-30


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(ENCODINGS), st.binary(min_size=1, max_size=64), COUNTS)
def test_any_bytes_decode_to_usable_numbers_or_are_refused(
    encoding: Encoding, noise: bytes, count: int
) -> None:
    width = {"F32": 4, "F16": 2, "U8": 1}[encoding.wire_dtype]
    dtype = {"F32": "<f4", "F16": "<f2", "U8": "|u1"}[encoding.wire_dtype]
    size_bytes = encoding.wire_count(count) * width
    raw = (noise * (size_bytes // len(noise) + 1))[:size_bytes]
    try:
        decoded = encoding.decode(np.frombuffer(raw, dtype), count)
    except VerificationError:
        return
    assert decoded.shape == (count,)
    assert np.isfinite(decoded).all()
    assert np.abs(decoded).max() <= MAX_MAGNITUDE * 128


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_blocks_are_encoded_independently(encoding: Encoding) -> None:
    values = normal(3 * CHUNK_ELEMENTS + 100)
    whole = encoding.encode(values)
    split = 2 * CHUNK_ELEMENTS
    first, last = encoding.encode(values[:split]), encoding.encode(values[split:])
    assert np.array_equal(whole, np.concatenate([first, last]))
    begin = encoding.wire_count(split)
    decoded = encoding.decode(whole[begin:], values.size - split)
    assert np.array_equal(decoded, encoding.decode(whole, values.size)[split:])


@pytest.mark.parametrize(
    ("encoding", "max_error"),
    [
        (Float32Encoding(), 0.0),
        (Float16Encoding(), 2**-11),
        (Int8Encoding(), 0.02),
        (Int4Encoding(), 0.13),
    ],
)
def test_dense_encodings_are_this_exact(encoding: Encoding, max_error: float) -> None:
    values = normal(5000)
    decoded = encoding.decode(encoding.encode(values), values.size)
    assert np.linalg.norm(decoded - values) <= max_error * np.linalg.norm(values)


def test_int8_keeps_the_largest_of_each_block_and_zero_exactly() -> None:
    values = np.zeros(512, np.float32)
    values[3], values[5] = -1.27, 0.01
    decoded = Int8Encoding().decode(Int8Encoding().encode(values), 512)
    assert decoded[3] == np.float32(-1.27)
    assert decoded[5] == pytest.approx(0.01, rel=1e-6)
    assert np.count_nonzero(decoded) == 2


def test_int4_on_the_wire() -> None:
    """The scale, then two numbers a byte, the first one low; zero is code 8."""
    values = np.array([0.7, -0.7, 0.0, 0.2, 0.14], np.float32)
    wire = Int4Encoding().encode(values)
    assert wire[:4].tobytes() == np.float32(0.1).tobytes()
    assert wire[4:].tolist() == [0x1F, 0xA8, 0x89]
    assert Int4Encoding().decode(wire, 5) == pytest.approx([0.7, -0.7, 0.0, 0.2, 0.1])


def test_int4_takes_little_more_than_half_a_byte_a_number() -> None:
    assert Int4Encoding().wire_count(1_000_000) < 1_000_000 * 0.54


def test_topk_keeps_the_places_and_signs_of_the_largest() -> None:
    values = normal(2 * CHUNK_ELEMENTS)
    decoded = TopKEncoding(64).decode(TopKEncoding(64).encode(values), values.size)
    for chunk, result in zip(values.reshape(2, -1), decoded.reshape(2, -1), strict=True):
        largest = np.sort(np.argsort(np.abs(chunk))[-64:])
        assert np.array_equal(np.flatnonzero(result), largest)
        assert np.array_equal(np.sign(result[largest]), np.sign(chunk[largest]))
        assert np.unique(np.abs(result[largest])).size == 2
        assert np.abs(result).sum() == pytest.approx(np.abs(chunk[largest]).sum(), rel=1e-5)


def test_topk_sends_all_of_a_tensor_shorter_than_what_it_keeps() -> None:
    values = np.array([0.5, -0.25, 0.5, -0.25, 0.5], np.float32)
    assert TopKEncoding(64).decode(TopKEncoding(64).encode(values), 5).tolist() == values.tolist()


def test_topk_keeps_any_number_of_a_short_tensor() -> None:
    values = normal(96)
    decoded = TopKEncoding(65).decode(TopKEncoding(65).encode(values), 96)
    largest = np.sort(np.argsort(np.abs(values))[-65:])
    assert np.array_equal(np.flatnonzero(decoded), largest)
    assert np.array_equal(np.sign(decoded[largest]), np.sign(values[largest]))


def test_topk_is_over_180_times_smaller_than_float32() -> None:
    count = 64 * CHUNK_ELEMENTS
    assert 4 * count / TopKEncoding(64).wire_count(count) > 180


@pytest.mark.parametrize("count", [1, 5, 16, 65, 96, 1000, 4097])
def test_topk_of_a_short_tensor_is_no_longer_than_float16(count: int) -> None:
    assert TopKEncoding(64).wire_count(count) <= 8 + 2 * count


def test_topk_bytes_on_the_wire() -> None:
    """Two levels, the places' low bits, their high ones, the codes: by hand."""
    values = np.zeros(16, np.float32)
    values[[1, 6, 7, 15]] = [-2.0, 1.0, 4.0, -1.0]
    # Low bits 01 10 11 11; high ones 0 1 1 3 at 0, 2, 3 and 6 of 7; codes 3 0 2 1.
    bits = "10011111" + "1011001" + "11000110"
    packed = np.packbits([int(bit) for bit in bits], bitorder="little").tobytes()
    levels = np.array([3.0, 1.0], "<f4").tobytes()
    assert TopKEncoding(4).encode(values).tobytes() == levels + packed


def test_topk_places_that_cannot_be_are_refused() -> None:
    """Else one number could be claimed twice, or one that is not there."""
    wire = TopKEncoding(4).encode(normal(CHUNK_ELEMENTS)).copy()
    wire[8:14] = 0
    with pytest.raises(VerificationError, match="another number of places in the update than 4"):
        TopKEncoding(4).decode(wire, CHUNK_ELEMENTS)
    wire[13] = 0b1111
    with pytest.raises(VerificationError, match="places in the update that do not ascend"):
        TopKEncoding(4).decode(wire, CHUNK_ELEMENTS)
    # Of 11 numbers the places' low bit and high ones up to 5 could name a twelfth.
    values = np.array([9, 9, 9, *[0] * 7, 9], np.float32)
    wire = TopKEncoding(4).encode(values).copy()
    assert TopKEncoding(4).decode(wire, 11)[10] == 9
    wire[8] |= 0b1000
    with pytest.raises(VerificationError, match="places in the update that do not ascend"):
        TopKEncoding(4).decode(wire, 11)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e13])
def test_numbers_that_cannot_be_used_are_refused(bad: float) -> None:
    reason = {"nan": "NaN", "inf": "infinity", "-inf": "infinity"}.get(str(bad), "larger than 1e")
    values = np.array([1.0, bad], np.float32)
    with pytest.raises(VerificationError, match=reason):
        Float32Encoding().decode(values, 2)
    scale = np.array([bad], np.float32).view(np.uint8)
    with pytest.raises(VerificationError, match=reason):
        Int8Encoding().decode(np.concatenate([scale, np.ones(2, np.uint8)]), 2)
    wire = TopKEncoding(4).encode(normal(10)).copy()
    wire[4:8] = scale
    with pytest.raises(VerificationError, match=reason):
        TopKEncoding(4).decode(wire, 10)
    if not np.isfinite(bad):
        with pytest.raises(VerificationError, match=reason):
            Float16Encoding().decode(values.astype(np.float16), 2)


def test_large_numbers_do_not_become_infinite_in_half_precision() -> None:
    wire = Float16Encoding().encode(np.array([1e9, -1e9], np.float32))
    assert Float16Encoding().decode(wire, 2).tolist() == [65504, -65504]


def test_encodings_by_name() -> None:
    assert isinstance(parse_encoding("none"), Float32Encoding)
    assert isinstance(parse_encoding("fp16"), Float16Encoding)
    assert isinstance(parse_encoding("int8"), Int8Encoding)
    assert parse_encoding("topk") == TopKEncoding(64)
    assert parse_encoding("topk:128") == TopKEncoding(128)


@pytest.mark.parametrize("text", ["", "int8:2", "zip", "topk:3", "topk:-4", "topk:2000", "topk:x"])
def test_unknown_compression_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="compression"):
        parse_encoding(text)
