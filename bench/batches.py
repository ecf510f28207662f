"""The batches of inner training and of the outer loss, drawn from (seed, purpose, step).

A network trained to compute a meta-gradient and one trained to evaluate a distilled set get their
batches from here alike.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from bench.config import RunConfig
from bench.data import augment
from bench.data.target_set import Split
from bench.metagrad import SGD, Adam, InnerOptimizer
from bench.randomness import torch_generator


@dataclass
class InnerBatches:
    """The batch of inner step t: which distilled images, and how they are augmented.

    Called as `(t, images [classes*ipc, C, H, W], labels [classes*ipc, classes])`; differentiable
    with respect to both; the same t gives the same batch. Distilled images lie class by class.

    Attributes:
        purpose, indices: the names of the draws; inner step t is added to the indices.
        augmentation: one of `augment.CHOICES`.
    """

    config: RunConfig
    classes: int
    augmentation: str
    purpose: str
    indices: tuple[int, ...]

    def __call__(self, t: int, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        chosen = self._choose(t, len(images) // self.classes)
        if chosen is not None:
            chosen = chosen.to(images.device)
            images, labels = images[chosen], labels[chosen]
        if self.augmentation != "none":
            generator = torch_generator(
                self.config.seed, f"{self.purpose}/augment", *self.indices, t
            )
            draw = augment.draw(self.augmentation, len(images), generator)
            images = augment.apply(images, draw.to(images.device))
        return images, labels

    def _choose(self, t: int, ipc: int) -> Tensor | None:
        """Positions of the images in the batch, or None for all: `inner_classes` classes, and of
        each of them `inner_ipc` images, all drawn without replacement."""
        classes = min(self.config.inner_classes or self.classes, self.classes)
        per_class = min(self.config.inner_ipc or ipc, ipc)
        if classes == self.classes and per_class == ipc:
            return None
        generator = torch_generator(self.config.seed, f"{self.purpose}/batch", *self.indices, t)
        chosen_classes = torch.randperm(self.classes, generator=generator)[:classes]
        within = torch.stack(
            [torch.randperm(ipc, generator=generator)[:per_class] for _ in range(classes)]
        )
        return (chosen_classes[:, None] * ipc + within).flatten()


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
