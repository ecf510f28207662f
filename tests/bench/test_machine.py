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


@pytest.mark.parametrize(
    ("membership", "counts", "kills"),
    [
        ("0::/job_7", {"job_7/memory.events": "low 0\noom 3\noom_kill 2\n"}, 2),
        ("4:cpu:/a\n3:memory:/job_7", {"memory/job_7/memory.oom_control": "oom_kill 1\n"}, 1),
        ("3:memory:/job_7", {"memory/job_7/memory.oom_control": "under_oom 0\n"}, 0),
        ("0::/job_7", {}, 0),
    ],
)
def test_processes_killed_for_their_memory_are_counted(
    tmp_path: Path, membership: str, counts: dict[str, str], kills: int
) -> None:
    (tmp_path / "cgroup").write_text(membership + "\n")
    for name, text in counts.items():
        (tmp_path / "fs" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "fs" / name).write_text(text)
    assert machine.out_of_memory_kills(tmp_path / "cgroup", tmp_path / "fs") == kills
    assert machine.out_of_memory_kills(tmp_path / "none", tmp_path / "fs") == 0
