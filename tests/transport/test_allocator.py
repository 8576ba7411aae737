"""Memory that frames leave free is there for the next ones."""

import platform
import subprocess
import sys

import pytest

PASS_FRAMES_ON = """
import resource
from transport.allocator import keep_freed_memory

def pass_on():
    frames = [b"frame" * 13_000 for _ in range(40)] + [bytearray(300_000) for _ in range(8)]

keep_freed_memory()
pass_on()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(100):
    pass_on()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
PAGES = 100 * (40 * 65_000 + 8 * 300_000) // 4096


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has the settings")
def test_memory_of_frames_is_not_fetched_from_the_kernel_anew() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PASS_FRAMES_ON], capture_output=True, text=True, timeout=150
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < PAGES / 100
