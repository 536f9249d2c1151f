"""The allocator setting: freed memory stays with the process, and is what it allocates from next."""

import platform
import subprocess
import sys

import pytest

PROGRAM = """
import sys
import psutil
import torch
from distilsql.allocator import keep_freed_memory
if sys.argv[1] == "keep":
    assert keep_freed_memory()
def resident_mib():
    return psutil.Process().memory_info().rss / 2**20
def allocate():
    before = resident_mib()
    for mib in (64, 48, 48):  # all more than glibc ever keeps by itself
        held = torch.ones(mib * 2**18)
        grown = resident_mib() - before
        del held
    return grown, resident_mib() - before
for _ in range(10):  # until the heap is as large as it gets
    allocate()
print(*allocate())
"""


def growth_mib(mode):
    """How much the process grows for a tensor of 48 MiB, and how much of that is left when it is freed."""
    output = subprocess.run([sys.executable, "-c", PROGRAM, mode], capture_output=True, text=True, check=True)
    return tuple(map(float, output.stdout.split()))


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the setting is glibc's")
def test_pages_are_kept_and_used_again():
    held, freed = growth_mib("as it is")
    assert held > 40, "all of it is asked for"
    assert freed < 8, "and given back"
    held, freed = growth_mib("keep")
    assert held < 8, "all of it was there"
    assert freed > -8, "and stays"
