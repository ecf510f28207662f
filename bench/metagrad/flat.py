"""A network as a function of one flat parameter vector, and what it costs."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call


class FlatNetwork:
    """`network` as a function (θ, images) -> logits with θ of shape [P]: its parameters, flattened
    in the order of their names in the module. The parameters that the module holds are not used."""

    def __init__(self, network: nn.Module) -> None:
        self.network = network
        named = dict(network.named_parameters())
        self.names = list(named)
        self.shapes = [tensor.shape for tensor in named.values()]
        self.sizes = [tensor.numel() for tensor in named.values()]

    def flatten(self, parameters: Mapping[str, Tensor]) -> Tensor:
        """Parameters by name -> θ [P]."""
        return torch.cat([parameters[name].reshape(-1) for name in self.names]).detach()

    def unflatten(self, theta: Tensor) -> dict[str, Tensor]:
        """θ [..., P] -> parameters by name, views with the same leading dimensions."""
        return {
            name: piece.view(*theta.shape[:-1], *shape)
            for name, piece, shape in zip(
                self.names, theta.split(self.sizes, dim=-1), self.shapes, strict=True
            )
        }

    def __call__(self, theta: Tensor, images: Tensor) -> Tensor:
        """Logits [batch, classes]."""
        return functional_call(self.network, self.unflatten(theta), (images,))


def multiply_adds(network: nn.Module, image: Tensor) -> int:
    """Multiply-adds of the convolutions and linear layers, for one image [C, H, W]."""

    def count(layer: nn.Module, inputs: Tensor, output: Tensor) -> int:
        if not isinstance(layer, nn.Conv2d | nn.Linear):
            return 0
        pixels = output[0, 0].numel()  # 1 for a linear layer
        return layer.get_parameter("weight").numel() * pixels

    return sum(of_layers(network, image, count))


def map_bytes(network: nn.Module, image: Tensor) -> int:
    """Bytes of the largest input and output of one layer, for one image [C, H, W]."""
    return max(of_layers(network, image, lambda _, inputs, output: inputs.nbytes + output.nbytes))


def of_layers(
    network: nn.Module, image: Tensor, number: Callable[[nn.Module, Tensor, Tensor], int]
) -> list[int]:
    """`number(layer, input, output)` of each layer of the network, for one image."""
    numbers: list[int] = []

    def note(layer: nn.Module, inputs: Any, output: Tensor) -> None:
        numbers.append(number(layer, inputs[0], output))

    layers = [part for part in network.modules() if not list(part.children())]
    hooks = [layer.register_forward_hook(note) for layer in layers]
    try:
        with torch.no_grad():
            network(next(network.parameters()).new_zeros(1, *image.shape))
    finally:
        for hook in hooks:
            hook.remove()
    return numbers
