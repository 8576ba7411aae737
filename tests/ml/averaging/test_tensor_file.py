import json
from pathlib import Path

import numpy as np
import pytest
import safetensors
import safetensors.numpy
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ml.state.tensor_file import (
    FileTensor,
    TensorFile,
    TensorLayout,
    TensorSink,
    TensorWriter,
    layout_of,
    numpy_dtype,
)
from ml.state.tensor_store import write_tensors, write_to_disk, write_to_memory
from protocol.errors import VerificationError
from protocol.merkle import leaves_of, merkle_root

TENSORS = (
    FileTensor("a", "BOOL", (3,)),
    FileTensor("b", "F32", (2, 3)),
    FileTensor("c", "I64", ()),
    FileTensor("d", "F16", (5,)),
)
LAYOUT = layout_of(TENSORS, {"format": "test"})


def values_of(tensor: FileTensor) -> np.ndarray[tuple[int], np.dtype[np.generic]]:
    random = np.random.default_rng(len(tensor.name))
    return random.integers(0, 2, tensor.element_count).astype(numpy_dtype(tensor.dtype))


def fill(writer: TensorSink) -> None:
    assert isinstance(writer, TensorWriter)
    for tensor in writer.layout.tensors.values():
        writer.write(tensor.name, 0, values_of(tensor))


def write(directory: Path, name: str = "file", layout: TensorLayout = LAYOUT) -> Path:
    blob, file = write_to_disk(directory, lambda root: name, layout, fill)
    file.close()
    return Path(blob.path)


def with_header(entries: object, body: bytes = b"") -> bytes:
    text = json.dumps(entries).encode()
    return len(text).to_bytes(8, "little") + text + body


def refusal_of(path: Path, content: bytes) -> str:
    path.write_bytes(content)
    with pytest.raises(VerificationError) as caught:
        TensorFile.open(path, LAYOUT)
    return str(caught.value)


def test_plain_safetensors_and_torch_read_the_file(tmp_path: Path) -> None:
    path = write(tmp_path)
    loaded = safetensors.numpy.load_file(path)
    assert loaded.keys() == {"a", "b", "c", "d"}
    for tensor in TENSORS:
        assert loaded[tensor.name].shape == tensor.shape
        assert np.array_equal(loaded[tensor.name].reshape(-1), values_of(tensor))
    with safetensors.safe_open(path, framework="pt") as file:
        assert file.metadata() == {"format": "test"}
        assert file.get_tensor("b").dtype == torch.float32


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.dictionaries(
        st.text(min_size=1, max_size=8).filter(lambda name: name != "__metadata__"),
        st.tuples(
            st.sampled_from(["F32", "F16", "I64", "I32", "I16", "I8", "U8", "BOOL", "F64"]),
            st.lists(st.integers(0, 4), max_size=3).map(tuple),
        ),
        max_size=6,
    )
)
def test_any_layout_is_valid_safetensors_and_aligned(
    tmp_path: Path, tensors: dict[str, tuple[str, tuple[int, ...]]]
) -> None:
    layout = layout_of(
        [FileTensor(name, dtype, shape) for name, (dtype, shape) in tensors.items()], {}
    )
    path = write(tmp_path, layout=layout)
    loaded = safetensors.numpy.load_file(path)
    assert {name: array.shape for name, array in loaded.items()} == {
        name: shape for name, (_, shape) in tensors.items()
    }
    for name, tensor in layout.tensors.items():
        assert layout.offsets[name] % numpy_dtype(tensor.dtype).itemsize == 0
    assert len(layout.header) % 8 == 0
    assert path.stat().st_size == layout.size_bytes


def test_equal_tensors_give_equal_bytes_and_the_root_of_the_file(tmp_path: Path) -> None:
    first, file = write_to_disk(tmp_path, lambda root: "first", LAYOUT, fill)
    file.close()
    second, file = write_to_memory(LAYOUT, fill)
    content = Path(first.path).read_bytes()
    assert Path(second.path).read_bytes() == content
    file.close()
    assert first.leaves == second.leaves == tuple(leaves_of([content]))
    assert first.root == merkle_root(first.leaves)
    assert first.size_bytes == len(content)


def test_blocks_are_read_and_written_in_any_order(tmp_path: Path) -> None:
    layout = layout_of([FileTensor("x", "F32", (10,)), FileTensor("y", "F32", (2,))], {})

    def fill_backwards(writer: TensorSink) -> None:
        writer.write("y", 0, np.array([8, 9], np.float32))
        writer.write("x", 5, np.arange(5, 10, dtype=np.float32))
        writer.write("x", 0, np.arange(5, dtype=np.float32))

    _, file = write_to_disk(tmp_path, lambda root: "file", layout, fill_backwards)
    with file:
        assert file.read("x", 3, 7).tolist() == [3, 4, 5, 6]
        assert file.read("x").tolist() == list(range(10))
        assert file.read("y").tolist() == [8, 9]


def test_writer_refuses_what_does_not_fit(tmp_path: Path) -> None:
    def too_long(writer: TensorSink) -> None:
        writer.write("d", 1, np.zeros(5, np.float16))

    def wrong_dtype(writer: TensorSink) -> None:
        writer.write("d", 0, np.zeros(5, np.float32))

    def incomplete(writer: TensorSink) -> None:
        writer.write("d", 0, np.zeros(5, np.float16))

    for wrong in (too_long, wrong_dtype, incomplete):
        with pytest.raises(ValueError, match=r"do not fit|not written"):
            write_to_disk(tmp_path, lambda root: "file", LAYOUT, wrong)
    assert list(tmp_path.iterdir()) == []


def test_failed_write_leaves_the_old_file_and_no_other(tmp_path: Path) -> None:
    path = write(tmp_path)
    before = path.read_bytes()

    def fail(writer: TensorSink) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        write_to_disk(tmp_path, lambda root: "file", LAYOUT, fail)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_file_goes_to_memory_where_the_disk_fails(tmp_path: Path) -> None:
    written = write_tensors(tmp_path / "missing", lambda root: "file", LAYOUT, fill)
    assert written.problem == "No such file or directory"
    with written.file:
        assert Path(written.blob.path).read_bytes() == write(tmp_path).read_bytes()


def test_header_of_another_file_is_refused_with_the_difference(tmp_path: Path) -> None:
    path = write(tmp_path)
    good = path.read_bytes()
    text_length = int.from_bytes(good[:8], "little")
    entries = json.loads(good[8 : 8 + text_length])
    body = good[8 + text_length :]

    def changed(name: str, **values: object) -> bytes:
        return with_header({**entries, name: {**entries[name], **values}}, body)

    assert "pickle" in refusal_of(path, b"\x80\x04\x95" + good)
    assert "pickle" in refusal_of(path, b"PK\x03\x04" + good)
    assert "has no safetensors header" in refusal_of(path, b"")
    assert "claims 9223372036854775808 bytes" in refusal_of(path, (2**63).to_bytes(8, "little") * 2)
    assert "no JSON" in refusal_of(path, (4).to_bytes(8, "little") + b"{{{{" + body)
    assert "no JSON object" in refusal_of(path, with_header([1, 2]))
    assert "'x' is not in the model" in refusal_of(path, with_header({**entries, "x": 1}, body))
    assert "has dtype 'F64', F32" in refusal_of(path, changed("b", dtype="F64"))
    assert "has shape [0, 4611686018427387904]" in refusal_of(path, changed("b", shape=[0, 2**62]))
    assert "has offsets [0, 99]" in refusal_of(path, changed("b", data_offsets=[0, 99]))
    assert "metadata {'format': 'x'}" in refusal_of(path, changed("__metadata__", format="x"))
    assert "tensor a is missing" in refusal_of(
        path, with_header({name: entries[name] for name in entries if name != "a"}, body)
    )
    assert "not in canonical form" in refusal_of(path, with_header(entries, body))
    duplicate = good[8 : 8 + text_length].rstrip()[:-1] + b',"a":{}}'
    assert "'a' appears twice" in refusal_of(
        path, len(duplicate).to_bytes(8, "little") + duplicate + body
    )
    assert f"file of {len(good) - 1} bytes, {len(good)} expected" in refusal_of(path, good[:-1])
    assert f"file of {len(good) + 1} bytes" in refusal_of(path, good + b"x")


def test_header_that_nests_without_end_is_refused(tmp_path: Path) -> None:
    nested = b"[" * 100_000
    text = refusal_of(tmp_path / "file", len(nested).to_bytes(8, "little") + nested)
    assert "header of 100000 bytes" in text
    short = b"[" * 3000
    assert "no JSON" in refusal_of(tmp_path / "file", len(short).to_bytes(8, "little") + short)


def test_200_000_tensors_are_refused_by_the_length_of_the_header(tmp_path: Path) -> None:
    entry = {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}
    many = with_header({f"t{i}": entry for i in range(200_000)})
    assert "safetensors header of" in refusal_of(tmp_path / "file", many)


def test_escape_codes_in_a_foreign_name_are_not_shown_raw(tmp_path: Path) -> None:
    text = refusal_of(tmp_path / "file", with_header({"\x1b[31m" + "x" * 500: 1}))
    assert "\x1b" not in text
    assert len(text) < 200


def test_file_cut_after_opening_is_noticed(tmp_path: Path) -> None:
    path = write(tmp_path)
    with TensorFile.open(path, LAYOUT) as file:
        path.write_bytes(path.read_bytes()[:-3])
        with pytest.raises(VerificationError, match="file ends within tensor"):
            file.read("a")
