"""How much memory a piece of work takes."""

import os
from pathlib import Path
from typing import Any

from bench.errors import UserError

CLEAR_REFS = Path("/proc/self/clear_refs")


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
