"""Facts about the machine, and settings of its C library."""

import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from bench.system import machine

HUGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")

# Takes and gives back some maps and counts the pages that had to be had anew: where the C library
# gives every map back to the system at once, and then as runs have it.
FAULTS = """
import ctypes, json, resource, statistics, torch
from bench.system.machine import M_MMAP_THRESHOLD, keep_freed_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    maps = [torch.ones(NUMBERS) for _ in range((1 << 25) // NUMBERS + 1)]
    del maps
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

PR_SET_THP_DISABLE = 41  # huge pages, which some systems use by themselves, are few
ctypes.CDLL(None).prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0)
ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, 1 << 20)
given_back = [faults() for _ in range(21)]
keep_freed_memory()
# The median: until the memory was had once, and whenever the system takes back what is not in use,
# pages are had anew all the same.
retained = [faults() for _ in range(41)]
print(json.dumps([statistics.median(given_back), statistics.median(retained)]))
"""


def printed(code: str) -> str:
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="a setting of glibc")
@pytest.mark.parametrize("numbers", [1 << 21, 1 << 24])  # below and above what glibc keeps at most
def test_freed_memory_is_kept_for_the_next_maps(numbers: int) -> None:
    given_back, retained = json.loads(printed(FAULTS.replace("NUMBERS", str(numbers))))
    assert given_back > (32 << 20) / os.sysconf("SC_PAGE_SIZE") / 2
    assert retained < given_back / 10


@pytest.mark.skipif(
    not HUGE_PAGES.is_file() or "[never]" in HUGE_PAGES.read_text(), reason="no huge pages here"
)
def test_large_blocks_are_taken_in_huge_pages() -> None:
    code = """
import torch
from bench.system.machine import keep_freed_memory
keep_freed_memory()
maps = torch.ones(1 << 24)
flags = [line for line in open("/proc/self/smaps") if line.startswith("VmFlags:")]
print(sum("hg" in line.split() for line in flags))
"""
    assert int(printed(code)) >= 1


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


# --- processors and memory: what a container leaves of them


@pytest.mark.parametrize(
    ("quota", "cores"), [(None, 8), (16.0, 8), (4.0, 4), (3.9, 3), (1.5, 1), (0.2, 1)]
)
def test_a_quota_of_processor_time_bounds_the_cores(
    monkeypatch: pytest.MonkeyPatch, quota: float | None, cores: int
) -> None:
    monkeypatch.setattr(machine, "cpu_quota", lambda: quota)
    monkeypatch.setattr(machine.os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)
    assert machine.cpu_cores() == cores
    monkeypatch.delattr(machine.os, "sched_getaffinity")  # macOS
    monkeypatch.setattr(machine.os, "cpu_count", lambda: 8)
    assert machine.cpu_cores() == cores
    monkeypatch.setattr(machine.os, "cpu_count", lambda: None)
    assert machine.cpu_cores() == 1


@pytest.mark.parametrize(
    ("variables", "threads"),
    [
        ({}, 8),
        ({"OMP_NUM_THREADS": "3"}, 3),
        ({"OMP_NUM_THREADS": "99"}, 8),
        ({"OMP_NUM_THREADS": "0"}, 1),
        ({"OMP_NUM_THREADS": "4,2"}, 4),  # of nested regions
        ({"OMP_NUM_THREADS": "1", "TORCHELASTIC_RUN_ID": "none"}, 8),
    ],
)
def test_a_shared_machine_s_wish_for_few_threads_is_followed(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], threads: int
) -> None:
    for name in ("OMP_NUM_THREADS", "TORCHELASTIC_RUN_ID"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(machine, "cpu_cores", lambda: 8)
    assert machine.default_threads() == threads


def test_a_container_s_limit_bounds_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    memory = SimpleNamespace(total=8000, available=5000)
    monkeypatch.setattr(machine.psutil, "virtual_memory", lambda: memory)
    for limit, left, total, free in (
        (None, None, 8000, 5000),
        (1000, 400, 1000, 400),
        (90000, 80000, 8000, 5000),
    ):
        monkeypatch.setattr(machine, "memory_limit", lambda limit=limit: limit)
        monkeypatch.setattr(machine, "memory_left", lambda left=left: left)
        assert (machine.total_memory(), machine.free_memory()) == (total, free)


def test_memory_is_known_without_proc(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> None:
        raise FileNotFoundError("/proc/meminfo")

    monkeypatch.setattr(machine.psutil, "virtual_memory", missing)
    assert 0 < machine.free_memory() < machine.total_memory()


# --- GPUs, and the job that we are part of


@pytest.mark.parametrize(
    ("named", "gpus"),
    [
        ("0,2", ["0", "2"]),
        (" 3 ", ["3"]),
        ("", []),
        ("-1", []),
        ("NoDevFiles", []),
        ("1,-1,0", ["1"]),
        ("GPU-8932f937,MIG-4f", ["GPU-8932f937", "MIG-4f"]),
    ],
)
def test_gpus_are_those_that_cuda_would_show(
    monkeypatch: pytest.MonkeyPatch, named: str, gpus: list[str]
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", named)
    assert machine.visible_gpus() == gpus


@pytest.mark.parametrize(
    ("script", "gpus"),
    [
        ("echo 'GPU 0: some'; echo ' MIG 1g'; echo 'GPU 1: some'", ["0", "1"]),
        ("echo 'NVIDIA-SMI has failed'; exit 9", []),
        ("exec sleep 600", []),  # as where the driver hangs
    ],
)
def test_gpus_are_counted_where_a_driver_answers(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, script: str, gpus: list[str]
) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    if not gpus:
        monkeypatch.setattr(machine, "NVIDIA_SECONDS", 0.2)
    assert machine.visible_gpus() == gpus


@pytest.mark.parametrize(
    ("variables", "job"),
    [
        ({}, ""),
        ({"JOB_ID": "12"}, "12"),
        ({"JOB_ID": "14", "ARRAY_JOB_ID": "12", "ARRAY_TASK_ID": "3"}, "12_3"),
        ({"JOB_ID": "14", "ARRAY_JOB_ID": "12"}, "14"),
    ],
)
def test_the_job_is_named_as_squeue_names_it(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], job: str
) -> None:
    for name in ("JOB_ID", "ARRAY_JOB_ID", "ARRAY_TASK_ID"):
        monkeypatch.delenv(f"SLURM_{name}", raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    assert machine.slurm_job() == job
