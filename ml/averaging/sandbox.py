"""Locks the averager in: it needs files, memory and its channel, and gets nothing more.

Invariants, where the kernel grants them (seccomp(2), Linux on x86_64 and aarch64), even if
strangers' bytes take this process over: no socket is made, no program is run, no other process is
traced or signalled, no namespace, mount, module, key or io_uring is touched; and the process
gains no privilege (PR_SET_NO_NEW_PRIVS). What it has open stays open, and files stay files: also
those in /proc that show another process of the same account, unless the kernel keeps them shut
(Yama). Where the kernel refuses, training goes on without, and ``p2pd status`` says so.
"""

import ctypes
import errno
import os
import platform
import struct
import sys

_PR_SET_NO_NEW_PRIVS = 38
_SECCOMP_SET_MODE_FILTER = 1
_SECCOMP_FILTER_FLAG_TSYNC = 1
_RET_ALLOW = 0x7FFF0000
_RET_ERRNO = 0x00050000
_X32_BIT = 0x40000000
"""System calls of x86_64 from here on are those of another ABI."""

_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
"""Instructions of classic BPF: load a word, jump if equal, if at least, if a bit of these is set;
return."""
_NUMBER_OFFSET, _ARCH_OFFSET, _FIRST_ARGUMENT_OFFSET = 0, 4, 16
"""Offsets in struct seccomp_data; of the argument that of its lower half, on little-endian."""
_NEW_NAMESPACES = 0x7E020000
"""The flags CLONE_NEW... of clone(2)."""

_ARCHITECTURES = {"x86_64": (0xC000003E, 317), "aarch64": (0xC00000B7, 277)}
"""The kernel's name for it (AUDIT_ARCH), and the number of seccomp(2)."""

_REFUSED = {
    # By name: the number on x86_64, and on aarch64.
    "socket": (41, 198),
    "socketpair": (53, 199),
    "connect": (42, 203),
    "bind": (49, 200),
    "listen": (50, 201),
    "accept": (43, 202),
    "accept4": (288, 242),
    "execve": (59, 221),
    "execveat": (322, 281),
    "kill": (62, 129),
    "tkill": (200, 130),
    "rt_sigqueueinfo": (129, 138),
    "rt_tgsigqueueinfo": (297, 240),
    "process_madvise": (440, 440),
    "pidfd_send_signal": (424, 424),
    "pidfd_getfd": (438, 438),
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "bpf": (321, 280),
    "userfaultfd": (323, 282),
    "perf_event_open": (298, 241),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    "mount": (165, 40),
    "umount2": (166, 39),
    "unshare": (272, 97),
    "setns": (308, 268),
    "chroot": (161, 51),
    "pivot_root": (155, 41),
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "kexec_load": (246, 104),
    "kexec_file_load": (320, 294),
    "open_by_handle_at": (304, 265),
}


_CLONE, _CLONE3 = (56, 220), (435, 435)
"""Threads are begun by these. The flags of clone3 cannot be looked at: it is said not to exist, and
clone is taken instead."""
_ON_ITSELF_ONLY = {"tgkill": (234, 131), "prlimit64": (302, 261)}
"""The first argument is the process that it is about; 0 is the caller."""


class _Program(ctypes.Structure):
    """struct sock_fprog."""

    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p))


def enter_sandbox() -> str:
    """Give up what this process does not need, all its threads too; what is in force, in words."""
    if sys.platform != "linux":
        return "none: this is not Linux"
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0):
        return f"none: {os.strerror(ctypes.get_errno())}"
    privileges = "no new privileges"
    machine = platform.machine()
    if machine not in _ARCHITECTURES:
        return f"{privileges}; no filter of system calls for {machine}"
    code = filter_of(machine, os.getpid())
    program = _Program(len(code) // 8, code)
    _, seccomp = _ARCHITECTURES[machine]
    if libc.syscall(
        seccomp, _SECCOMP_SET_MODE_FILTER, _SECCOMP_FILTER_FLAG_TSYNC, ctypes.byref(program)
    ):
        return f"{privileges}; no filter of system calls: {os.strerror(ctypes.get_errno())}"
    return f"{privileges}, no network, no programs, no other processes"


_NEXT, _ALLOW, _REFUSE, _UNKNOWN = 0, "allow", "refuse", "unknown"
"""Where an instruction may lead to; numbers are instructions to skip."""

_Step = tuple[int, int, int | str, int | str]
"""An instruction, its value, and where it leads if the comparison holds, and if not."""


def filter_of(machine: str, process: int) -> bytes:
    """The filter as the kernel reads it, instructions of 8 bytes, for this ``process``."""
    architecture, _ = _ARCHITECTURES[machine]
    column = list(_ARCHITECTURES).index(machine)
    tgkill, prlimit64 = (numbers[column] for numbers in _ON_ITSELF_ONLY.values())
    steps: list[_Step] = [
        (_LOAD, _ARCH_OFFSET, _NEXT, _NEXT),
        (_EQUAL, architecture, _NEXT, _REFUSE),
        (_LOAD, _NUMBER_OFFSET, _NEXT, _NEXT),
        (_AT_LEAST, _X32_BIT, _REFUSE, _NEXT),
        *((_EQUAL, numbers[column], _REFUSE, _NEXT) for numbers in _REFUSED.values()),
        (_EQUAL, _CLONE3[column], _UNKNOWN, _NEXT),
        (_EQUAL, _CLONE[column], _NEXT, 2),
        (_LOAD, _FIRST_ARGUMENT_OFFSET, _NEXT, _NEXT),
        (_ANY_BIT, _NEW_NAMESPACES, _REFUSE, _ALLOW),
        (_EQUAL, tgkill, 1, _NEXT),
        (_EQUAL, prlimit64, _NEXT, _ALLOW),
        (_LOAD, _FIRST_ARGUMENT_OFFSET, _NEXT, _NEXT),
        (_EQUAL, 0, _ALLOW, _NEXT),
        (_EQUAL, process, _ALLOW, _REFUSE),
    ]
    verdicts = {
        _ALLOW: _RET_ALLOW,
        _REFUSE: _RET_ERRNO | errno.EPERM,
        _UNKNOWN: _RET_ERRNO | errno.ENOSYS,
    }

    def distance(place: int, to: int | str) -> int:
        return to if isinstance(to, int) else len(steps) + list(verdicts).index(to) - place - 1

    code = [
        struct.pack("<HBBI", kind, distance(place, if_true), distance(place, if_false), value)
        for place, (kind, value, if_true, if_false) in enumerate(steps)
    ]
    code += [struct.pack("<HBBI", _RETURN, 0, 0, verdict) for verdict in verdicts.values()]
    return b"".join(code)
