"""How much memory a piece of work takes."""

from pathlib import Path
from typing import Any

from bench.errors import UserError


class PeakMemory:
    """The most memory taken inside a `with`, beyond what was held before: resident memory of the
    process, or of tensors on a GPU."""

    def __init__(self, device: Any) -> None:
        self.on_gpu = device.type == "cuda"

    def __enter__(self) -> "PeakMemory":
        if self.on_gpu:
            import torch

            torch.cuda.reset_peak_memory_stats()
            self.before = torch.cuda.memory_allocated()
        else:
            try:
                Path("/proc/self/clear_refs").write_text("5")  # resets the high-water mark
            except OSError as error:
                raise UserError("peak memory can be measured on Linux only") from error
            self.before = self._status("VmRSS")
        return self

    def __exit__(self, *details: object) -> None:
        if self.on_gpu:
            import torch

            peak = torch.cuda.max_memory_allocated()
        else:
            peak = self._status("VmHWM")
        self.peak_bytes = peak - self.before

    @staticmethod
    def _status(key: str) -> int:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith(key + ":"):
                return int(line.split()[1]) * 1024
        raise UserError(f"/proc/self/status has no {key}")
