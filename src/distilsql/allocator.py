"""The C library's memory allocator, set for training on a CPU.

glibc requests every large block from the kernel and returns it when it is freed. A training step allocates gigabytes in
such blocks, and the kernel clears every page before its first use, which takes a sixth of the step's time.
"""

import ctypes
import platform

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # malloc.h
_LARGEST_INT = 2**31 - 1


def keep_freed_memory() -> bool:
    """Make this process reuse memory that it frees; returns False if the C library is not glibc.

    The process then stays at its peak memory until it ends. Meant for programs that train or predict and then exit.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return bool(mallopt(_M_MMAP_MAX, 0) and mallopt(_M_TRIM_THRESHOLD, _LARGEST_INT))
