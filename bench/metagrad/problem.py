"""The bilevel problem that every engine solves, and the form of its answer."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import torch.nn.functional as F
from torch import Tensor, nn

from bench.metagrad.optimizers import InnerOptimizer

InnerBatch = Callable[[int, Tensor, Tensor], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Loss:
    """A loss of each image of a batch: functions of (logits [batch, classes], labels [batch,
    classes]).

    Attributes:
        losses: [batch].
        slopes: the gradient of their sum with respect to the logits, [batch, classes].
    """

    losses: Callable[[Tensor, Tensor], Tensor]
    slopes: Callable[[Tensor, Tensor], Tensor]


def cross_entropies(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of each image, [batch], with probabilities as targets. The inner loss is its
    mean over the inner batch.

    Args:
        logits: [batch, classes].
        labels: [batch, classes].
    """
    return -(labels * F.log_softmax(logits, dim=1)).sum(dim=1)


def logit_gradient(logits: Tensor, labels: Tensor) -> Tensor:
    """Gradient of Σ cross-entropies with respect to the logits, [batch, classes]."""
    return logits.softmax(dim=1) * labels.sum(dim=1, keepdim=True) - labels


def squared_errors(logits: Tensor, labels: Tensor) -> Tensor:
    """Squared distance of each image's logits to its label, as the mean over the classes, [batch].

    The labels are taken as they are. (FRePO subtracts 1/classes from its one-hot labels, which
    changes what is asked of the mean of an image's logits, and nothing else.)
    """
    return (logits - labels).square().mean(dim=1)


def squared_error_slopes(logits: Tensor, labels: Tensor) -> Tensor:
    """Gradient of Σ squared errors with respect to the logits, [batch, classes]."""
    return (logits - labels) * (2 / logits.shape[1])


CROSS_ENTROPY = Loss(cross_entropies, logit_gradient)
# The outer loss is the mean of one of them over the target batch, with one-hot labels. The paper's
# is a "classification loss" (Algorithm 1, line 11); that another could take its place is its
# appendix A, which gives no formula.
OUTER_LOSSES = {"cross_entropy": CROSS_ENTROPY, "mse": Loss(squared_errors, squared_error_slopes)}


class StepRange(Protocol):
    """The inner steps `[start, stop)` that the gradient flows through: a `range` or a `Window`."""

    @property
    def start(self) -> int: ...

    @property
    def stop(self) -> int: ...


def whole_set(t: int, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Every inner step trains on the whole distilled set."""
    return images, labels


@dataclass(frozen=True)
class Problem:
    """The bilevel problem of one outer step. It contains no randomness.

    Attributes:
        network: the architecture; its own parameters are not used. It must treat the images of a
            batch independently (no batch norm).
        parameters: θ_0 by name.
        optimizer: the inner optimizer, its state zero at θ_0. Steps before the window may differ
            from steps inside it.
        images: distilled images [classes*ipc, C, H, W]. Inputs of another shape [classes*ipc, ...]
            need `ExactEngine(derivatives=autograd_derivatives)` or the engine "higher".
        labels: distilled labels [classes*ipc, classes], probabilities (not necessarily normalized).
        inner_batch: (t, images, labels) -> the batch of inner step t, differentiable with respect
            to images and labels; it must return the same batch each time it is called with t.
        learn_labels: whether to compute the gradient with respect to the labels.
        outer_loss: loss of the target batch; the inner loss is always the cross-entropy.
    """

    network: nn.Module
    parameters: Mapping[str, Tensor]
    optimizer: InnerOptimizer
    images: Tensor
    labels: Tensor
    inner_batch: InnerBatch = whole_set
    learn_labels: bool = False
    outer_loss: Loss = CROSS_ENTROPY


@dataclass(frozen=True)
class MetaGradient:
    """d outer loss / d distilled set, through a window.

    Attributes:
        images: shaped like the distilled images; with leading [samples] for single-sample losses.
        labels: shaped like the distilled labels, or None where labels are not learned.
        outer_loss: the loss at θ_stop, a detached scalar; [samples] for single-sample losses.
        inner_gradient_norms: [stop], of the gradient of the inner loss at each inner step; None
            where they were not asked for.
    """

    images: Tensor
    labels: Tensor | None
    outer_loss: Tensor
    inner_gradient_norms: Tensor | None = None


@dataclass(frozen=True)
class Training:
    """An inner training without any meta-gradient.

    Attributes:
        gradient_norms: [steps], of the gradient of the inner loss at each inner step.
        logits: [batch, classes] of the trained network.
    """

    gradient_norms: Tensor
    logits: Tensor


class Engine(Protocol):
    """One way to compute meta-gradients. All agree to rounding."""

    def meta_gradient(
        self,
        problem: Problem,
        window: StepRange,
        target_images: Tensor,
        target_labels: Tensor,
        *,
        inner_norms: bool = False,
    ) -> MetaGradient:
        """The exact gradient of the mean outer loss over the target batch.

        Gradients do not flow into the optimizer state or the parameters at the window's start: the
        warm-up is a constant.

        Args:
            target_images: [batch, C, H, W].
            target_labels: [batch] class indices.
            inner_norms: record the norms of the inner gradients, which are computed anyway.
        """
        ...

    def sample_gradients(
        self, problem: Problem, window: StepRange, target_images: Tensor, target_labels: Tensor
    ) -> MetaGradient:
        """The same for each target image alone: every part has a leading [batch] dimension."""
        ...

    def train(self, problem: Problem, steps: int, images: Tensor) -> Training:
        """Only train, for so many inner steps, and apply the network to images [batch, C, H, W]."""
        ...
