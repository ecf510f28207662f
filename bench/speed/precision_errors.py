"""How far the meta-gradient of each precision is from that of float64.

One short window at the very start says little: Adam's first steps are nearly ±lr whatever the
gradient, and their derivatives live on the few entries as small as eps, which rounding decides. So:
two windows, one at the start and one after a warm-up, and each inner optimiser.

On a CPU the reduced precisions are emulated by rounding (`bf16_emulation.py`), so that any
processor can show in a minute or two what they do.
"""

from contextlib import nullcontext
from dataclasses import dataclass, replace

from bench.config.run_config import Environment
from bench.speed.work import PRECISIONS, Work, make_work
from bench.system import garbage

WORK = Work(width=32, images=20)
WINDOWS = ((0, 10), (50, 60))
SEEDS = 3


@dataclass(frozen=True)
class PrecisionError:
    """One optimiser, window and precision.

    Attributes:
        optimizer: in words.
        window: start and stop, in inner steps.
        distances: to the float64 gradient, relative to its norm, of each seed.
        cosines: between the two.
    """

    optimizer: str
    window: tuple[int, int]
    precision: str
    distances: list[float]
    cosines: list[float]

    @property
    def text(self) -> str:
        """The worst distance and the worst cosine."""
        return f"{max(self.distances):.1e} ({min(self.cosines):.3f})"


def measure_errors(
    environment: Environment, work: Work = WORK, seeds: int = SEEDS
) -> list[PrecisionError]:
    """Run in a fresh process: sets the threads of the whole process. Prints each result."""
    with garbage.imports():
        import torch

        from bench.metagrad import SGD, Adam, make_engine
        from bench.speed.bf16_emulation import EmulatedBf16
        from bench.system.machine import default_threads
        from bench.training.setup import activation_budget, choose_device
        from methods import Window

    torch.set_num_threads(environment.threads or default_threads())
    device = choose_device(environment.device)
    optimizers = {
        "Adam, eps 1e-8 (torch)": Adam(1e-3),
        "Adam, eps 1e-8 (published)": Adam(1e-3, eps_form="published"),
        "Adam, eps 1e-4 (torch)": Adam(1e-3, eps=1e-4),
        "SGD, momentum 0.9": SGD(1e-2, momentum=0.9),
    }

    def gradient(
        optimizer: str, window: tuple[int, int], precision: str, seed: int
    ) -> torch.Tensor:
        dtype = torch.float64 if precision == "float64" else torch.float32
        problem, target = make_work(work, device, dtype, seed)
        problem = replace(problem, optimizer=optimizers[optimizer])
        engine = make_engine("exact", activation_budget(environment, device), precision)
        emulated = precision == "bf16" and device.type == "cpu"
        with EmulatedBf16() if emulated else nullcontext():
            images = engine.meta_gradient(problem, Window(*window), *target).images
        return images.double().flatten()

    errors = []
    for optimizer in optimizers:
        for window in WINDOWS:
            print(f"{optimizer}, window [{window[0]}, {window[1]}): float64 ...", flush=True)
            expected = [gradient(optimizer, window, "float64", seed) for seed in range(seeds)]
            for precision in PRECISIONS:
                answers = [gradient(optimizer, window, precision, seed) for seed in range(seeds)]
                pairs = list(zip(answers, expected, strict=True))
                distances = [((a - b).norm() / b.norm()).item() for a, b in pairs]
                cosines = [(a @ b / a.norm() / b.norm()).item() for a, b in pairs]
                errors.append(PrecisionError(optimizer, window, precision, distances, cosines))
                print(f"  {precision:8} {errors[-1].text}", flush=True)
    return errors


def errors_table(errors: list[PrecisionError]) -> str:
    """One line for each optimiser and window."""
    n = len(errors[0].distances)
    lines = [
        "distance of the meta-gradient to the float64 one, relative to its norm, and their cosine:"
        f" the worst of n = {n} seeds",
        f"{WORK}; windows as stated",
        "",
        f"{'inner optimiser':26}{'window':>10}"
        + "".join(f"{precision:>18}" for precision in PRECISIONS),
    ]
    rows: dict[tuple[str, tuple[int, int]], list[str]] = {}
    for each in errors:
        rows.setdefault((each.optimizer, each.window), []).append(f"{each.text:>18}")
    for (optimizer, (start, stop)), cells in rows.items():
        lines.append(f"{optimizer:26}{f'[{start}, {stop})':>10}{''.join(cells)}")
    return "\n".join(lines)
