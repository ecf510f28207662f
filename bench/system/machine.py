"""GPUs, cores, memory and SLURM of this machine, without torch."""

import ctypes
import os
import shutil
import subprocess
from itertools import takewhile
from pathlib import Path

import psutil

from bench.system.cgroups import cpu_quota, memory_left, memory_limit
from bench.system.cgroups import out_of_memory_kills as out_of_memory_kills  # re-exported

# Where SLURM's commands look for their configuration: the site's file, or what a configless
# cluster has sent.
SLURM_CONFIGURATIONS = tuple(
    Path(folder, "slurm.conf") for folder in ("/etc/slurm", "/etc/slurm-llnl", "/run/slurm/conf")
)
GPU_NAMES = ("GPU-", "MIG-")  # prefixes of the names of GPUs and their parts, besides numbers
NVIDIA_SECONDS = 60.0  # nvidia-smi answers in a few, unless its driver hangs
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD, M_MMAP_MAX = -1, -2, -3, -4  # glibc's malloc.h


def visible_gpus() -> list[str]:
    """A value of CUDA_VISIBLE_DEVICES for each visible GPU."""
    if (named := os.environ.get("CUDA_VISIBLE_DEVICES")) is not None:
        parts = [part.strip() for part in named.split(",")]
        # CUDA stops reading at the first invalid name (`-1` hides all that follow).
        return list(takewhile(lambda part: part[:1].isdigit() or part[:4] in GPU_NAMES, parts))
    if not shutil.which("nvidia-smi"):
        return []
    try:
        listed = subprocess.run(
            ["nvidia-smi", "-L"], capture_output=True, text=True, check=True, timeout=NVIDIA_SECONDS
        )
    except (OSError, subprocess.SubprocessError):  # no driver, or one that hangs
        return []
    lines = [line for line in listed.stdout.splitlines() if line.startswith("GPU ")]
    return [str(index) for index in range(len(lines))]


def slurm_is_set_up() -> bool:
    """Whether jobs can be submitted to a SLURM cluster from here: its commands are installed and
    configured. (A package may install the commands without a cluster.)"""
    configured = "SLURM_CONF" in os.environ or any(path.exists() for path in SLURM_CONFIGURATIONS)
    return shutil.which("sbatch") is not None and configured


def slurm_job() -> str:
    """The SLURM job of this process as squeue writes it (`12`, `12_3` in an array); empty outside
    of a job."""
    array, task = (os.environ.get(f"SLURM_ARRAY_{name}_ID") for name in ("JOB", "TASK"))
    if array and task:
        return f"{array}_{task}"
    return os.environ.get("SLURM_JOB_ID", "")


def slurm_node() -> str:
    """The cluster's name of the node that this process runs on; empty outside of a job."""
    return os.environ.get("SLURMD_NODENAME", "")


def cpu_cores() -> int:
    """The cores that this process may use, which may be fewer than the machine has in a batch job
    or container. A fractional quota (`docker run --cpus=1.5`) is rounded down: threads that wait
    for each other are slower when one of them is throttled."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS
        cores = len(os.sched_getaffinity(0))
    else:
        cores = os.cpu_count() or 1
    quota = cpu_quota()
    return cores if quota is None else max(1, min(cores, int(quota)))


def default_threads() -> int:
    """The default number of threads: one per core, or OMP_NUM_THREADS if that is fewer, as on a
    shared machine. (torchrun sets OMP_NUM_THREADS to 1 by itself; then it is ignored.)"""
    omp_threads = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    if not omp_threads.isdigit() or "TORCHELASTIC_RUN_ID" in os.environ:
        return cpu_cores()
    return max(1, min(cpu_cores(), int(omp_threads)))


def keep_freed_memory() -> None:
    """Make this process keep the memory that it frees, because it soon needs it again, and take
    large blocks in huge pages. If the system has to provide and zero every page again, outer steps
    with maps of some 10 MB take a third longer, and those with maps of 100 MB half as long again.
    Only glibc has the first setting. Neither changes a result, but both seconds and memory."""
    # torch reads it when it first takes memory.
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # musl, macOS, Windows
        return
    mallopt(M_MMAP_MAX, 0)  # a mapped block is given back as soon as it is freed
    mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
    mallopt(M_TOP_PAD, 256 << 20)


def free_memory() -> int:
    """Free bytes for new processes: of the machine, or below the limit of a batch job or container
    if that is less."""
    left = memory_left()
    return _available() if left is None else min(_available(), left)


def total_memory() -> int:
    """Bytes of memory: of the machine, or the limit of a batch job or container if that is less."""
    limit = memory_limit()
    return _installed() if limit is None else min(_installed(), limit)


def _available() -> int:
    try:
        return psutil.virtual_memory().available
    except OSError:  # no /proc
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES")


def _installed() -> int:
    try:
        return psutil.virtual_memory().total
    except OSError:  # no /proc
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
