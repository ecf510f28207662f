"""What a distilled set may take to store, in floats, and how a linear one spends that.

An IPC is a budget: the images of a plain distilled set, and its labels where they are learned. A
linear distilled set (`bench.distillation.parameterization`) has to do with as many floats for its
bases, in the size that they are stored in, its coefficients and, where they are learned, its
labels: labels count on both sides or on neither. Labels that are not learned cost nothing, because
an image's place says its class.
"""

from dataclasses import dataclass
from math import prod

from bench.system.choices import SHAPES


@dataclass(frozen=True)
class Budget:
    """The floats of a plain distilled set.

    Attributes:
        classes: of the target set.
        image_shape: (C, H, W).
        ipc: images per class.
        learn_labels: whether labels are learned, and so have to be stored.
        basis_downsample: a base of a linear set has 1/this of the images' height and width.
    """

    classes: int
    image_shape: tuple[int, int, int]
    ipc: int
    learn_labels: bool
    basis_downsample: int

    @property
    def floats(self) -> int:
        """What may be spent."""
        return self.classes * self.ipc * prod(self.image_shape) + self._labels(self.ipc)

    @property
    def base_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of a base as it is stored.

        Raises:
            ValueError: `basis_downsample` does not divide the images, or leaves a single pixel.
        """
        channels, *sides = self.image_shape
        height, width = (side // self.basis_downsample for side in sides)
        size = f"images of {sides[0]}x{sides[1]}"
        if any(side % self.basis_downsample for side in sides):
            raise ValueError(f"basis_downsample={self.basis_downsample} does not divide {size}")
        if height * width == 1:
            raise ValueError(
                f"basis_downsample={self.basis_downsample} leaves bases of a single pixel for"
                f" {size}: what they combine to has no contrast"
            )
        return channels, height, width

    def linear(self, bases: int, decoded_ipc: int) -> int:
        """What a linear set of `bases` basis images spends that are combined to `decoded_ipc`
        images per class, each with a coefficient for every base."""
        coefficients = self.classes * decoded_ipc * bases
        return bases * prod(self.base_shape) + coefficients + self._labels(decoded_ipc)

    def most_bases(self, decoded_ipc: int) -> int:
        """The largest number of bases that the budget holds; below 1 where it holds none."""
        each = prod(self.base_shape) + self.classes * decoded_ipc
        return (self.floats - self._labels(decoded_ipc)) // each

    def bases(self, asked: int, decoded_ipc: int) -> int:
        """The number of bases: `asked`, or as many as the budget holds where that is 0.

        Raises:
            ValueError: they, or even a single one, take more than the budget; or as `base_shape`.
        """
        most = self.most_bases(decoded_ipc)
        bases = asked or max(most, 1)
        if bases > most:
            raise ValueError(
                f"parameterization=linear with basis_images={bases} and decoded_ipc={decoded_ipc}"
                f" takes {self.linear(bases, decoded_ipc)} floats, more than the budget of"
                f" {self.floats}: that of ipc={self.ipc} for {self.classes} classes of images of"
                f" {prod(self.image_shape)} floats"
                + (" and their labels" if self.learn_labels else "")
                + (f"; {most} bases" if most > 0 else "; no base")
                + f" of {prod(self.base_shape)} floats"
                + (" fit" if most > 0 else " fits beside so many images")
            )
        return bases

    def _labels(self, images_per_class: int) -> int:
        return self.classes * images_per_class * self.classes if self.learn_labels else 0


def nominal_budget(
    dataset: str, image_size: int, ipc: int, learn_labels: bool, basis_downsample: int
) -> Budget:
    """The budget on a data set, before any file is read; `image_size` 0: as its images are."""
    classes, channels, native = SHAPES[dataset]
    side = image_size or native
    return Budget(classes, (channels, side, side), ipc, learn_labels, basis_downsample)
