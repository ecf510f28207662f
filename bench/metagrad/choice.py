"""Choose how a network is differentiated: by the layers' rules, or by autograd."""

from torch import nn

from bench.metagrad.compiled import CompiledDerivatives
from bench.metagrad.derivatives import AutogradDerivatives, Derivatives
from bench.metagrad.flat import FlatNetwork
from bench.metagrad.layered import LayerDerivatives
from bench.metagrad.precision import REDUCED, cast_of
from bench.metagrad.trace import UnknownLayer


def make_derivatives(
    network: nn.Module, precision: str = "float32", compiled: bool = False
) -> Derivatives:
    """By the layers' rules where every layer has one, otherwise by autograd.

    Args:
        precision: one of `PRECISIONS`. The tensors' dtype distinguishes float32 from float64.
        compiled: compile the layers' rules.

    Raises:
        ValueError: a reduced precision for a network with a layer that has no rule.
    """
    try:
        layers = LayerDerivatives(FlatNetwork(network), cast_of(precision))
    except UnknownLayer as error:
        if precision in REDUCED:
            raise ValueError(f"precision={precision}: no rule for a layer: {error}") from error
        return autograd_derivatives(network)
    return CompiledDerivatives(layers, precision) if compiled else layers


def autograd_derivatives(network: nn.Module) -> Derivatives:
    """By autograd even if every layer has a rule: for inputs that are no images, or to compare."""
    return AutogradDerivatives(FlatNetwork(network))
