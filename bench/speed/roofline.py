"""The least time that this machine could take for a piece of work.

    floor = max(operations / (operations a second), bytes / (bytes a second))

Operations: convolutions and matrix products of the algorithm with the fewest, `exact` with all
activations stored (bench/metagrad/README.md). With C multiply-adds of a forward pass of one
image and c of its first convolution, training takes 3C - c an image and step (the first layer needs
no input gradient), the product 6C - 2c. Two operations a multiply-add.

Bytes: every map that a convolution, norm or pool reads or writes, once for each of the four passes
(forward, backward, tangent forward, tangent backward). ReLUs are taken to be done with the norm
before them, and parameters to cost nothing.

Both rates are measured in the same run, before and after, with the same precision and threads
(rates.py). It is the maximum and not the sum because,
in principle, one part of a batch computes while another moves; the sum would be no lower bound. Nor
is the maximum a law: maps that stay in a cache move faster, and a convolution can be done with less
work than its definition says (Winograd).
"""

from collections.abc import Iterator
from dataclasses import dataclass

from bench.speed.rates import Rates
from bench.speed.work import CLASSES, IMAGE_SHAPE, Work

ITEM_BYTES = {"float32": 4, "tf32": 4, "bf16": 2}


@dataclass(frozen=True)
class Cost:
    """Operations and bytes of one outer step, or of one image in one pass."""

    operations: float
    bytes: float

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(self.operations + other.operations, self.bytes + other.bytes)

    def times(self, factor: float) -> "Cost":
        """This cost, `factor` times."""
        return Cost(self.operations * factor, self.bytes * factor)

    def seconds(self, rates: Rates) -> float:
        """The floor, in seconds."""
        return max(self.operations / rates.operations, self.bytes / rates.bytes)


def cost(work: Work) -> Cost:
    """Cost of one outer step of the exact algorithm with all activations stored."""
    training, product = cost_of_an_image(work)
    trained = work.images * work.inner_steps + work.target_batch
    return training.times(trained) + product.times(work.images * work.window)


def cost_of_an_image(work: Work) -> tuple[Cost, Cost]:
    """(one training step, one product of second derivatives)."""
    costs = []
    for stage in ("training", "product"):
        total = Cost(0, 0)
        for layer in layers(work):
            convolutions, reads_inputs, reads_outputs = PASSES[layer.kind][stage]
            maps = reads_inputs * layer.inputs + reads_outputs * layer.outputs
            operations = 2 * layer.multiply_adds * convolutions
            total += Cost(operations, ITEM_BYTES[work.precision] * maps)
        costs.append(total)
    return costs[0], costs[1]


# What each kind of layer does: (times its multiply-adds, maps of the size of its input that it
# reads or writes, maps of the size of its output). E.g. a convolution's tangent passes: x, ẋ -> ẏ
# and x, ẋ, gy, ġy -> ġx, in all 5 maps like x and 3 like y.
PASSES = {
    "first convolution": {"training": (2, 2, 2), "product": (4, 3, 3)},
    "convolution": {"training": (3, 3, 2), "product": (6, 5, 3)},
    "norm": {"training": (0, 3, 2), "product": (0, 5, 3)},
    "pool": {"training": (0, 2, 2), "product": (0, 2, 2)},
}


@dataclass(frozen=True)
class Layer:
    """One layer on one image.

    Attributes:
        inputs, outputs: numbers in the map that it reads and in the one that it writes.
    """

    kind: str
    inputs: int
    outputs: int
    multiply_adds: int = 0


def layers(work: Work) -> Iterator[Layer]:
    """Layers of the ConvNet. The linear layer counts as a convolution."""
    channels, size, _ = IMAGE_SHAPE
    for block in range(work.depth):
        kind = "convolution" if block else "first convolution"
        inputs, maps = channels * size**2, work.width * size**2
        yield Layer(kind, inputs, maps, 9 * channels * maps)
        yield Layer("norm", maps, maps)
        size //= 2
        channels = work.width
        yield Layer("pool", maps, channels * size**2)
    features = channels * size**2
    yield Layer("convolution", features, CLASSES, features * CLASSES)
