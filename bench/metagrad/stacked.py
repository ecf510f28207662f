"""Gradients of several networks of one architecture at once, each on its own batch.

Beside each other, k networks are one network with k times the channels. Norms, ReLUs and pools take
the channels one by one anyway; convolutions fall into k groups, linear layers become a product for
each network. What goes through autograd goes through `torch.vmap` instead.

Shapes: θ [k, P], images [batch, k, C, H, W], labels [batch, k, classes]. Nothing is shared between
the networks, so results are those of separate gradients, up to rounding.
"""

from typing import Any, Protocol

import torch
from torch import Tensor, nn

from bench.metagrad.compiled import CompiledDerivatives
from bench.metagrad.derivatives import AutogradDerivatives, Derivatives
from bench.metagrad.flat import FlatNetwork, multiply_adds
from bench.metagrad.layered import LayerDerivatives, Pass
from bench.metagrad.mean_loss import PART_BYTES
from bench.metagrad.problem import cross_entropies, logit_gradient
from bench.metagrad.rules import Application, Cast, Convolution, InstanceNorm, Linear, Parameters
from bench.metagrad.trace import Node

# On a CPU: the largest forward pass, in multiply-adds, of one network on its batch that is not
# taken alone. Below it a step costs more in calls than in arithmetic; above it the arithmetic
# counts, and grouped convolutions are the slower ones.
MOST_MULTIPLY_ADDS = 8_000_000


class StackedDerivatives(Protocol):
    """Gradients of k networks' losses, each summed over its batch."""

    def gradient(self, theta: Tensor, images: Tensor, labels: Tensor) -> Tensor:
        """[k, P]; nothing is kept."""
        ...


def stacked_derivatives(one: Derivatives) -> StackedDerivatives:
    """What `one` computes for one network, for several at once.

    Raises:
        TypeError: `one` is of an unknown kind.
    """
    match one:
        case CompiledDerivatives():
            return stacked_derivatives(one.eager)
        case LayerDerivatives():
            return StackedLayers(one)
        case AutogradDerivatives():
            return StackedAutograd(one.network)
    raise TypeError(f"cannot stack {type(one).__name__}")


def networks_at_once(
    network: nn.Module, one: Derivatives, theta: Tensor, images: Tensor, labels: Tensor
) -> int:
    """How many networks to train at once, each on a batch of this size.

    As many as fit their activations into `mean_loss.PART_BYTES`; on a CPU, large networks are
    trained one at a time. The answer depends only on sizes and the kind of device, never on
    measured times or free memory: stacked and separate networks round differently, and a run must
    be reproducible bit for bit. Not yet measured on a GPU.

    Args:
        network: what `one` are the derivatives of.
        theta: [P], of one network, as are images [batch, C, H, W] and labels [batch, classes].
    """
    kind = images.device.type
    # Copies: of a view, the memory of all images would be counted.
    image, label = images[:1].clone(), labels[:1].clone()
    if kind == "cpu" and len(images) * multiply_adds(network, image[0]) > MOST_MULTIPLY_ADDS:
        return 1
    n_bytes = len(images) * one.linearization_bytes(theta, image, label)
    return max(1, PART_BYTES.get(kind, PART_BYTES["cpu"]) // n_bytes)


class StackedAutograd:
    """By torch's autograd, for any network whose operations `torch.vmap` knows."""

    def __init__(self, network: FlatNetwork) -> None:
        self.network = network

    @torch.enable_grad()
    def gradient(self, theta: Tensor, images: Tensor, labels: Tensor) -> Tensor:
        theta = theta.detach().requires_grad_()
        logits = torch.vmap(self.network, in_dims=(0, 1))(theta, images.detach())
        losses = cross_entropies(
            logits.flatten(0, 1), labels.detach().transpose(0, 1).flatten(0, 1)
        )
        (gradient,) = torch.autograd.grad(losses.sum(), theta)  # no network is in another's loss
        return gradient


class StackedLayers:
    """By the layers' rules, with maps [batch, k·channels, height, width]."""

    def __init__(self, one: LayerDerivatives) -> None:
        self.names = one.network.names
        # The same walk through the layers, each of them k times as wide.
        self.wide = LayerDerivatives(one.network, one.cast, one.layout)
        self.wide.nodes = [stacked_node(one.network.network, node) for node in one.nodes]

    @torch.no_grad()
    def gradient(self, theta: Tensor, images: Tensor, labels: Tensor) -> Tensor:
        forward = Pass(self.wide, theta, images.flatten(1, 2))
        logits = forward.logits.view(labels.shape).flatten(0, 1)
        logits_bar = logit_gradient(logits, labels.flatten(0, 1)).view(forward.logits.shape)
        gradients = forward.backward(logits_bar)
        return torch.cat([gradients[name].reshape(len(theta), -1) for name in self.names], dim=1)


def stacked_node(network: nn.Module, node: Node) -> Node:
    """`node` for several networks: its parameters have a leading [k]."""
    if not node.parameters:
        return node
    module: Any = network.get_submodule(node.parameters[0].rpartition(".")[0])

    def layer(p: Parameters, cast: Cast) -> Application:
        match module:
            case nn.Conv2d():
                return StackedConvolution(module, p, cast)
            case nn.Linear():
                return StackedLinear(p, cast)
            case nn.GroupNorm():
                return InstanceNorm(module, tuple(part.flatten() for part in p))
        raise TypeError(f"no rule for several networks: {module}")

    return Node(node.inputs, layer, node.parameters)


class StackedConvolution(Convolution):
    """One group of channels a network. First derivatives only."""

    def __init__(self, layer: nn.Conv2d, p: Parameters, cast: Cast) -> None:
        super().__init__(layer, tuple(part.flatten(0, 1) for part in p), cast)
        self.networks = len(p[0])

    def forward(self, x: Tensor) -> Tensor:
        self.x = self.cast(x)
        y = torch.conv2d(self.x, self.weight, self.bias, *self.geometry, self.networks)
        return y.to(self.dtype)

    def _gradients(self, gy: Tensor, x: Tensor, weight: Tensor, wanted: list[bool]) -> Any:
        stride, padding, dilation = self.geometry
        groups = self.networks
        return torch.ops.aten.convolution_backward(
            self.cast(gy), x, weight, None, stride, padding, dilation, False, [0, 0], groups, wanted
        )


class StackedLinear(Linear):
    """A product for each network; x is [batch, k·features]. First derivatives only."""

    def forward(self, x: Tensor) -> Tensor:
        self.x = self.cast(self._apart(x))
        y = (self.x @ self.weight.mT).to(self.dtype)
        return self._beside(y if self.bias is None else y + self.bias[:, None])

    def input_gradient(self, gy: Tensor) -> Tensor:
        return self._beside((self.cast(self._apart(gy)) @ self.weight).to(self.dtype))

    def parameter_gradients(self, gy: Tensor) -> Parameters:
        gy = self._apart(gy)
        weight = (self.cast(gy).mT @ self.x).to(self.dtype)
        return (weight,) if self.bias is None else (weight, gy.sum(1))

    def _apart(self, x: Tensor) -> Tensor:
        """[batch, k·features] -> [k, batch, features]"""
        return x.unflatten(1, (len(self.weight), -1)).transpose(0, 1)

    def _beside(self, y: Tensor) -> Tensor:
        """[k, batch, features] -> [batch, k·features]"""
        return y.transpose(0, 1).flatten(1)
