"""`python -m bench.speed`: the same meta-gradients by every engine, side by side on this machine.

Each measurement runs in a process of its own, so that memory is that engine's alone; the engines
take turns, so that a machine that slows down slows all of them.
"""

import json
import statistics
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from bench.config import Place
from bench.files import make_folder
from bench.memory import PeakMemory
from bench.settings import command, only, parse, setting, typed

USAGE = """
python -m bench.speed [quick=true] [key=value ...]    time and memory of each engine
"""

ENGINES = ("higher", "exact, recomputing", "exact, auto")
QUICK = {"width": 32, "images": 50, "window": 10, "repeats": 3}


@dataclass(frozen=True)
class Work:
    """One outer step of a ConvNet on 32x32 images, inner optimiser Adam, random data."""

    width: int = setting(64, "channels of each block", minimum=1)
    depth: int = setting(3, "blocks", minimum=1)
    images: int = setting(100, "distilled images, all in each inner batch", minimum=1)
    window: int = setting(40, "inner steps that the gradient flows through", minimum=1)
    warm_up: int = setting(0, "inner steps before the window", minimum=0)
    target_batch: int = setting(100, "target images", minimum=1)


@dataclass(frozen=True)
class SpeedOptions:
    """What this command is asked to do."""

    quick: bool = setting(False, "a smaller network, fewer steps: under two minutes on two cores")
    growth: bool = setting(
        True, "also vary window, warm-up, width and target batch (not with quick=true)"
    )
    repeats: int = setting(5, "outer steps timed, after one to warm up", minimum=2)


@dataclass(frozen=True)
class Measurement:
    """One engine on one piece of work.

    Attributes:
        engine: one of `ENGINES`.
        first_seconds: the first outer step, with everything cold.
        seconds: of each later outer step.
        peak_bytes: memory beyond what the process held before the first step.
        error: distance of the float32 meta-gradient from the float64 one, relative to its norm.
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


def measure(engine_name: str, work: Work, repeats: int, place: Place) -> Measurement:
    """Run in a fresh process."""
    import torch

    from bench.ingredients import activation_budget, choose_device, forbid_reduced_precision
    from bench.machine import cpu_cores
    from bench.metagrad import make_engine
    from methods import Window

    torch.set_num_threads(place.threads or cpu_cores())
    forbid_reduced_precision()
    device = choose_device(place.device)
    budget = activation_budget(place, device) if engine_name == "exact, auto" else 0
    engine = make_engine(engine_name.partition(",")[0], budget)
    window = Window(work.warm_up, work.warm_up + work.window)
    problem, target = make_work(work, device, torch.float32)
    seconds = []
    with PeakMemory(device) as memory:
        for _ in range(repeats + 1):
            started = time.perf_counter()
            engine.meta_gradient(problem, window, *target)
            if device.type == "cuda":
                torch.cuda.synchronize()
            seconds.append(time.perf_counter() - started)
    # A few steps are enough to tell a wrong gradient from a rounded one.
    short = Window(0, min(work.window, 3))
    single = engine.meta_gradient(problem, short, *target).images.double()
    problem, target = make_work(work, device, torch.float64)
    double = make_engine("exact").meta_gradient(problem, short, *target).images
    error = ((single - double).norm() / double.norm()).item()
    return Measurement(engine_name, work, seconds[0], seconds[1:], memory.peak_bytes, error)


def make_work(work: Work, device: Any, dtype: Any) -> tuple[Any, tuple[Any, Any]]:
    """The bilevel problem and its target batch, the same numbers in every process."""
    import torch

    from bench.metagrad import Adam, Problem
    from bench.networks import build_network, initial_parameters
    from bench.randomness import torch_generator

    network = build_network(
        "convnet", image_shape=(3, 32, 32), classes=10, width=work.width, depth=work.depth
    )
    drawn = initial_parameters(network, torch_generator(0, "speed/network"))
    generator = torch_generator(0, "speed/data")
    images = torch.randn(work.images, 3, 32, 32, generator=generator)
    targets = torch.randn(work.target_batch, 3, 32, 32, generator=generator)
    classes = torch.randint(10, (work.target_batch,), generator=generator)
    labels = torch.nn.functional.one_hot(torch.arange(work.images) % 10, 10)
    problem = Problem(
        network,
        {name: value.to(device, dtype) for name, value in drawn.items()},
        Adam(1e-3),
        images.to(device, dtype),
        labels.to(device, dtype),
        lambda t, images, labels: (images, labels),
    )
    return problem, (targets.to(device, dtype), classes.to(device))


def variations(work: Work) -> list[Work]:
    """The work itself, then others that differ in one thing, for how cost and memory grow."""
    return [
        work,
        *(replace(work, window=window) for window in (10, 20, 80, 160)),
        *(replace(work, warm_up=warm_up) for warm_up in (40, 160)),
        *(replace(work, width=width) for width in (32, 128)),
        *(replace(work, target_batch=batch) for batch in (1000, 5000)),
    ]


def table(measurements: list[Measurement]) -> str:
    """One line a measurement; ratios are to `higher` on the same work."""
    lines = [
        f"{'engine':20}{'width':>6}{'images':>7}{'warm-up':>8}{'window':>7}{'target':>7}"
        f"{'outer step':>22}{'inner step':>12}{'speed':>8}{'first':>9}{'memory':>11}"
        f"{'of higher':>10}{'error':>9}"
    ]
    reference = {m.work: m for m in measurements if m.engine == "higher"}
    for m in measurements:
        base = reference.get(m.work)
        steps = m.work.warm_up + m.work.window
        spread = f"{m.median:.2f} ({min(m.seconds):.2f}-{max(m.seconds):.2f}) s"
        speed = f"{base.median / m.median:.2f}x" if base else ""
        share = f"{m.peak_bytes / base.peak_bytes:.3f}" if base else ""
        lines.append(
            f"{m.engine:20}{m.work.width:6}{m.work.images:7}{m.work.warm_up:8}{m.work.window:7}"
            f"{m.work.target_batch:7}{spread:>22}{1e3 * m.median / steps:9.1f} ms{speed:>8}"
            f"{m.first_seconds:7.2f} s{m.peak_bytes / 2**20:7.0f} MiB{share:>10}{m.error:9.1e}"
        )
    return "\n".join(lines)


def main(argv: list[str]) -> int:
    """The command; returns its exit status."""
    given = parse(argv, SpeedOptions, Work, Place)
    quick = QUICK if typed(SpeedOptions, only(given, SpeedOptions)).quick else {}
    settings = {**quick, **given}
    options = typed(SpeedOptions, only(settings, SpeedOptions))
    work = typed(Work, only(settings, Work))
    place = typed(Place, only(settings, Place))
    folder = make_folder(Path(place.results_root) / "speed", "results folder")
    todo = variations(work) if options.growth and not options.quick else [work]
    measurements = []
    for piece in todo:
        # One process a task: memory that one engine took is not there for the next.
        with ProcessPoolExecutor(1, get_context("spawn"), max_tasks_per_child=1) as pool:
            for engine in ENGINES:
                print(f"{engine}: {piece} ...", flush=True)
                task = pool.submit(measure, engine, piece, options.repeats, place)
                measurements.append(task.result())
    print(table(measurements))
    write(folder / "speed.json", measurements, place)
    print(f"written: {folder / 'speed.json'}")
    return 0


def write(path: Path, measurements: list[Measurement], place: Place) -> None:
    """Everything measured, with the machine and the versions it was measured on."""
    from bench import manifest
    from bench.ingredients import choose_device
    from bench.machine import cpu_cores

    content = {
        "hardware": manifest.hardware(choose_device(place.device)),
        "threads": place.threads or cpu_cores(),
        "versions": manifest.versions(),
        **manifest.commit(),
        "measurements": [asdict(m) for m in measurements],
    }
    path.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    command(main, USAGE, SpeedOptions, Work, Place)
