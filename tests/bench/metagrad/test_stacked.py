"""Several networks at once: the gradients are those of each alone."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from bench.metagrad import (
    Derivatives,
    make_derivatives,
    networks_at_once,
    stacked,
    stacked_derivatives,
)
from bench.metagrad.derivatives import AutogradDerivatives
from bench.metagrad.flat import FlatNetwork
from bench.metagrad.stacked import StackedAutograd, StackedLayers, multiply_adds
from bench.networks import ConvNet, build_network

CLASSES, NETWORKS, BATCH = 3, 4, 5


class Residual(nn.Module):
    """A sum around a strided layer, layers without biases, both pools, and a norm on the images."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(2, 2)
        self.stem = nn.Conv2d(2, 4, 3, padding=1, bias=False)
        self.inner = nn.Conv2d(4, 6, (3, 2), stride=2, padding=1, dilation=(1, 2))
        self.shortcut = nn.Conv2d(4, 6, 1, stride=2, bias=False)
        self.relu = nn.ReLU()
        self.widest = nn.MaxPool2d(2, stride=1, padding=1)
        self.pool = nn.AvgPool2d(4, stride=1)
        self.hidden = nn.Linear(24, 7)
        self.head = nn.Linear(7, CLASSES, bias=False)

    def forward(self, images: Tensor) -> Tensor:
        x = self.relu(self.stem(self.norm(images)))
        x = self.widest(self.relu(self.inner(x) + self.shortcut(x)))
        return self.head(self.relu(self.hidden(torch.flatten(self.pool(x), 1))))


LAYERED: dict[str, Callable[[], nn.Module]] = {
    "convnet": lambda: ConvNet((2, 8, 8), CLASSES, width=4, depth=2),
    "residual": Residual,
    "linear": lambda: nn.Sequential(nn.Flatten(), nn.Linear(128, CLASSES)),
}
OTHERS: dict[str, Callable[[], nn.Module]] = {
    "smooth": lambda: nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1),
        nn.GroupNorm(2, 4),
        nn.Tanh(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(64, CLASSES),
    ),
}


def random_point(one: Derivatives, network: nn.Module) -> tuple[Tensor, Tensor, Tensor]:
    """θ [networks, P], images [batch, networks, C, H, W], labels that are not normalized."""
    generator = torch.Generator().manual_seed(0)

    def float64(*shape: int) -> Tensor:
        return torch.randn(*shape, dtype=torch.float64, generator=generator)

    parameters = {
        name: float64(NETWORKS, *tensor.shape) for name, tensor in network.named_parameters()
    }
    theta = [
        one.flatten({name: part[k] for name, part in parameters.items()}) for k in range(NETWORKS)
    ]
    images = float64(BATCH, NETWORKS, 2, 8, 8)
    return 0.5 * torch.stack(theta), images, float64(BATCH, NETWORKS, CLASSES).exp()


def separately(one: Derivatives, theta: Tensor, images: Tensor, labels: Tensor) -> Tensor:
    return torch.stack(
        [one.gradient(theta[k], images[:, k], labels[:, k])[0] for k in range(len(theta))]
    )


def distances(ours: Tensor, theirs: Tensor) -> Tensor:
    """Relative, of each network."""
    assert ours.shape == theirs.shape
    return (ours - theirs).norm(dim=1) / theirs.norm(dim=1)


@pytest.mark.parametrize("name", [*LAYERED, *OTHERS])
def test_gradients_at_once_are_the_separate_ones(name: str) -> None:
    network = {**LAYERED, **OTHERS}[name]()
    one = make_derivatives(network)
    several = stacked_derivatives(one)
    assert isinstance(several, StackedLayers if name in LAYERED else StackedAutograd)
    at = random_point(one, network)
    assert distances(several.gradient(*at), separately(one, *at)).max() < 1e-13


@pytest.mark.parametrize("name", LAYERED)
def test_layered_networks_go_through_autograd_as_well(name: str) -> None:
    flat = FlatNetwork(LAYERED[name]())
    one = AutogradDerivatives(flat)
    at = random_point(one, flat.network)
    assert distances(StackedAutograd(flat).gradient(*at), separately(one, *at)).max() < 1e-13


@pytest.mark.parametrize("precision", ["bf16", "tf32"])
def test_reduced_precision_rounds_each_network_s_layers(precision: str) -> None:
    network = LAYERED["convnet"]()
    one, exact = make_derivatives(network, precision), make_derivatives(network)
    theta, images, labels = (part.float() for part in random_point(one, network))
    separate = separately(one, theta, images, labels)
    rounding = distances(separate, separately(exact, theta, images, labels))
    ours = stacked_derivatives(one).gradient(theta, images, labels)
    assert (distances(ours, separate) < 0.1 * rounding).all()


def test_compiled_derivatives_are_stacked_as_what_was_compiled() -> None:
    network = LAYERED["convnet"]()
    one = make_derivatives(network, compiled=True)
    at = random_point(one, network)
    separate = separately(make_derivatives(network), *at)
    assert distances(stacked_derivatives(one).gradient(*at), separate).max() < 1e-13


def test_multiply_adds_are_those_counted_by_hand() -> None:
    by_hand = 1024 * 27 * 128 + 256 * 1152 * 128 + 64 * 1152 * 128 + 2048 * 10
    network = ConvNet((3, 32, 32), 10, width=128, depth=3)
    for _ in range(2):
        assert multiply_adds(network, torch.zeros(3, 32, 32)) == by_hand
    assert not any(layer._forward_hooks for layer in network.modules())


def at_once(width: int, batch: int) -> int:
    """For ConvNet-2 on a batch of 8x8 digits."""
    network = ConvNet((1, 8, 8), 10, width=width, depth=2)
    one = make_derivatives(network)
    theta = one.flatten(dict(network.named_parameters()))
    return networks_at_once(
        network, one, theta, torch.zeros(batch, 1, 8, 8), torch.zeros(batch, 10)
    )


def test_on_a_cpu_small_networks_are_taken_at_once_and_large_ones_alone() -> None:
    assert at_once(width=32, batch=10) > 10
    assert at_once(width=128, batch=10) == 1
    assert at_once(width=32, batch=100) == 1


@pytest.mark.parametrize("arch", ["wide_convnet", "alexnet", "vgg11", "resnet18"])
def test_on_a_cpu_the_other_networks_are_trained_alone_even_on_one_image_a_class(arch: str) -> None:
    network = build_network(arch, image_shape=(1, 32, 32), classes=10, width=128, depth=3)
    one = make_derivatives(network)
    theta = one.flatten(dict(network.named_parameters()))
    images, labels = torch.zeros(10, 1, 32, 32), torch.zeros(10, 10)
    assert networks_at_once(network, one, theta, images, labels) == 1


def test_no_more_are_taken_than_memory_is_meant_for(monkeypatch: pytest.MonkeyPatch) -> None:
    unbounded = at_once(width=8, batch=10)
    monkeypatch.setitem(stacked.PART_BYTES, "cpu", stacked.PART_BYTES["cpu"] // 10)
    assert at_once(width=8, batch=10) == unbounded // 10
    assert at_once(width=8, batch=20) == pytest.approx(unbounded / 20, abs=1)
    monkeypatch.setitem(stacked.PART_BYTES, "cpu", 1)
    assert at_once(width=8, batch=10) == 1
