"""The layers' written-out derivatives, against autograd; and what they are worth to the engine."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bench.metagrad import (
    Adam,
    ExactEngine,
    MeanLoss,
    MetaGradient,
    Problem,
    autograd_derivatives,
    make_derivatives,
    make_engine,
    mean_loss,
)
from bench.metagrad.derivatives import AutogradDerivatives
from bench.metagrad.flat import FlatNetwork
from bench.metagrad.layered import LayerDerivatives
from bench.metagrad.trace import UnknownLayer, trace
from methods import Window

CLASSES = 3


class Residual(nn.Module):
    """Two sums, one of them around a strided layer; a plain nn.Module, as in a ResNet."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(2, 4, 3, padding=1, bias=False)
        self.norm = nn.GroupNorm(4, 4)
        self.relu = nn.ReLU()
        self.inner = nn.Conv2d(4, 4, 3, padding=1)
        self.down = nn.Conv2d(4, 6, 3, stride=2, padding=1)
        self.shortcut = nn.Conv2d(4, 6, 1, stride=2, bias=False)
        self.pool = nn.AvgPool2d(2)
        self.head = nn.Linear(6 * 2 * 2, CLASSES, bias=False)

    def forward(self, images: Tensor) -> Tensor:
        x = self.relu(self.norm(self.stem(images)))
        x = x + self.inner(x)
        x = self.relu(self.down(x) + self.shortcut(x))
        return self.head(torch.flatten(self.pool(x), 1))


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "residual": Residual,
    "strided": lambda: nn.Sequential(
        nn.Conv2d(2, 3, (3, 2), stride=(2, 1), padding=(1, 0), dilation=(1, 2)),
        nn.GroupNorm(3, 3),
        nn.AvgPool2d(3, stride=2),
        nn.Flatten(),
        nn.Linear(3 * 1 * 2, 5),
        nn.ReLU(),
        nn.Linear(5, CLASSES),
    ),
    "max_pools": lambda: nn.Sequential(
        nn.Conv2d(2, 3, 3, padding=1),
        nn.MaxPool2d(2),
        nn.ReLU(),
        nn.GroupNorm(3, 3),
        nn.MaxPool2d((3, 2), stride=(2, 1), padding=1, ceil_mode=True),
        nn.Flatten(),
        nn.Linear(3 * 3 * 5, CLASSES),
    ),
    "max_pool_first": lambda: nn.Sequential(
        nn.MaxPool2d(2, stride=1, dilation=3), nn.Conv2d(2, 3, 2), nn.Flatten(), nn.Linear(48, 3)
    ),
    "norm_first": lambda: nn.Sequential(
        nn.GroupNorm(2, 2), nn.ReLU(), nn.Conv2d(2, 3, 3), nn.Flatten(), nn.Linear(108, CLASSES)
    ),
    "linear": lambda: nn.Sequential(nn.Flatten(), nn.Linear(128, CLASSES)),
}


def float64(*shape: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, dtype=torch.float64, generator=generator)


@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
@pytest.mark.parametrize("directions", [1, 3])
@pytest.mark.parametrize("name", NETWORKS)
def test_equal_autograd(name: str, directions: int, layout: torch.memory_format) -> None:
    network = NETWORKS[name]()
    flat = FlatNetwork(network)
    theta = 0.5 * float64(sum(flat.sizes), seed=1)
    batch = float64(4, 2, 8, 8, seed=2), float64(4, CLASSES, seed=3).exp()
    moved = float64(directions, len(theta), seed=4)
    layered, reference = LayerDerivatives(flat, layout=layout), AutogradDerivatives(flat)
    assert close(layered.logits(theta, batch[0]), reference.logits(theta, batch[0]))
    for ours, theirs in zip(
        layered.gradient(theta, *batch), reference.gradient(theta, *batch), strict=True
    ):
        assert close(ours, theirs)
    ours, theirs = layered.linearize(theta, *batch), reference.linearize(theta, *batch)
    assert torch.equal(ours.gradient(), layered.gradient(theta, *batch)[0])
    for _ in range(2):  # a linearization can be asked more than once, with other directions
        moved = moved.flip(1)
        for part, expected in zip(ours.hvp(moved), theirs.hvp(moved), strict=True):
            assert expected.norm() > 0
            assert close(part, expected)


def close(ours: Tensor, theirs: Tensor) -> bool:
    assert ours.shape == theirs.shape
    return bool((ours - theirs).norm() <= 1e-12 * theirs.norm())


@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
def test_a_tie_in_a_max_pool_is_won_by_the_pixel_that_torch_takes(
    layout: torch.memory_format,
) -> None:
    network = nn.Sequential(nn.MaxPool2d(2), nn.Conv2d(2, 3, 3), nn.Flatten(), nn.Linear(12, 3))
    flat = FlatNetwork(network)
    theta = float64(sum(flat.sizes), seed=1)
    images = float64(4, 2, 8, 8, seed=2).round()
    windows = images.unfold(2, 2, 2).unfold(3, 2, 2).flatten(-2)
    tied = (windows == windows.amax(-1, keepdim=True)).sum(-1) > 1
    assert tied.double().mean() > 0.3
    batch, moved = (images, float64(4, 3, seed=3).exp()), float64(2, len(theta), seed=4)
    ours, theirs = (
        derivatives.linearize(theta, *batch).hvp(moved)[1]
        for derivatives in (LayerDerivatives(flat, layout=layout), AutogradDerivatives(flat))
    )
    assert torch.equal(ours == 0, theirs == 0)
    assert close(ours, theirs)


def test_a_max_pool_hands_on_nan() -> None:
    derivatives = make_derivatives(nn.Sequential(nn.MaxPool2d(2), nn.Flatten(), nn.Linear(4, 1)))
    images = torch.zeros(1, 1, 4, 4)
    images[0, 0, 2, 1] = torch.nan
    assert derivatives.logits(torch.ones(5), images).isnan().all()


@pytest.mark.parametrize(
    "layer",
    [
        nn.Tanh(),
        nn.MaxPool2d(2, return_indices=True),
        nn.GroupNorm(1, 2),
        nn.GroupNorm(2, 2, affine=False),
        nn.AvgPool2d(2, ceil_mode=True),
        nn.Conv2d(2, 2, 1, groups=2),
        nn.Conv2d(2, 2, 3, padding=1, padding_mode="circular"),
        nn.Conv2d(2, 2, 3, padding="same"),
        nn.BatchNorm2d(2),
    ],
    ids=str,
)
def test_an_unknown_layer_is_left_to_autograd(layer: nn.Module) -> None:
    network = nn.Sequential(layer, nn.Flatten())
    with pytest.raises(UnknownLayer):
        trace(network)
    assert isinstance(make_derivatives(network), AutogradDerivatives)


def test_inputs_that_are_no_images_go_through_autograd_on_request(
    error: Callable[[MetaGradient, MetaGradient], float],
) -> None:
    network = nn.Sequential(nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, CLASSES)).double()
    parameters = dict(network.named_parameters())
    labels = torch.eye(CLASSES, dtype=torch.float64)
    problem = Problem(network, parameters, Adam(0.01, eps=1e-3), float64(3, 5, seed=1), labels)
    target = float64(4, 5, seed=2), torch.tensor([0, 1, 2, 0])
    with pytest.raises(ValueError, match="autograd_derivatives"):
        ExactEngine().meta_gradient(problem, range(1, 4), *target)
    answer = ExactEngine(derivatives=autograd_derivatives).meta_gradient(
        problem, range(1, 4), *target
    )
    assert error(answer, make_engine("higher").meta_gradient(problem, range(1, 4), *target)) < 1e-9


class Shared(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(self.layer(x))


class Branching(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x if x.sum() > 0 else -x


@pytest.mark.parametrize("network", [Shared(), Branching()], ids=["shared", "branching"])
def test_what_is_no_plain_composition_is_left_to_autograd(network: nn.Module) -> None:
    assert isinstance(make_derivatives(network), AutogradDerivatives)


@pytest.mark.parametrize("network", ["convnet", "smooth"])
@pytest.mark.parametrize("stored", [1, 2, 1000])
def test_stored_steps_give_the_bits_of_recomputed_ones(
    make_problem: Callable[..., Problem],
    target: tuple[Tensor, Tensor],
    network: str,
    stored: int,
) -> None:
    problem = make_problem(
        Adam(0.01), batches="augmented_subset", network=network, learn_labels=True
    )
    loss = MeanLoss(make_derivatives(problem.network))
    theta = loss.derivatives.flatten(problem.parameters)
    batch = problem.inner_batch(0, problem.images, problem.labels)
    n_bytes = loss.linearization_bytes(theta, *batch)
    assert n_bytes > 0
    answer = ExactEngine(stored * n_bytes).meta_gradient(problem, Window(1, 5), *target)
    expected = ExactEngine().meta_gradient(problem, Window(1, 5), *target)
    assert torch.equal(answer.images, expected.images)
    assert answer.labels is not None
    assert expected.labels is not None
    assert torch.equal(answer.labels, expected.labels)


@pytest.mark.parametrize("kind", [LayerDerivatives, AutogradDerivatives])
def test_weights_are_not_counted_among_the_activations(
    kind: Callable[[FlatNetwork], LayerDerivatives | AutogradDerivatives],
) -> None:
    flat = FlatNetwork(nn.Sequential(nn.Flatten(), nn.Linear(128, 500), nn.Linear(500, CLASSES)))
    theta = float64(sum(flat.sizes), seed=1)
    batch = float64(1, 2, 8, 8, seed=2), float64(1, CLASSES, seed=3)
    assert 0 < kind(flat).linearization_bytes(theta, *batch) < theta.nbytes / 10


@pytest.mark.parametrize("images_at_once", [1, 2, 4, 5])
@pytest.mark.parametrize("network", ["convnet", "smooth"])
def test_the_parts_of_a_batch_have_no_effect_beyond_rounding(
    make_problem: Callable[..., Problem],
    error: Callable[[MetaGradient, MetaGradient], float],
    target: tuple[Tensor, Tensor],
    network: str,
    images_at_once: int,
) -> None:
    problem = make_problem(Adam(0.01, eps=1e-4), network=network, learn_labels=True)
    engine = ExactEngine(images_at_once=images_at_once)
    answer = engine.meta_gradient(problem, Window(1, 5), *target)
    whole = ExactEngine(images_at_once=100).meta_gradient(problem, Window(1, 5), *target)
    assert error(answer, whole) < 1e-9


def test_a_part_is_not_much_smaller_than_the_parameters(monkeypatch: pytest.MonkeyPatch) -> None:
    flat = FlatNetwork(nn.Sequential(nn.Flatten(), nn.Linear(128, 50), nn.Linear(50, CLASSES)))
    theta = float64(sum(flat.sizes), seed=1)
    batch = float64(200, 2, 8, 8, seed=2), float64(200, CLASSES, seed=3)
    derivatives = LayerDerivatives(flat)
    n_bytes = derivatives.linearization_bytes(theta, *(part[:1].clone() for part in batch))
    sizes: list[int] = []

    def noting(theta: Tensor, images: Tensor, *of_images: Any) -> tuple[Tensor, Tensor]:
        sizes.append(len(images))
        return LayerDerivatives.gradient(derivatives, theta, images, *of_images)

    monkeypatch.setattr(derivatives, "gradient", noting)
    monkeypatch.setitem(mean_loss.PART_BYTES, "cpu", 1)
    MeanLoss(derivatives).gradient(theta, *batch)
    assert len(sizes) > 1
    assert 3 * theta.nbytes < sizes[0] * n_bytes <= 4 * theta.nbytes


def test_an_overflow_is_not_turned_into_a_number() -> None:
    network = nn.Sequential(nn.GroupNorm(2, 2), nn.Flatten(), nn.Linear(8, CLASSES))
    derivatives = make_derivatives(network)
    theta = torch.ones(sum(p.numel() for p in network.parameters()))
    images = 1e30 * torch.arange(8.0).view(1, 2, 2, 2)
    assert not derivatives.logits(theta, images).isfinite().any()


class Broadcasting(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.many = nn.Linear(4, 1), nn.Linear(4, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.flatten(x, 1)
        return self.one(x) + self.many(x)


def test_a_sum_that_broadcasts_is_refused_and_not_differentiated_wrongly() -> None:
    derivatives = make_derivatives(Broadcasting())
    with pytest.raises(ValueError, match="different shapes"):
        derivatives.logits(torch.ones(20), torch.ones(2, 4, 1, 1))
