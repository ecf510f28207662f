"""One backward pass for each stop gives what the engine computes for every window separately."""

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.func import functional_call

from bench.metagrad import SGD, Adam, InnerOptimizer, MetaGradient, Problem, make_engine
from bench.metagrad.all_windows import AllWindows, WindowGradient, step_depends_on_window
from bench.metagrad.flat import FlatNetwork
from bench.metagrad.problem import cross_entropies

MakeProblem = Callable[..., Problem]
RelativeError = Callable[[MetaGradient, MetaGradient], float]
Target = tuple[Tensor, Tensor]

DECAY = {"weight_decay": 0.02, "decay_steps": (2, 4), "decay_factor": 0.2}
OPTIMIZERS: dict[str, InnerOptimizer] = {
    "adam": Adam(0.01),
    "adam_higher": Adam(0.01, eps=1e-3, eps_form="higher"),
    "adam_published": Adam(0.01, eps=1e-3, eps_form="published"),
    "adam_with_decay": Adam(0.01, eps=1e-3, **DECAY),
    "sgd": SGD(0.1, momentum=0.9),
    "sgd_with_decay": SGD(0.1, momentum=0.9, **DECAY),
}
STARTS, STOPS = [0, 1, 3], [2, 5]
WINDOWS = [(start, stop) for stop in STOPS for start in STARTS if start < stop]


def by_window(windows: list[WindowGradient]) -> dict[tuple[int, int], WindowGradient]:
    return {(window.start, window.stop): window for window in windows}


def as_answer(window: WindowGradient, like: Tensor) -> MetaGradient:
    return MetaGradient(window.images, window.labels, like.new_tensor(window.outer_loss))


@pytest.mark.parametrize("learn_labels", [False, True], ids=["fixed_labels", "learned_labels"])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_every_window_is_the_engines_own(
    make_problem: MakeProblem,
    error: RelativeError,
    target: Target,
    optimizer: str,
    learn_labels: bool,
) -> None:
    problem = make_problem(
        OPTIMIZERS[optimizer], batches="augmented_subset", learn_labels=learn_labels
    )
    windows = by_window(AllWindows().window_gradients(problem, STARTS, STOPS, *target))
    assert sorted(windows) == sorted(WINDOWS)
    for (start, stop), window in windows.items():
        ours = as_answer(window, problem.images)
        exact = make_engine("exact").meta_gradient(problem, range(start, stop), *target)
        assert error(ours, exact) < 1e-10


@pytest.mark.parametrize("budget", [0, 1 << 30])
def test_the_numbers_are_the_engines_bit_for_bit(
    make_problem: MakeProblem, target: Target, budget: int
) -> None:
    problem = make_problem(Adam(0.01), batches="augmented_subset")
    for (start, stop), window in by_window(
        AllWindows(budget).window_gradients(problem, STARTS, STOPS, *target)
    ).items():
        own = make_engine("exact").meta_gradient(problem, range(start, stop), *target)
        assert torch.equal(window.images, own.images)
        assert window.outer_loss == own.outer_loss.item()


def unrolled(
    problem: Problem, stop: int, target: Target
) -> tuple[list[Tensor], list[Tensor], list[tuple[Tensor, ...]]]:
    """By autograd through the whole trajectory, with a copy of the images for each inner step: the
    gradients of each step's images, and the cotangents of each θ_t and s_t, t from 0 on."""
    network = FlatNetwork(problem.network)
    theta = network.flatten(problem.parameters).requires_grad_()
    state = problem.optimizer.initial_state(theta.detach())
    copies, thetas, states = [], [], []
    for t in range(stop):
        # Copies: what the next step reads as its state has cotangents of its own, without those
        # that come through θ_t.
        state = tuple(part.clone() if t else part.requires_grad_() for part in state)
        copies.append(problem.images.clone().requires_grad_())
        thetas.append(theta)
        states.append(state)
        images, labels = problem.inner_batch(t, copies[-1], problem.labels)
        loss = cross_entropies(network(theta, images), labels).mean()
        (gradient,) = torch.autograd.grad(loss, theta, create_graph=True)
        theta, state = problem.optimizer.step(theta, gradient, state, t, in_window=True)
    logits = functional_call(problem.network, network.unflatten(theta), (target[0],))
    outer_loss = torch.nn.functional.cross_entropy(logits, target[1])
    inputs = [*copies, *thetas, *(part for parts in states for part in parts)]
    found = list(torch.autograd.grad(outer_loss, inputs))
    size = len(states[0])
    rest = found[2 * stop :]
    parts = [tuple(rest[size * t : size * (t + 1)]) for t in range(stop)]
    return found[:stop], found[stop : 2 * stop], parts


@pytest.mark.parametrize("optimizer", ["adam_higher", "adam_with_decay", "sgd", "sgd_with_decay"])
def test_contributions_of_the_inner_steps_sum_to_full_bptt_and_cotangents_are_those_of_autograd(
    make_problem: MakeProblem, target: Target, optimizer: str
) -> None:
    problem = make_problem(OPTIMIZERS[optimizer], batches="subset", network="smooth")
    stop = 5
    windows = by_window(AllWindows().window_gradients(problem, list(range(stop)), [stop], *target))
    contributions, theta_bars, state_bars = unrolled(problem, stop, target)
    full = make_engine("exact").meta_gradient(problem, range(stop), *target).images
    torch.testing.assert_close(sum(contributions), full, rtol=1e-10, atol=1e-14)
    after = torch.zeros_like(full)
    for t in reversed(range(stop)):
        window = windows[t, stop]
        torch.testing.assert_close(window.images - after, contributions[t], rtol=1e-8, atol=1e-14)
        norms = [part.norm().item() for part in (theta_bars[t], *state_bars[t])]
        assert window.cotangent_norms == pytest.approx(norms, rel=1e-9)
        after = window.images


def test_the_cotangent_at_the_stop_is_the_gradient_of_the_outer_loss(
    make_problem: MakeProblem, target: Target
) -> None:
    problem = make_problem(SGD(0.1), network="smooth")
    (window,) = AllWindows().window_gradients(problem, [2], [3], *target)
    network = FlatNetwork(problem.network)
    theta = network.flatten(problem.parameters)
    for t in range(3):
        theta = theta.detach().requires_grad_()
        images, labels = problem.inner_batch(t, problem.images, problem.labels)
        loss = cross_entropies(network(theta, images), labels).mean()
        theta = theta - 0.1 * torch.autograd.grad(loss, theta)[0]
    theta = theta.detach().requires_grad_()
    outer_loss = torch.nn.functional.cross_entropy(network(theta, target[0]), target[1])
    (gradient,) = torch.autograd.grad(outer_loss, theta)
    assert window.outer_gradient_norm == pytest.approx(gradient.norm().item(), rel=1e-10)
    assert window.outer_loss == pytest.approx(outer_loss.item(), rel=1e-12)


def test_only_with_the_published_form_does_the_trajectory_depend_on_the_start(
    make_problem: MakeProblem, target: Target
) -> None:
    for name, optimizer in OPTIMIZERS.items():
        published = name == "adam_published"
        assert step_depends_on_window(optimizer, 5) == published
        problem = make_problem(optimizer)
        windows = by_window(AllWindows().window_gradients(problem, STARTS, [5], *target))
        losses = {window.outer_loss for window in windows.values()}
        assert len(losses) == (len(STARTS) if published else 1)


def test_with_the_published_form_a_partial_sum_is_not_the_window(
    make_problem: MakeProblem, target: Target
) -> None:
    """Why such windows have a pass of their own: [0, 5) is all in higher's form, [3, 5) is not."""
    published, higher = (
        make_problem(Adam(0.01, eps=1e-3, eps_form=form)) for form in ("published", "higher")
    )
    own, partial = (
        by_window(AllWindows().window_gradients(problem, STARTS, [5], *target))
        for problem in (published, higher)
    )
    assert torch.equal(own[0, 5].images, partial[0, 5].images)
    distance = (own[3, 5].images - partial[3, 5].images).norm() / own[3, 5].images.norm()
    assert distance > 1e-3


@pytest.mark.parametrize("sample_chunk", [2, 100])
@pytest.mark.parametrize("optimizer", ["adam_higher", "adam_published", "sgd"])
def test_the_variance_is_that_of_single_sample_gradients(
    make_problem: MakeProblem, target: Target, optimizer: str, sample_chunk: int
) -> None:
    problem = make_problem(OPTIMIZERS[optimizer], batches="subset")
    engine = AllWindows(sample_chunk=sample_chunk)
    images, classes = target
    found = engine.window_gradients(problem, STARTS, STOPS, images, classes, samples=4)
    for (start, stop), window in by_window(found).items():
        samples = make_engine("exact").sample_gradients(
            problem, range(start, stop), images[:4], classes[:4]
        )
        entries = samples.images.flatten(1).numpy()
        assert window.variance == pytest.approx(np.var(entries, axis=0, ddof=1).mean(), rel=1e-9)
        whole = make_engine("exact").meta_gradient(problem, range(start, stop), *target)
        assert torch.equal(window.images, whole.images)  # of the whole batch, not of the samples


def test_a_longer_window_costs_more_seconds(make_problem: MakeProblem, target: Target) -> None:
    problem = make_problem(Adam(0.01))
    windows = AllWindows().window_gradients(problem, STARTS, [5], *target)
    seconds = [window.seconds for window in sorted(windows, key=lambda window: -window.start)]
    assert seconds == sorted(seconds)
    assert all(0 < second < math.inf for second in seconds)


def test_the_precision_is_the_problems(make_problem: MakeProblem, target: Target) -> None:
    double = make_problem(Adam(0.01, eps=1e-3))
    single = replace(
        double,
        images=double.images.float(),
        labels=double.labels.float(),
        parameters={name: tensor.float() for name, tensor in double.parameters.items()},
    )
    expected = by_window(AllWindows().window_gradients(double, STARTS, STOPS, *target))
    windows = AllWindows().window_gradients(single, STARTS, STOPS, target[0].float(), target[1])
    for (start, stop), window in by_window(windows).items():
        assert window.images.dtype == torch.float32
        exact = expected[start, stop].images
        assert (window.images.double() - exact).norm() < 1e-2 * exact.norm()
        assert not torch.equal(window.images.double(), exact)
