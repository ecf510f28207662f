"""Building blocks shared by the networks, and a check that images are large enough."""

from torch import nn

SMALLEST_SIDE = 2  # pixels of a map that is normalized


def instance_norm(channels: int) -> nn.GroupNorm:
    """A group norm with one channel a group, affine: each map of each image by itself, the same in
    training and evaluation.

    Behind the first convolution it removes the scale of an image, and the convolution's bias: α
    times the image has 1/α times the meta-gradient (paper, C.1). That is exact without the eps of
    1e-5 that is added to the variance of a map, and an approximation with it: a good one for images
    of norm 100 and more, a bad one for images of norm 1, whose maps have a variance of 1e-4
    (measured in tests/bench/distillation/test_image_scale.py).
    """
    return nn.GroupNorm(channels, channels)


def convolution_block(
    inputs: int, outputs: int, kernel_size: int, conv_bias: bool = True
) -> list[nn.Module]:
    """Convolution that keeps the size of the maps, instance norm, ReLU. The convolution has a bias,
    as in the literature's code, although the norm behind it removes its effect; with
    `conv_bias=False` it has none."""
    return [
        nn.Conv2d(inputs, outputs, kernel_size, padding=kernel_size // 2, bias=conv_bias),
        instance_norm(outputs),
        nn.ReLU(),
    ]


def check_maps(network: str, image_shape: tuple[int, int, int], maps: tuple[int, int]) -> None:
    """Check that the network's last maps, (height, width), are large enough to be normalized.

    A single pixel minus its own mean is 0, whatever the image; two pixels become ±1. No gradient
    passes through either.

    Raises:
        ValueError: a side of the maps has a single pixel or none.
    """
    if min(maps) < SMALLEST_SIDE:
        _, height, width = image_shape
        raise ValueError(
            f"arch={network} is too deep for images of {height}x{width}: its last instance norm"
            f" would see maps of {maps[0]}x{maps[1]}, and of less than"
            f" {SMALLEST_SIDE}x{SMALLEST_SIDE} pixels the norm leaves nothing to learn from"
        )
