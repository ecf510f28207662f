"""Boost-DD: a distilled set that grows block by block, so that its first blocks are one too.

First `boost_block` images of each class are distilled; then the next block joins them, and so on up
to `ipc`. The blocks before the newest one are frozen (strong boosting, `boost_beta=0`), or continue
with `boost_beta` times the update (weak boosting). So the first k blocks are a distilled set of IPC
k*boost_block. The paper shows such sets in Figures 10 and 11; it states neither the size of a
block, nor the factor, nor how outer steps are divided. Here all blocks get the same number: block k
of B joins at outer step k*outer_steps // B.

The factor scales the learning rate of the outer Adam, and so the update that is applied. Scaling
the gradient would have almost no effect, because Adam divides it by its magnitude.
"""

from typing import Any

import torch
from torch import Tensor

from bench.config.run_config import RunConfig
from bench.distillation.outer_optimizers import Pairs
from bench.metagrad import MetaGradient


class Blocks:
    """A distilled set in blocks, each with its own state in the outer optimizer.

    Args:
        images: the whole initial set [classes*ipc, C, H, W], class by class. The first
            `boost_block` images of every class are the first block, and so on.
        labels: [classes*ipc, classes].
    """

    def __init__(self, config: RunConfig, images: Tensor, labels: Tensor) -> None:
        self.block, self.factor = config.boost_block, config.boost_beta
        self.learn_labels = config.learn_labels
        self.classes = labels.shape[1]
        self.images, self.labels = self._split(images), self._split(labels)
        count = len(self.images)
        self.joins = [k * config.outer_steps // count for k in range(count)]  # outer steps
        self.storage_floats = images.numel() + (labels.numel() if config.learn_labels else 0)

    def at(self, step: int) -> tuple[Tensor, Tensor]:
        """The images and labels of all blocks that have joined at an outer step, class by class."""
        present = self._present(step)
        return _joined(self.images[:present]), _joined(self.labels[:present])

    def is_whole(self, step: int) -> bool:
        return self._present(step) == len(self.images)

    def groups(self) -> list[list[Tensor]]:
        if not self.learn_labels:
            return [[images] for images in self.images]
        return [list(pair) for pair in zip(self.images, self.labels, strict=True)]

    def rates(self, step: int) -> list[float]:
        present, count = self._present(step), len(self.images)
        return [self.factor] * (present - 1) + [1.0] + [0.0] * (count - present)

    def gradients(self, step: int, gradient: MetaGradient) -> tuple[Pairs, Pairs]:
        """Only for blocks that are updated: no frozen ones, and none that have yet to join."""
        first = self._present(step) - 1 if self.factor == 0 else 0
        of_images = zip(self.images, self._split(gradient.images), strict=False)
        if gradient.labels is None:
            return list(of_images)[first:], []
        of_labels = zip(self.labels, self._split(gradient.labels), strict=False)
        return list(of_images)[first:], list(of_labels)[first:]

    def clamp_labels(self) -> None:
        for labels in self.labels:
            labels.clamp_(min=0)

    def state(self) -> dict[str, Any]:
        return {"images": _joined(self.images), "labels": _joined(self.labels)}

    def load_state(self, state: dict[str, Any]) -> None:
        for name, parts in (("images", self.images), ("labels", self.labels)):
            for part, saved in zip(parts, self._split(state[name]), strict=True):
                part.copy_(saved)

    def _present(self, step: int) -> int:
        """How many blocks have joined at an outer step."""
        return sum(join <= step for join in self.joins)

    def _split(self, values: Tensor) -> list[Tensor]:
        """[classes*blocks*block, ...] -> blocks times [classes, block, ...]"""
        parts = values.unflatten(0, (self.classes, -1, self.block)).unbind(dim=1)
        return [part.clone() for part in parts]


def _joined(parts: list[Tensor]) -> Tensor:
    """The inverse of `_split`."""
    return torch.cat(parts, dim=1).flatten(0, 1)


def prefix(values: Tensor, classes: int, count: int) -> Tensor:
    """The first `count` images (or labels) of each class of a set that is ordered by class."""
    return values.unflatten(0, (classes, -1))[:, :count].flatten(0, 1)
