"""What this machine has, found out without torch."""

import ctypes
import os
import shutil
import subprocess
from pathlib import Path

import psutil

# Where SLURM's commands look: a site's own file, or what a configless cluster has sent.
SLURM_CONFIGURATIONS = tuple(
    Path(folder, "slurm.conf") for folder in ("/etc/slurm", "/etc/slurm-llnl", "/run/slurm/conf")
)
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD = -1, -2, -3  # from glibc's malloc.h


def visible_gpus() -> list[str]:
    """What CUDA_VISIBLE_DEVICES may be set to for one GPU each; empty where there is none."""
    if (named := os.environ.get("CUDA_VISIBLE_DEVICES")) is not None:
        return [part for part in named.split(",") if part.strip()]
    if not shutil.which("nvidia-smi"):
        return []
    listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=False)
    if listed.returncode != 0:
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
    if array := os.environ.get("SLURM_ARRAY_JOB_ID"):
        return f"{array}_{os.environ['SLURM_ARRAY_TASK_ID']}"
    return os.environ.get("SLURM_JOB_ID", "")


def slurm_node() -> str:
    """The node of a SLURM cluster that this process is on, by the cluster's name for it; empty
    outside of a job."""
    return os.environ.get("SLURMD_NODENAME", "")


def cpu_cores() -> int:
    """The cores that this process may use: fewer than the machine has inside a batch job."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


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
    return min([psutil.virtual_memory().available, *_left_in_groups()])


def out_of_memory_kills(
    membership: Path = Path("/proc/self/cgroup"), root: Path = Path("/sys/fs/cgroup")
) -> int:
    """How many processes of this one's control group (a batch job's, a container's) the system has
    killed so far for their memory; 0 where it does not count them."""
    if not membership.exists():
        return 0
    kills = 0
    for line in membership.read_text().splitlines():
        _, controllers, group = line.split(":", 2)
        if controllers == "":
            counts = root / group.lstrip("/") / "memory.events"
        elif "memory" in controllers.split(","):
            counts = root / "memory" / group.lstrip("/") / "memory.oom_control"
        else:
            continue
        try:
            facts = dict(line.split() for line in counts.read_text().splitlines())
        except (OSError, ValueError):
            continue
        kills += int(facts.get("oom_kill", 0))
    return kills


def _left_in_groups(
    membership: Path = Path("/proc/self/cgroup"), root: Path = Path("/sys/fs/cgroup")
) -> list[int]:
    """What each control group that this process is in, directly or not, has left of its memory
    limit; page cache counts as free. Both versions of Linux's control groups; inside a container
    the group's own folder may be missing, and its limit stands at the root."""
    if not membership.exists():
        return []
    left = []
    for line in membership.read_text().splitlines():
        _, controllers, group = line.split(":", 2)
        if controllers == "":
            top, limit, usage, prefix = root, "memory.max", "memory.current", ""
        elif "memory" in controllers.split(","):
            top, prefix = root / "memory", "total_"
            limit, usage = "memory.limit_in_bytes", "memory.usage_in_bytes"
        else:
            continue
        own = top / group.lstrip("/")
        for folder in [own, *own.parents]:
            try:
                most = int((folder / limit).read_text())  # ValueError: "max", no limit
                taken = int((folder / usage).read_text())
                facts = dict(
                    line.split() for line in (folder / "memory.stat").read_text().splitlines()
                )
            except (OSError, ValueError):
                pass
            else:
                cache = sum(
                    int(facts.get(f"{prefix}{kind}_file", 0)) for kind in ("active", "inactive")
                )
                left.append(max(0, most - taken + cache))
            if folder == top:
                break
    return left
