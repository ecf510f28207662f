"""How far the meta-gradient of each precision is from the exact one, and what the distance is due
to.

Three things differ between the rows, with the same draws of weights, images and target images:

- The window. Adam's first steps are nearly ±lr whatever the gradient, and their derivatives live on
  the few entries as small as eps, which rounding decides. [0, n) contains step 0, [1, n) does not;
  a third window comes after a warm-up.
- The biases of the convolutions. An instance norm removes their effect, so the exact meta-gradient
  is the same without them; what is computed of their gradients is rounding noise.
- The inputs. The exact meta-gradient itself moves where images and first weights change by no more
  than one rounding of a precision. An engine of that precision can hardly be closer than this.

On a CPU the reduced precisions are emulated by rounding (`bf16_emulation.py`), so that any
processor can show what they do.
"""

import statistics
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from bench.config.run_config import Environment
from bench.speed.work import PRECISIONS, Work, make_work
from bench.system import garbage

if TYPE_CHECKING:
    from bench.metagrad import InnerOptimizer, Problem

WORK = Work(width=16, images=10)
WINDOWS = ((0, 10), (1, 10), (50, 60))
SEEDS = 5
# The largest relative error of rounding a number to 24, 11 and 8 bits.
ROUNDING = {"float32": 2**-24, "tf32": 2**-11, "bf16": 2**-8}
BIASES, NO_BIASES, CHANGED = "with biases", "without biases", "float64, inputs changed"
CALCULATIONS = (BIASES, NO_BIASES, CHANGED)


@dataclass(frozen=True)
class PrecisionError:
    """One optimizer, window, precision and calculation.

    Attributes:
        optimizer: in words.
        window: start and stop, in inner steps.
        calculation: `BIASES` and `NO_BIASES`: in that precision, of the network with and without
            biases of its convolutions; `CHANGED`: in float64, of images and first weights that
            are changed by a random part of one rounding of that precision.
        distances: to the float64 gradient, relative to its norm, of each seed.
        cosines: between the two.
    """

    optimizer: str
    window: tuple[int, int]
    precision: str
    calculation: str
    distances: list[float]
    cosines: list[float]

    @property
    def text(self) -> str:
        """The median distance, the largest one and the smallest cosine."""
        median, worst = statistics.median(self.distances), max(self.distances)
        return f"{median:.0e} {worst:.0e} ({min(self.cosines):.2f})"


def inner_optimizers() -> dict[str, "InnerOptimizer"]:
    """The inner optimizers, in words."""
    from bench.metagrad import SGD, Adam

    return {
        "Adam, eps 1e-8 (torch)": Adam(1e-3),
        "Adam, eps 1e-8 (published)": Adam(1e-3, eps_form="published"),
        "Adam, eps 1e-4 (torch)": Adam(1e-3, eps=1e-4),
        "SGD, momentum 0.9": SGD(1e-2, momentum=0.9),
    }


def measure_errors(
    environment: Environment, work: Work = WORK, seeds: int = SEEDS
) -> list[PrecisionError]:
    """Run in a fresh process: sets the threads of the whole process. Prints each result."""
    with garbage.imports():
        import torch

        from bench.metagrad import make_engine
        from bench.speed.bf16_emulation import EmulatedBf16
        from bench.system.machine import default_threads
        from bench.training.setup import activation_budget, choose_device
        from methods import Window

    torch.set_num_threads(environment.threads or default_threads())
    device = choose_device(environment.device)
    optimizers = inner_optimizers()

    def gradients(
        optimizer: str,
        window: tuple[int, int],
        precision: str,
        biases: bool = False,
        change: float = 0.0,
    ) -> Iterator[torch.Tensor]:
        """Of each seed."""
        dtype = torch.float64 if precision == "float64" else torch.float32
        engine = make_engine("exact", activation_budget(environment, device), precision)
        emulated = precision == "bf16" and device.type == "cpu"
        for seed in range(seeds):
            problem, target = make_work(replace(work, conv_bias=biases), device, dtype, seed)
            problem = replace(problem, optimizer=optimizers[optimizer])
            if change:
                problem = with_changed_inputs(problem, change, seed)
            with EmulatedBf16() if emulated else nullcontext():
                images = engine.meta_gradient(problem, Window(*window), *target).images
            yield images.double().flatten()

    errors = []
    for optimizer in optimizers:
        for window in WINDOWS:
            print(f"{optimizer}, window [{window[0]}, {window[1]}): float64 ...", flush=True)
            expected = list(gradients(optimizer, window, "float64"))
            for precision in PRECISIONS:
                answers = {
                    BIASES: gradients(optimizer, window, precision, biases=True),
                    NO_BIASES: gradients(optimizer, window, precision),
                    CHANGED: gradients(optimizer, window, "float64", change=ROUNDING[precision]),
                }
                for calculation in CALCULATIONS:
                    pairs = list(zip(answers[calculation], expected, strict=True))
                    distances = [((a - b).norm() / b.norm()).item() for a, b in pairs]
                    cosines = [(a @ b / a.norm() / b.norm()).item() for a, b in pairs]
                    errors.append(
                        PrecisionError(
                            optimizer, window, precision, calculation, distances, cosines
                        )
                    )
                    print(f"  {precision:8} {calculation:24} {errors[-1].text}", flush=True)
    return errors


def with_changed_inputs(problem: "Problem", change: float, seed: int) -> "Problem":
    """The problem with every number of its images and first parameters multiplied by 1 + u, u
    uniform between -`change` and `change`."""
    import torch

    from bench.training.randomness import torch_generator

    generator = torch_generator(seed, "speed/change")

    def changed(numbers: torch.Tensor) -> torch.Tensor:
        u = torch.empty(numbers.shape, dtype=torch.float64).uniform_(
            -change, change, generator=generator
        )
        return numbers * (1 + u.to(numbers))

    parameters = {name: changed(value) for name, value in problem.parameters.items()}
    return replace(problem, images=changed(problem.images), parameters=parameters)


def errors_table(errors: list[PrecisionError], work: Work = WORK) -> str:
    """One line for each optimizer, window and calculation."""
    n = len(errors[0].distances)
    lines = [
        "distance of the meta-gradient to the float64 one, relative to its norm: median and largest"
        f" of n = {n} seeds (smallest cosine between the two)",
        f"ConvNet-{work.depth}, width {work.width}, {work.images} random images, target batch"
        f" {work.target_batch}; {CHANGED}: images and first weights, by one rounding",
        "",
        f"{'inner optimizer':27}{'window':>9}  {'':24}"
        + "".join(f"{precision:>22}" for precision in PRECISIONS),
    ]
    rows: dict[tuple[str, tuple[int, int], str], list[str]] = {}
    for each in errors:
        row = rows.setdefault((each.optimizer, each.window, each.calculation), [])
        row.append(f"{each.text:>22}")
    for calculation_row in rows:
        optimizer, (start, stop), calculation = calculation_row
        lines.append(
            f"{optimizer:27}{f'[{start}, {stop})':>9}  {calculation:24}"
            + "".join(rows[calculation_row])
        )
    return "\n".join(lines)
