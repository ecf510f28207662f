"""Versions and hardware for the records of a run."""

import importlib.metadata
import platform
from pathlib import Path
from typing import Any

import torch

from bench.system.machine import cpu_cores, total_memory
from bench.system.peak_memory import peak_resident_bytes

PACKAGES = ("torch", "torchvision", "higher", "numpy", "safetensors", "scikit-learn")


def versions() -> dict[str, str]:
    """Python and the packages whose version can change a number."""
    installed = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            installed[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue  # an optional package that is not installed
    return installed


def hardware(device: torch.device) -> dict[str, Any]:
    """The run's device and machine. Cores and memory are those that the run may use."""
    described: dict[str, Any] = {
        "cpu": _cpu_name(),
        "cpu_cores": cpu_cores(),
        "memory_bytes": total_memory(),
        # What torch's own loops use; the last digits of a sum depend on it.
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "device": str(device),
        "platform": platform.platform(),
    }
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        described["gpu"] = properties.name
        described["gpu_memory_bytes"] = properties.total_memory
        described["cuda"] = torch.version.cuda
    return described


def _cpu_name() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def peak_memory_bytes(device: torch.device) -> dict[str, int]:
    """Peak resident memory of this process and, on a GPU, of its tensors there."""
    peak = {"process": peak_resident_bytes()}
    if device.type == "cuda":
        peak["device"] = torch.cuda.max_memory_allocated(device)
    return peak
