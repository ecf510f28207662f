"""What this machine has, found out without torch."""

import os
import shutil
import subprocess


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


def cpu_cores() -> int:
    """The cores that this process may use: fewer than the machine has inside a batch job."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
