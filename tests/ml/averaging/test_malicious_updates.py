"""What strangers may send instead of an update: each refused with its reason."""

import io
import json
import pickle
import resource
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
import torch

from ml.state.state import State
from ml.update.codec import UpdateCodec, parse_encoding
from ml.update.dense import Float32Encoding
from ml.update.topk import TopKEncoding
from protocol.errors import VerificationError
from tests.ml.small_models import make_model, perturbed, save_state, write_update

Refuse = Callable[[bytes], str]


class Bomb:
    """Would leave a trace if it was ever unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.target,)


@pytest.fixture
def base(tmp_path: Path) -> State:
    return save_state(make_model(), tmp_path / "base")


@pytest.fixture
def codec(base: State) -> UpdateCodec:
    return UpdateCodec(base.manifest, Float32Encoding())


@pytest.fixture
def good(base: State, tmp_path: Path) -> bytes:
    return write_update(base, perturbed(make_model(), 1), tmp_path / "good").read_bytes()


@pytest.fixture
def refuse(codec: UpdateCodec, tmp_path: Path) -> Refuse:
    def check(content: bytes) -> str:
        path = tmp_path / "bad"
        path.write_bytes(content)
        with pytest.raises(VerificationError) as caught:
            codec.check(path)
        return str(caught.value)

    return check


def header_of(content: bytes) -> tuple[dict[str, dict[str, object]], bytes]:
    length = int.from_bytes(content[:8], "little")
    return json.loads(content[8 : 8 + length]), content[8 + length :]


def with_header(entries: object, body: bytes) -> bytes:
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + body


def rewritten(good: bytes, name: str, **values: object) -> bytes:
    entries, body = header_of(good)
    return with_header({**entries, name: {**entries[name], **values}}, body)


def number_at(good: bytes, name: str, value: float) -> bytes:
    """``good`` with another first number in a float tensor."""
    entries, body = header_of(good)
    offsets = entries[name]["data_offsets"]
    assert isinstance(offsets, list)
    changed = bytearray(body)
    changed[offsets[0] : offsets[0] + 4] = np.array([value], "<f4").tobytes()
    return with_header(entries, bytes(changed))


def test_good_update_is_accepted(codec: UpdateCodec, good: bytes, tmp_path: Path) -> None:
    codec.check(tmp_path / "good")
    assert with_header(*header_of(good)) == good


def test_pickles_are_named_and_never_loaded(refuse: Refuse, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    bomb = Bomb(trace)
    assert "pickle or torch.save file" in refuse(pickle.dumps(bomb))
    saved = io.BytesIO()
    torch.save({"x": torch.zeros(2), "bomb": bomb}, saved)
    assert zipfile.is_zipfile(saved)
    assert "pickle or torch.save file" in refuse(saved.getvalue())
    assert not trace.exists()


def test_header_length_beyond_the_file(refuse: Refuse, good: bytes) -> None:
    assert "claims" in refuse((2**63).to_bytes(8, "little") + good[8:])
    assert "claims" in refuse((2**64 - 1).to_bytes(8, "little") + good[8:])


def test_overlap_overflow_and_hole(refuse: Refuse, good: bytes) -> None:
    for offsets in ([0, 28], [2**63, 2**63 + 28], [4, 32]):
        text = refuse(rewritten(good, "output.bias", data_offsets=offsets))
        assert f"tensor output.bias has offsets {offsets}" in text


def test_duplicate_name(refuse: Refuse, good: bytes) -> None:
    entries, body = header_of(good)
    text = json.dumps(entries)[:-1] + ', "scale": {}}'
    duplicate = len(text).to_bytes(8, "little") + text.encode() + body
    assert "tensor 'scale' appears twice" in refuse(duplicate)


def test_wrong_shape_dtype_and_name(refuse: Refuse, good: bytes) -> None:
    assert "tensor output.bias has shape [0, 4611686018427387904]" in refuse(
        rewritten(good, "output.bias", shape=[0, 2**62])
    )
    assert "tensor output.bias has shape [8]" in refuse(rewritten(good, "output.bias", shape=[8]))
    assert "tensor output.bias has dtype 'F64'" in refuse(
        rewritten(good, "output.bias", dtype="F64")
    )
    entries, body = header_of(good)
    entries["output.bia"] = entries.pop("output.bias")
    assert "tensor 'output.bia' is not in the model" in refuse(with_header(entries, body))


def test_200_000_tensors(refuse: Refuse) -> None:
    entry = {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}
    assert "safetensors header of" in refuse(
        with_header({f"t{i}": entry for i in range(200_000)}, b"")
    )


def test_update_of_another_model_that_safetensors_accepts(refuse: Refuse) -> None:
    other = safetensors.numpy.save({"weight": np.zeros((3, 3), np.float32)})
    assert "is not in the model" in refuse(other)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (np.nan, "NaN in the update, in tensor scale"),
        (np.inf, "infinity in the update, in tensor scale"),
        (-np.inf, "infinity in the update, in tensor scale"),
        (3e38, "numbers larger than 1e+12 in the update, in tensor scale"),
    ],
)
def test_numbers_that_would_poison_the_mean(
    refuse: Refuse, good: bytes, value: float, reason: str
) -> None:
    assert refuse(number_at(good, "scale", value)) == reason


def test_nan_in_running_statistics(refuse: Refuse, good: bytes) -> None:
    assert "NaN in the update, in tensor norm.running_var" in refuse(
        number_at(good, "norm.running_var", np.nan)
    )


def test_bytes_that_are_no_booleans(refuse: Refuse, good: bytes) -> None:
    assert good[-3:] == b"\x01\x00\x01"
    assert "no booleans, in tensor mask" in refuse(good[:-1] + b"\x02")


def test_cut_and_padded_files(refuse: Refuse, good: bytes) -> None:
    for cut in (0, 4, 8, 100, len(good) - 1):
        assert refuse(good[:cut])
    assert "bytes" in refuse(good + b"\x00")


def test_compressed_bomb_is_bounded_by_the_model(base: State, tmp_path: Path) -> None:
    """Two wire bytes can stand for 4096 numbers, but only for those that the model has."""
    codec = UpdateCodec(base.manifest, TopKEncoding(64))
    path = tmp_path / "bomb"
    with path.open("wb") as file:
        file.truncate(1 << 40)
    before_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(VerificationError, match="safetensors header is no JSON"):
        codec.check(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kib < 10_000


@pytest.mark.parametrize("compression", ["none", "fp16", "int8", "int4", "topk"])
def test_any_flipped_byte_is_refused_or_harmless(
    base: State, tmp_path: Path, compression: str
) -> None:
    """Whatever passes decodes to finite numbers for exactly the tensors of the model."""
    codec = UpdateCodec(base.manifest, parse_encoding(compression))
    path = write_update(base, perturbed(make_model(), 1), tmp_path / "update", codec)
    content = path.read_bytes()
    random = np.random.default_rng(1)
    for position in [*range(64), *random.integers(0, len(content), 200).tolist()]:
        changed = bytearray(content)
        changed[position] ^= 1 << int(random.integers(8))
        path.write_bytes(changed)
        if position < len(codec.layout.header):
            with pytest.raises(VerificationError):
                codec.check(path)
            continue
        with codec.open(path) as update:
            for spec in base.manifest.tensors:
                try:
                    values = update.read(spec, 0, spec.element_count)
                except VerificationError:
                    continue
                assert values.size == spec.element_count
                assert np.isfinite(values.astype(np.float64)).all()
