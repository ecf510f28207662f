"""RCIG: what its gradient is made of. That it is exact, where its quadratic problems are solved, is
in test_every_objective.py."""

import pytest
import torch

from bench.config.objectives import RCIG
from bench.data import TargetSet
from bench.distillation.outer_loop import Distillation
from bench.objectives.implicit_gradients import (
    ImplicitGradients,
    Linearization,
    conjugate_gradients,
    limited,
)
from tests.bench.objectives.test_every_objective import configuration


def rcig(tiny: list[str], digits: TargetSet, **options: object) -> Distillation:
    config = configuration(tiny, "rcig", precision="float64", learn_labels=True, outer_steps=40)
    run = Distillation(config, digits.to("cpu", torch.float64))
    assert isinstance(run.objective, ImplicitGradients)
    run.objective.options = RCIG(**{**config.objective_options, **options})
    return run


def test_a_linearization_is_that_of_the_network_without_its_last_weights(
    tiny: list[str], digits: TargetSet
) -> None:
    run = rcig(tiny, digits)
    objective: ImplicitGradients = run.objective  # pyright: ignore[reportAssignmentType]
    flat, theta = objective.pool.flat, objective.pool.at(0).theta
    images = run.images[:3]
    generator = torch.Generator().manual_seed(0)
    delta = torch.randn(theta.shape, generator=generator, dtype=torch.float64)
    cotangent = torch.randn(3, 10, generator=generator, dtype=torch.float64)
    body = {name: part.clone() for name, part in flat.unflatten(delta).items()}
    body["classifier.weight"].zero_()
    step = 1e-7 * flat.flatten(body)
    slope = (flat(theta + step, images) - flat(theta - step, images)) / 2e-7
    linearized = Linearization(flat, theta, images)
    torch.testing.assert_close(linearized.times(delta), slope, rtol=1e-5, atol=1e-6)
    back = linearized.transposed(cotangent)
    assert (back * delta).sum().item() == pytest.approx((slope * cotangent).sum().item(), rel=1e-5)
    assert flat.unflatten(back)["classifier.weight"].count_nonzero() == 0


def test_conjugate_gradients_solve_in_as_many_steps_as_there_are_eigenvalues() -> None:
    generator = torch.Generator().manual_seed(0)
    basis, _ = torch.linalg.qr(torch.randn(8, 8, generator=generator, dtype=torch.float64))
    matrix = basis @ torch.diag(torch.tensor([1.0, 1, 1, 1, 4, 4, 9, 9]).double()) @ basis.T
    right = torch.randn(8, generator=generator, dtype=torch.float64)
    exact = torch.linalg.solve(matrix, right)
    errors = [
        (conjugate_gradients(lambda x: matrix @ x, right, steps) - exact).norm().item()
        for steps in (0, 1, 2, 3, 50)
    ]
    assert errors == sorted(errors, reverse=True)[:3] + errors[3:]
    assert errors[2] > 0.01
    assert max(errors[3:]) < 1e-12
    nothing = conjugate_gradients(lambda x: matrix @ x, torch.zeros(8), 5)
    assert torch.equal(nothing, torch.zeros(8))


def test_without_steps_for_it_the_implicit_gradient_is_left_out(
    tiny: list[str], digits: TargetSet
) -> None:
    gradients = []
    for options in ({"inverse_steps": 0}, {}, {"inverse_steps": 0, "limit_implicit": True}):
        run = rcig(tiny, digits, ridge=0.0005, **options)
        assert run.objective is not None
        gradients.append(run.objective.gradient(0, 0, *run.parameters.at(0)))
    direct, whole, limited_to_it = (gradient.images for gradient in gradients)
    assert (whole - direct).norm() > 0.01 * direct.norm()
    torch.testing.assert_close(limited_to_it, direct)


def test_the_implicit_gradient_is_limited_to_the_norm_of_the_direct_one() -> None:
    direct, implicit = torch.tensor([3.0, 4.0]), torch.tensor([6.0, -8.0])
    assert limited(direct, implicit).tolist() == [6, 0]
    assert limited(direct, implicit / 4).tolist() == [4.5, 2]
    for nothing in (direct, 0 * direct):
        assert torch.equal(limited(nothing, 0 * implicit), nothing)
    assert torch.equal(limited(0 * direct, implicit), 0 * direct)


def test_no_network_of_the_pool_is_used_after_its_last_step(
    tiny: list[str], digits: TargetSet
) -> None:
    run = rcig(tiny, digits)
    objective: ImplicitGradients = run.objective  # pyright: ignore[reportAssignmentType]
    ages = []
    for step in range(10):
        ages.append(objective.pool.at(step).age)
        run.outer_step()
    assert max(ages) == objective.options.online_steps - 1
    assert ages.count(0) >= 3
