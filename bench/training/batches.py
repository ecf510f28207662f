"""The batches of inner training and of the outer loss, drawn from (seed, purpose, step).

Networks that are trained for a meta-gradient, to evaluate a distilled set or on the full training
set all take their batches from here.
"""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from bench.config.run_config import RunConfig
from bench.data import augment
from bench.data.target_set import Split
from bench.system.errors import UserError
from bench.training.randomness import torch_generator


@dataclass(frozen=True)
class Draw:
    """The batch of one inner step.

    Attributes:
        positions: of its images in the distilled set [batch]; None for all.
        augmentation: what happens to each of them.
    """

    positions: Tensor | None
    augmentation: augment.AugmentationDraw


@dataclass
class InnerBatches:
    """The batch of inner step t: which distilled images, and how they are augmented.

    Called as `(t, images [classes*ipc, C, H, W], labels [classes*ipc, classes])`; differentiable
    with respect to both; the same t gives the same batch. Distilled images lie class by class.

    Draws are made on the CPU. Those of the first `steps` inner steps are made at the first call and
    moved to the device together, so that training does not wait for transfers.

    Attributes:
        purpose, indices: the names of the draws; inner step t is added to the indices.
        augmentation: one of `choices.AUGMENTATIONS`.
        steps: how many steps are expected; later ones are drawn when they are asked for.
    """

    config: RunConfig
    classes: int
    augmentation: str
    purpose: str
    indices: tuple[int, ...]
    steps: int = field(default=0, kw_only=True)
    _draws: dict[int, Draw] = field(default_factory=dict, init=False, repr=False)

    def __call__(self, t: int, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        if t not in self._draws:
            self._draw_until(max(t + 1, self.steps), len(images), images.device)
        draw = self._draws[t]
        if draw.positions is not None:
            images, labels = images[draw.positions], labels[draw.positions]
        return augment.apply(images, draw.augmentation), labels

    def _draw_until(self, stop: int, count: int, device: torch.device) -> None:
        """Draw all steps before `stop` that are not drawn yet."""
        steps = [t for t in range(stop) if t not in self._draws]
        positions = [self._positions(t, count // self.classes) for t in steps]
        sizes = [count if part is None else len(part) for part in positions]
        augmentations = [
            augment.draw(self.augmentation, size, self._generator("augment", t))
            for t, size in zip(steps, sizes, strict=True)
        ]
        if positions[0] is not None:  # all of them or none
            positions = augment.moved_together(positions, device)
        draws = map(Draw, positions, augment.move(augmentations, device))
        self._draws.update(zip(steps, draws, strict=True))

    def _positions(self, t: int, ipc: int) -> Tensor | None:
        """Positions of the images in the batch, or None for all: `inner_classes` classes, and of
        each of them `inner_ipc` images, all drawn without replacement."""
        classes = min(self.config.inner_classes or self.classes, self.classes)
        per_class = min(self.config.inner_ipc or ipc, ipc)
        if classes == self.classes and per_class == ipc:
            return None
        generator = self._generator("batch", t)
        first = ipc * torch.randperm(self.classes, generator=generator)[:classes]  # of each class
        within = torch.stack(
            [torch.randperm(ipc, generator=generator)[:per_class] for _ in range(classes)]
        )
        return (first[:, None] + within).flatten()

    def _generator(self, name: str, t: int) -> torch.Generator:
        return torch_generator(self.config.seed, f"{self.purpose}/{name}", *self.indices, t)


@dataclass
class EpochBatches:
    """Mini-batches of a whole set, shuffled anew in each epoch, as one trains on real data: the
    batch of step t is the next `size` images of the current epoch, augmented.

    Called as `(t, images [n, C, H, W], labels [n, classes])`, like `InnerBatches`; the same t
    gives the same batch. All batches have the same size: the last one of an epoch is filled up from
    the next epoch.

    Attributes:
        seed, purpose, indices: the names of the draws; epoch or step is added to the indices.
        augmentation: one of `choices.AUGMENTATIONS`.
        size: images in a batch; all of them where there are fewer.
    """

    seed: int
    augmentation: str
    purpose: str
    indices: tuple[int, ...]
    size: int
    _orders: dict[int, Tensor] = field(default_factory=dict, init=False, repr=False)

    def __call__(self, t: int, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        count = len(images)
        size = min(self.size, count)
        first, last = t * size // count, ((t + 1) * size - 1) // count
        epochs = range(first, last + 1)
        self._orders = {epoch: self._order(epoch, count) for epoch in epochs}
        start = t * size - first * count
        positions = torch.cat(list(self._orders.values()))[start : start + size].to(images.device)
        generator = torch_generator(self.seed, f"{self.purpose}/augment", *self.indices, t)
        draw = augment.draw(self.augmentation, size, generator).to(images.device)
        return augment.apply(images[positions], draw), labels[positions]

    def _order(self, epoch: int, count: int) -> Tensor:
        """The order of the images in an epoch [count]."""
        if epoch in self._orders:
            return self._orders[epoch]
        generator = torch_generator(self.seed, f"{self.purpose}/epoch", *self.indices, epoch)
        return torch.randperm(count, generator=generator)


def target_batch(config: RunConfig, split: Split, outer_step: int) -> tuple[Tensor, Tensor]:
    """The target images [batch, C, H, W], augmented, and labels [batch] of one outer step, drawn
    without replacement. The batch is the whole split where that has at most `target_batch`
    images."""
    generator = torch_generator(config.seed, "target/batch", outer_step)
    size = min(config.target_batch, len(split.labels))
    positions = torch.randperm(len(split.labels), generator=generator)[:size]
    positions = positions.to(split.labels.device)
    images, labels = split.images[positions], split.labels[positions]
    if config.augment_target != "none":
        generator = torch_generator(config.seed, "target/augment", outer_step)
        draw = augment.draw(config.augment_target, size, generator)
        images = augment.apply(images, draw.to(images.device))
    return images, labels


def images_of_each_class(
    split: Split, classes: int, count: int, generator: torch.Generator
) -> Tensor:
    """Positions in a split of `count` images of each class, class by class, [classes*count], drawn
    without replacement.

    Raises:
        UserError: some class has fewer.
    """
    labels = split.labels.cpu()
    shuffled = torch.randperm(len(split), generator=generator)
    by_class = [shuffled[labels[shuffled] == c][:count] for c in range(classes)]
    if min(map(len, by_class)) < count:
        raise UserError(f"ipc={count}: some class has fewer training images")
    return torch.cat(by_class)


def classes_by_place(labels: Tensor) -> Tensor:
    """The classes [n] of the images of one of our distilled sets, which lie class by class. Learned
    labels [n, classes] may have moved to another class; the place has not."""
    count, classes = labels.shape
    return torch.arange(classes, device=labels.device).repeat_interleave(count // classes)
