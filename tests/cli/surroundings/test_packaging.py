"""What an installed p2pd consists of, and that its base needs no torch."""

import email
import subprocess
import sys
import zipfile
from email.message import Message
from pathlib import Path

import pytest

from daemon.host.version import VERSION
from daemon.web import page_server, server_page

ROOT = Path(__file__).resolve().parent.parent.parent.parent
DIGITS = ROOT / "ml" / "task" / "builtin" / "digits.npz"
PACKAGES = ("daemon", "ml", "p2pd", "protocol", "relay", "rendezvous", "transport")

BUILD = """
import sys
from setuptools.build_meta import build_wheel
print(build_wheel(sys.argv[1]))
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """The wheel that ``pip install`` would make, from a copy: nothing is left in the tree."""
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    tracked = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    ).stdout
    for name in filter(None, tracked.decode().split("\0")):
        if name.startswith("tests/") or not (ROOT / name).is_file():
            continue
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes((ROOT / name).read_bytes())
    done = subprocess.run(
        [sys.executable, "-c", BUILD, str(target)],
        cwd=source,
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (path,) = target.glob("*.whl")
    return zipfile.ZipFile(path)


def metadata(wheel: zipfile.ZipFile) -> Message:
    return email.message_from_bytes(wheel.read(f"p2pd_train-{VERSION}.dist-info/METADATA"))


def test_every_module_of_every_package_is_in_it_and_nothing_else_is(wheel: zipfile.ZipFile) -> None:
    names = wheel.namelist()
    for package in PACKAGES:
        modules = {
            str(path.relative_to(ROOT)) for path in (ROOT / package).rglob("*.py") if path.is_file()
        }
        assert modules <= set(names)
        assert f"{package}/py.typed" in names
    tops = {name.partition("/")[0] for name in names}
    assert tops == {*PACKAGES, f"p2pd_train-{VERSION}.dist-info", f"p2pd_train-{VERSION}.data"}


def test_the_pages_files_come_along(wheel: zipfile.ZipFile) -> None:
    static = {str(path.relative_to(ROOT)) for path in (ROOT / "daemon/web/static").iterdir()}
    served = [*page_server.STATIC.values(), *server_page.STATIC.values()]
    assert {f"daemon/web/static/{name}" for name, _ in served} == static
    assert static <= set(wheel.namelist())


def test_units_and_licence_come_along(wheel: zipfile.ZipFile) -> None:
    names = wheel.namelist()
    data = f"p2pd_train-{VERSION}.data/data/share/p2pd/systemd"
    assert f"{data}/p2pd@.service" in names
    assert f"{data}/p2pd-rendezvous.service" in names
    licences = f"p2pd_train-{VERSION}.dist-info/licenses"
    assert f"{licences}/LICENSE" in names
    assert f"{licences}/ml/task/builtin/digits.LICENSE" in names


def test_digits_and_the_word_on_their_source_come_along(wheel: zipfile.ZipFile) -> None:
    assert wheel.read("ml/task/builtin/digits.npz") == DIGITS.read_bytes()
    assert b"CC BY 4.0" in wheel.read("ml/task/builtin/digits.LICENSE")


def test_command_is_installed(wheel: zipfile.ZipFile) -> None:
    entry_points = wheel.read(f"p2pd_train-{VERSION}.dist-info/entry_points.txt").decode()
    assert "p2pd = daemon.cli:main" in entry_points


def test_base_install_has_no_torch_and_every_dependency_is_bounded(wheel: zipfile.ZipFile) -> None:
    described = metadata(wheel)
    requirements = described.get_all("Requires-Dist", [])
    base = [text for text in requirements if "extra ==" not in text]
    assert not [text for text in base if text.startswith(("torch", "numpy", "safetensors"))]
    train = [text for text in requirements if 'extra == "train"' in text]
    assert [text for text in train if text.startswith("torch<")]
    assert not [text for text in train if text.startswith(("scikit-learn", "scipy", "tensorboard"))]
    assert all("<" in text and ">=" in text for text in requirements), requirements
    assert described["Requires-Python"] == ">=3.11"
    assert described["License-Expression"] == "Apache-2.0 AND CC-BY-4.0"
