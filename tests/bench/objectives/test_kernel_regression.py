"""Kernel ridge regression and the objectives that are made of it."""

import pytest
import torch

from bench.config.objectives import RFAD
from bench.data import TargetSet
from bench.distillation.divergence import Diverged
from bench.distillation.outer_loop import Distillation
from bench.objectives.feature_regression import FeatureRegression
from bench.objectives.kernel_regression import predictions
from bench.objectives.random_features import RandomFeatures, features
from bench.objectives.tangent_kernel import tangent_kernel
from tests.bench.objectives.test_every_objective import configuration


def normal(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape))).double()


def test_the_kernel_predicts_what_ridge_regression_on_the_features_does() -> None:
    features, labels, targets = normal(6, 20), normal(6, 3), normal(5, 20)
    ridge = 0.1 * features.square().sum(1).mean()
    rows = torch.cat([features, ridge.sqrt() * torch.eye(20)])  # ridge regression as least squares
    weights = torch.linalg.lstsq(rows, torch.cat([labels, torch.zeros(20, 3)])).solution
    kernels = (features @ features.T, targets @ features.T)
    torch.testing.assert_close(predictions(*kernels, labels, 0.1), targets @ weights)


@pytest.mark.parametrize("name", ["frepo", "kip", "rfad", "rcig"])
def test_a_distilled_set_that_is_not_finite_ends_the_run_as_diverged(
    tiny: list[str], digits: TargetSet, name: str
) -> None:
    run = Distillation(configuration(tiny, name), digits)
    run.images[2, 0, 3, 3] = torch.nan
    with pytest.raises(Diverged, match="the distilled set is not finite before outer step 0"):
        run.outer_step()


def frepo(tiny: list[str], digits: TargetSet) -> Distillation:
    run = Distillation(configuration(tiny, "frepo", learn_labels=True, outer_steps=40), digits)
    assert isinstance(run.objective, FeatureRegression)
    return run


def test_frepo_trains_one_network_of_its_pool_at_a_time_and_replaces_it(
    tiny: list[str], digits: TargetSet
) -> None:
    run = frepo(tiny, digits)
    objective: FeatureRegression = run.objective  # pyright: ignore[reportAssignmentType]
    limit = objective.options.online_steps
    assert [member.age for member in objective.pool.members] == [0, 1]  # not replaced together
    replaced = 0
    for _ in range(12):
        before = list(objective.pool.members)
        run.outer_step()
        changed = [
            (old, new)
            for old, new in zip(before, objective.pool.members, strict=True)
            if new is not old
        ]
        [(old, new)] = changed
        assert not torch.equal(old.theta, new.theta)
        if old.age == limit:
            assert (new.age, new.updates, new.moments[0].norm().item()) == (0, 0, 0)
            replaced += 1
        else:
            assert (new.age, new.updates) == (old.age + 1, old.updates + 1)
    assert replaced >= 2


@pytest.mark.parametrize(("second", "moves"), [(0.95, True), (0.5, False)])
def test_frepo_keeps_learned_labels_in_their_class(
    tiny: list[str], digits: TargetSet, second: float, moves: bool
) -> None:
    objective = frepo(tiny, digits).objective
    assert objective is not None
    labels = torch.eye(10)
    labels[3, 8] = second
    # From ten equal images the regression learns the mean of their labels alone, whose gradient is
    # the same for each: what differs is the margin's, which is a mean over ten images.
    same = digits.train.images[:1].expand(10, -1, -1, -1)
    slopes = objective.gradient(0, 0, same, labels).labels
    assert slopes is not None
    difference = slopes[3] - slopes[4]
    expected = torch.zeros(10)
    if moves:
        expected[3], expected[8] = -0.1, 0.1
    torch.testing.assert_close(difference, expected, atol=1e-5, rtol=0)


def test_the_tangent_kernel_is_that_of_wide_networks() -> None:
    """Of 20 networks with 400 units in each of two hidden layers, drawn as the kernel assumes."""
    inputs, width, networks = normal(4, 10), 400, 20
    inputs[3] = inputs[0]
    generator = torch.Generator().manual_seed(0)
    empirical = torch.zeros(4, 4).double()
    for _ in range(networks):
        sizes = [(width, 10), (width, width), (1, width)]
        weights = [torch.randn(size, generator=generator).double() for size in sizes]
        biases = [torch.randn(size[0], generator=generator).double() for size in sizes]
        learned = [part.requires_grad_() for part in [*weights, *biases]]
        outputs = inputs
        for k, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
            outputs = outputs @ weight.T * (2 / weight.shape[1]) ** 0.5 + 0.1 * bias
            outputs = outputs.relu() if k < 2 else outputs
        rows = [torch.autograd.grad(one, learned, retain_graph=True) for one in outputs[:, 0]]
        jacobian = torch.stack([torch.cat([part.flatten() for part in row]) for row in rows])
        empirical += jacobian @ jacobian.T / networks
    exact = tangent_kernel(inputs, inputs, depth=2)
    torch.testing.assert_close(empirical, exact, rtol=0.05, atol=0.05 * exact.mean().item())
    assert torch.equal(exact[0], exact[3])
    assert not torch.allclose(empirical, tangent_kernel(inputs, inputs, depth=1), rtol=0.1)


def test_random_features_estimate_the_nngp_kernel_of_a_convolutional_network(
    tiny: list[str], digits: TargetSet
) -> None:
    """Against its closed form for one block and images of 2x2, which is one pooled pixel: the mean
    over all pairs of pixels of E[relu(a) relu(b)], for the covariances of their patches."""
    run = Distillation(configuration(tiny, "rfad"), digits)
    assert isinstance(run.objective, RandomFeatures)
    images = normal(3, 1, 2, 2)
    patches = torch.nn.functional.unfold(images, 3, padding=1).transpose(1, 2).reshape(12, 9)
    covariance = 2 / 9 * patches @ patches.T + 0.01  # [images*pixels, images*pixels]
    lengths = covariance.diagonal().sqrt()
    angles = (covariance / (lengths[:, None] * lengths)).clamp(-1, 1).arccos()
    pairs = lengths[:, None] * lengths * (angles.sin() + (torch.pi - angles) * angles.cos())
    exact = 2 / (2 * torch.pi) * pairs.view(3, 4, 3, 4).mean((1, 3))
    run.objective.options = RFAD(networks=4, width=20_000, depth=1)
    networks = [run.objective.layers(0, 0, k) for k in range(4)]
    double = [[(weights.double(), biases.double()) for weights, biases in one] for one in networks]
    estimate = features(double, images)
    torch.testing.assert_close(estimate @ estimate.T, exact, rtol=0.02, atol=0.02)


def test_rfad_learns_its_temperature(tiny: list[str], digits: TargetSet) -> None:
    """By Adam, whose first step is the learning rate, against the slope by finite differences."""
    double = digits.to("cpu", torch.float64)
    run = Distillation(configuration(tiny, "rfad", precision="float64"), double)
    objective = run.objective
    assert isinstance(objective, RandomFeatures)
    start, losses = objective.state(), []
    for tau in (1e-4, -1e-4):
        objective.load_state({**start, "tau": torch.tensor(tau).double()})
        losses.append(objective.gradient(run.config.seed, 0, *run.parameters.at(0)).outer_loss)
    objective.load_state(start)
    slope = (losses[0] - losses[1]).item() / 2e-4
    run.outer_step()
    assert objective.platt.slope.item() == pytest.approx(slope, rel=1e-4)
    rate = objective.options.temperature_lr
    assert objective.platt.tau.item() == pytest.approx(-rate if slope > 0 else rate)
