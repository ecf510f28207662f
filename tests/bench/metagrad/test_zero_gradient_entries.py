"""Parameters with an inner gradient of exactly zero: Adam's v is 0 and √v has no derivative."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from bench.metagrad import EPS_FORMS, Adam, MetaGradient, Problem, make_engine
from bench.networks import initial_parameters
from bench.training.randomness import torch_generator
from methods import Window

DARK = 5  # this row of pixels is zero in some images; its weights have gradient zero on them


def linear_problem(problem: Problem, dark_images: slice) -> Problem:
    """`problem` with a linear network: the gradient of a weight is exactly zero where its pixel
    is, but its derivative with respect to that pixel is not."""
    images = problem.images.clone()
    images[dark_images, :, DARK] = 0
    network = nn.Sequential(nn.Flatten(), nn.Linear(images[0].numel(), problem.labels.shape[1]))
    initial = initial_parameters(network, torch_generator(0, "linear"))
    parameters = {name: tensor.double() for name, tensor in initial.items()}
    return replace(problem, network=network, parameters=parameters, images=images)


def one_image(t: int, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    return images[t : t + 1], labels[t : t + 1]


@pytest.mark.parametrize("learn_labels", [False, True])
@pytest.mark.parametrize("window", [Window(0, 4), Window(1, 3)], ids=str)
@pytest.mark.parametrize("eps_form", EPS_FORMS)
def test_entries_that_never_get_a_gradient_are_finite_and_equal_highers(
    make_problem: Callable[..., Problem],
    error: Callable[[MetaGradient, MetaGradient], float],
    target: tuple[Tensor, Tensor],
    eps_form: str,
    window: Window,
    learn_labels: bool,
) -> None:
    problem = make_problem(Adam(0.01, eps_form=eps_form), learn_labels=learn_labels)
    problem = linear_problem(problem, slice(None))
    exact = make_engine("exact").meta_gradient(problem, window, *target)
    assert exact.images.isfinite().all()
    assert exact.images[:, :, DARK].all()
    assert error(exact, make_engine("higher").meta_gradient(problem, window, *target)) < 1e-9


@pytest.mark.parametrize("window", [Window(0, 4), Window(1, 4), Window(0, 2)], ids=str)
def test_entries_that_get_their_first_gradient_later_are_finite_and_equal_highers(
    make_problem: Callable[..., Problem],
    error: Callable[[MetaGradient, MetaGradient], float],
    target: tuple[Tensor, Tensor],
    window: Window,
) -> None:
    """The images of the first two steps are dark, those of the next two are not."""
    problem = linear_problem(make_problem(Adam(0.01)), slice(0, 2))
    problem = replace(problem, inner_batch=one_image)
    exact = make_engine("exact").meta_gradient(problem, window, *target)
    assert exact.images.isfinite().all()
    assert error(exact, make_engine("higher").meta_gradient(problem, window, *target)) < 1e-9


def test_single_sample_gradients_are_finite_and_equal_highers(
    make_problem: Callable[..., Problem],
    error: Callable[[MetaGradient, MetaGradient], float],
    target: tuple[Tensor, Tensor],
) -> None:
    problem = linear_problem(make_problem(Adam(0.01)), slice(None))
    exact = make_engine("exact").sample_gradients(problem, Window(1, 3), *target)
    assert exact.images.isfinite().all()
    reference = make_engine("higher").sample_gradients(problem, Window(1, 3), *target)
    assert error(exact, reference) < 1e-9


@pytest.mark.parametrize("engine", ["exact", "higher"])
def test_dead_units_leave_the_gradient_finite(
    make_problem: Callable[..., Problem], target: tuple[Tensor, Tensor], engine: str
) -> None:
    """A channel behind which every ReLU is off: its parameters have no gradient at all."""
    problem = make_problem(Adam(0.01))
    problem.parameters["features.1.bias"][0] = -100.0
    answer = make_engine(engine).meta_gradient(problem, Window(1, 4), *target)
    assert answer.images.isfinite().all()
    assert torch.any(answer.images != 0)
