"""What a distilled set may take to store, in floats, and how a linear one spends that.

An IPC is a budget: the images of a plain distilled set, and its labels where they are learned. A
linear distilled set (`bench.parameterization`) has to do with as many floats for its bases, its
coefficients and, where they are learned, its labels: labels count on both sides or on neither.
Labels that are not learned cost nothing, because an image's place says its class.
"""

from dataclasses import dataclass

# (classes, channels, height = width); a test compares them with the data.
SHAPES = {
    "digits": (10, 1, 8),
    "cifar10": (10, 3, 32),
    "cifar100": (100, 3, 32),
    "cub200": (200, 3, 32),
    "tiny_imagenet": (200, 3, 64),
}


@dataclass(frozen=True)
class Budget:
    """The floats of a plain distilled set.

    Attributes:
        classes: of the target set.
        image_floats: of one image, C*H*W.
        ipc: images per class.
        learn_labels: whether labels are learned, and so have to be stored.
    """

    classes: int
    image_floats: int
    ipc: int
    learn_labels: bool

    @property
    def floats(self) -> int:
        """What may be spent."""
        return self.classes * self.ipc * self.image_floats + self._labels(self.ipc)

    def linear(self, bases: int, decoded_ipc: int) -> int:
        """What a linear set of `bases` basis images spends that are combined to `decoded_ipc`
        images per class, each with a coefficient for every base."""
        coefficients = self.classes * decoded_ipc * bases
        return bases * self.image_floats + coefficients + self._labels(decoded_ipc)

    def most_bases(self, decoded_ipc: int) -> int:
        """The largest number of bases that the budget holds; below 1 where it holds none."""
        each = self.image_floats + self.classes * decoded_ipc
        return (self.floats - self._labels(decoded_ipc)) // each

    def bases(self, asked: int, decoded_ipc: int) -> int:
        """The number of bases: `asked`, or as many as the budget holds where that is 0.

        Raises:
            ValueError: they, or even a single one, take more than the budget.
        """
        most = self.most_bases(decoded_ipc)
        bases = asked or max(most, 1)
        if bases > most:
            raise ValueError(
                f"parameterization=linear with bases={bases} and decoded_ipc={decoded_ipc} takes"
                f" {self.linear(bases, decoded_ipc)} floats, more than the budget of"
                f" {self.floats}: that of ipc={self.ipc} for {self.classes} classes of images of"
                f" {self.image_floats} floats"
                + (" and their labels" if self.learn_labels else "")
                + (f"; {most} bases fit" if most > 0 else "; no base fits beside so many images")
            )
        return bases

    def _labels(self, images_per_class: int) -> int:
        return self.classes * images_per_class * self.classes if self.learn_labels else 0


def nominal_budget(dataset: str, image_size: int, ipc: int, learn_labels: bool) -> Budget:
    """The budget on a data set, before any file is read; `image_size` 0: as its images are."""
    classes, channels, native = SHAPES[dataset]
    side = image_size or native
    return Budget(classes, channels * side * side, ipc, learn_labels)
