"""What this machine has, found out without torch."""

import ctypes
import os
import shutil
import subprocess
from itertools import takewhile
from pathlib import Path

import psutil

from bench.system.cgroups import cpu_quota, memory_left, memory_limit
from bench.system.cgroups import out_of_memory_kills as out_of_memory_kills  # for others, from here

# Where SLURM's commands look: a site's own file, or what a configless cluster has sent.
SLURM_CONFIGURATIONS = tuple(
    Path(folder, "slurm.conf") for folder in ("/etc/slurm", "/etc/slurm-llnl", "/run/slurm/conf")
)
GPU_NAMES = ("GPU-", "MIG-")  # how names of GPUs and of parts of them begin, beside numbers
NVIDIA_SECONDS = 60.0  # nvidia-smi answers in a few, unless its driver hangs
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD = -1, -2, -3  # from glibc's malloc.h


def visible_gpus() -> list[str]:
    """What CUDA_VISIBLE_DEVICES may be set to for one GPU each; empty where there is none."""
    if (named := os.environ.get("CUDA_VISIBLE_DEVICES")) is not None:
        parts = [part.strip() for part in named.split(",")]
        # CUDA itself reads up to the first name that is none (`-1` hides all that follow).
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
    """Whether jobs can be sent to a SLURM cluster from here: its commands are installed, and some
    configuration tells them which cluster. (The commands alone come with a package.)"""
    configured = "SLURM_CONF" in os.environ or any(path.exists() for path in SLURM_CONFIGURATIONS)
    return shutil.which("sbatch") is not None and configured


def slurm_job() -> str:
    """The SLURM job that this process is part of, as squeue writes it (`12`, `12_3` in an array);
    empty outside of one."""
    array, task = (os.environ.get(f"SLURM_ARRAY_{name}_ID") for name in ("JOB", "TASK"))
    if array and task:
        return f"{array}_{task}"
    return os.environ.get("SLURM_JOB_ID", "")


def slurm_node() -> str:
    """The node of a SLURM cluster that this process is on, by the cluster's name for it; empty
    outside of a job."""
    return os.environ.get("SLURMD_NODENAME", "")


def cpu_cores() -> int:
    """The cores that this process may use: fewer than the machine has inside a batch job or a
    container. Of a quota in parts of a core (`docker run --cpus=1.5`) the part is left alone:
    threads that wait for each other take longer when one of them has to pause."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS
        cores = len(os.sched_getaffinity(0))
    else:
        cores = os.cpu_count() or 1
    quota = cpu_quota()
    return cores if quota is None else max(1, min(cores, int(quota)))


def default_threads() -> int:
    """The threads to compute with where nobody says how many: a core each, or fewer where
    OMP_NUM_THREADS asks for fewer, as on a machine that is shared. (torchrun sets it to 1 without
    being asked; there it says nothing.)"""
    asked = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    if not asked.isdigit() or "TORCHELASTIC_RUN_ID" in os.environ:
        return cpu_cores()
    return max(1, min(cpu_cores(), int(asked)))


def keep_freed_memory() -> None:
    """Tell the C library not to give memory back that this process has freed: it will soon want it
    again. Where every page has to be had anew, and zeroed, steps of some 10 MB of maps take a third
    longer. Only glibc has these settings; elsewhere nothing is done."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # musl, macOS, Windows
        return
    mallopt(M_MMAP_THRESHOLD, 32 << 20)  # glibc's largest; above it memory is mapped each time
    mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
    mallopt(M_TOP_PAD, 256 << 20)


def free_memory() -> int:
    """Bytes that new processes can take: what the machine can give, or what a batch job or
    container has left of its limit."""
    left = memory_left()
    return _available() if left is None else min(_available(), left)


def total_memory() -> int:
    """Bytes of memory that there are: of the machine, or of a batch job's or container's limit."""
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
