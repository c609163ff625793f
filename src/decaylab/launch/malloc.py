"""A process that trains keeps the memory that it frees: the next step asks for the same again."""

from __future__ import annotations

import ctypes
import os
import sys
from contextlib import suppress

_SET_BY_USER = ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "GLIBC_TUNABLES")
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h


def keep_freed_memory() -> None:
    """Let the C library reuse what a step has freed, instead of giving it back and asking for fresh pages.

    Blocks of up to 32 MiB, the most that glibc takes, come from the heap, and the heap's end is kept up to 1 GiB. The
    system zeroes each fresh page, which took 8 % of a small GPT's time on a CPU (``benchmarks/loop_language.py``).
    Other C libraries, and what the user has set in the environment, are left as they are. For processes of our own: it
    is the whole process's setting.
    """
    if not sys.platform.startswith("linux") or any(name in os.environ for name in _SET_BY_USER):
        return
    with suppress(OSError, AttributeError):  # no mallopt: musl
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_MMAP_THRESHOLD, 2**25)
        mallopt(_TRIM_THRESHOLD, 2**30)
