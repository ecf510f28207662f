"""VGG-11 as the dataset distillation literature has it for 32x32 images."""

from torch import Tensor, nn

from bench.networks.parts import check_maps, convolution_block

STAGES = ((64,), (128,), (256, 256), (512, 512), (512, 512))  # channels


class VGG11(nn.Module):
    """Eight 3x3 convolutions in five stages, each with instance norm and ReLU; a 2x2 max pool
    behind each stage; one linear layer.

    For images of 32x32 the stages see maps of 32x32 (64 channels), 16x16 (128), 8x8 (256, 256), 4x4
    (512, 512) and 2x2 (512, 512), and 512 numbers go to the classes. 9,231,114 parameters for 10
    classes of colour images. At 64x64 every map has four times the pixels, the last ones too.

    Source: Simonyan and Zisserman 2015, configuration A, in the form of Zhao et al., "Dataset
    Condensation with Gradient Matching" (2021), which the paper's published code has too: with
    norms, and with one linear layer in place of three.

    Args:
        image_shape: (channels, height, width) of the images, 32x32 at least: below that the last
            stage would normalize single pixels.
        classes: number of outputs.
        conv_bias: whether the convolutions have biases.

    Raises:
        ValueError: the images are too small.
    """

    def __init__(
        self, image_shape: tuple[int, int, int], classes: int, conv_bias: bool = True
    ) -> None:
        super().__init__()
        self.conv_bias = conv_bias  # for `initial_parameters`
        channels, height, width = image_shape
        check_maps("vgg11", image_shape, (height >> 4, width >> 4))
        layers: list[nn.Module] = []
        for stage in STAGES:
            for outputs in stage:
                layers += convolution_block(channels, outputs, 3, conv_bias)
                channels = outputs
            layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Linear(channels * (height >> 5) * (width >> 5), classes)

    def forward(self, images: Tensor) -> Tensor:
        """Logits [batch, classes] of images [batch, channels, height, width]."""
        return self.classifier(self.features(images).flatten(1))
