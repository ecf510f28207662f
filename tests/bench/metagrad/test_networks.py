"""The benchmark's networks: all go layer by layer, and the exact engine's answer is `higher`'s."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from bench.metagrad import Adam, MetaGradient, Problem, make_derivatives, make_engine
from bench.metagrad.derivatives import AutogradDerivatives
from bench.metagrad.flat import FlatNetwork
from bench.metagrad.layered import LayerDerivatives
from bench.networks import (
    ARCHITECTURES,
    alexnet,
    build_network,
    initial_parameters,
    resnet,
    vgg,
)
from bench.training.randomness import torch_generator
from methods import Window

CLASSES = 3


@pytest.fixture
def network(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> nn.Module:
    """An architecture for colour images of 32x32, with few channels, to be quick."""
    monkeypatch.setattr(alexnet, "CHANNELS", (4, 6, 8, 6, 5))
    monkeypatch.setattr(vgg, "STAGES", ((4,), (6,), (8, 7), (10, 9), (10, 9)))
    monkeypatch.setattr(resnet, "STEM", 4)
    return build_network(request.param, image_shape=(3, 32, 32), classes=CLASSES, width=4, depth=3)


def float64(*shape: int, purpose: str) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch_generator(0, purpose))


def initial(network: nn.Module) -> dict[str, Tensor]:
    float32 = initial_parameters(network, torch_generator(0, "network"))
    return {name: tensor.double() for name, tensor in float32.items()}


@pytest.mark.parametrize("network", ARCHITECTURES, indirect=True)
def test_the_layers_derivatives_equal_autograd(network: nn.Module) -> None:
    assert_derivatives_equal_autograd(network, side=32)


@pytest.mark.parametrize("arch", ["alexnet", "alexnet_avgpool"])
def test_pools_that_leave_out_a_row_have_derivatives_that_equal_autograd(
    arch: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(alexnet, "CHANNELS", (4, 6, 8, 6, 5))
    network = build_network(arch, image_shape=(3, 10, 10), classes=CLASSES)  # maps of 10, 5, 2
    assert_derivatives_equal_autograd(network, side=10)


def assert_derivatives_equal_autograd(network: nn.Module, side: int) -> None:
    layered, flat = make_derivatives(network), FlatNetwork(network)
    assert isinstance(layered, LayerDerivatives)
    theta = flat.flatten(initial(network))
    theta += 0.01 * float64(len(theta), purpose="theta")  # norms scale and shift each in their way
    images, labels = float64(2, 3, side, side, purpose="images"), float64(2, CLASSES, purpose="y")
    batch = images, labels.exp()
    moved = float64(1, len(theta), purpose="moved")
    ours, theirs = (
        derivatives.linearize(theta, *batch) for derivatives in (layered, AutogradDerivatives(flat))
    )
    pairs = zip(
        (ours.gradient(), *ours.hvp(moved)),
        (theirs.gradient(), *theirs.hvp(moved)),
        strict=True,
    )
    for part, expected in pairs:
        assert part.shape == expected.shape
        assert expected.norm() > 0
        assert (part - expected).norm() <= 1e-12 * expected.norm()


@pytest.mark.parametrize("network", ARCHITECTURES, indirect=True)
def test_the_exact_engine_equals_higher(
    network: nn.Module, error: Callable[[MetaGradient, MetaGradient], float]
) -> None:
    problem = Problem(
        network=network,
        parameters=initial(network),
        optimizer=Adam(0.001, eps=1e-3),
        images=float64(2, 3, 32, 32, purpose="images"),
        labels=torch.eye(CLASSES, dtype=torch.float64)[:2],
        learn_labels=True,
    )
    target = float64(2, 3, 32, 32, purpose="target"), torch.tensor([0, 2])
    exact, reference = (
        make_engine(name).meta_gradient(problem, Window(1, 3), *target)
        for name in ("exact", "higher")
    )
    assert error(exact, reference) < 1e-9
