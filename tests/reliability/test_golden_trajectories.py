"""Short float64 runs equal the ones stored beside this file, to rounding: a change of any numeric
part, whether meant or not, shows here first.

If a change is meant, say in its commit why the numbers change, and store the new ones:

    python -m tests.reliability.test_golden_trajectories store

It prints how far each case has moved; without `store`, or with names of cases, it only prints.
"""

import json
import math
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

from bench.config.grid import single_run
from bench.config.run_config import RunConfig
from bench.data import TargetSet
from bench.data.target_set import Split
from bench.data.whitening import Whitening
from bench.distillation.outer_loop import Distillation, OuterStep
from bench.evaluation.fresh_networks import evaluate
from bench.networks import initial_parameters
from methods import METHODS
from tests.conftest import REPOSITORY
from tests.reliability.processors import OTHER_PROCESSOR, printed

MODULE = "tests.reliability.test_golden_trajectories"
STORED = Path(__file__).with_name("golden_trajectories.json")

# Sums in another order, other instructions: what processors, threads and engines may differ by.
ROUNDING = 1e-9

COMMON: dict[str, Any] = {
    **{"precision": "float64", "seed": 3, "width": 4, "depth": 1, "target_batch": 64},
    **{"unroll_length": 6, "window_size": 3, "outer_steps": 6, "variance_samples": 4},
    **{"inner_eps": 1e-3, "inner_lr": 0.01, "outer_lr": 0.01},
    # Clipping limits a step in most cases.
    **{"clip_ratio": 1.05, "augment_target": "flip_or_rotate", "augment_inner": "flip_or_rotate"},
}
# So that windows move within six outer steps.
OPTIONS: dict[str, dict[str, Any]] = {
    "forward_window": {"patience": 1},
    "backward_window": {"patience": 1},
    "growing_bptt": {"first_length": 2, "grow_steps": 5},
    "at_bptt": {"probe_every": 2},
}
SGD = {"inner_optimizer": "sgd", "inner_lr": 0.1}
LINEAR = {"parameterization": "linear", "ipc": 1, "basis_images": 5, "decoded_ipc": 2}
CASES: dict[str, dict[str, Any]] = {
    **{name: {"method": name, "method_options": OPTIONS.get(name, {})} for name in METHODS},
    "adam, eps as torch": {"inner_eps_form": "torch"},
    "adam, eps as higher": {"inner_eps_form": "higher"},
    "adam, eps as published": {"inner_eps_form": "published"},
    "adam, eps of 1e-8 after the first step": {"inner_eps": 1e-8, "method_options": {"first": 1}},
    "adam, weight decay": {"inner_weight_decay": 0.01},
    "adam, learning rate decays": {"inner_decay_steps": [2, 4]},
    "sgd": SGD,
    "sgd, momentum and weight decay": {**SGD, "inner_momentum": 0.9, "inner_weight_decay": 0.01},
    "sgd, learning rate decays": {**SGD, "inner_decay_steps": [2, 4]},
    "learned labels": {"learn_labels": True},
    "learned labels, clipped with the images": {"learn_labels": True, "clipped": "all"},
    "linear bases": LINEAR,
    "linear bases, learned labels": {**LINEAR, "ipc": 2, "learn_labels": True},
    "parts of images": {"parameterization": "idc", "init": "real", "learn_labels": True},
    "hallucinators": {"parameterization": "haba", "ipc": 2, "haba_hallucinators": 2},
    "boosting": {"ipc": 2, "boost_block": 1, "boost_beta": 0.5},
    "real images, no clipping": {"init": "real", "clipping": "none"},
    "small inner batches": {"ipc": 3, "inner_classes": 5, "inner_ipc": 2},
    "squared error": {"outer_loss": "mse"},
    "two replicas": {"replicas": 2},
    "the reference engine": {"engine": "higher"},
    "no biases of convolutions": {"conv_bias": False},
    "wide network of two blocks": {"arch": "wide_convnet", "depth": 2, "width": 3},
}


def exact_digits() -> TargetSet:
    """The digits, scaled by a power of two: every processor has the same bits."""
    digits: Any = load_digits()
    images = torch.from_numpy(digits.images).double()[:, None] / 64 - 0.0625
    labels = torch.from_numpy(digits.target.astype(np.int64))
    train, validation, test = (
        Split(images[start:stop], labels[start:stop])
        for start, stop in ((0, 800), (800, 900), (900, 1000))
    )
    whitening = Whitening(image_shape=(1, 8, 8), mean=0.0, norm=1.0)
    return TargetSet("digits", "", "", tuple("0123456789"), train, validation, test, whitening)


def exact_parameters(network: nn.Module, generator: torch.Generator) -> dict[str, Tensor]:
    """The first parameters, drawn as float64. As float32, which runs draw, they have other last
    digits on processors without AVX2 (`test_reproducible.py`)."""
    drawn = {}
    for name, tensor in initial_parameters(network, torch.Generator().manual_seed(0)).items():
        if tensor.unique().numel() == 1:  # of a norm
            drawn[name] = tensor.double()
            continue
        unit = torch.rand(tensor.shape, dtype=torch.float64, generator=generator)
        drawn[name] = (unit - 0.5) / 4
    return drawn


@contextmanager
def exact_draws() -> Iterator[None]:
    """Within the block all numbers are drawn as float64."""
    default = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    packages = ("bench.training.problem", "bench.evaluation.fresh_networks")
    try:
        with (
            patch(f"{packages[0]}.initial_parameters", exact_parameters),
            patch(f"{packages[1]}.initial_parameters", exact_parameters),
        ):
            yield
    finally:
        torch.set_default_dtype(default)


def config_of(case: str, **settings: Any) -> RunConfig:
    return single_run("quick", {**COMMON, **CASES[case], **settings})


def numbers(step: OuterStep) -> list[float]:
    return [
        *(step.outer_loss, step.window_start, step.window_stop),
        *(step.gradient_norm, step.image_gradient_norm, step.clipped_norm, step.clip_factor),
    ]


def trajectory(config: RunConfig) -> dict[str, list[float]]:
    """What a run computes: the numbers of each outer step, the distilled set, its evaluation."""
    with exact_draws():
        target_set = exact_digits()
        distillation = Distillation(config, target_set)
        computed = {
            f"outer step {step}": numbers(distillation.outer_step())
            for step in range(config.outer_steps)
        }
        images, labels = distillation.images, distillation.labels
        weights = torch.linspace(-1, 1, images.numel())
        computed["images"] = [images.norm().item(), (images.flatten() @ weights).item()]
        computed["labels"] = [labels.norm().item(), labels.diff(dim=0).norm().item()]
        variance = distillation.sample_variance()
        computed["variance"] = [variance.variance, variance.sample_mean_squared_norm]
        found = evaluate(
            config,
            target_set,
            images,
            labels,
            networks=2,
            steps=[5],
            purpose="golden",
            on_train=True,
        )
        assert found.train_loss is not None
        computed["evaluation"] = [*found.test.flatten().tolist(), *found.train_loss[:, 0].tolist()]
    return computed


def deviation(computed: dict[str, list[float]], stored: dict[str, list[float]]) -> float:
    """The largest relative difference; infinite if other things were computed."""
    if computed.keys() != stored.keys():
        return math.inf
    pairs = [pair for key in stored for pair in zip(computed[key], stored[key], strict=True)]
    return max(abs(ours - theirs) / max(abs(theirs), 1e-3) for ours, theirs in pairs)


@pytest.fixture(scope="module")
def stored() -> dict[str, dict[str, list[float]]]:
    return json.loads(STORED.read_text())


@pytest.mark.parametrize("case", CASES)
def test_a_run_has_the_stored_losses_and_norms(
    case: str, stored: dict[str, dict[str, list[float]]]
) -> None:
    computed = trajectory(config_of(case))
    for part, expected in stored[case].items():
        assert computed[part] == pytest.approx(expected, rel=ROUNDING, abs=1e-3 * ROUNDING), part


@pytest.mark.slow
def test_another_processor_has_the_stored_losses_and_norms(
    environment: dict[str, str], cases: Callable[[int, int], int], figure: Callable[..., None]
) -> None:
    # In the suite the last ones of a few kinds.
    chosen = list(CASES)[:: -cases(len(CASES) // 3, 1)]
    other = {**environment, **OTHER_PROCESSOR}
    lines = printed(other, REPOSITORY, "-m", MODULE, *chosen).splitlines()
    deviations = {case: float(size) for size, case in (line.split(maxsplit=1) for line in lines)}
    assert deviations.keys() == set(chosen)
    assert max(deviations.values()) < ROUNDING, deviations
    figure(
        f"{len(chosen)} golden trajectories without vector instructions: largest difference",
        f"{max(deviations.values()):.1e}",
    )


def main(arguments: list[str]) -> None:
    """Print by how much cases, by default all, differ from the stored ones."""
    torch.set_num_threads(1)
    store = arguments == ["store"]
    chosen = CASES if store or not arguments else arguments
    before = json.loads(STORED.read_text()) if STORED.exists() else {}
    now = {case: trajectory(config_of(case)) for case in chosen}
    for case, computed in now.items():
        moved = deviation(computed, before[case]) if case in before else math.inf
        print(f"{moved:9.1e}  {case}")
    if store:
        lines = [f"{json.dumps(case)}: {json.dumps(computed)}" for case, computed in now.items()]
        STORED.write_text("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    main(sys.argv[1:])
