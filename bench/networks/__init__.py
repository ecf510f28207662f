"""The networks that are trained on the distilled set."""

from torch import nn

from bench.networks.convnet import ConvNet
from bench.networks.initialize import initial_parameters

__all__ = ["ARCHITECTURES", "ConvNet", "build_network", "initial_parameters"]

ARCHITECTURES = ("convnet",)


def build_network(
    arch: str, *, image_shape: tuple[int, int, int], classes: int, width: int, depth: int
) -> nn.Module:
    """An architecture from `ARCHITECTURES`; draw its parameters with `initial_parameters`.

    Raises:
        ValueError: an unknown architecture, or one that does not fit the images.
    """
    if arch == "convnet":
        return ConvNet(image_shape, classes, width, depth)
    raise ValueError(f"unknown arch {arch!r}; known: {', '.join(ARCHITECTURES)}")
