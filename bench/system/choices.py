"""The names that settings can have, and the shapes behind them, for all packages.

A package that implements a name imports torch or lies above one that needs it; this file does
neither. So each name is written down once.
"""

from typing import NamedTuple


class ImageShape(NamedTuple):
    """The images of a data set: how many classes, channels, and pixels of height and width."""

    classes: int
    channels: int
    side: int


SHAPES = {
    "digits": ImageShape(10, 1, 8),
    "cifar10": ImageShape(10, 3, 32),
    "cifar100": ImageShape(100, 3, 32),
    "cub200": ImageShape(200, 3, 32),
    "tiny_imagenet": ImageShape(200, 3, 64),
}
AUGMENTATIONS = (
    "none",
    "flip",
    "rotate",
    "flip_or_rotate",
    "dsa",
    "dsa_each",
    "dsa_no_flip",
    "dsa_each_no_flip",
)

# Networks with a width and a depth; the others have one size each, and need images of at least
# this height and width.
SIZED_ARCHITECTURES = ("convnet", "wide_convnet")
SMALLEST_SIDES = {"alexnet": 8, "alexnet_avgpool": 8, "vgg11": 32, "resnet18": 9}
ARCHITECTURES = (*SIZED_ARCHITECTURES, *SMALLEST_SIDES)
UNBIASED_ARCHITECTURES = ("resnet18",)  # whose convolutions have no biases that could be left out

ENGINES = ("exact", "higher")
EPS_FORMS = ("torch", "higher", "published")
OUTER_LOSSES = ("cross_entropy", "mse")
PRECISIONS = ("float32", "tf32", "bf16", "float64")

# The evaluations that scores compare, as they are named in result.json.
FULL = "full training set, hard labels"
OWN = "distilled set, its own labels"
HARD = "distilled set, hard labels"
RANDOM = "random real images, the same labels"
RANDOM_HARD = "random real images, hard labels"

# How distilled.png shows a set: a gap of so many pixels around each image, and so many images a
# row where there is one per class.
PICTURE_GAP = 2
PICTURE_COLUMNS = 10
