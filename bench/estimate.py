"""What runs will take, from a few measured steps; and whether their data can be loaded at all.

`python -m bench.estimate` reads configurations (a JSON list) from standard input and prints one
number of seconds a configuration (a JSON list). `bench.sweep` calls it in a process of its own, so
that the sweep itself never imports torch.
"""

import json
import sys
import time
from collections.abc import Callable
from dataclasses import replace

import torch

from bench.config import Place, RunConfig, resolve
from bench.data import TargetSet
from bench.distill import Distillation
from bench.evaluation import evaluate
from bench.ingredients import activation_budget, choose_device, forbid_reduced_precision, load_data
from bench.settings import command, parse, typed

USAGE = """
python -m bench.estimate [key=value ...] < configurations.json
"""


def estimate_seconds(config: RunConfig, target_set: TargetSet, budget: int = 0) -> float:
    """Seconds that a run will take: measured parts times how often each occurs.

    Measured: an outer step (after one to warm up), one fresh network trained for a few steps, and
    the normalised variance over the fewest samples.
    """
    distillation = Distillation(config, target_set, budget)
    distillation.outer_step()
    outer_step = _seconds(distillation.outer_step)
    variance = 0.0
    if config.variance_every:
        samples = min(10, config.variance_samples)
        distillation.config = replace(config, variance_samples=samples)
        variance = _seconds(distillation.normalized_variance) * config.variance_samples / samples

    def train(steps: int) -> Callable[[], object]:
        return lambda: evaluate(
            config,
            target_set,
            distillation.images,
            distillation.labels,
            networks=1,
            steps=[steps],
            purpose="estimate",
        )

    few, more = _seconds(train(1)), _seconds(train(6))
    training_step = max(more - few, 0.0) / 5
    measuring = max(few - training_step, 0.0)  # accuracy on the validation and test parts
    accuracy = config.accuracy_networks * (config.accuracy_steps * training_step + measuring)
    evaluation = config.evaluation_networks * (
        max(config.evaluation_steps) * training_step + len(config.evaluation_steps) * measuring
    )
    return (
        config.outer_steps * outer_step
        + (config.outer_steps // config.variance_every * variance if config.variance_every else 0)
        + (config.outer_steps // config.accuracy_every * accuracy if config.accuracy_every else 0)
        + evaluation
    )


def _seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - started


def main(argv: list[str]) -> int:
    """The command; returns its exit status."""
    place = typed(Place, parse(argv, Place))
    configs = [resolve(content) for content in json.load(sys.stdin)]
    torch.set_num_threads(place.threads or torch.get_num_threads())
    forbid_reduced_precision()
    device = choose_device(place.device)
    budget = activation_budget(place, device)
    seconds = [
        estimate_seconds(config, load_data(config, place, device), budget) for config in configs
    ]
    print(json.dumps(seconds))
    return 0


if __name__ == "__main__":
    command(main, USAGE, Place)
