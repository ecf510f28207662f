"""The batches of inner training and of the outer loss, drawn from (seed, purpose, step).

A network trained to compute a meta-gradient and one trained to evaluate a distilled set get their
batches from here alike.
"""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from bench.config.run_config import RunConfig
from bench.data import augment
from bench.data.target_set import Split
from bench.metagrad import SGD, Adam, InnerOptimizer
from bench.system.errors import UserError
from bench.training.randomness import torch_generator


@dataclass(frozen=True)
class Draw:
    """The batch of one inner step.

    Attributes:
        chosen: positions of its images in the distilled set [batch]; None for all.
        augmentation: what happens to each of them.
    """

    chosen: Tensor | None
    augmentation: augment.AugmentationDraw


@dataclass
class InnerBatches:
    """The batch of inner step t: which distilled images, and how they are augmented.

    Called as `(t, images [classes*ipc, C, H, W], labels [classes*ipc, classes])`; differentiable
    with respect to both; the same t gives the same batch. Distilled images lie class by class.

    Draws are made on the CPU. Those of the first `steps` inner steps are made at the first call and
    moved to the device together, so that training waits for no transfer.

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
    _drawn: dict[int, Draw] = field(default_factory=dict, init=False, repr=False)

    def __call__(self, t: int, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        if t not in self._drawn:
            self._draw_until(max(t + 1, self.steps), len(images) // self.classes, images.device)
        draw = self._drawn[t]
        if draw.chosen is not None:
            images, labels = images[draw.chosen], labels[draw.chosen]
        return augment.apply(images, draw.augmentation), labels

    def _draw_until(self, stop: int, ipc: int, device: torch.device) -> None:
        """Draw all steps before `stop` that are not drawn yet."""
        new = [t for t in range(stop) if t not in self._drawn]
        chosen = [self._choose(t, ipc) for t in new]
        sizes = [self.classes * ipc if part is None else len(part) for part in chosen]
        augmentations = [
            augment.draw(self.augmentation, size, self._generator("augment", t))
            for t, size in zip(new, sizes, strict=True)
        ]
        if chosen[0] is not None:  # all of them or none
            chosen = augment.moved_together(chosen, device)
        draws = map(Draw, chosen, augment.move(augmentations, device))
        self._drawn.update(zip(new, draws, strict=True))

    def _choose(self, t: int, ipc: int) -> Tensor | None:
        """Positions of the images in the batch, or None for all: `inner_classes` classes, and of
        each of them `inner_ipc` images, all drawn without replacement."""
        classes = min(self.config.inner_classes or self.classes, self.classes)
        per_class = min(self.config.inner_ipc or ipc, ipc)
        if classes == self.classes and per_class == ipc:
            return None
        generator = self._generator("batch", t)
        chosen_classes = torch.randperm(self.classes, generator=generator)[:classes]
        within = torch.stack(
            [torch.randperm(ipc, generator=generator)[:per_class] for _ in range(classes)]
        )
        return (chosen_classes[:, None] * ipc + within).flatten()

    def _generator(self, name: str, t: int) -> torch.Generator:
        return torch_generator(self.config.seed, f"{self.purpose}/{name}", *self.indices, t)


def target_batch(config: RunConfig, split: Split, outer_step: int) -> tuple[Tensor, Tensor]:
    """The target images [batch, C, H, W], augmented, and labels [batch] of one outer step: drawn
    without replacement, all of them where the split has no more than `target_batch`."""
    generator = torch_generator(config.seed, "target/batch", outer_step)
    size = min(config.target_batch, len(split.labels))
    chosen = torch.randperm(len(split.labels), generator=generator)[:size]
    chosen = chosen.to(split.labels.device)
    images, labels = split.images[chosen], split.labels[chosen]
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
    """The classes [n] of the images of a distilled set of ours, which lie class by class, whatever
    their learned labels [n, classes] have become."""
    count, classes = labels.shape
    return torch.arange(classes, device=labels.device).repeat_interleave(count // classes)


def make_inner_optimizer(config: RunConfig) -> InnerOptimizer:
    """The inner optimiser that a configuration describes."""
    decay = {
        "decay_steps": tuple(config.inner_decay_steps),
        "decay_factor": config.inner_decay_factor,
    }
    if config.inner_optimizer == "sgd":
        return SGD(config.inner_lr, config.inner_momentum, config.inner_weight_decay, **decay)
    return Adam(
        config.inner_lr,
        eps=config.inner_eps,
        eps_form=config.inner_eps_form,
        weight_decay=config.inner_weight_decay,
        **decay,
    )
