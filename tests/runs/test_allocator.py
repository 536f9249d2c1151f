"""The allocator setting: freed memory is used again, not asked for from the kernel anew."""

import platform
import subprocess
import sys

import pytest

PROGRAM = """
import random, resource, sys
import torch
from distilsql.runs.allocator import keep_freed_memory
if sys.argv[1] == "keep":
    assert keep_freed_memory()
torch.set_num_threads(1)
draw = random.Random(0)
def allocate():
    held = []
    for _ in range(100):
        held.append(torch.ones(draw.randint(1, 8) * 2**20))  # 4 to 32 MiB, four at a time
        if len(held) == 4:
            held.pop(draw.randrange(4))
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    allocate()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
for _ in range(5):  # until the heap is as large as it gets
    allocate()
print(sorted(faults() for _ in range(5))[2])  # it may grow once more at any time
"""


def page_faults(mode):
    output = subprocess.run([sys.executable, "-c", PROGRAM, mode], capture_output=True, text=True, check=True)
    return int(output.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the setting is glibc's")
def test_pages_are_not_cleared_again_for_every_tensor():
    assert page_faults("keep") < page_faults("as it is") / 3
