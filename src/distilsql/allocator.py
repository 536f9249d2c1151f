"""The C library's memory allocator, set for training on a CPU.

glibc asks the kernel for every large block anew and hands it back when it is freed. A training step allocates
gigabytes in such blocks, and the kernel clears every page of each before its first use: a sixth of a step's time.
"""

import ctypes
import platform

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # malloc.h
_LARGEST_INT = 2**31 - 1


def keep_freed_memory() -> bool:
    """Let this process keep what it frees for its next allocations; False where the C library is not glibc.

    The process then stays at its peak memory until it ends. For programs that train or predict and exit.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return bool(mallopt(_M_MMAP_MAX, 0) and mallopt(_M_TRIM_THRESHOLD, _LARGEST_INT))
