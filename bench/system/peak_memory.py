"""How much memory a piece of work takes, and how it is seen that there was not enough."""

import os
import re
import resource
import sys
import threading
from pathlib import Path
from typing import Any

import psutil

CLEAR_REFS = Path("/proc/self/clear_refs")
STATUS = Path("/proc/self/status")
SAMPLE_SECONDS = 0.005

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
    """Whether `PeakMemory` is exact here: on a GPU, and where Linux keeps the record of it."""
    return device.type == "cuda" or os.access(CLEAR_REFS, os.W_OK)


class PeakMemory:
    """The most memory taken inside a `with`: resident memory of the process, or on a GPU.

    On a CPU the kernel keeps the record; where it cannot be asked to (not Linux, or a container
    that does not let us), a thread looks every few milliseconds, and may miss a short peak.

    Attributes:
        peak_bytes: beyond what was held before; on a GPU, of tensors.
        footprint_bytes: with all that was held before. On a CPU without mapped files, which belong
            to no process alone, where the system tells them apart; on a GPU with what the allocator
            holds beside the tensors.
    """

    def __init__(self, device: Any) -> None:
        self.on_gpu = device.type == "cuda"
        self._sampler: _Sampler | None = None

    def __enter__(self) -> "PeakMemory":
        if self.on_gpu:
            import torch

            torch.cuda.reset_peak_memory_stats()
            self.before = torch.cuda.memory_allocated()
            return self
        try:
            CLEAR_REFS.write_text("5")  # resets the high-water mark
            self.before, _, _ = map(_status, ("VmRSS", "VmHWM", "RssFile"))
        except (OSError, KeyError):
            self._sampler = _Sampler()
            self.before = self._sampler.peak
        return self

    def __exit__(self, *details: object) -> None:
        if self.on_gpu:
            import torch

            peak = torch.cuda.max_memory_allocated()
            self.footprint_bytes = torch.cuda.max_memory_reserved()
        elif self._sampler is not None:
            peak = self.footprint_bytes = self._sampler.stop()
        else:
            peak = _status("VmHWM")
            self.footprint_bytes = peak - _status("RssFile")
        self.peak_bytes = peak - self.before


class _Sampler:
    """The largest resident memory of this process, looked at again and again by a thread.

    Attributes:
        peak: bytes, so far.
    """

    def __init__(self) -> None:
        self.peak = 0
        self.look()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look_again, daemon=True)
        self._thread.start()

    def look(self) -> None:
        """Now."""
        self.peak = max(self.peak, _resident())

    def _look_again(self) -> None:
        while not self._ended.wait(SAMPLE_SECONDS):
            self.look()

    def stop(self) -> int:
        """The peak, a last look included."""
        self._ended.set()
        self._thread.join()
        self.look()
        return self.peak


def _resident() -> int:
    """Bytes of this process's resident memory; where the system does not tell (no /proc), the most
    that they ever were."""
    try:
        return psutil.Process().memory_info().rss
    except (psutil.Error, OSError):
        return peak_resident_bytes()


def peak_resident_bytes() -> int:
    """The most resident memory that this process ever had."""
    unit = 1 if sys.platform == "darwin" else 1024  # macOS counts bytes, Linux kilobytes
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _status(key: str) -> int:
    """Bytes, by a line of /proc/self/status.

    Raises:
        OSError, KeyError: there is none.
    """
    for line in STATUS.read_text().splitlines():
        name, _, value = line.partition(":")
        if name == key:
            return int(value.split()[0]) * 1024
    raise KeyError(key)
