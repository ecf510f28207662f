"""The networks that are trained on the distilled set."""

from torch import nn

from bench.networks.alexnet import AlexNet
from bench.networks.convnet import ConvNet
from bench.networks.initialize import initial_parameters
from bench.networks.resnet import ResNet18
from bench.networks.vgg import VGG11
from bench.system.choices import ARCHITECTURES

__all__ = [
    "ARCHITECTURES",
    "VGG11",
    "AlexNet",
    "ConvNet",
    "ResNet18",
    "build_network",
    "initial_parameters",
]


def build_network(
    arch: str,
    *,
    image_shape: tuple[int, int, int],
    classes: int,
    width: int = 0,
    depth: int = 0,
    conv_bias: bool = True,
) -> nn.Module:
    """An architecture from `ARCHITECTURES`; draw its parameters with `initial_parameters`.

    Args:
        image_shape: (channels, height, width).
        width: convnet: channels of each block; wide_convnet: of the first block, doubled in each
            block after it (the paper's has 128, 256, 512). Not read for the others.
        depth: blocks of the two.
        conv_bias: False leaves out the biases of convolutions before an instance norm, which are
            the biases of all convolutions. Not read for resnet18, whose convolutions have none.

    Raises:
        ValueError: an unknown architecture, or one that does not fit the images.
    """
    match arch:
        case "convnet":
            return ConvNet(image_shape, classes, width, depth, conv_bias)
        case "wide_convnet":
            widths = tuple(width << k for k in range(depth))
            return ConvNet(image_shape, classes, widths, depth, conv_bias)
        case "alexnet":
            return AlexNet(image_shape, classes, conv_bias=conv_bias)
        case "alexnet_avgpool":
            return AlexNet(image_shape, classes, nn.AvgPool2d, conv_bias)
        case "vgg11":
            return VGG11(image_shape, classes, conv_bias)
        case "resnet18":
            return ResNet18(image_shape, classes)
    raise ValueError(f"unknown arch {arch!r}; known: {', '.join(ARCHITECTURES)}")
