"""Mini-batches of a whole set, shuffled anew in each epoch: how one trains on real data."""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from bench.data import augment
from bench.training.randomness import torch_generator


@dataclass
class EpochBatches:
    """The batch of step t: the next `size` images of the current epoch, augmented.

    Called as `(t, images [n, C, H, W], labels [n, classes])`, like `InnerBatches`; the same t
    gives the same batch. All batches are of one size: the one at the end of an epoch is filled up
    from the next.

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
        chosen = torch.cat(list(self._orders.values()))[start : start + size].to(images.device)
        generator = torch_generator(self.seed, f"{self.purpose}/augment", *self.indices, t)
        draw = augment.draw(self.augmentation, size, generator).to(images.device)
        return augment.apply(images[chosen], draw), labels[chosen]

    def _order(self, epoch: int, count: int) -> Tensor:
        """The order of the images in an epoch [count]."""
        if epoch in self._orders:
            return self._orders[epoch]
        generator = torch_generator(self.seed, f"{self.purpose}/epoch", *self.indices, epoch)
        return torch.randperm(count, generator=generator)
