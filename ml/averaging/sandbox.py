"""Locks the averager in: it needs files, memory and its channel, and gets nothing more.

Invariants, where the kernel grants them (seccomp(2), Linux on x86_64 and aarch64), even if
strangers' bytes take this process over: no socket is made, no program is run, no other process is
looked into or signalled, no namespace, mount, module, key or io_uring is touched; and the process
gains no privilege (PR_SET_NO_NEW_PRIVS). What it has open stays open. Where the kernel refuses,
training goes on without, and ``p2pd status`` says so.
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

_LOAD, _EQUAL, _AT_LEAST, _RETURN = 0x20, 0x15, 0x35, 0x06
"""Instructions of classic BPF: load a word, jump if equal, jump if at least, return."""
_NUMBER_OFFSET, _ARCH_OFFSET = 0, 4
"""Offsets in struct seccomp_data."""

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
    code = filter_of(machine)
    program = _Program(len(code) // 8, code)
    _, seccomp = _ARCHITECTURES[machine]
    if libc.syscall(
        seccomp, _SECCOMP_SET_MODE_FILTER, _SECCOMP_FILTER_FLAG_TSYNC, ctypes.byref(program)
    ):
        return f"{privileges}; no filter of system calls: {os.strerror(ctypes.get_errno())}"
    return f"{privileges}, no network, no programs, no other processes"


def filter_of(machine: str) -> bytes:
    """The filter as the kernel reads it: instructions of 8 bytes."""
    architecture, _ = _ARCHITECTURES[machine]
    column = list(_ARCHITECTURES).index(machine)
    refused = [numbers[column] for numbers in _REFUSED.values()]
    refuse = _instruction(_RETURN, _RET_ERRNO | errno.EPERM)
    code = [
        _instruction(_LOAD, _ARCH_OFFSET),
        _instruction(_EQUAL, architecture, if_true=1),
        refuse,
        _instruction(_LOAD, _NUMBER_OFFSET),
        _instruction(_AT_LEAST, _X32_BIT, if_true=len(refused) + 1),
    ]
    for place, number in enumerate(refused):
        code.append(_instruction(_EQUAL, number, if_true=len(refused) - place))
    code += [_instruction(_RETURN, _RET_ALLOW), refuse]
    return b"".join(code)


def _instruction(code: int, value: int, *, if_true: int = 0) -> bytes:
    """``if_true``: how many instructions to skip where the comparison holds."""
    return struct.pack("<HBBI", code, if_true, 0, value)
