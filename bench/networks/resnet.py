"""ResNet-18 as the dataset distillation literature has it for 32x32 images."""

from torch import Tensor, nn

from bench.networks.parts import check_maps, instance_norm

STEM = 64  # channels; each stage after the first has twice those of the one before
BLOCKS = (2, 2, 2, 2)  # of the four stages


class BasicBlock(nn.Module):
    """y = ReLU(x' + norm(W₂ * ReLU(norm(W₁ * x)))), two 3x3 convolutions without biases.

    x' is x, or norm(W * x) with a 1x1 convolution where the block has a stride or more channels.

    Args:
        inputs, outputs: channels.
        stride: of the first convolution, and of the 1x1 convolution.
    """

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.residual = nn.Sequential(
            nn.Conv2d(inputs, outputs, kernel_size=3, stride=stride, padding=1, bias=False),
            instance_norm(outputs),
            nn.ReLU(),
            nn.Conv2d(outputs, outputs, kernel_size=3, padding=1, bias=False),
            instance_norm(outputs),
        )
        self.shortcut = nn.Sequential()  # hands on what it is given
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(
                nn.Conv2d(inputs, outputs, kernel_size=1, stride=stride, bias=False),
                instance_norm(outputs),
            )
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """[batch, inputs, height, width] -> [batch, outputs, height/stride, width/stride]."""
        return self.relu(self.residual(x) + self.shortcut(x))


class ResNet18(nn.Module):
    """A 3x3 convolution, four stages of two basic blocks, the mean of each map, a linear layer.

    For images of 32x32 the stages see maps of 32x32 (64 channels), 16x16 (128), 8x8 (256) and 4x4
    (512), and the 512 means go to the classes. 11,173,962 parameters for 10 classes of colour
    images. There is no pool behind the first convolution. Sides that are odd are rounded up.

    Source: He et al. 2016, in the form for small images that the distillation literature uses
    (Zhao et al., "Dataset Condensation with Gradient Matching", 2021). Instance norm follows the
    paper's text (C.1); its published ResNet has batch norm.

    Args:
        image_shape: (channels, height, width) of the images, 9x9 at least: below that the last
            stage would normalize single pixels.
        classes: number of outputs.

    Raises:
        ValueError: the images are too small.
    """

    def __init__(self, image_shape: tuple[int, int, int], classes: int) -> None:
        super().__init__()
        channels, height, width = image_shape
        last_maps = (-(-height // 8), -(-width // 8))
        check_maps("resnet18", image_shape, last_maps)
        self.stem = nn.Sequential(
            nn.Conv2d(channels, STEM, kernel_size=3, padding=1, bias=False),
            instance_norm(STEM),
            nn.ReLU(),
        )
        blocks: list[nn.Module] = []
        channels = STEM
        for stage, count in enumerate(BLOCKS):
            for number in range(count):
                stride = 2 if stage > 0 and number == 0 else 1
                blocks.append(BasicBlock(channels, STEM << stage, stride))
                channels = STEM << stage
        self.blocks = nn.Sequential(*blocks)
        self.pool = nn.AvgPool2d(last_maps)
        self.classifier = nn.Linear(channels, classes)

    def forward(self, images: Tensor) -> Tensor:
        """Logits [batch, classes] of images [batch, channels, height, width]."""
        return self.classifier(self.pool(self.blocks(self.stem(images))).flatten(1))
