"""The mean of several replicas in one process."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from bench.config.command_line import parse
from bench.config.grid import single_run
from bench.config.run_config import RunConfig
from bench.data import TargetSet, load_target_set
from bench.distillation.outer_loop import Distillation
from bench.distillation.replicas import replica_config
from bench.metagrad import MetaGradient


@pytest.fixture
def settings(tiny: list[str]) -> list[str]:
    return [*tiny, "unroll_length=6", "window_size=3", "outer_steps=4", "replicas=2"]


@pytest.fixture(scope="module")
def digits(cache_root: Path) -> TargetSet:
    whole = load_target_set("digits", data_root=cache_root, cache_root=cache_root)
    return whole.to(torch.device("cpu"), torch.float64)


@pytest.fixture
def config(settings: list[str]) -> RunConfig:
    changed = {"precision": "float64", "learn_labels": True, "augment_inner": "rotate"}
    return single_run("quick", {**parse(settings, RunConfig), **changed})


def test_the_gradient_of_two_replicas_is_the_mean_of_two_runs_gradients(
    config: RunConfig, digits: TargetSet
) -> None:
    both = Distillation(config, digits)
    both.outer_step()
    window = both.window(1)
    mean = both.meta_gradient(window)
    each = []
    for replica in range(2):
        alone = Distillation(replace(replica_config(config, replica), replicas=1), digits)
        alone.load_state(both.state())
        each.append(alone.meta_gradient(window))
    assert not torch.equal(each[0].images, each[1].images)
    assert mean.labels is not None
    for part in ("images", "labels", "outer_loss"):
        expected = (getattr(each[0], part) + getattr(each[1], part)) / 2
        torch.testing.assert_close(getattr(mean, part), expected, rtol=1e-13, atol=1e-15)


def test_the_recorded_loss_and_norm_are_those_of_the_mean(
    config: RunConfig, digits: TargetSet
) -> None:
    distillation = Distillation(replace(config, learn_labels=False), digits)
    gradient = distillation.meta_gradient(distillation.window(0))
    record = distillation.outer_step()
    assert record.outer_loss == pytest.approx(gradient.outer_loss.item(), rel=1e-12)
    assert record.gradient_norm == pytest.approx(gradient.images.norm().item(), rel=1e-12)


def test_more_replicas_leave_the_draws_of_the_first_as_they_are(config: RunConfig) -> None:
    assert replica_config(config, 0) == config
    runs = [replace(config, seed=seed) for seed in range(5)]
    seeds = {replica_config(run, replica).seed for run in runs for replica in range(5)}
    assert len(seeds) == 25
    assert replica_config(replace(config, replicas=8), 1).seed == replica_config(config, 1).seed


def test_one_replica_that_is_not_finite_makes_the_mean_so(
    config: RunConfig, digits: TargetSet
) -> None:
    distillation = Distillation(config, digits)
    real, answers = distillation.engine, []

    class SecondIsBroken:
        def meta_gradient(self, *question: Any, **more: Any) -> MetaGradient:
            answers.append(answer := real.meta_gradient(*question, **more))
            return replace(answer, images=answer.images * math.nan) if len(answers) == 2 else answer

    distillation.engine = SecondIsBroken()  # type: ignore[assignment]
    before = distillation.images.clone()
    assert not distillation.outer_step().updated
    assert torch.equal(distillation.images, before)
