"""What the averager cannot do, asked of the kernel by a process that has entered the sandbox."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ml.averaging.sandbox import filter_of

ROOT = Path(__file__).parents[2]

TRY = """
import ctypes, json, os, pathlib, platform, resource, signal, socket, subprocess, sys, threading
from ml.averaging.sandbox import enter_sandbox

libc = ctypes.CDLL(None, use_errno=True)
column = 0 if platform.machine() == "x86_64" else 1
CALLS = {"tkill": (200, 130), "tgkill": (234, 131), "queued": (129, 138), "clone": (56, 220)}
NEW_USERS = 0x10000000

def call(name, *arguments):
    if libc.syscall(CALLS[name][column], *arguments) == -1:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))

parent = os.getppid()
ours, theirs = socket.socketpair()
waits = threading.Event()
found = {}

def attempt(name, what):
    try:
        what()
        found[name] = "done"
    except OSError as error:
        found[name] = error.strerror

def attempt_all(prefix):
    attempt(prefix + "socket", lambda: socket.socket().close())
    attempt(prefix + "unix socket", lambda: socket.socket(socket.AF_UNIX).close())
    attempt(prefix + "program", lambda: subprocess.run(["/bin/true"]))
    attempt(prefix + "signal", lambda: os.kill(os.getppid(), 0))
    attempt(prefix + "signal to a thread", lambda: call("tkill", parent, 0))
    attempt(prefix + "signal to a thread of a process", lambda: call("tgkill", parent, parent, 0))
    attempt(prefix + "queued signal", lambda: call("queued", parent, 0, None))
    attempt(prefix + "limit of another", lambda: resource.prlimit(parent, resource.RLIMIT_CORE))
    attempt(prefix + "own limit", lambda: resource.prlimit(0, resource.RLIMIT_CORE))
    attempt(prefix + "signal to itself", lambda: call("tgkill", os.getpid(), os.getpid(), 0))
    attempt(prefix + "thread", lambda: threading.Thread(target=waits.set).start())
    if "no network" in found["sandbox"]:  # Else there would be two of this process.
        attempt(prefix + "namespace", lambda: call("clone", NEW_USERS | 17, None, None, None, None))
    attempt(prefix + "file", lambda: pathlib.Path(sys.argv[1], "file").write_text("here"))
    attempt(prefix + "channel", lambda: (ours.sendall(b"x"), theirs.recv(1)))

def in_thread():
    waits.wait()
    attempt_all("thread ")

thread = threading.Thread(target=in_thread)
thread.start()
found["sandbox"] = enter_sandbox()
attempt_all("")
waits.set()
thread.join()
found["new privileges"] = [
    line.split()[1]
    for line in pathlib.Path("/proc/self/status").read_text().splitlines()
    if line.startswith("NoNewPrivs")
]
print(json.dumps(found))
"""


def found_by(script: str, directory: Path) -> Any:
    """What a script prints, which is run in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", script, str(directory)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=150,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_no_socket_no_program_no_signal_and_files_as_before(tmp_path: Path) -> None:
    found = found_by(TRY, tmp_path)
    assert found.pop("new privileges") == ["1"]
    if "no network" not in found["sandbox"]:
        pytest.skip(f"the kernel refuses: {found['sandbox']}")
    refused = os.strerror(1)
    assert found.pop("sandbox") == "no new privileges, no network, no programs, no other processes"
    for prefix in ("", "thread "):
        works = {what for what in found if found[what] == "done"}
        for what in ("file", "channel", "own limit", "signal to itself", "thread"):
            assert prefix + what in works
        tried = {what for what in found if what.startswith("thread ") == bool(prefix)}
        assert {found[what] for what in tried - works} == {refused}
        assert len(tried - works) == 9


FILES = """
import json, os, pathlib, sys
from ml.averaging.own_files import keep_to

base = pathlib.Path(sys.argv[1])
one, two, outside = base / "one", base / "two", base / "outside"
found = {"files": keep_to([one, two, base / "not there"])}

def attempt(name, what):
    try:
        what()
        found[name] = "done"
    except OSError as error:
        found[name] = error.strerror

attempt("own write", lambda: (one / "made").write_bytes(b"bytes"))
attempt("own move", lambda: (one / "made").rename(two / "moved"))
attempt("own read", lambda: (two / "moved").read_bytes())
attempt("own directory", lambda: (one / "directory").mkdir())
attempt("own list", lambda: list(two.iterdir()))
attempt("own removal", lambda: (two / "moved").unlink())
memory = os.memfd_create("memory")
attempt("own memory", lambda: open(f"/proc/{os.getpid()}/fd/{memory}", "rb").close())
attempt("module", lambda: __import__("colorsys"))
attempt("module of p2pd", lambda: __import__("protocol.merkle"))
attempt("write", lambda: (outside / "file").write_bytes(b""))
attempt("new file", lambda: (outside / "new").touch())
attempt("read", lambda: (outside / "file").read_bytes())
attempt("list", lambda: list(outside.iterdir()))
attempt("move", lambda: (outside / "file").rename(one / "taken"))
attempt("removal", lambda: (outside / "file").unlink())
attempt("link", lambda: (one / "link").symlink_to(outside / "file"))
attempt("cut", lambda: os.truncate(outside / "file", 0))
attempt("p2pd's folder", lambda: pathlib.Path("pyproject.toml").read_bytes())
attempt("parent's memory", lambda: open(f"/proc/{os.getppid()}/mem", "rb").close())
attempt("parent's variables", lambda: open(f"/proc/{os.getppid()}/environ", "rb").close())
print(json.dumps(found))
"""


def test_no_files_but_its_own_and_no_process_is_looked_into(tmp_path: Path) -> None:
    for name in ("one", "two", "outside"):
        (tmp_path / name).mkdir()
    secret = tmp_path / "outside" / "file"
    secret.write_bytes(b"secret")
    found = found_by(FILES, tmp_path)
    files = found.pop("files")
    if files.startswith("all files"):
        pytest.skip(f"the kernel refuses: {files}")
    assert files == "no files but its own"
    own = {what for what in found if what.startswith(("own", "module"))}
    assert {found[what] for what in own} == {"done"}
    assert {found[what] for what in found.keys() - own} <= {os.strerror(13), os.strerror(18)}
    assert len(found) == 20
    assert secret.read_bytes() == b"secret"


def test_filter_is_one_that_the_kernel_takes_on_every_architecture() -> None:
    for machine in ("x86_64", "aarch64"):
        code = filter_of(machine, os.getpid())
        assert len(code) % 8 == 0
        # A jump goes at most 255 instructions on.
        assert len(code) // 8 < 255
