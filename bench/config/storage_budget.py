"""The storage budget of a distilled set, in floats, and how each parameterization uses it.

The budget at an IPC is the storage of a plain distilled set: its images, and its labels if they are
learned. Every parameterization (`bench.distillation.parameterization`) must fit into it all that it
learns: a linear set its basis images (at their stored size), its coefficients and its labels; a set
of bases and hallucinators the bases, the weights of the hallucinators and a label for each base. A
set whose images are cut into parts takes exactly the budget: a label belongs to a stored image.
Labels that are not learned take no storage, because images are ordered by class.
"""

from dataclasses import dataclass
from math import prod

from bench.system.choices import SHAPES

HALLUCINATOR_KERNEL = 3  # of its convolutions, as in the published code


@dataclass(frozen=True)
class Budget:
    """The storage of a plain distilled set, which no other one may exceed.

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
    basis_downsample: int = 1

    @property
    def floats(self) -> int:
        """The floats that may be stored."""
        return self.classes * self.ipc * prod(self.image_shape) + self._labels(self.ipc)

    # --- linear

    @property
    def base_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of a stored basis image.

        Raises:
            ValueError: `basis_downsample` does not divide the images, or leaves a single pixel.
        """
        return self._divided("basis_downsample", self.basis_downsample, "bases", "combined")

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
                f" takes {self._excess(self.linear(bases, decoded_ipc))}"
                + (f"; {most} bases" if most > 0 else "; no base")
                + f" of {prod(self.base_shape)} floats"
                + (" fit" if most > 0 else " fits beside so many images")
            )
        return bases

    # --- images that are cut into parts

    def part_shape(self, factor: int) -> tuple[int, int, int]:
        """(C, H, W) of a part of a stored image, of which each side has `factor`.

        Raises:
            ValueError: `factor` does not divide the images, or leaves a single pixel.
        """
        return self._divided("idc_factor", factor, "parts", "enlarged")

    # --- bases and hallucinators

    def hallucinator(self, single_channel: bool) -> dict[str, tuple[int, ...]]:
        """The shapes of the parameters of one hallucinator, by name
        (`bench.distillation.hallucinators`).

        Raises:
            ValueError: its convolutions are larger than the images.
        """
        channels, height, width = self.image_shape
        kernel = (HALLUCINATOR_KERNEL, HALLUCINATOR_KERNEL)
        if min(height, width) < HALLUCINATOR_KERNEL:
            raise ValueError(
                f"parameterization=haba has convolutions of {kernel[0]}x{kernel[1]}, and these"
                f" images have {height}x{width} pixels"
            )
        inside = (channels, height - kernel[0] + 1, width - kernel[1] + 1)
        return {
            "encoder": (channels, 1 if single_channel else channels, *kernel),
            "encoder_bias": (channels,),
            "scale": inside,
            "shift": inside,
            "decoder": (channels, channels, *kernel),
            "decoder_bias": (channels,),
        }

    def haba(self, bases: int, hallucinators: int, single_channel: bool) -> int:
        """The floats of a set with `bases` bases per class and so many hallucinators."""
        of_bases = self.classes * bases * self._haba_base(single_channel) + self._labels(bases)
        return of_bases + hallucinators * self._hallucinator_floats(single_channel)

    def haba_bases(self, bases: int, hallucinators: int, single_channel: bool) -> int:
        """The number of bases per class: `bases`, or if that is 0 as many as fit.

        Raises:
            ValueError: they, or even one per class, exceed the budget; or as `hallucinator`.
        """
        for_bases = self.floats - hallucinators * self._hallucinator_floats(single_channel)
        most = for_bases // self.haba(1, 0, single_channel)
        chosen = bases or max(most, 1)
        if chosen > most:
            takes = self.haba(chosen, hallucinators, single_channel)
            raise ValueError(
                f"parameterization=haba with haba_hallucinators={hallucinators} and"
                f" haba_bases={chosen} takes {self._excess(takes)};"
                f" {self._haba_fits(most, single_channel)}"
            )
        return chosen

    def _haba_fits(self, most: int, single_channel: bool) -> str:
        """What would fit, in words.

        Args:
            most: bases per class that fit beside the hallucinators.
        """
        if most > 0:
            return f"haba_bases={most} fits"
        each = self._hallucinator_floats(single_channel)
        few = (self.floats - self.haba(1, 0, single_channel)) // each
        if few > 0:
            return (
                f"beside one base per class, haba_hallucinators={few} fits, of {each} floats each"
            )
        return f"beside one base per class, not one hallucinator of {each} floats fits"

    def _haba_base(self, single_channel: bool) -> int:
        channels, height, width = self.image_shape
        return (1 if single_channel else channels) * height * width

    def _hallucinator_floats(self, single_channel: bool) -> int:
        return sum(map(prod, self.hallucinator(single_channel).values()))

    # --- what they share

    def _divided(self, setting: str, by: int, parts: str, made: str) -> tuple[int, int, int]:
        """(C, H, W) of images whose sides are divided."""
        channels, *sides = self.image_shape
        height, width = (side // by for side in sides)
        size = f"images of {sides[0]}x{sides[1]}"
        if any(side % by for side in sides):
            raise ValueError(f"{setting}={by} does not divide {size}")
        if height * width == 1:
            raise ValueError(
                f"{setting}={by} leaves {parts} of a single pixel for {size}: the {made} images"
                " would have no contrast"
            )
        return channels, height, width

    def _excess(self, floats: int) -> str:
        """So many floats beside the budget, in words."""
        return (
            f"{floats} floats, more than the budget of {self.floats}: that of ipc={self.ipc} for"
            f" {self.classes} classes of images of {prod(self.image_shape)} floats"
            + (" and their labels" if self.learn_labels else "")
        )

    def _labels(self, images_per_class: int) -> int:
        return self.classes * images_per_class * self.classes if self.learn_labels else 0


def nominal_budget(
    dataset: str, image_size: int, ipc: int, learn_labels: bool, basis_downsample: int = 1
) -> Budget:
    """The budget on a data set of `choices.SHAPES`, before any file is read."""
    classes, channels, native = SHAPES[dataset]
    side = image_size or native
    return Budget(classes, (channels, side, side), ipc, learn_labels, basis_downsample)
