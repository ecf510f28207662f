"""Initial parameters from an explicit generator, in the distribution that torch uses by default."""

import math

import torch
from torch import Tensor, nn


def initial_parameters(network: nn.Module, generator: torch.Generator) -> dict[str, Tensor]:
    """Draw θ_0 for `network`: a float32 CPU tensor for every parameter, by name.

    Convolutions and linear layers: weights and biases uniform on ±1/sqrt(fan-in), torch's default.
    Norms: scale 1, shift 0. The parameters that the module holds are neither read nor changed.

    A network whose attribute `conv_bias` is False leaves out biases of convolutions. They are drawn
    and discarded, so that all other parameters are the same numbers as with biases.

    Raises:
        TypeError: the network has a parameter in a layer of another kind.
    """
    left_out = getattr(network, "conv_bias", True) is False
    parameters: dict[str, Tensor] = {}
    for module_name, module in network.named_modules():
        shapes = {name: tensor.shape for name, tensor in module.named_parameters(recurse=False)}
        if not shapes:
            continue
        if isinstance(module, nn.Conv2d | nn.Linear):
            bound = 1 / math.sqrt(module.weight[0].numel())
            initial = {
                name: torch.empty(shape, dtype=torch.float32).uniform_(
                    -bound, bound, generator=generator
                )
                for name, shape in shapes.items()
            }
            if left_out and isinstance(module, nn.Conv2d) and module.bias is None:
                discarded = torch.empty(module.out_channels, dtype=torch.float32)
                discarded.uniform_(-bound, bound, generator=generator)
        elif isinstance(module, nn.GroupNorm):
            initial = {
                "weight": torch.ones(shapes["weight"], dtype=torch.float32),
                "bias": torch.zeros(shapes["bias"], dtype=torch.float32),
            }
        else:
            raise TypeError(
                f"no initialisation is known for {type(module).__name__} ({module_name})"
            )
        parameters |= {f"{module_name}.{name}".lstrip("."): initial[name] for name in shapes}
    return parameters
