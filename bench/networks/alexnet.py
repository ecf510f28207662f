"""AlexNet as the dataset distillation literature has it for 32x32 images."""

from torch import Tensor, nn

from bench.networks.parts import check_maps, convolution_block

CHANNELS = (128, 192, 256, 192, 192)  # of the five convolutions


class AlexNet(nn.Module):
    """Five convolutions, each with instance norm and ReLU, three 2x2 pools, one linear layer.

    For images of 32x32: 5x5 convolution to 128 maps of 32x32, pool, 5x5 convolution to 192 maps of
    16x16, pool, 3x3 convolutions to 256, 192 and 192 maps of 8x8, pool, 3072 numbers to the
    classes. 1,874,122 parameters for 10 classes of colour images. No dropout, and none of the
    original's wide linear layers.

    Source: Krizhevsky et al. 2012, in the form of Zhao et al., "Dataset Condensation with Gradient
    Matching" (2021), which has no norms and max pools. The paper puts an instance norm behind each
    convolution (C.1), and its published code averages where the others take the maximum.

    Args:
        image_shape: (channels, height, width) of the images, 8x8 at least.
        classes: number of outputs.
        pool: `nn.MaxPool2d`, or `nn.AvgPool2d` for the paper's published code.
        conv_bias: whether the convolutions have biases.

    Raises:
        ValueError: the images are too small.
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        classes: int,
        pool: type[nn.MaxPool2d] | type[nn.AvgPool2d] = nn.MaxPool2d,
        conv_bias: bool = True,
    ) -> None:
        super().__init__()
        self.conv_bias = conv_bias  # for `initial_parameters`
        channels, height, width = image_shape
        check_maps("alexnet", image_shape, (height >> 2, width >> 2))
        first, second, third, fourth, fifth = CHANNELS
        self.features = nn.Sequential(
            *convolution_block(channels, first, 5, conv_bias),
            pool(2),
            *convolution_block(first, second, 5, conv_bias),
            pool(2),
            *convolution_block(second, third, 3, conv_bias),
            *convolution_block(third, fourth, 3, conv_bias),
            *convolution_block(fourth, fifth, 3, conv_bias),
            pool(2),
        )
        self.classifier = nn.Linear(fifth * (height >> 3) * (width >> 3), classes)

    def forward(self, images: Tensor) -> Tensor:
        """Logits [batch, classes] of images [batch, channels, height, width]."""
        return self.classifier(self.features(images).flatten(1))
