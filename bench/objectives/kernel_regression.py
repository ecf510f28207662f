"""Kernel ridge regression on a distilled set, which KIP, FRePO and RFAD share.

It is in float64: the ridge is 1e-6 of the mean eigenvalue in two of the three papers, and the
rounding of a kernel in float32 is more than that for a hundred images.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from bench.metagrad import MetaGradient

FORWARD_BATCH = 1000  # images at once where no gradient flows; changes memory only


def centered(labels: Tensor) -> Tensor:
    """Labels as these papers have them: probabilities [n, classes] minus 1 / classes."""
    return labels.double() - 1 / labels.shape[1]


def margin(labels: Tensor, share: float) -> Tensor:
    """How far the largest entry of a label is above the second largest, up to `share` of 1 /
    classes: the mean over labels [n, classes]. Its gradient keeps learned labels in their class."""
    largest, second = labels.topk(2).values.unbind(1)
    return (largest - second).clamp(max=share / labels.shape[1]).mean()


def predictions(of_distilled: Tensor, of_targets: Tensor, labels: Tensor, ridge: float) -> Tensor:
    """f(T) = K_TS (K_SS + ridge · tr(K_SS) / n · I)⁻¹ y, [targets, classes].

    Args:
        of_distilled: K_SS, [n, n].
        of_targets: K_TS, [targets, n].
        labels: y of the distilled images, [n, classes], float64.
        ridge: as a fraction of the mean eigenvalue of K_SS.
    """
    mean = of_distilled.diagonal().double().mean()
    lower = cholesky(of_distilled.double(), ridge * mean)
    return of_targets.double() @ torch.cholesky_solve(labels, lower)


def cholesky(kernel: Tensor, ridge: Tensor | float) -> Tensor:
    """The factor of K + ridge · I, [n, n]; not a number where it has none, so that the outer step
    counts as one that is not finite."""
    identity = torch.eye(len(kernel), dtype=kernel.dtype, device=kernel.device)
    lower, failed = torch.linalg.cholesky_ex(kernel + ridge * identity)
    return torch.where(failed == 0, lower, torch.nan)


def squared_error(predicted: Tensor, targets: Tensor) -> Tensor:
    """Half the squared distance of predictions [n, classes] to one-hot labels minus 1 / classes:
    its mean over the images, a scalar.

    Args:
        targets: classes [n].
    """
    one_hot = torch.nn.functional.one_hot(targets, predicted.shape[1])
    return 0.5 * (predicted - centered(one_hot)).square().sum(1).mean()


def without_gradient(features: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    """Features of many images [n, C, H, W], a part at a time."""
    with torch.no_grad():
        return torch.cat([features(part) for part in images.split(FORWARD_BATCH)])


def gradient_of(
    loss: Callable[[Tensor, Tensor], Tensor], images: Tensor, labels: Tensor, learn_labels: bool
) -> MetaGradient:
    """The gradient of `loss(images, labels)` by autograd; with respect to labels if they are
    learned."""
    moving = [images.detach().requires_grad_(), labels.detach().requires_grad_(learn_labels)]
    value = loss(*moving)
    gradients = torch.autograd.grad(value, moving if learn_labels else moving[:1])
    of_labels = gradients[1] if learn_labels else None
    return MetaGradient(gradients[0], of_labels, value.detach().to(images))
