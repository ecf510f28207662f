"""Rates of this machine: operations per second in matrix products, bytes per second in a copy.

Each is measured on sizes that double from a small one, until one takes long enough to be timed. So
it takes about a second on any machine. Of the products the best rate counts; of the copies that of
the largest, since a small one does not leave the processor's cache.

A processor without units for a precision emulates it and is ten to a hundred times slower than in
float32, which shows in its rate.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from bench.config.run_config import Environment
from bench.system import garbage
from bench.system.machine import free_memory

MATRIX_SIZES = {"cpu": (128, 2048), "cuda": (1024, 8192)}
COPY_BYTES = {"cpu": (16 << 20, 256 << 20), "cuda": (128 << 20, 2 << 30)}
LONG_ENOUGH_SECONDS = 0.05  # doubled sizes take up to eight times as long
ENOUGH_SECONDS = 0.2  # of repetitions of one size, after the first, which warms up
SHARE_OF_MEMORY = 8  # a copy takes twice its size

# A processor with units for a precision is faster in it than in float32. Not twice as slow, even if
# something else kept it busy during one of the two measurements.
EMULATED_BELOW = 0.5


@dataclass(frozen=True)
class Rates:
    """Measured rates of the machine.

    Attributes:
        operations: floating point operations a second of a matrix product.
        bytes: bytes a second, read and written, of a copy.
    """

    operations: float
    bytes: float

    def best(self, other: "Rates") -> "Rates":
        """The higher of each."""
        return Rates(max(self.operations, other.operations), max(self.bytes, other.bytes))


def is_emulated(rates: Rates, single: Rates) -> bool:
    """Whether the device only emulates a precision with these rates; `single`: float32's rates."""
    return rates.operations < EMULATED_BELOW * single.operations


def measure_rates(precision: str, environment: Environment) -> Rates:
    """Run in a fresh process: sets the threads of the whole process."""
    with garbage.imports():
        import torch

        from bench.metagrad.precision import hardware_precision
        from bench.system.machine import default_threads
        from bench.training.setup import choose_device

    torch.set_num_threads(environment.threads or default_threads())
    device = choose_device(environment.device)
    kind = "cuda" if device.type == "cuda" else "cpu"
    with hardware_precision(precision):
        operations = max(product_rates(precision, device, *MATRIX_SIZES[kind]))
    smallest, largest = COPY_BYTES[kind]
    free = torch.cuda.mem_get_info(device)[0] if kind == "cuda" else free_memory()
    return Rates(
        operations, copy_rates(device, smallest, min(largest, free // SHARE_OF_MEMORY))[-1]
    )


def product_rates(precision: str, device: Any, size: int, largest: int) -> list[float]:
    """Operations a second of products of square matrices, from `size` on."""
    import torch

    dtype = torch.bfloat16 if precision == "bf16" else torch.float32

    def product(size: int) -> Callable[[], object]:
        a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
        out = torch.empty_like(a)
        return lambda: torch.mm(a, b, out=out)

    return [2 * size**3 / seconds for size, seconds in doubled(product, size, largest, device)]


def copy_rates(device: Any, size: int, largest: int) -> list[float]:
    """Bytes a second, read and written, of copies of `size` bytes and more."""
    import torch

    def copy(size: int) -> Callable[[], object]:
        source = torch.ones(size // 4, device=device)
        target = torch.empty_like(source)
        return lambda: target.copy_(source)

    return [2 * size / seconds for size, seconds in doubled(copy, size, largest, device)]


def doubled(
    make: Callable[[int], Callable[[], object]], size: int, largest: int, device: Any
) -> list[tuple[int, float]]:
    """(size, seconds of `make(size)()`) for `size` and its doubles, until one takes long enough or
    is the largest."""
    measured = [(size, best_seconds(make(size), device))]
    while measured[-1][1] < LONG_ENOUGH_SECONDS and (size := 2 * size) <= largest:
        measured.append((size, best_seconds(make(size), device)))
    return measured


def best_seconds(work: Callable[[], object], device: Any) -> float:
    """The shortest of at least two repetitions, after one to warm up."""
    import torch

    durations: list[float] = []
    while len(durations) < 3 or sum(durations[1:]) < ENOUGH_SECONDS:
        started = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize()
        durations.append(time.perf_counter() - started)
    return min(durations[1:])
