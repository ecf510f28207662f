"""Which way a network's derivatives are computed."""

from torch import nn

from bench.metagrad.compiled import CompiledDerivatives
from bench.metagrad.derivatives import AutogradDerivatives, Derivatives
from bench.metagrad.flat import FlatNetwork
from bench.metagrad.layered import LayerDerivatives, UnknownLayer
from bench.metagrad.precision import REDUCED, cast_of


def make_derivatives(
    network: nn.Module, precision: str = "float32", compiled: bool = False
) -> Derivatives:
    """Layer by layer where that is possible, otherwise by autograd.

    Args:
        precision: one of `PRECISIONS`; what float32 and float64 differ in, the tensors bring along.
        compiled: compile what goes layer by layer.

    Raises:
        ValueError: a reduced precision for a network that goes through autograd.
    """
    flat = FlatNetwork(network)
    try:
        layers = LayerDerivatives(flat, cast_of(precision))
    except UnknownLayer as error:
        if precision in REDUCED:
            raise ValueError(f"precision={precision}: no rule for a layer: {error}") from error
        return AutogradDerivatives(flat)
    return CompiledDerivatives(layers, precision) if compiled else layers
