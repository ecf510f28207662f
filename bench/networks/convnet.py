"""The convolutional network of the dataset distillation literature ("ConvNet-3", "ConvNet-4")."""

from torch import Tensor, nn

from bench.networks.parts import convolution_block


class ConvNet(nn.Module):
    """`depth` blocks of 3x3 convolution, instance norm, ReLU and 2x2 average pooling, then a linear
    layer (paper, section 3 "Setup" and C.1 "Models": depth 3 for 32x32 images, 4 for 64x64).

    Args:
        image_shape: (channels, height, width) of the images.
        classes: number of outputs.
        width: channels of every block, or one number a block.
        depth: number of blocks.
        conv_bias: whether the convolutions have biases.

    Raises:
        ValueError: the image is too small for so many blocks, or the widths do not match the depth.
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        classes: int,
        width: int | tuple[int, ...],
        depth: int,
        conv_bias: bool = True,
    ) -> None:
        super().__init__()
        self.conv_bias = conv_bias  # for `initial_parameters`
        channels, height, image_width = image_shape
        widths = (width,) * depth if isinstance(width, int) else tuple(width)
        if depth < 1 or len(widths) != depth or min(widths) < 1:
            raise ValueError(f"a ConvNet of depth {depth} cannot have the widths {widths}")
        if min(height, image_width) >> (depth - 1) < 2:
            raise ValueError(
                f"depth={depth} is too deep for images of {height}x{image_width}: the last instance"
                " norm would see a single pixel"
            )
        blocks: list[nn.Module] = []
        for out_channels in widths:
            blocks += convolution_block(channels, out_channels, 3, conv_bias)
            blocks.append(nn.AvgPool2d(2))
            channels = out_channels
        self.features = nn.Sequential(*blocks)
        self.classifier = nn.Linear(channels * (height >> depth) * (image_width >> depth), classes)

    def forward(self, images: Tensor) -> Tensor:
        """Logits [batch, classes] of images [batch, channels, height, width]."""
        return self.classifier(self.features(images).flatten(1))
