"""Time, memory and error of one engine on one piece of work."""

import statistics
import time
from dataclasses import dataclass

from bench.config.run_config import Environment
from bench.speed.engines import build
from bench.speed.work import Work, make_work
from bench.system import garbage
from bench.system.peak_memory import PeakMemory

# Enough steps to tell a wrong gradient from a rounded one; over more, rounding alone can move the
# gradient far (bench/metagrad/README.md, "What the errors are due to").
ERROR_WINDOW = 3


@dataclass(frozen=True)
class Measurement:
    """One engine on one piece of work.

    Attributes:
        first_seconds: the first outer step, with everything cold; compilation is in it.
        seconds: of each later outer step.
        peak_bytes: memory beyond what the process held before the first step.
        error: distance of the meta-gradient from the float64 one, relative to its norm, over a
            window of at most `ERROR_WINDOW` steps without warm-up.
    """

    engine: str
    work: Work
    first_seconds: float
    seconds: list[float]
    peak_bytes: int
    error: float

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)


@dataclass(frozen=True)
class Missing:
    """One engine on one piece of work that gave no measurement.

    Attributes:
        needed_bytes: where memory was the reason, how much would be needed; otherwise None.
        at_least: `needed_bytes` is a lower bound, not a prediction.
        reason: in words.
    """

    engine: str
    work: Work
    needed_bytes: int | None
    at_least: bool
    reason: str


def measure(engine_name: str, work: Work, repeats: int, environment: Environment) -> Measurement:
    """Run in a fresh process: sets the threads of the whole process."""
    with garbage.imports():
        import torch

        from bench.metagrad import make_engine
        from bench.system.machine import default_threads
        from bench.training.setup import choose_device, settle_process
        from methods import Window

    torch.set_num_threads(environment.threads or default_threads())
    settle_process()
    device = choose_device(environment.device)
    engine = build(engine_name, work, environment, device)
    window = Window(work.warm_up, work.inner_steps)
    problem, target = make_work(work, device, torch.float32)
    seconds = []
    with PeakMemory(device) as memory:
        for _ in range(repeats + 1):
            started = time.perf_counter()
            engine.meta_gradient(problem, window, *target)
            if device.type == "cuda":
                torch.cuda.synchronize()
            seconds.append(time.perf_counter() - started)
    short = Window(0, min(work.window, ERROR_WINDOW))
    single = engine.meta_gradient(problem, short, *target).images.double()
    problem, target = make_work(work, device, torch.float64)
    double = make_engine("exact", precision="float64").meta_gradient(problem, short, *target).images
    error = ((single - double).norm() / double.norm()).item()
    return Measurement(engine_name, work, seconds[0], seconds[1:], memory.peak_bytes, error)
