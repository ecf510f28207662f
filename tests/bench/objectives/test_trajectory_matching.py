"""Trajectory matching (MTT): the student's gradients, its learning rate, and its protocol."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import higher
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from bench.config.objectives import MTT
from bench.config.protocol import ProtocolOptions
from bench.data import TargetSet
from bench.distillation.outer_loop import Distillation
from bench.metagrad import SGD, MeanLoss, Problem, make_derivatives
from bench.metagrad.flat import FlatNetwork
from bench.networks import ConvNet, initial_parameters
from bench.objectives.trajectory_matching import (
    LEAST_LR,
    StudentBatches,
    TrajectoryMatching,
    matching_gradient,
)
from bench.system.errors import UserError
from bench.training.randomness import torch_generator
from tests.bench.objectives.trajectories import OPTIONS, configuration

STEPS, CLASSES, SHAPE = 5, 3, (2, 8, 8)


def student() -> tuple[Problem, Tensor]:
    """A problem in float64, with mini-batches, an augmentation and labels that are learned; and a
    target [P]."""
    network = ConvNet(SHAPE, CLASSES, width=4, depth=2).double()
    start, other = (
        {k: v.double() for k, v in initial_parameters(network, torch_generator(k, "θ")).items()}
        for k in range(2)
    )
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(7, *SHAPE, generator=generator, dtype=torch.float64)
    labels = torch.rand(7, CLASSES, generator=generator, dtype=torch.float64)
    batches = StudentBatches(MTT(student_batch=3), seed=0, step=0)
    problem = Problem(network, start, SGD(0.1), images, labels, batches, learn_labels=True)
    return problem, FlatNetwork(network).flatten(other)


def expected_by_autograd(problem: Problem, target: Tensor, lr: Tensor, leaves: list[Tensor]) -> Any:
    """The loss, through a graph of all steps."""
    network = FlatNetwork(problem.network)
    theta = start = network.flatten(problem.parameters).requires_grad_()
    for t in range(STEPS):
        images, labels = problem.inner_batch(t, *leaves)
        loss = -(labels * F.log_softmax(network(theta, images), dim=1)).sum(1).mean()
        (gradient,) = torch.autograd.grad(loss, theta, create_graph=True)
        theta = theta - lr * gradient
    return (theta - target).square().sum() / (start.detach() - target).square().sum()


def expected_by_higher(problem: Problem, target: Tensor, lr: Tensor, leaves: list[Tensor]) -> Any:
    """The same by the library that the paper used."""
    network = copy.deepcopy(problem.network)
    network.load_state_dict(problem.parameters)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    start = FlatNetwork(network).flatten(problem.parameters)
    with higher.innerloop_ctx(network, optimizer, override={"lr": [lr]}) as (unrolled, steps):
        for t in range(STEPS):
            images, labels = problem.inner_batch(t, *leaves)
            loss = -(labels * F.log_softmax(unrolled(images), dim=1)).sum(1).mean()
            steps.step(loss)
        theta = torch.cat([part.flatten() for part in unrolled.parameters()])
    return (theta - target).square().sum() / (start - target).square().sum()


@pytest.mark.parametrize("reference", [expected_by_autograd, expected_by_higher])
def test_the_gradients_of_images_labels_and_learning_rate_are_exact(
    reference: Callable[..., Tensor],
) -> None:
    problem, target = student()
    loss = MeanLoss(make_derivatives(problem.network))
    gradient, of_lr = matching_gradient(loss, problem, STEPS, target)
    lr = torch.tensor(0.1, dtype=torch.float64, requires_grad=True)
    leaves = [problem.images.clone().requires_grad_(), problem.labels.clone().requires_grad_()]
    value = reference(problem, target, lr, leaves)
    expected = torch.autograd.grad(value, [*leaves, lr])
    torch.testing.assert_close(gradient.outer_loss, value.detach())
    for own, other in zip([gradient.images, gradient.labels, of_lr], expected, strict=True):
        assert own is not None
        assert other.norm() > 0
        torch.testing.assert_close(own, other, rtol=1e-9, atol=1e-12)


def test_batches_of_a_student_use_every_image_once_before_one_comes_again() -> None:
    batches = StudentBatches(MTT(student_batch=3, augmentation="none"), seed=0, step=4)
    images, labels = torch.arange(7.0).view(7, 1, 1, 1), torch.eye(7)
    drawn = [batches(t, images, labels) for t in range(6)]
    for epoch in (drawn[:3], drawn[3:]):
        assert [len(part) for part, _ in epoch] == [3, 3, 1]
        assert sorted(torch.cat([part for part, _ in epoch]).flatten().tolist()) == list(range(7))
        for part, of_part in epoch:
            assert of_part.argmax(1).tolist() == part.flatten().tolist()
    assert not torch.equal(drawn[0][0], drawn[3][0])


def test_the_learning_rate_is_learned_by_sgd_with_momentum(
    digits: TargetSet, cache_root: Path
) -> None:
    config = configuration({**OPTIONS, "student_lr": 0.2, "lr_lr": 1e-4})
    run = Distillation(config, digits, cache_root=cache_root)
    objective = run.objective
    assert isinstance(objective, TrajectoryMatching)
    assert objective.student_lr == 0.2
    lr = torch.tensor(0.2, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.SGD([lr], lr=1e-4, momentum=0.5)
    for _ in range(4):
        run.outer_step()
        lr.grad = objective.lr_gradient.double()
        optimizer.step()
        assert objective.student_lr == pytest.approx(lr.item(), rel=1e-6)
    assert objective.student_lr != pytest.approx(0.2, rel=1e-4)


def test_the_learning_rate_stays_above_zero(digits: TargetSet, cache_root: Path) -> None:
    config = configuration({**OPTIONS, "student_lr": 0.2, "lr_lr": 0.1})
    run = Distillation(config, digits, cache_root=cache_root)
    rates = []
    for _ in range(6):
        run.outer_step()
        assert isinstance(run.objective, TrajectoryMatching)
        rates.append(run.objective.student_lr)
    assert min(rates) == LEAST_LR


def test_the_matched_epochs_are_epochs_of_the_experts() -> None:
    with pytest.raises(UserError, match=r"expert_epochs=20: .* need 21"):
        configuration({"expert_epochs": 20})
    configuration({"expert_epochs": 21})


def test_its_protocol_is_that_of_dsa_with_whitening() -> None:
    dsa, own = (ProtocolOptions(name).settings() for name in ("dsa", "mtt"))
    assert own == {**dsa, "zca": True}
