"""Meta-gradients of networks without biases before an instance norm, in float64."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from bench.metagrad import Adam, MetaGradient, Problem, make_derivatives, make_engine
from bench.metagrad.layered import LayerDerivatives
from bench.networks import build_network, initial_parameters
from bench.training.randomness import torch_generator
from methods import Window

CLASSES, SHAPE = 3, (2, 8, 8)
LR, EPS, BETAS = 0.01, 1e-8, (0.9, 0.999)
WINDOWS = {"from step 0": Window(0, 4), "from step 1": Window(1, 4)}

Target = tuple[Tensor, Tensor]


def problem(conv_bias: bool) -> Problem:
    network = build_network(
        "convnet", image_shape=SHAPE, classes=CLASSES, width=4, depth=2, conv_bias=conv_bias
    )
    drawn = initial_parameters(network, torch_generator(0, "network"))
    generator = torch_generator(0, "distilled")
    return Problem(
        network=network,
        parameters={name: tensor.double() for name, tensor in drawn.items()},
        optimizer=Adam(LR, eps=EPS),
        images=torch.randn(2 * CLASSES, *SHAPE, dtype=torch.float64, generator=generator),
        labels=torch.eye(CLASSES, dtype=torch.float64).repeat_interleave(2, dim=0),
    )


def logits(parameters: list[Tensor], images: Tensor) -> Tensor:
    """The ConvNet from torch's functions: (weight, scale, shift) a block, then the linear layer."""
    x = images
    for weight, scale, shift in zip(*[iter(parameters[:-2])] * 3, strict=True):
        x = F.instance_norm(F.conv2d(x, weight, padding=1), weight=scale, bias=shift)
        x = F.avg_pool2d(x.relu(), 2)
    return F.linear(x.flatten(1), *parameters[-2:])


def by_hand(given: Problem, window: Window, target: Target) -> tuple[Tensor, Tensor]:
    """The meta-gradient by torch's autograd through Adam as its paper writes it, and the loss."""
    images = given.images.clone().requires_grad_()
    parameters = [part.clone().requires_grad_() for part in given.parameters.values()]
    moments = [(torch.zeros_like(part), torch.zeros_like(part)) for part in parameters]
    for t in range(window.stop):
        if t == window.start:
            parameters = [part.detach().requires_grad_() for part in parameters]
            moments = [(m.detach(), v.detach()) for m, v in moments]
        loss = F.cross_entropy(logits(parameters, images), given.labels)
        slopes = torch.autograd.grad(loss, parameters, create_graph=True)
        moments = [
            (BETAS[0] * m + (1 - BETAS[0]) * g, BETAS[1] * v + (1 - BETAS[1]) * g**2)
            for (m, v), g in zip(moments, slopes, strict=True)
        ]
        first, second = (1 - beta ** (t + 1) for beta in BETAS)
        parameters = [
            part - LR * (m / first) / ((v / second).sqrt() + EPS)
            for part, (m, v) in zip(parameters, moments, strict=True)
        ]
    outer = F.cross_entropy(logits(parameters, target[0]), target[1])
    return torch.autograd.grad(outer, images)[0], outer.detach()


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("engine", ["exact", "higher"])
def test_without_biases_both_engines_equal_a_trajectory_written_by_hand(
    engine: str, window: str, target: Target
) -> None:
    given = problem(conv_bias=False)
    assert isinstance(make_derivatives(given.network), LayerDerivatives)
    assert len(given.parameters) == 2 * 3 + 2  # two blocks and the linear layer
    expected, loss = by_hand(given, WINDOWS[window], target)
    found = make_engine(engine).meta_gradient(given, WINDOWS[window], *target)
    assert expected.norm() > 0
    assert (found.images - expected).norm() <= 1e-9 * expected.norm()
    assert found.outer_loss.item() == pytest.approx(loss.item(), rel=1e-12)


@pytest.mark.parametrize("window", WINDOWS)
def test_the_exact_meta_gradient_is_the_same_with_and_without_biases(
    window: str, target: Target, error: Callable[[MetaGradient, MetaGradient], float]
) -> None:
    with_biases, without = (
        make_engine("exact", precision="float64").meta_gradient(
            problem(conv_bias), WINDOWS[window], *target
        )
        for conv_bias in (True, False)
    )
    # In float64 the biases' gradients are rounding noise of 1e-17, far below Adam's eps.
    assert error(with_biases, without) < 1e-7
