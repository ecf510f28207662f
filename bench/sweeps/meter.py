"""Seconds and memory of small pieces of work."""

import statistics
import time
from collections.abc import Callable

import torch

from bench.system.peak_memory import PeakMemory, is_measurable

REPEATS, REPEAT_SECONDS = 3, 0.2  # after one to warm up, so often but not for longer
SLOW_SECONDS = 5.0  # what takes so long is not done twice


class Meter:
    """Seconds and memory of pieces of work on one device.

    Args:
        repeat_seconds: for how long a short piece of work is repeated.

    Attributes:
        sees_memory: False where memory cannot be measured: it is 0 then.
    """

    def __init__(self, device: torch.device, repeat_seconds: float = REPEAT_SECONDS) -> None:
        self.device, self.repeat_seconds = device, repeat_seconds
        self.sees_memory = is_measurable(device)

    def measure(self, work: Callable[[], object]) -> tuple[float, int]:
        """Median seconds and largest footprint of some repetitions. The first, which warms up,
        counts where it took so long that none follows."""
        if not self.sees_memory:
            return self._seconds(work), 0
        with PeakMemory(self.device) as peak:
            seconds = self._seconds(work)
        return seconds, peak.footprint_bytes

    def _seconds(self, work: Callable[[], object]) -> float:
        seconds: list[float] = []
        while len(seconds) < 2 or (len(seconds) <= REPEATS and sum(seconds) < self.repeat_seconds):
            started = time.perf_counter()
            work()
            if self.device.type == "cuda":
                torch.cuda.synchronize()
            seconds.append(time.perf_counter() - started)
            if sum(seconds) > SLOW_SECONDS:
                break
        return statistics.median(seconds[1:] or seconds)
