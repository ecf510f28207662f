"""The distilled set before its first update: noise, real images or bases, and one-hot labels."""

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.batches import images_of_each_class
from bench.config import RunConfig, images_per_class
from bench.data import TargetSet
from bench.randomness import torch_generator


def initial_images(config: RunConfig, target_set: TargetSet) -> Tensor:
    """Images as `config.init` says, each scaled to L2 norm 1, [classes*ipc, C, H, W].

    The paper starts from noise and notes that real images do as well (C.1). It gives the scale for
    its noise; here real images have it too, because the paper's reason holds for them: behind an
    instance norm an image α times as large needs an outer Adam with an α times as large learning
    rate, and a whitened image of CIFAR-10 has norm 28 on average. An image without contrast stays
    zero.

    Raises:
        UserError: some class has fewer than `ipc` training images.
    """
    images = _noise(config, target_set) if config.init == "noise" else _real(config, target_set)
    return images.to(target_set.train.images)


def _noise(config: RunConfig, target_set: TargetSet) -> Tensor:
    """Standard normal."""
    count = len(target_set.classes) * config.ipc
    return _unit_noise(config, target_set, count, "distilled_images")


def _unit_noise(config: RunConfig, target_set: TargetSet, count: int, purpose: str) -> Tensor:
    generator = torch_generator(config.seed, purpose)
    images = torch.randn(count, *target_set.image_shape, generator=generator)
    images /= images.flatten(1).norm(dim=1)[:, None, None, None]
    return images


def _real(config: RunConfig, target_set: TargetSet) -> Tensor:
    """Training images, `ipc` of each class in turn, none twice."""
    generator = torch_generator(config.seed, "distilled_images/real")
    train = target_set.train
    chosen = images_of_each_class(train, len(target_set.classes), config.ipc, generator)
    images = train.images[chosen.to(train.images.device)]
    return F.normalize(images.flatten(1), dim=1).view_as(images)


def initial_bases(config: RunConfig, target_set: TargetSet, count: int) -> tuple[Tensor, Tensor]:
    """Basis images [bases, C, H, W] and coefficients [classes*decoded_ipc, bases] of a linear
    distilled set: standard normal noise, each base scaled to norm 1, and the coefficients of each
    image so that the image has norm 1. So the images begin with the norm that C.1 asks for, and the
    bases, which the outer Adam moves too, with that of an image."""
    bases = _unit_noise(config, target_set, count, "distilled_bases")
    images = len(target_set.classes) * images_per_class(config)
    generator = torch_generator(config.seed, "distilled_coefficients")
    coefficients = torch.randn(images, count, generator=generator)
    coefficients /= (coefficients @ bases.flatten(1)).norm(dim=1, keepdim=True)
    return bases.to(target_set.train.images), coefficients.to(target_set.train.images)


def initial_labels(config: RunConfig, target_set: TargetSet) -> Tensor:
    """One-hot labels, class by class, [classes*images per class, classes]."""
    count = images_per_class(config)
    one_hot = torch.eye(len(target_set.classes)).repeat_interleave(count, dim=0)
    return one_hot.to(target_set.train.images)
