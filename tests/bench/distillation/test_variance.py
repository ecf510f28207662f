"""The variance over samples and the norms that it is divided by, as a run measures them."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.func import functional_call

from bench.config.command_line import parse
from bench.config.grid import single_run
from bench.config.run_config import Environment, RunConfig
from bench.data import TargetSet, load_target_set
from bench.distillation.outer_loop import Distillation, OuterStep
from bench.metagrad import cross_entropies
from bench.run import Console
from bench.runs.execute import execute
from bench.runs.heartbeat import Heartbeat
from bench.runs.measurements import Measurements, variance_steps
from bench.runs.run_folder import RunFolder, Store
from bench.training.batches import target_batch
from tests.bench.distillation.applied import coming_problem

LR, MOMENTUM = 0.05, 0.9


@pytest.fixture(scope="module")
def digits(cache_root: Path) -> TargetSet:
    whole = load_target_set("digits", data_root=cache_root, cache_root=cache_root)
    return whole.to(torch.device("cpu"), torch.float64)


@pytest.fixture
def config(tiny: list[str]) -> RunConfig:
    given = {
        **{"precision": "float64", "method": "t_bptt", "augment_inner": "rotate"},
        **{"inner_optimizer": "sgd", "inner_lr": LR, "inner_momentum": MOMENTUM},
    }
    return single_run("quick", {**parse(tiny, RunConfig), **given})


def gradients_by_autograd(distillation: Distillation) -> tuple[Tensor, Tensor]:
    """The meta-gradients of the images in the coming outer step, by one unrolled graph: of every
    image of the target batch alone [batch, ...], and of the whole batch."""
    problem, window = coming_problem(distillation), distillation.window(distillation.step)
    images = problem.images.detach().clone().requires_grad_()
    theta = {k: v.detach().requires_grad_() for k, v in problem.parameters.items()}
    velocity = {name: torch.zeros_like(value) for name, value in theta.items()}
    for t in range(window.stop):
        if t == window.start:  # the warm-up is a constant
            theta = {name: value.detach().requires_grad_() for name, value in theta.items()}
            velocity = {name: value.detach() for name, value in velocity.items()}
        batch, labels = problem.inner_batch(t, images, problem.labels)
        loss = cross_entropies(functional_call(problem.network, theta, (batch,)), labels).mean()
        slopes = torch.autograd.grad(loss, list(theta.values()), create_graph=True)
        for name, slope in zip(list(theta), slopes, strict=True):
            velocity[name] = MOMENTUM * velocity[name] + slope
            theta[name] = theta[name] - LR * velocity[name]
    batch, classes = target_batch(
        distillation.config, distillation.target_set.train, distillation.step
    )
    logits = functional_call(problem.network, theta, (batch,))
    losses = torch.nn.functional.cross_entropy(logits, classes, reduction="none")

    def gradient(loss: Tensor) -> Tensor:
        return torch.autograd.grad(loss, images, retain_graph=True)[0]

    return torch.stack([gradient(loss) for loss in losses]), gradient(losses.mean())


@pytest.mark.parametrize("engine", ["exact", "higher"])
@pytest.mark.parametrize("replicas", [1, 2])
def test_a_measurement_equals_plain_autograd(
    config: RunConfig, digits: TargetSet, tmp_path: Path, engine: str, replicas: int
) -> None:
    distillation = Distillation(replace(config, engine=engine, replicas=replicas), digits)
    distillation.outer_step()
    distillation.config = replace(distillation.config, variance_every=1)
    with Heartbeat(RunFolder(tmp_path), config.outer_steps) as heartbeat:
        measurements = Measurements(distillation, heartbeat, lambda: None)
        each, whole = gradients_by_autograd(distillation)  # with the seed of replica 0
        assert not list(measurements.due())
        distillation.outer_step()
        (found,) = measurements.completed()
        assert not list(measurements.completed())
    samples = each[: config.variance_samples].flatten(1).numpy()
    variance = np.var(samples, axis=0, ddof=1).mean()
    of_batch, of_mean = whole.norm().item() ** 2, np.linalg.norm(samples.mean(axis=0)) ** 2
    unbiased = of_mean - variance * samples.shape[1] / len(samples)
    assert found == pytest.approx(
        {
            **{"step": 1, "samples": 4, "entries": 10 * 64, "variance": variance},
            **{"sample_mean_squared_norm": of_mean, "whole_batch_squared_norm": of_batch},
            "normalized_variance_whole_batch": variance / of_batch,
            "normalized_variance_unbiased": variance / unbiased if unbiased > 0 else np.nan,
            "normalized_variance_sample_mean": variance / of_mean,
        },
        rel=1e-8,
        nan_ok=True,
    )
    assert of_batch != pytest.approx(of_mean, rel=0.1)


def test_measuring_the_variance_changes_nothing(config: RunConfig, digits: TargetSet) -> None:
    def steps(measured: bool) -> Iterator[OuterStep]:
        distillation = Distillation(replace(config, method="rat_bptt"), digits)
        for _ in range(4):
            if measured:
                assert distillation.sample_variance().variance > 0
            yield replace(distillation.outer_step(), seconds=0.0)

    assert list(steps(True)) == list(steps(False))


def test_the_samples_are_those_of_replica_0(config: RunConfig, digits: TargetSet) -> None:
    one, two = (Distillation(replace(config, replicas=k), digits) for k in (1, 2))
    assert one.sample_variance() == two.sample_variance()
    one.outer_step()
    two.outer_step()
    assert one.whole_batch_squared_norm == two.whole_batch_squared_norm


@pytest.mark.parametrize(
    ("every", "until", "steps"),
    [(0, 0, []), (0, 5, []), (2, 0, [0, 2, 4]), (2, 4, [0, 2]), (2, 3, [0, 2]), (4, 99, [0, 4])],
)
def test_the_variance_is_measured_before_the_step_that_is_given(
    config: RunConfig, every: int, until: int, steps: list[int]
) -> None:
    config = replace(config, outer_steps=6, variance_every=every, variance_until=until)
    assert list(variance_steps(config)) == steps


# --- whole runs


@pytest.fixture
def tiny_config(tiny: list[str]) -> RunConfig:
    rare = {"accuracy_every": 0, "evaluation_networks": 1, "variance_every": 2}
    return single_run("quick", {**parse(tiny, RunConfig), **rare})


def run(config: RunConfig, root: Path, cache_root: Path) -> RunFolder:
    folder = Store(root).run(config)
    folder.create(config)
    environment = Environment(cache_root=str(cache_root), threads=1, checkpoint_seconds=0)
    execute(folder, environment, Console(config))
    return folder


def records(folder: RunFolder) -> tuple[list[dict[str, Any]], str]:
    metrics = [{**line, "seconds": 0} for line in folder.records("metrics")]
    return metrics, (folder.path / "measurements.jsonl").read_text()


def test_a_run_takes_the_same_steps_whether_it_is_measured_or_not(
    tiny_config: RunConfig, tmp_path: Path, cache_root: Path
) -> None:
    measured = run(replace(tiny_config, variance_until=4), tmp_path / "measured", cache_root)
    without = run(replace(tiny_config, variance_every=0), tmp_path / "without", cache_root)
    metrics, lines = records(measured)
    assert records(without) == (metrics, "")
    found = [json.loads(line) for line in lines.splitlines()]
    assert [line["step"] for line in found] == [0, 2]
    for line in found:  # one replica, and only images are learned: the norm of the step
        norm = metrics[line["step"]]["gradient_norm"]
        assert line["whole_batch_squared_norm"] == pytest.approx(norm**2, rel=1e-5)


def test_a_run_that_stops_between_the_samples_and_their_step_measures_again(
    tiny_config: RunConfig, tmp_path: Path, cache_root: Path
) -> None:
    undisturbed = run(tiny_config, tmp_path / "undisturbed", cache_root)
    take = Distillation.outer_step

    def stopping(self: Distillation) -> OuterStep:
        if self.step == 2:
            raise RuntimeError("between the two")
        return take(self)

    with (
        patch.object(Distillation, "outer_step", stopping),
        pytest.raises(RuntimeError, match="between"),
    ):
        run(tiny_config, tmp_path / "stopped", cache_root)
    assert len(records(Store(tmp_path / "stopped").run(tiny_config))[0]) == 2
    assert records(run(tiny_config, tmp_path / "stopped", cache_root)) == records(undisturbed)
