"""What a run does about steps, and distilled sets, that are not finite."""

import copy
import math
from dataclasses import replace
from typing import Any
from unittest.mock import patch

import pytest
import torch

from bench.config.run_config import RunConfig
from bench.data import TargetSet
from bench.distillation.divergence import MAX_RESTORATIONS, MAX_STEPS_NOT_FINITE, Diverged
from bench.distillation.outer_loop import Distillation
from bench.metagrad import MetaGradient
from tests.bench.distillation.steps import recorded, same_state


class BrokenEngine:
    """Answers with NaN for the given outer steps."""

    def __init__(self, distillation: Distillation, steps: set[int]) -> None:
        self.distillation, self.steps, self.real = distillation, steps, distillation.engine

    def meta_gradient(self, *question: object, **more: object) -> MetaGradient:
        answer = self.real.meta_gradient(*question, **more)  # type: ignore[arg-type]
        if self.distillation.step in self.steps:
            return MetaGradient(answer.images * math.nan, None, answer.outer_loss)
        return answer


def test_a_gradient_that_is_not_finite_is_recorded_and_not_applied(
    config: RunConfig, digits: TargetSet
) -> None:
    distillation = Distillation(config, digits)
    distillation.engine = BrokenEngine(distillation, {1})  # type: ignore[assignment]
    first = distillation.outer_step()
    images = distillation.images.clone()
    broken = distillation.outer_step()
    assert first.updated
    assert not broken.updated
    assert math.isnan(broken.gradient_norm)
    assert torch.equal(distillation.images, images)
    assert distillation.outer_step().updated
    assert math.isfinite(distillation.clipping.state()["average"])


def test_a_run_whose_gradients_stay_not_finite_has_diverged(
    config: RunConfig, digits: TargetSet
) -> None:
    distillation = Distillation(config, digits)
    distillation.engine = BrokenEngine(distillation, set(range(1000)))  # type: ignore[assignment]
    recorded(distillation, MAX_STEPS_NOT_FINITE)
    with pytest.raises(Diverged, match="51 meta-gradients in a row"):
        distillation.outer_step()


def broken(config: RunConfig, digits: TargetSet, steps: set[int], policy: str) -> Distillation:
    distillation = Distillation(replace(config, not_finite=policy), digits)
    distillation.engine = BrokenEngine(distillation, steps)  # type: ignore[assignment]
    return distillation


def test_a_run_that_should_stop_has_diverged_at_once(config: RunConfig, digits: TargetSet) -> None:
    distillation = broken(config, digits, {2}, "stop")
    recorded(distillation, 2)
    with pytest.raises(Diverged, match="outer step 2: loss or meta-gradient is not finite"):
        distillation.outer_step()


def test_a_run_goes_back_to_the_last_copy_and_on_with_the_coming_draws(
    config: RunConfig, digits: TargetSet
) -> None:
    with patch("bench.distillation.divergence.STEPS_BETWEEN_COPIES", 2):
        distillation = broken(config, digits, {3}, "restore")
        recorded(distillation, 2)
        before = copy.deepcopy(distillation._updated_state())
        recorded(distillation, 2)
        assert same_state(distillation._updated_state(), before)
        resumed = broken(config, digits, set(), "restore")
        resumed.load_state(copy.deepcopy(distillation.state()))
        assert distillation.step == resumed.step == 4
        expected = recorded(distillation, 3)
        assert recorded(resumed, 3) == expected
        assert same_state(resumed.state(), distillation.state())
        assert resumed.guard.restorations == 1


def test_restorations_end(config: RunConfig, digits: TargetSet) -> None:
    distillation = broken(config, digits, set(range(1, 100)), "restore")
    recorded(distillation, 1 + MAX_RESTORATIONS)
    with pytest.raises(Diverged, match="after 10 restorations"):
        distillation.outer_step()


@pytest.mark.parametrize("policy", ["skip", "restore"])
def test_a_distilled_set_that_is_not_finite_is_never_used(
    config: RunConfig, digits: TargetSet, policy: str
) -> None:
    distillation = Distillation(replace(config, not_finite=policy), digits)
    recorded(distillation, 1)
    distillation.parameters.groups()[0][0][0] = math.inf
    if policy == "skip":
        with pytest.raises(Diverged, match="distilled set is not finite before outer step 1"):
            distillation.outer_step()
        with pytest.raises(Diverged, match="after 1 outer steps"):
            distillation.require_finite()
    else:
        recorded(distillation, 1)
        distillation.require_finite()


def test_a_loss_that_is_not_finite_reaches_neither_method_nor_set(
    config: RunConfig, digits: TargetSet
) -> None:
    distillation = Distillation(replace(config, method="backward_window"), digits)
    recorded(distillation, 1)
    before = copy.deepcopy(distillation._updated_state())
    real = distillation.engine.meta_gradient

    def without_loss(*question: Any, **more: Any) -> MetaGradient:
        answer = real(*question, **more)
        return replace(answer, outer_loss=answer.outer_loss * math.inf)

    with patch.object(distillation.engine, "meta_gradient", without_loss):
        assert not distillation.outer_step().updated
    assert same_state(distillation._updated_state(), before)


# The last two are those of CIFAR-100 (one image of each class) and Tiny-ImageNet (one image each of
# some of the classes), on ten classes.
