import os
import stat
from pathlib import Path

import pytest

from protocol.errors import ConfigError
from transport.curve import CurveKeys, key_from_z85, key_to_z85
from transport.key_file import read_or_create_secret

SECRET = bytes(range(32))


def never() -> bytes:
    raise AssertionError("the file is there: nothing is to be made")


def test_missing_key_file_is_made_for_its_owner_only_with_its_directories(tmp_path: Path) -> None:
    path = tmp_path / "state" / "key"
    assert read_or_create_secret(path, lambda: SECRET) == SECRET
    assert path.read_bytes() == SECRET
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [entry.name for entry in path.parent.iterdir()] == ["key"]


def test_existing_key_file_is_read_and_never_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "key"
    read_or_create_secret(path, lambda: SECRET)
    before = path.stat()
    assert read_or_create_secret(path, never) == SECRET
    assert (path.stat().st_ino, path.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_file_that_appears_while_ours_is_made_stays(tmp_path: Path) -> None:
    path = tmp_path / "key"

    def make() -> bytes:
        read_or_create_secret(path, lambda: SECRET)
        return bytes(32)

    assert read_or_create_secret(path, make) == SECRET


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o700])
def test_key_file_that_others_may_read_is_refused_with_the_remedy(
    tmp_path: Path, mode: int
) -> None:
    path = tmp_path / "key"
    read_or_create_secret(path, lambda: SECRET)
    path.chmod(mode)
    with pytest.raises(ConfigError, match=f"mode {mode:04o}.*chmod 600 {path}"):
        read_or_create_secret(path, never)


def test_key_file_behind_a_symbolic_link_is_refused(tmp_path: Path) -> None:
    read_or_create_secret(tmp_path / "real", lambda: SECRET)
    (tmp_path / "key").symlink_to(tmp_path / "real")
    with pytest.raises(ConfigError, match="symbolic link"):
        read_or_create_secret(tmp_path / "key", never)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_key_file_of_another_user_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "key"
    read_or_create_secret(path, lambda: SECRET)
    os.chown(path, 12345, 12345)
    with pytest.raises(ConfigError, match="belongs to user 12345"):
        read_or_create_secret(path, never)


@pytest.mark.parametrize("size", [0, 31, 33, 4096])
def test_key_file_of_another_size_is_refused(tmp_path: Path, size: int) -> None:
    path = tmp_path / "key"
    path.touch(mode=0o600)
    path.write_bytes(bytes(size))
    with pytest.raises(ConfigError, match="does not hold 32 bytes"):
        read_or_create_secret(path, never)


def test_pipe_in_place_of_the_key_file_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "key", 0o600)
    with pytest.raises(ConfigError, match="no regular file"):
        read_or_create_secret(tmp_path / "key", never)


def test_directory_that_cannot_be_written_is_a_configuration_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="Not a directory"):
        read_or_create_secret(tmp_path / "file" / "key", lambda: SECRET)


def test_curve_keys_follow_from_their_secret_half_and_hide_it() -> None:
    keys = CurveKeys.generate()
    assert CurveKeys.from_secret(keys.secret) == keys
    assert repr(keys.secret)[2:-1] not in repr(keys)
    assert "secret" not in repr(keys)
    assert key_from_z85(key_to_z85(keys.public).decode()) == keys.public


def test_curve_key_agrees_with_libzmqs_own() -> None:
    import zmq

    keys = CurveKeys.generate()
    assert zmq.curve_public(keys.secret_z85) == keys.public_z85


def test_key_of_another_length_is_no_curve_key() -> None:
    with pytest.raises(ValueError, match="31 bytes, 32 expected"):
        key_to_z85(bytes(31))
