"""Single-sample meta-gradients: what the variance over samples is made of."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from bench.metagrad import (
    SGD,
    Adam,
    ExactEngine,
    InnerOptimizer,
    MetaGradient,
    Problem,
    make_engine,
)
from methods import Window

MakeProblem = Callable[..., Problem]
RelativeError = Callable[[MetaGradient, MetaGradient], float]
Target = tuple[Tensor, Tensor]

ENGINES = ("exact", "higher")
OPTIMIZERS: list[InnerOptimizer] = [
    Adam(0.01, eps=1e-3, weight_decay=0.02),
    SGD(0.1, momentum=0.9),
]
WINDOW = Window(2, 5)


@pytest.fixture(params=OPTIMIZERS, ids=["adam", "sgd"])
def optimizer(request: pytest.FixtureRequest) -> InnerOptimizer:
    return request.param


@pytest.fixture(params=[False, True], ids=["fixed_labels", "learned_labels"])
def problem(
    make_problem: MakeProblem, optimizer: InnerOptimizer, request: pytest.FixtureRequest
) -> Problem:
    return make_problem(optimizer, batches="augmented_subset", learn_labels=request.param)


@pytest.mark.parametrize("engine", ENGINES)
def test_their_mean_is_the_meta_gradient_of_the_batch(
    problem: Problem, error: RelativeError, target: Target, engine: str
) -> None:
    samples = make_engine(engine).sample_gradients(problem, WINDOW, *target)
    assert samples.images.shape == (len(target[0]), *problem.images.shape)
    mean = MetaGradient(
        samples.images.mean(dim=0),
        None if samples.labels is None else samples.labels.mean(dim=0),
        samples.outer_loss.mean(),
    )
    assert error(mean, make_engine(engine).meta_gradient(problem, WINDOW, *target)) < 1e-10


@pytest.mark.parametrize("engine", ENGINES)
def test_each_is_the_meta_gradient_of_its_sample_alone(
    problem: Problem, error: RelativeError, target: Target, engine: str
) -> None:
    samples = make_engine(engine).sample_gradients(problem, WINDOW, *target)
    images, labels = target
    for i in range(len(images)):
        sample = MetaGradient(
            samples.images[i],
            None if samples.labels is None else samples.labels[i],
            samples.outer_loss[i],
        )
        alone = make_engine(engine).meta_gradient(
            problem, WINDOW, images[i : i + 1], labels[i : i + 1]
        )
        assert error(sample, alone) < 1e-10


def test_exact_equals_higher(problem: Problem, error: RelativeError, target: Target) -> None:
    exact, reference = (
        make_engine(engine).sample_gradients(problem, WINDOW, *target) for engine in ENGINES
    )
    assert error(exact, reference) < 1e-9


@pytest.mark.parametrize("sample_chunk", [1, 2, 5, 100])
def test_the_chunk_of_samples_has_no_effect(
    problem: Problem, error: RelativeError, target: Target, sample_chunk: int
) -> None:
    answer = ExactEngine(sample_chunk=sample_chunk).sample_gradients(problem, WINDOW, *target)
    expected = ExactEngine(sample_chunk=3).sample_gradients(problem, WINDOW, *target)
    assert error(answer, expected) < 1e-12


def test_samples_differ(problem: Problem, target: Target) -> None:
    images = make_engine("exact").sample_gradients(problem, WINDOW, *target).images.flatten(1)
    distances = torch.cdist(images, images) + torch.eye(len(images), dtype=images.dtype)
    assert distances.min() > 1e-3 * images.norm(dim=1).mean()
