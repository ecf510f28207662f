"""How much memory a piece of work takes, and how it is seen that there was not enough."""

import os
import re
from pathlib import Path
from typing import Any

from bench.errors import UserError

CLEAR_REFS = Path("/proc/self/clear_refs")

# What is said where memory runs out: by torch and CUDA, the C++ and C libraries, Python, numpy,
# the kernel and SLURM. (A library that wants too much static storage says so too, and means another
# thing.)
RAN_OUT = re.compile(
    r"out.of.memory|not enough memory|MemoryError|bad_alloc|ENOMEM|DefaultCPUAllocator"
    r"|(can't|cannot|could ?n[o']t|unable to|failed to) allocate"
    r" (memory(?! in static TLS)|[\d.]+ ?\w*B)"
    r"|MemoryAllocation|_ALLOC_FAILED|oom.kill|exceeded memory limit",
    re.IGNORECASE,
)


def ran_out(told: BaseException | str) -> bool:
    """Whether an error, or what a process has printed, says that memory ran out."""
    if isinstance(told, str):
        return RAN_OUT.search(told) is not None
    if isinstance(told, MemoryError) or ran_out(f"{type(told).__name__}: {told}"):
        return True
    return told.__cause__ is not None and ran_out(told.__cause__)


def is_measurable(device: Any) -> bool:
    """Whether `PeakMemory` works here: on a GPU, and on Linux."""
    return device.type == "cuda" or os.access(CLEAR_REFS, os.W_OK)


class PeakMemory:
    """The most memory taken inside a `with`: resident memory of the process, or on a GPU.

    Attributes:
        peak_bytes: beyond what was held before; on a GPU, of tensors.
        footprint_bytes: with all that was held before. On a CPU without mapped files, which belong
            to no process alone; on a GPU with what the allocator holds beside the tensors.
    """

    def __init__(self, device: Any) -> None:
        self.on_gpu = device.type == "cuda"

    def __enter__(self) -> "PeakMemory":
        if self.on_gpu:
            import torch

            torch.cuda.reset_peak_memory_stats()
            self.before = torch.cuda.memory_allocated()
        else:
            try:
                CLEAR_REFS.write_text("5")  # resets the high-water mark
            except OSError as error:
                raise UserError("peak memory can be measured on Linux only") from error
            self.before = self._status("VmRSS")
        return self

    def __exit__(self, *details: object) -> None:
        if self.on_gpu:
            import torch

            peak = torch.cuda.max_memory_allocated()
            self.footprint_bytes = torch.cuda.max_memory_reserved()
        else:
            peak = self._status("VmHWM")
            self.footprint_bytes = peak - self._status("RssFile")
        self.peak_bytes = peak - self.before

    @staticmethod
    def _status(key: str) -> int:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith(key + ":"):
                return int(line.split()[1]) * 1024
        raise UserError(f"/proc/self/status has no {key}")
