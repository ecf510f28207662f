"""What is found out about the machine, and asked of its C library."""

import json
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from bench import machine

# Takes and gives back some maps and counts the pages that had to be had anew: where the C library
# gives every map back to the system at once, and then as runs have it.
FAULTS = """
import ctypes, json, resource, statistics, torch
from bench.machine import M_MMAP_THRESHOLD, keep_freed_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    maps = [torch.ones(1 << 21) for _ in range(4)]
    del maps
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, 1 << 20)
given_back = [faults() for _ in range(21)]
keep_freed_memory()
# The median: until the memory was had once, and whenever the system takes back what is not in use,
# pages are had anew all the same.
kept = [faults() for _ in range(41)]
print(json.dumps([statistics.median(given_back), statistics.median(kept)]))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="a setting of glibc")
def test_freed_memory_is_kept_for_the_next_maps() -> None:
    done = subprocess.run(
        [sys.executable, "-c", FAULTS], capture_output=True, text=True, check=True
    )
    given_back, kept = json.loads(done.stdout)
    assert given_back > 4000  # 32 MB in pages of 4 KiB; fewer would be needed of huge ones
    assert kept < given_back / 10


@pytest.mark.parametrize("named", [True, False])
@pytest.mark.parametrize("installed", [True, False])
def test_a_cluster_is_one_that_slurm_knows_of(
    installed: bool, named: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(machine.shutil, "which", lambda name: f"/bin/{name}" if installed else None)
    monkeypatch.delenv("SLURM_CONF", raising=False)
    site = tmp_path / "slurm.conf"
    monkeypatch.setattr(machine, "SLURM_CONFIGURATIONS", (site,))
    assert not machine.slurm_is_set_up()
    if named:
        monkeypatch.setenv("SLURM_CONF", str(site))
    else:
        site.touch()
    assert machine.slurm_is_set_up() == installed
