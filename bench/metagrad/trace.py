"""From a module to the steps of its computation, each with the rule of its layer (`rules/`)."""

import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx, nn

from bench.metagrad.rules import (
    Application,
    AveragePool,
    Cast,
    Convolution,
    Flatten,
    InstanceNorm,
    Linear,
    MaxPool,
    Parameters,
    ReLU,
)


class UnknownLayer(TypeError):
    """The network has a part that no rule covers."""


@dataclass(frozen=True)
class Node:
    """One value of the network's computation. The images are value 0.

    Attributes:
        inputs: numbers of the values it is computed from: one for a layer, two for a sum.
        layer: None for a sum.
        parameters: the names of the layer's parameters in the network.
    """

    inputs: tuple[int, ...]
    layer: Callable[[Parameters, Cast], Application] | None
    parameters: tuple[str, ...] = ()


def trace(network: nn.Module) -> list[Node]:
    """The network's computation, in order.

    Raises:
        UnknownLayer: a part has no rule, or the network is not a plain composition of layers.
    """
    try:
        graph = fx.Tracer().trace(network)
    except (TypeError, ValueError, RuntimeError) as error:
        raise UnknownLayer(f"cannot be traced: {error}") from error
    index: dict[fx.Node, int] = {}
    nodes: list[Node] = []
    for traced in graph.nodes:
        if traced.op == "placeholder":
            if index:
                raise UnknownLayer("more than one input")
            index[traced] = 0
        elif traced.op != "output":
            inputs = tuple(index[part] for part in traced.all_input_nodes)
            nodes.append(node_of(network, traced, inputs))
            index[traced] = len(nodes)
        elif traced.args != (list(index)[-1],):
            raise UnknownLayer("the last layer is not the output")
    used = [name for node in nodes for name in node.parameters]
    if sorted(used) != sorted(dict(network.named_parameters())):
        raise UnknownLayer("some parameters are used twice or not at all")
    return nodes


def node_of(network: nn.Module, traced: fx.Node, inputs: tuple[int, ...]) -> Node:
    """One step of the traced computation."""
    target: Any = traced.target
    if traced.op == "call_module" and len(inputs) == 1:
        module = network.get_submodule(target)
        names = tuple(f"{target}.{name}" for name, _ in module.named_parameters(recurse=False))
        return Node(inputs, layer_of(module), names)
    if is_flatten(traced):
        return Node(inputs, lambda p, cast: Flatten())
    if target in (operator.add, torch.add) and len(inputs) == 2 and not traced.kwargs:
        return Node(inputs, None)
    raise UnknownLayer(f"{traced.op} {target}")


def layer_of(module: nn.Module) -> Callable[[Parameters, Cast], Application]:
    """The rule of a module.

    Raises:
        UnknownLayer: there is none for this module with these settings.
    """
    match module:
        case nn.Conv2d(groups=1, padding_mode="zeros") if not isinstance(module.padding, str):
            return lambda p, cast: Convolution(module, p, cast)
        case nn.GroupNorm(affine=True) if module.num_groups == module.num_channels:
            return lambda p, cast: InstanceNorm(module, p)
        case nn.ReLU():
            return lambda p, cast: ReLU()
        case nn.AvgPool2d(padding=0, ceil_mode=False, divisor_override=None):
            return lambda p, cast: AveragePool(module)
        case nn.MaxPool2d(return_indices=False):
            return lambda p, cast: MaxPool(module)
        case nn.Linear():
            return lambda p, cast: Linear(p, cast)
        case nn.Flatten(start_dim=1, end_dim=-1):
            return lambda p, cast: Flatten()
    raise UnknownLayer(f"{module}")


def is_flatten(traced: fx.Node) -> bool:
    """Whether a traced call is `x.flatten(1)` or `torch.flatten(x, 1)`."""
    called = (traced.op, traced.target)
    known = called in (("call_method", "flatten"), ("call_function", torch.flatten))
    return known and traced.args[1:] == (1,) and not traced.kwargs
