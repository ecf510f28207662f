"""The mean loss of a batch and its derivatives, computed in parts of the batch.

Networks treat images one by one (`derivatives.py`), so gradients and their derivatives are sums
over parts of the batch: exact up to rounding, in bounded memory, and on a CPU faster, because the
maps of a part stay in the cache.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from bench.metagrad.derivatives import Derivatives, Linearization
from bench.metagrad.problem import CROSS_ENTROPY, Loss

# Activations of a part. On a CPU: what an L3 cache holds. On a GPU: little beside its memory, and
# enough to keep it busy. Constants, not what is free just now: other parts round differently.
PART_BYTES = {"cpu": 48 << 20, "cuda": 2 << 30}
# Every part also costs passes over tensors like θ, so it may have this many times θ's memory.
PARTS_OUTWEIGH_THETA = 4


class MeanLoss:
    """Σ_i -⟨label_i, log softmax(logits_i)⟩ / batch as a function of θ [P].

    Images are [batch, C, H, W] and labels [batch, classes] everywhere.

    Args:
        images_at_once: the largest part; 0: by `PART_BYTES`.
    """

    def __init__(self, derivatives: Derivatives, images_at_once: int = 0) -> None:
        self.derivatives = derivatives
        self.images_at_once = images_at_once
        self._bytes_per_image: dict[tuple[torch.Size, torch.dtype], int] = {}

    def gradient(
        self, theta: Tensor, images: Tensor, labels: Tensor, loss: Loss = CROSS_ENTROPY
    ) -> tuple[Tensor, Tensor]:
        """(gradient [P], losses [batch]) of any loss; stores nothing."""
        parts = [
            self.derivatives.gradient(theta, *part, loss)
            for part in self._parts(theta, images, labels)
        ]
        gradient = total([gradient for gradient, _ in parts]) / len(images)
        return gradient, torch.cat([losses for _, losses in parts])

    def logits(self, theta: Tensor, images: Tensor, images_at_once: int = 1000) -> Tensor:
        """[batch, classes]; stores nothing."""
        parts = images.split(images_at_once)
        return torch.cat([self.derivatives.logits(theta, part) for part in parts])

    def linearize(self, theta: Tensor, images: Tensor, labels: Tensor) -> "MeanLinearization":
        """The gradient's derivative at θ; stores the activations of the whole batch."""
        linearizations = [
            self.derivatives.linearize(theta, *part) for part in self._parts(theta, images, labels)
        ]
        return MeanLinearization(linearizations, len(images))

    def hvp(
        self, theta: Tensor, images: Tensor, labels: Tensor, directions: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """`linearize(...).hvp(directions)`, with one part's activations in memory at a time."""
        linearizations = (
            self.derivatives.linearize(theta, *part)
            for part in self._parts(theta, images, labels, len(directions))
        )
        return product_over_parts(linearizations, directions / len(images))

    def linearization_bytes(self, theta: Tensor, images: Tensor, labels: Tensor) -> int:
        """Bytes of the activations that `linearize` stores."""
        key = images.shape[1:], images.dtype
        if key not in self._bytes_per_image:
            self._bytes_per_image[key] = self.derivatives.linearization_bytes(
                theta, images[:1].clone(), labels[:1].clone()
            )
        return self._bytes_per_image[key] * len(images)

    def _parts(
        self, theta: Tensor, images: Tensor, labels: Tensor, directions: int = 1
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Parts of nearly equal size. Directions count like images: each has its own maps."""
        count = len(images)
        if self.images_at_once:
            parts = -(-count * directions // self.images_at_once)
        else:
            n_bytes = self.linearization_bytes(theta, images, labels) * directions
            part_bytes = PART_BYTES.get(images.device.type, PART_BYTES["cpu"])
            parts = -(-n_bytes // max(part_bytes, PARTS_OUTWEIGH_THETA * theta.nbytes))
        size = -(-count // min(parts, count))
        return zip(images.split(size), labels.split(size), strict=True)


class MeanLinearization:
    """The derivative of the gradient of a mean loss."""

    def __init__(self, parts: list[Linearization], batch: int) -> None:
        self.parts, self.batch = parts, batch

    def gradient(self) -> Tensor:
        """[P]"""
        return total([part.gradient() for part in self.parts]) / self.batch

    def hvp(self, directions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """As `Linearization.hvp`."""
        return product_over_parts(iter(self.parts), directions / self.batch)


def product_over_parts(
    linearizations: Iterator[Linearization], directions: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """The products of all parts: with respect to θ their sum, with respect to the images and labels
    one after the other."""
    products = [linearization.hvp(directions) for linearization in linearizations]
    return (
        total([theta for theta, _, _ in products]),
        torch.cat([images for _, images, _ in products], dim=1),
        torch.cat([labels for _, _, labels in products], dim=1),
    )


def total(parts: list[Tensor]) -> Tensor:
    """Their sum, in order."""
    return sum(parts[1:], parts[0])
