"""The exact engine and `higher` give the same meta-gradient in float64."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import functional_call

from bench.metagrad import (
    OUTER_LOSSES,
    SGD,
    Adam,
    InnerOptimizer,
    MetaGradient,
    Problem,
    SampleVariance,
    make_engine,
)
from bench.training.randomness import python_random
from methods import METHODS, Window, make_method

MakeProblem = Callable[..., Problem]
RelativeError = Callable[[MetaGradient, MetaGradient], float]
Target = tuple[Tensor, Tensor]

TOLERANCE = 1e-9
DECAY = {"weight_decay": 0.02, "decay_steps": (2, 4), "decay_factor": 0.2}
OPTIMIZERS: dict[str, InnerOptimizer] = {
    "adam": Adam(0.01),
    "adam_eps": Adam(0.01, eps=1e-3),
    "adam_eps_before_correction": Adam(0.01, eps=1e-3, eps_form="higher"),
    "adam_published": Adam(0.01, eps=1e-3, eps_form="published"),
    "adam_with_decay": Adam(0.01, eps=1e-3, **DECAY),
    "sgd": SGD(0.1),
    "sgd_with_decay": SGD(0.1, momentum=0.9, **DECAY),
}
WINDOWS = {
    "start": Window(0, 3),
    "middle": Window(2, 4),
    "end": Window(3, 6),
    "whole": Window(0, 6),
    "one_step": Window(4, 5),
}


def answers(problem: Problem, window: Window, target: Target) -> tuple[MetaGradient, MetaGradient]:
    exact, reference = make_engine("exact"), make_engine("higher")
    return (
        exact.meta_gradient(problem, window, *target),
        reference.meta_gradient(problem, window, *target),
    )


@pytest.mark.parametrize("learn_labels", [False, True], ids=["fixed_labels", "learned_labels"])
@pytest.mark.parametrize("batches", ["whole_set", "augmented_subset"])
@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_exact_equals_higher(
    make_problem: MakeProblem,
    error: RelativeError,
    target: Target,
    optimizer: str,
    window: str,
    batches: str,
    learn_labels: bool,
) -> None:
    problem = make_problem(OPTIMIZERS[optimizer], batches=batches, learn_labels=learn_labels)
    exact, reference = answers(problem, WINDOWS[window], target)
    assert (exact.labels is not None) == learn_labels
    assert exact.images.shape == problem.images.shape
    assert exact.outer_loss.shape == ()
    assert error(exact, reference) < TOLERANCE


@pytest.mark.parametrize("batches", ["whole_set", "augmented_subset"])
@pytest.mark.parametrize("optimizer", ["adam_published", "sgd_with_decay"])
def test_the_norms_of_the_inner_gradients_are_those_of_plain_training(
    make_problem: MakeProblem, target: Target, optimizer: str, batches: str
) -> None:
    problem = make_problem(OPTIMIZERS[optimizer], batches=batches)
    images, labels = target
    for name in ("exact", "higher"):
        engine = make_engine(name)
        plain = engine.meta_gradient(problem, Window(2, 6), images, labels)
        told = engine.meta_gradient(problem, Window(2, 6), images, labels, inner_norms=True)
        assert plain.inner_gradient_norms is None
        assert torch.equal(told.images, plain.images)
        norms = told.inner_gradient_norms
        assert norms is not None
        expected, logits = by_autograd(problem, 6, images)
        assert torch.allclose(norms, expected, rtol=1e-9)
        # Without a window the inner training of the published form is torch's alone.
        training = engine.train(problem, 6, images)
        expected, logits = by_autograd(problem, 6, images, window_start=6)
        assert torch.allclose(training.gradient_norms, expected, rtol=1e-9)
        assert torch.allclose(training.logits, logits, rtol=1e-9)


def by_autograd(
    problem: Problem, steps: int, images: Tensor, window_start: int = 2
) -> tuple[Tensor, Tensor]:
    """The norms of the inner gradients, and the logits after training, in plain torch."""
    theta = {name: value.detach().clone() for name, value in problem.parameters.items()}
    sizes = [value.numel() for value in theta.values()]
    state = problem.optimizer.initial_state(torch.cat([v.flatten() for v in theta.values()]))
    norms = []
    for t in range(steps):
        batch_images, batch_labels = problem.inner_batch(t, problem.images, problem.labels)
        leaves = {name: value.requires_grad_() for name, value in theta.items()}
        logits = functional_call(problem.network, leaves, (batch_images,))
        loss = F.cross_entropy(logits, batch_labels.detach())
        gradients = torch.autograd.grad(loss, list(leaves.values()))
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        norms.append(flat.square().sum().sqrt())
        before = torch.cat([value.detach().flatten() for value in leaves.values()])
        with torch.no_grad():
            after, state = problem.optimizer.step(before, flat, state, t, t >= window_start)
        pieces = zip(theta.items(), after.split(sizes), strict=True)
        theta = {name: piece.view_as(value).clone() for (name, value), piece in pieces}
    return torch.stack(norms), functional_call(problem.network, theta, (images,)).detach()


@pytest.mark.parametrize("learn_labels", [False, True], ids=["fixed_labels", "learned_labels"])
@pytest.mark.parametrize("network", ["convnet", "smooth"])
@pytest.mark.parametrize("optimizer", ["adam_eps", "adam_with_decay", "sgd_with_decay"])
def test_exact_equals_higher_under_a_squared_outer_loss(
    make_problem: MakeProblem,
    error: RelativeError,
    target: Target,
    optimizer: str,
    network: str,
    learn_labels: bool,
) -> None:
    posed = make_problem(
        OPTIMIZERS[optimizer], batches="subset", learn_labels=learn_labels, network=network
    )
    problem = replace(posed, outer_loss=OUTER_LOSSES["mse"])
    for window in (WINDOWS["middle"], WINDOWS["whole"]):
        exact, reference = answers(problem, window, target)
        assert error(exact, reference) < TOLERANCE
        assert error(exact, answers(posed, window, target)[0]) > 0.1  # than the cross-entropy's
    samples = [
        make_engine(engine).sample_gradients(problem, WINDOWS["middle"], *target)
        for engine in ("exact", "higher")
    ]
    assert error(*samples) < TOLERANCE
    assert samples[0].outer_loss.shape == (len(target[0]),)
    one, other = (SampleVariance.of(answer.images) for answer in samples)
    assert one.variance == pytest.approx(other.variance, rel=1e-8)


@pytest.mark.parametrize("name", METHODS)
def test_exact_equals_higher_on_the_windows_of_every_method(
    make_problem: MakeProblem, error: RelativeError, target: Target, name: str
) -> None:
    method = make_method(name, unroll_length=6, window_size=2)
    problem = make_problem(Adam(0.01, eps=1e-3), batches="subset")
    windows = {method.next_window(step, python_random(0, "window", step)) for step in range(3)}
    for window in windows:
        exact, reference = answers(problem, window, target)
        assert error(exact, reference) < TOLERANCE


def test_an_image_outside_every_batch_of_the_window_has_no_gradient(
    make_problem: MakeProblem, target: Target
) -> None:
    problem = make_problem(Adam(0.01), batches="subset", learn_labels=True)
    numbers = torch.arange(len(problem.images), dtype=torch.float64)[:, None, None, None]
    present = {int(i) for i in problem.inner_batch(4, numbers, problem.labels)[0].flatten()}
    absent = sorted(set(range(len(problem.images))) - present)
    assert absent
    for answer in answers(problem, Window(4, 5), target):
        assert answer.labels is not None
        assert not answer.images[absent].any()
        assert not answer.labels[absent].any()
        assert answer.images[sorted(present)].flatten(1).any(dim=1).all()


@pytest.mark.parametrize("engine", ["exact", "higher"])
def test_an_engine_changes_nothing_that_it_is_given(
    make_problem: MakeProblem, target: Target, engine: str
) -> None:
    problem = make_problem(Adam(0.01), learn_labels=True)
    given = [problem.images, problem.labels, *problem.parameters.values(), *target]
    given += list(problem.network.parameters())
    before = [tensor.detach().clone() for tensor in given]
    random_state = torch.random.get_rng_state()
    answer = make_engine(engine).meta_gradient(problem, Window(1, 3), *target)
    assert all(torch.equal(tensor, old) for tensor, old in zip(given, before, strict=True))
    assert all(tensor.grad is None for tensor in given)
    assert not problem.images.requires_grad
    assert torch.equal(torch.random.get_rng_state(), random_state)
    assert answer.labels is not None
    parts = (answer.images, answer.labels, answer.outer_loss)
    assert not any(part.requires_grad for part in parts)


@pytest.mark.parametrize("engine", ["exact", "higher"])
def test_asking_twice_gives_the_same_bits(
    make_problem: MakeProblem, target: Target, engine: str
) -> None:
    problem = make_problem(Adam(0.01), batches="augmented_subset")
    first = make_engine(engine).meta_gradient(problem, Window(1, 4), *target)
    again = make_engine(engine).meta_gradient(problem, Window(1, 4), *target)
    assert torch.equal(first.images, again.images)
    assert torch.equal(first.outer_loss, again.outer_loss)


@pytest.mark.parametrize("engine", ["exact", "higher"])
def test_only_the_given_parameters_count_and_not_those_that_the_network_holds(
    make_problem: MakeProblem, target: Target, engine: str
) -> None:
    problem = make_problem(Adam(0.01))
    first = make_engine(engine).meta_gradient(problem, Window(1, 3), *target)
    with torch.no_grad():
        for tensor in problem.network.parameters():
            tensor.zero_()
    again = make_engine(engine).meta_gradient(problem, Window(1, 3), *target)
    assert torch.equal(first.images, again.images)


def test_the_engines_start_from_the_parameters_in_their_own_precision(
    make_problem: MakeProblem, error: RelativeError, target: Target
) -> None:
    """θ_0 here has no exact float32 form, while the network's own parameters are float32."""
    problem = make_problem(Adam(0.01, eps=1e-3))
    problem = replace(
        problem, parameters={name: tensor / 3 for name, tensor in problem.parameters.items()}
    )
    exact, reference = answers(problem, Window(1, 3), target)
    assert error(exact, reference) < TOLERANCE


def test_float32_agrees_to_its_own_precision(
    make_problem: MakeProblem, error: RelativeError, target: Target
) -> None:
    problem = make_problem(Adam(0.01, eps=1e-3))
    single = replace(
        problem,
        images=problem.images.float(),
        labels=problem.labels.float(),
        parameters={name: tensor.float() for name, tensor in problem.parameters.items()},
    )
    answer = make_engine("exact").meta_gradient(single, Window(1, 3), target[0].float(), target[1])
    assert answer.images.dtype == torch.float32
    in_double = MetaGradient(answer.images.double(), None, answer.outer_loss.double())
    reference = make_engine("exact").meta_gradient(problem, Window(1, 3), *target)
    assert error(in_double, reference) < 1e-3
