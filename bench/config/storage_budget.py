"""The storage budget of a distilled set, in floats, and how a linear set uses it.

The budget at an IPC is the storage of a plain distilled set: its images, and its labels if they are
learned. A linear distilled set (`bench.distillation.parameterization`) must fit its basis images
(at their stored size), its coefficients and, if learned, its labels into the same number of floats.
Labels that are not learned take no storage, because images are ordered by class.
"""

from dataclasses import dataclass
from math import prod

from bench.system.choices import SHAPES


@dataclass(frozen=True)
class Budget:
    """The storage of a plain distilled set, which a linear one must not exceed.

    Attributes:
        classes: number of classes of the target set.
        image_shape: (C, H, W).
        ipc: images per class.
        learn_labels: whether labels are learned and therefore stored.
        basis_downsample: height and width of an image divided by those of a basis image.
    """

    classes: int
    image_shape: tuple[int, int, int]
    ipc: int
    learn_labels: bool
    basis_downsample: int

    @property
    def floats(self) -> int:
        """The floats that may be stored."""
        return self.classes * self.ipc * prod(self.image_shape) + self._labels(self.ipc)

    @property
    def base_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of a stored basis image.

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
                f" {size}: the combined images would have no contrast"
            )
        return channels, height, width

    def linear(self, bases: int, decoded_ipc: int) -> int:
        """The floats of a linear set with `bases` basis images and `decoded_ipc` combined images
        per class, each with a coefficient for every basis image."""
        coefficients = self.classes * decoded_ipc * bases
        return bases * prod(self.base_shape) + coefficients + self._labels(decoded_ipc)

    def most_bases(self, decoded_ipc: int) -> int:
        """The largest number of basis images that fit into the budget; below 1 if none does."""
        each = prod(self.base_shape) + self.classes * decoded_ipc
        return (self.floats - self._labels(decoded_ipc)) // each

    def bases(self, basis_images: int, decoded_ipc: int) -> int:
        """The number of basis images: `basis_images`, or if that is 0 as many as fit.

        Raises:
            ValueError: they, or even a single one, exceed the budget; or as `base_shape`.
        """
        most = self.most_bases(decoded_ipc)
        bases = basis_images or max(most, 1)
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
    """The budget on a data set of `choices.SHAPES`, before any file is read."""
    classes, channels, native = SHAPES[dataset]
    side = image_size or native
    return Budget(classes, (channels, side, side), ipc, learn_labels, basis_downsample)
