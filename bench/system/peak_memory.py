"""Peak memory of a piece of work, and the detector of errors that mean out of memory."""

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

# Messages of torch and CUDA, the C++ and C libraries, Python, numpy, the kernel and SLURM when
# memory runs out. (A library that finds no static TLS says so too, which is another problem.)
RAN_OUT = re.compile(
    r"out.of.memory|not enough memory|MemoryError|bad_alloc|ENOMEM|DefaultCPUAllocator"
    r"|(can't|cannot|could ?n[o']t|unable to|failed to) allocate"
    r" (memory(?! in static TLS)|[\d.]+ ?\w*B)"
    r"|MemoryAllocation|_ALLOC_FAILED|oom.kill|exceeded memory limit",
    re.IGNORECASE,
)


def ran_out(error: BaseException | str) -> bool:
    """Whether an error, or a process's output, says that memory ran out."""
    if isinstance(error, str):
        return RAN_OUT.search(error) is not None
    if isinstance(error, MemoryError) or ran_out(f"{type(error).__name__}: {error}"):
        return True
    return error.__cause__ is not None and ran_out(error.__cause__)


def is_measurable(device: Any) -> bool:
    """Whether `PeakMemory` is exact: on a GPU, or where Linux records the peak."""
    return device.type == "cuda" or os.access(CLEAR_REFS, os.W_OK)


class PeakMemory:
    """The peak memory inside a `with` block: resident memory of the process, or GPU memory.

    On a CPU the kernel records the peak. Where it cannot (not Linux, or a container that forbids
    it), a thread samples every few milliseconds and may miss a short peak.

    Attributes:
        peak_bytes: above the memory before the block; on a GPU, of tensors.
        footprint_bytes: including the memory before the block. On a CPU without mapped files, which
            processes share, if the system tells them apart; on a GPU with all that the allocator
            reserves.
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
    """A thread that samples the resident memory of this process.

    Attributes:
        peak: the largest sample so far, in bytes.
    """

    def __init__(self) -> None:
        self.peak = 0
        self.look()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look_again, daemon=True)
        self._thread.start()

    def look(self) -> None:
        """Take a sample."""
        self.peak = max(self.peak, _resident())

    def _look_again(self) -> None:
        while not self._ended.wait(SAMPLE_SECONDS):
            self.look()

    def stop(self) -> int:
        """End the thread and return the peak, with a last sample."""
        self._ended.set()
        self._thread.join()
        self.look()
        return self.peak


def _resident() -> int:
    """Bytes of this process's resident memory; without /proc, the largest they ever were."""
    try:
        return psutil.Process().memory_info().rss
    except (psutil.Error, OSError):
        return peak_resident_bytes()


def peak_resident_bytes() -> int:
    """The largest resident memory of this process so far, in bytes."""
    unit = 1 if sys.platform == "darwin" else 1024  # macOS counts bytes, Linux kilobytes
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _status(key: str) -> int:
    """Bytes in the line `key` of /proc/self/status.

    Raises:
        OSError, KeyError: there is no such file or line.
    """
    for line in STATUS.read_text().splitlines():
        name, _, value = line.partition(":")
        if name == key:
            return int(value.split()[0]) * 1024
    raise KeyError(key)
