"""What is learned: the pixels of the distilled images, or what these are made of.

Engines work on images. A parameterization makes the images, and turns the meta-gradient with
respect to the images into that with respect to what is learned, which is then clipped and applied.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor

from bench.config.identity import images_per_class, images_per_label
from bench.config.parameterization import haba_bases
from bench.config.run_config import RunConfig
from bench.config.storage_budget import Budget
from bench.data import TargetSet
from bench.distillation import hallucinators, parts
from bench.distillation.boosting import Blocks
from bench.distillation.initialization import initial_bases, initial_images, initial_labels
from bench.distillation.outer_optimizers import Pairs
from bench.distillation.upsampling import enlarge, enlarge_transposed
from bench.metagrad import MetaGradient
from bench.system.errors import UserError


class Parameterization(Protocol):
    """The interface that `bench.distillation.outer_loop` uses.

    Attributes:
        storage_floats: numbers that are learned and have to be stored
            (`bench.config.storage_budget`).
    """

    storage_floats: int

    def at(self, step: int) -> tuple[Tensor, Tensor]:
        """The current images [classes*n, C, H, W], class by class, and labels [classes*n, classes]
        that the inner training of an outer step uses."""
        ...

    def is_whole(self, step: int) -> bool:
        """Whether `at(step)` has all images that there will be."""
        ...

    def groups(self) -> list[list[Tensor]]:
        """The learned tensors, in groups that have a rate each."""
        ...

    def rates(self, step: int) -> list[float]:
        """The factor of each group's learning rate in outer step `step`."""
        ...

    def gradients(self, step: int, gradient: MetaGradient) -> tuple[Pairs, Pairs]:
        """All tensors to update, from the gradient of `at(step)`: first what images are made of
        (their pixels, or basis images and coefficients, ...), then learned labels."""
        ...

    def clamp_labels(self) -> None:
        """Set negative labels to 0."""
        ...

    def state(self) -> dict[str, Any]:
        """For a checkpoint."""
        ...

    def load_state(self, state: dict[str, Any]) -> None: ...


class Whole:
    """A distilled set that is learned as a whole: it has all of its images from the first step on,
    and everything is updated at one rate.

    Args:
        parts: its tensors, by name; "labels" are learned only if `learn_labels` is set.
    """

    def __init__(self, parts: dict[str, Tensor], learn_labels: bool) -> None:
        self.parts, self.labels = parts, parts["labels"]
        self.learned = [part for name, part in parts.items() if learn_labels or name != "labels"]
        self.storage_floats = sum(part.numel() for part in self.learned)

    def is_whole(self, step: int) -> bool:
        return True

    def groups(self) -> list[list[Tensor]]:
        return [self.learned]

    def rates(self, step: int) -> list[float]:
        return [1.0]

    def of_labels(self, gradient: MetaGradient) -> Pairs:
        return [] if gradient.labels is None else [(self.labels, gradient.labels)]

    def clamp_labels(self) -> None:
        self.labels.clamp_(min=0)

    def state(self) -> dict[str, Any]:
        return dict(self.parts)

    def load_state(self, state: dict[str, Any]) -> None:
        for name, part in self.parts.items():
            part.copy_(state[name])


class Pixels(Whole):
    """Every pixel is learned, and the labels with `learn_labels`."""

    def __init__(self, config: RunConfig, images: Tensor, labels: Tensor) -> None:
        super().__init__({"images": images, "labels": labels}, config.learn_labels)
        self.images = images

    def at(self, step: int) -> tuple[Tensor, Tensor]:
        return self.images, self.labels

    def gradients(self, step: int, gradient: MetaGradient) -> tuple[Pairs, Pairs]:
        return [(self.images, gradient.images)], self.of_labels(gradient)


class Linear(Whole):
    """The linear parameterisation of the paper's [9]: image = enlarged Σ_k coefficient_k * base_k.

    All classes share the bases; each image has coefficients of its own. Both are learned, so many
    images take the storage of a few (`bench.config.storage_budget`). Bases have 1/d of the images'
    height and width (`basis_downsample`, 2 in [9]), so that d² as many of them fit. The images are
    combined and enlarged, bilinearly, in the whitened space that the network sees.

    Only the map is that of [9] (Deng and Russakovsky, NeurIPS 2022; its published code). There,
    bases and coefficients start Xavier-uniform and are updated by SGD (0.1, momentum 0.5), and the
    published command for CIFAR-10 at IPC 1 does not whiten. Its penalty on the coefficients (l2,
    1e-4) is part of the inner loss, whose gradient with respect to weights it does not enter. Here,
    as in the paper, everything but the map is as for pixels: noise of norm 1, Adam, no penalty.

    Args:
        bases: [bases, C, H/d, W/d].
        coefficients: [classes*decoded_ipc, bases], class by class.
        labels: [classes*decoded_ipc, classes].
    """

    def __init__(
        self, config: RunConfig, bases: Tensor, coefficients: Tensor, labels: Tensor
    ) -> None:
        parts = {"bases": bases, "coefficients": coefficients, "labels": labels}
        super().__init__(parts, config.learn_labels)
        self.bases, self.coefficients = bases, coefficients
        self.factor = config.basis_downsample

    def at(self, step: int) -> tuple[Tensor, Tensor]:
        # Combined first, then enlarged: in the other order the product costs d² as much.
        small = self.coefficients @ self.bases.flatten(1)  # [classes*decoded_ipc, C*(H/d)*(W/d)]
        return enlarge(small.unflatten(1, self.bases.shape[1:]), self.factor), self.labels

    def gradients(self, step: int, gradient: MetaGradient) -> tuple[Pairs, Pairs]:
        """The chain rule through images = enlarge(coefficients @ bases)."""
        of_small = enlarge_transposed(gradient.images, self.factor).flatten(1)
        of_bases = (self.coefficients.T @ of_small).view_as(self.bases)
        of_coefficients = of_small @ self.bases.flatten(1).T
        of_images = [(self.bases, of_bases), (self.coefficients, of_coefficients)]
        return of_images, self.of_labels(gradient)


class Decoded(Whole):
    """Images that are decoded from what is stored, the same number of them for each stored label:
    `parts.py` and `hallucinators.py` say how. The decoder is differentiated by autograd.

    Args:
        stored: what images are made of, by name.
        labels: [stored labels, classes].
        decode: the images [stored labels*n, C, H, W] of `stored`, first those of the first label.
    """

    def __init__(
        self,
        config: RunConfig,
        stored: dict[str, Tensor],
        labels: Tensor,
        decode: Callable[..., Tensor],
    ) -> None:
        super().__init__({**stored, "labels": labels}, config.learn_labels)
        self.stored, self.decode = stored, decode
        self.count = images_per_label(config)

    def at(self, step: int) -> tuple[Tensor, Tensor]:
        return self.decode(**self.stored), self.labels.repeat_interleave(self.count, dim=0)

    def gradients(self, step: int, gradient: MetaGradient) -> tuple[Pairs, Pairs]:
        """A label's gradient is the sum over the images that share it."""
        leaves = {name: part.detach().requires_grad_() for name, part in self.stored.items()}
        with torch.enable_grad():
            images = self.decode(**leaves)
        found = torch.autograd.grad(images, list(leaves.values()), gradient.images)
        of_images = list(zip(self.stored.values(), found, strict=True))
        if gradient.labels is None:
            return of_images, []
        return of_images, [(self.labels, gradient.labels.unflatten(0, (-1, self.count)).sum(1))]


def make_parameterization(config: RunConfig, target_set: TargetSet) -> Parameterization:
    """The initial distilled set of a run, in the parameterization of its configuration.

    Raises:
        UserError: it exceeds the storage budget of this target set, or some class has too few
            training images to start from.
    """
    try:
        return _made(config, target_set, budget(config, target_set))
    except ValueError as error:
        raise UserError(str(error)) from error


def _made(config: RunConfig, target_set: TargetSet, storage: Budget) -> Parameterization:
    """Raises a ValueError where the budget does."""
    match config.parameterization:
        case "linear":
            count = storage.bases(config.basis_images, images_per_class(config))
            made = initial_bases(config, target_set, count, storage.base_shape)
            return Linear(config, *made, initial_labels(config, target_set))
        case "idc":
            storage.part_shape(config.idc_factor)
            stored = {"images": parts.initial_parts(config, target_set)}
            decode = partial(parts.decode, factor=config.idc_factor)
        case "haba":
            config = replace(config, haba_bases=haba_bases(config, storage))
            stored = hallucinators.initial_hallucinators(config, target_set, storage)
            decode = hallucinators.decode
        case _:
            images = initial_images(config, target_set, config.ipc)
            kind = Blocks if config.boost_block else Pixels
            return kind(config, images, initial_labels(config, target_set))
    return Decoded(config, stored, initial_labels(config, target_set), decode)


def budget(config: RunConfig, target_set: TargetSet) -> Budget:
    """The storage budget of a distilled set of this run."""
    return Budget(
        len(target_set.classes),
        target_set.image_shape,
        config.ipc,
        config.learn_labels,
        config.basis_downsample,
    )
