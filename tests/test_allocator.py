"""The allocator setting: freed memory stays with the process, and is what it allocates from next."""

import platform
import subprocess
import sys

import pytest

# torch is loaded once, and each half begins with the heap that this leaves.
PROGRAM = """
import os
import psutil
import torch
from distilsql.allocator import keep_freed_memory
if child := os.fork():
    assert os.waitpid(child, 0)[1] == 0
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


def growths_mib():
    """How much a process grows for a tensor of 48 MiB, and how much of that is left when it is freed: as it is, and
    where memory is kept."""
    output = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    return [tuple(map(float, line.split())) for line in output.stdout.splitlines()]


@pytest.mark.slow
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the setting is glibc's")
def test_pages_are_kept_and_used_again():
    as_it_is, kept = growths_mib()
    held, freed = as_it_is
    assert held > 40, "all of it is asked for"
    assert freed < 8, "and given back"
    held, freed = kept
    assert held < 8, "all of it was there"
    assert freed > -8, "and stays"
