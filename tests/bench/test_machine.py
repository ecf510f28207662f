"""What is found out about the machine, and asked of its C library."""

import platform
import subprocess
import sys

import pytest

# Takes and gives back 8 MB, as a batch of maps does, and counts the pages that had to be had anew.
FAULTS = """
import resource, sys, torch
from bench.machine import keep_freed_memory
if sys.argv[1] == "keep":
    keep_freed_memory()
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    maps = [torch.ones(1 << 21) for _ in range(4)]
    del maps
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
[faults() for _ in range(20)]  # until all the memory that it takes was had once
print(sum(faults() for _ in range(5)))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="a setting of glibc")
def test_freed_memory_is_kept_for_the_next_maps() -> None:
    counted = {
        how: int(
            subprocess.run(
                [sys.executable, "-c", FAULTS, how], capture_output=True, text=True, check=True
            ).stdout
        )
        for how in ("keep", "return")
    }
    assert counted["keep"] < counted["return"] / 4
