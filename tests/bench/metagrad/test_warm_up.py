"""The warm-up is a constant: no gradient flows into the steps before the window."""

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from bench.metagrad import SGD, Adam, InnerOptimizer, Problem, make_engine
from bench.metagrad.problem import InnerBatch
from methods import Window

ENGINES = ("exact", "higher")
OPTIMIZERS: list[InnerOptimizer] = [
    Adam(0.01, eps=1e-3, weight_decay=0.02),
    SGD(0.1, momentum=0.9, weight_decay=0.02),
]


def scale_gradient(inner_batch: InnerBatch, steps: range, factor: float) -> InnerBatch:
    """The same batches bit for bit; in `steps` their derivative is multiplied by `factor`."""

    def scaled(tensor: Tensor) -> Tensor:
        return tensor.detach() + factor * (tensor - tensor.detach())

    def batch(t: int, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        images, labels = inner_batch(t, images, labels)
        return (scaled(images), scaled(labels)) if t in steps else (images, labels)

    return batch


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=["adam", "sgd"])
def test_the_derivative_of_the_warm_up_batches_has_no_effect(
    make_problem: Callable[..., Problem],
    target: tuple[Tensor, Tensor],
    optimizer: InnerOptimizer,
    engine: str,
) -> None:
    window = Window(3, 5)
    problem = make_problem(optimizer, batches="augmented_subset", learn_labels=True)
    answer = make_engine(engine).meta_gradient(problem, window, *target)
    assert answer.labels is not None

    in_warm_up = scale_gradient(problem.inner_batch, range(3), factor=7.0)
    other = make_engine(engine).meta_gradient(
        replace(problem, inner_batch=in_warm_up), window, *target
    )
    assert other.labels is not None
    assert torch.equal(other.images, answer.images)
    assert torch.equal(other.labels, answer.labels)

    # The same change inside the window shows, step by step.
    for t in (3, 4):
        in_window = scale_gradient(problem.inner_batch, range(t, t + 1), factor=7.0)
        other = make_engine(engine).meta_gradient(
            replace(problem, inner_batch=in_window), window, *target
        )
        assert torch.equal(other.outer_loss, answer.outer_loss)
        assert (other.images - answer.images).norm() > 1e-3 * answer.images.norm()


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=["adam", "sgd"])
def test_windows_with_one_end_share_the_loss_but_not_the_gradient(
    make_problem: Callable[..., Problem],
    target: tuple[Tensor, Tensor],
    optimizer: InnerOptimizer,
    engine: str,
) -> None:
    problem = make_problem(optimizer)
    answers = [
        make_engine(engine).meta_gradient(problem, Window(start, 5), *target) for start in range(5)
    ]
    for one, another in pairwise(answers):
        torch.testing.assert_close(one.outer_loss, another.outer_loss, rtol=1e-12, atol=0)
        assert (one.images - another.images).norm() > 1e-3 * one.images.norm()


@pytest.mark.parametrize("engine", ENGINES)
def test_steps_behind_the_window_are_not_run(
    make_problem: Callable[..., Problem], target: tuple[Tensor, Tensor], engine: str
) -> None:
    problem = make_problem(SGD(0.1))
    steps: set[int] = set()

    def batch(t: int, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        steps.add(t)
        return problem.inner_batch(t, images, labels)

    make_engine(engine).meta_gradient(replace(problem, inner_batch=batch), Window(1, 3), *target)
    assert steps == {0, 1, 2}
