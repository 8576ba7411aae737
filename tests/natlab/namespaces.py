"""Network namespaces with names that tell who owns them, so that the leftovers of a dead one go.

A name is `p2pdlab.PID.STARTTIME.TOKEN.NODE`: the process that made it (the start time tells a
reused pid apart), the laboratory within that process, the node within the laboratory. Nothing here
touches a namespace or a process outside of such names.
"""

from __future__ import annotations

import ctypes
import os
import select
import signal
import socket
import struct
import subprocess
import threading
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

_PREFIX = "p2pdlab"
_DIRECTORY = Path("/run/netns")
_CLONE_NEWNET = 0x40000000
_COMMAND_TIMEOUT_S = 20
_KILL_TIMEOUT_S = 10

T = TypeVar("T")


class NatLabError(Exception):
    """A command that builds or changes the laboratory failed; carries what it said."""


@dataclass(frozen=True, slots=True)
class Namespace:
    """One network namespace. All commands raise NatLabError with the program's own words."""

    name: str

    def ip(self, *commands: str) -> None:
        """Runs `ip` commands in order, in one process; stops at the first that fails."""
        if commands:
            run_tool(["ip", "-n", self.name, "-batch", "-"], "\n".join(commands))

    def tc(self, *commands: str) -> None:
        if commands:
            run_tool(["tc", "-n", self.name, "-batch", "-"], "\n".join(commands))

    def nft(self, ruleset: str) -> None:
        """Loads a ruleset: all of it or, on an error, nothing."""
        run_tool(["ip", "netns", "exec", self.name, "nft", "-f", "-"], ruleset)

    def sysctl(self, settings: Mapping[str, int | str]) -> None:
        """Sets `net.` keys, written with slashes: `ipv4/ip_forward`. A key absent here is skipped:
        what a kernel was built without needs no switching off."""

        def write() -> None:
            for key, value in settings.items():
                path = Path("/proc/sys/net", key)
                if path.exists():
                    path.write_text(str(value))

        self.call(write)

    def call(self, function: Callable[[], T]) -> T:
        """The function's result, run in a thread of its own inside the namespace.

        Sockets and processes that it makes stay inside. Only that thread moves, so the caller's
        process remains where it was.
        """
        future: Future[T] = Future()

        def enter_and_run() -> None:
            try:
                _enter(self.name)
                future.set_result(function())
            except BaseException as error:  # goes on in the caller, which asks for the result
                future.set_exception(error)

        thread = threading.Thread(target=enter_and_run, name=f"natlab {self.name}")
        thread.start()
        thread.join()
        return future.result()

    def flush_conntrack(self) -> None:
        """Forgets every connection at once, as a power cut does (ctnetlink DELETE, no filter)."""
        netlink_netfilter = 12
        ctnetlink_delete = 1 << 8 | 2
        request_and_ack = 0x0001 | 0x0004
        message = struct.pack("=IHHIIBBH", 20, ctnetlink_delete, request_and_ack, 1, 0, 0, 0, 0)

        def flush() -> int:
            with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, netlink_netfilter) as netlink:
                netlink.settimeout(_COMMAND_TIMEOUT_S)
                netlink.send(message)
                (error,) = struct.unpack_from("=i", netlink.recv(4096), 16)
                return int(error)

        error = self.call(flush)
        if error:
            raise NatLabError(f"conntrack flush in {self.name}: {os.strerror(-error)}")


def own_prefix(token: str) -> str:
    """The start of the names of all namespaces of one laboratory of this process."""
    pid = os.getpid()
    return f"{_PREFIX}.{pid}.{_start_time(pid)}.{token}."


def create(namespace: Namespace) -> None:
    """Makes the namespace, with its loopback up."""
    run_tool(["ip", "-batch", "-"], f"netns add {namespace.name}")
    namespace.ip("link set lo up")


def destroy(namespaces: Iterable[Namespace]) -> None:
    """Kills whatever still runs inside, then removes the namespaces; absent ones are no error."""
    doomed = [one for one in namespaces if (_DIRECTORY / one.name).exists()]
    if not doomed:
        return
    # Again, for what was forked meanwhile.
    while pids := _processes_inside(doomed):
        _kill(pids)
    # -force goes on past a name that another laboratory's cleaning took first.
    commands = "\n".join(f"netns del {one.name}" for one in doomed)
    subprocess.run(
        ["ip", "-force", "-batch", "-"],
        input=commands,
        text=True,
        capture_output=True,
        timeout=_COMMAND_TIMEOUT_S,
        check=False,
    )
    left = [one.name for one in doomed if (_DIRECTORY / one.name).exists()]
    if left:
        raise NatLabError(f"namespaces could not be removed: {', '.join(left)}")


def destroy_leftovers() -> None:
    """Removes the namespaces of processes that died without doing it themselves."""
    destroy(Namespace(name) for name in lab_namespaces() if not _owner_lives(name))


def lab_namespaces() -> list[str]:
    """The names of all namespaces on this machine that some laboratory made."""
    if not _DIRECTORY.is_dir():
        return []
    return sorted(path.name for path in _DIRECTORY.iterdir() if path.name.startswith(_PREFIX + "."))


def run_tool(argv: list[str], stdin: str) -> None:
    """Runs a configuration program to its end; raises NatLabError with what it said."""
    done = subprocess.run(
        argv,
        input=stdin + "\n",
        text=True,
        capture_output=True,
        timeout=_COMMAND_TIMEOUT_S,
        check=False,
    )
    if done.returncode != 0:
        raise NatLabError(f"{' '.join(argv)}: {done.stderr.strip()}\n{stdin}")


def _enter(name: str) -> None:
    """Moves the calling thread. (os.setns would do, but came with Python 3.12.)"""
    libc = ctypes.CDLL(None, use_errno=True)
    handle = os.open(_DIRECTORY / name, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if libc.setns(handle, _CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), f"setns to {name}")
    finally:
        os.close(handle)


def _owner_lives(name: str) -> bool:
    _, pid, start_time, *_ = name.split(".")
    return pid.isdigit() and _start_time(int(pid)) == start_time


def _start_time(pid: int) -> str | None:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # Field 22; the command in field 2 may hold spaces and parentheses.
    return stat.rpartition(")")[2].split()[19]


def _processes_inside(namespaces: Iterable[Namespace]) -> list[int]:
    inodes = {inode for one in namespaces if (inode := _inode(_DIRECTORY / one.name)) is not None}
    return [
        int(entry.name)
        for entry in Path("/proc").iterdir()
        if entry.name.isdigit() and _inode(entry / "ns/net") in inodes
    ]


def _inode(path: Path) -> int | None:
    """None for what is gone (an ended process, a zombie, a namespace that another one removed) and
    for a process that may not be looked at, which is none of ours."""
    try:
        return path.stat().st_ino
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return None


def _kill(pids: Iterable[int]) -> None:
    """Kills the processes and waits until they are dead."""
    for pid in pids:
        try:
            handle = os.pidfd_open(pid)
        except ProcessLookupError:
            continue  # it ended by itself
        try:
            signal.pidfd_send_signal(handle, signal.SIGKILL)
            poll = select.poll()
            poll.register(handle, select.POLLIN)
            ended = poll.poll(_KILL_TIMEOUT_S * 1000)
        except ProcessLookupError:
            continue
        finally:
            os.close(handle)
        if not ended:
            raise NatLabError(f"process {pid} does not die")
