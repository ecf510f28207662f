"""Forward training: each inner optimizer equals its torch namesake step by step in float64."""

import copy
import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from bench.metagrad import (
    SGD,
    Adam,
    InnerOptimizer,
    MeanLoss,
    Problem,
    make_derivatives,
    make_engine,
)
from bench.metagrad.exact import forward
from bench.metagrad.flat import FlatNetwork
from bench.training.randomness import torch_generator
from methods import Window

STEPS = 6
OPTIMIZERS: dict[str, Adam | SGD] = {
    "adam": Adam(0.01),
    "adam_other_betas": Adam(0.01, beta1=0.5, beta2=0.9, eps=1e-2),
    "adam_with_decay": Adam(0.01, weight_decay=0.1, decay_steps=(1, 4), decay_factor=0.2),
    "sgd": SGD(0.1),
    "sgd_with_decay": SGD(
        0.1, momentum=0.9, weight_decay=0.1, decay_steps=(1, 4), decay_factor=0.2
    ),
}


def torch_namesake(optimizer: Adam | SGD, parameters: list[Tensor]) -> torch.optim.Optimizer:
    if isinstance(optimizer, SGD):
        return torch.optim.SGD(
            parameters, optimizer.lr, optimizer.momentum, weight_decay=optimizer.weight_decay
        )
    return torch.optim.Adam(
        parameters,
        optimizer.lr,
        (optimizer.beta1, optimizer.beta2),
        optimizer.eps,
        optimizer.weight_decay,
    )


def step_decay(
    optimizer: Adam | SGD, theirs: torch.optim.Optimizer
) -> torch.optim.lr_scheduler.LRScheduler:
    """torch's own step decay."""
    return torch.optim.lr_scheduler.MultiStepLR(
        theirs, list(optimizer.decay_steps), optimizer.decay_factor
    )


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_step_equals_torchs_on_a_sequence_of_gradients(name: str) -> None:
    optimizer = OPTIMIZERS[name]
    generator = torch_generator(0, "gradients")
    theta = torch.randn(20, dtype=torch.float64, generator=generator)
    state = optimizer.initial_state(theta)
    parameter = theta.clone().requires_grad_()
    theirs = torch_namesake(optimizer, [parameter])
    schedule = step_decay(optimizer, theirs)
    for t in range(STEPS):
        grad = torch.randn(20, dtype=torch.float64, generator=generator)
        theta, state = optimizer.step(theta, grad, state, t)
        parameter.grad = grad.clone()
        theirs.step()
        schedule.step()
        torch.testing.assert_close(theta, parameter.detach(), rtol=1e-13, atol=1e-13)


def test_eps_before_the_correction_is_todays_form_with_eps_over_root_one_minus_beta2_power() -> (
    None
):
    optimizer = Adam(0.01, eps=1e-2, eps_form="higher")
    generator = torch_generator(0, "gradients")
    theta = torch.randn(20, dtype=torch.float64, generator=generator)
    state = optimizer.initial_state(theta)
    parameter = theta.clone().requires_grad_()
    theirs = torch_namesake(optimizer, [parameter])
    for t in range(STEPS):
        grad = torch.randn(20, dtype=torch.float64, generator=generator)
        today, _ = Adam(0.01, eps=1e-2).step(theta, grad, state, t)
        theta, state = optimizer.step(theta, grad, state, t)
        assert (theta - today).abs().max() > 1e-6
        theirs.param_groups[0]["eps"] = 1e-2 / math.sqrt(1 - 0.999 ** (t + 1))
        parameter.grad = grad.clone()
        theirs.step()
        torch.testing.assert_close(theta, parameter.detach(), rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("optimizer", OPTIMIZERS.values(), ids=list(OPTIMIZERS))
def test_a_step_changes_nothing_in_place(optimizer: InnerOptimizer) -> None:
    theta = torch.randn(5, dtype=torch.float64, generator=torch_generator(0, "theta"))
    grad = theta.flip(0)
    _, state = optimizer.step(theta, grad, optimizer.initial_state(theta), 0)
    given = (theta, grad, *state)
    before = [tensor.clone() for tensor in given]
    optimizer.step(theta, grad, state, 1)
    optimizer.adjoint(grad, state, theta, grad, state, 1)
    assert all(torch.equal(tensor, old) for tensor, old in zip(given, before, strict=True))


@pytest.mark.parametrize("batches", ["whole_set", "augmented_subset"])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_training_inside_the_engines_equals_a_torch_training_loop(
    make_problem: Callable[..., Problem], target: tuple[Tensor, Tensor], name: str, batches: str
) -> None:
    optimizer = OPTIMIZERS[name]
    problem = make_problem(optimizer, batches=batches)
    network = copy.deepcopy(problem.network).double()
    network.load_state_dict(problem.parameters)
    theirs = torch_namesake(optimizer, list(network.parameters()))
    schedule = step_decay(optimizer, theirs)
    thetas: list[Tensor] = []
    for t in range(STEPS):
        thetas.append(torch.nn.utils.parameters_to_vector(network.parameters()).detach())
        images, labels = problem.inner_batch(t, problem.images, problem.labels)
        theirs.zero_grad()
        F.cross_entropy(network(images), labels).backward()
        theirs.step()
        schedule.step()
    theta_stop = torch.nn.utils.parameters_to_vector(network.parameters()).detach()
    outer_loss = F.cross_entropy(network(target[0]), target[1]).item()

    window = Window(1, STEPS)
    steps, ours_stop = forward(MeanLoss(make_derivatives(problem.network)), problem, window)
    # A bias before a norm has a gradient of rounding noise alone, which Adam enlarges.
    for ours, expected in zip(steps, thetas[1:], strict=True):
        torch.testing.assert_close(ours.theta, expected, rtol=0, atol=1e-8)
    torch.testing.assert_close(ours_stop, theta_stop, rtol=0, atol=1e-8)
    for engine in ("exact", "higher"):
        answer = make_engine(engine).meta_gradient(problem, window, *target)
        assert answer.outer_loss.item() == pytest.approx(outer_loss, rel=1e-10)


def test_the_flat_network_is_the_module_as_a_function_of_its_parameters(
    make_problem: Callable[..., Problem], target: tuple[Tensor, Tensor]
) -> None:
    problem = make_problem(SGD(0.1))
    flat = FlatNetwork(problem.network)
    theta = flat.flatten(problem.parameters)
    module = copy.deepcopy(problem.network).double()
    module.load_state_dict(problem.parameters)
    assert torch.equal(theta, torch.nn.utils.parameters_to_vector(module.parameters()))
    assert torch.equal(flat(theta, target[0]), module(target[0]))
    many = torch.stack([theta, 2 * theta])
    for name, tensor in flat.unflatten(many).items():
        assert torch.equal(tensor[1], 2 * problem.parameters[name])
