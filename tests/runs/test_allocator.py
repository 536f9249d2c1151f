"""The allocator setting: freed memory stays with the process, and is what it allocates from next."""

import platform
import subprocess
import sys

import pytest

PROGRAM = """
import sys
import psutil
import torch
from distilsql.runs.allocator import keep_freed_memory
if sys.argv[1] == "keep":
    assert keep_freed_memory()
def resident_mib():
    return psutil.Process().memory_info().rss / 2**20
before = resident_mib()
for mib in (64, *[48] * 7):  # all more than glibc ever keeps by itself
    held = torch.ones(mib * 2**18)
    filled = resident_mib()
    del held
    print(filled - before, resident_mib() - before)
"""


def resident_mib(mode):
    """For a tensor of 64 MiB and seven of 48: MiB more than at first while it is held, and after it was freed."""
    output = subprocess.run([sys.executable, "-c", PROGRAM, mode], capture_output=True, text=True, check=True)
    return [tuple(map(float, line.split())) for line in output.stdout.splitlines()]


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the setting is glibc's")
def test_pages_are_kept_and_used_again():
    for held, freed in resident_mib("as it is"):
        assert held > 40
        assert freed < 24, "glibc alone gives them back"
    kept = resident_mib("keep")
    assert len(kept) == 8
    for held, freed in kept:
        assert 56 < held < 88, "the later tensors lie where the first one was"
        assert freed > 56
