"""What a process has freed stays with it: asking for it again costs no new pages."""

import platform
import subprocess
import sys

import pytest

SCRIPT = """
import ctypes, resource, sys
from decaylab.launch.malloc import keep_freed_memory

if sys.argv[1] == "keep":
    keep_freed_memory()
lib = ctypes.CDLL(None)
lib.malloc.restype, lib.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
size, faults = 2**24, []
for _ in range(5):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    blocks = [lib.malloc(size) for _ in range(8)]
    for block in blocks:
        ctypes.memset(ctypes.c_void_p(block), 1, size)
    for block in blocks:
        lib.free(block)
    faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
print(faults[-1])
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries are left as they are")
def test_freed_blocks_are_used_again():
    faults = {
        name: int(subprocess.check_output([sys.executable, "-c", SCRIPT, how], env=env))
        for name, how, env in (
            ("keep", "keep", {}),
            ("leave", "leave", {}),
            ("the user's", "keep", {"MALLOC_TRIM_THRESHOLD_": "65536"}),
        )
    }
    pages = 8 * 2**24 // 4096
    assert faults["keep"] < 0.01 * pages < 0.5 * pages < min(faults["leave"], faults["the user's"]), faults
