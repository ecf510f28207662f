"""The distilled set before its first update: noise, real images or bases; one-hot labels."""

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.config.identity import images_per_class
from bench.config.run_config import RunConfig
from bench.data import TargetSet
from bench.distillation.upsampling import enlarge
from bench.training.batches import images_of_each_class
from bench.training.randomness import torch_generator


def initial_images(config: RunConfig, target_set: TargetSet) -> Tensor:
    """Noise or real images (`config.init`), each scaled to L2 norm 1, [classes*ipc, C, H, W].

    The paper starts from noise and notes that real images work as well (C.1). It states the scale
    for noise. Here real images have the same scale, for the paper's reason: before an instance norm
    an image that is α times as large needs an outer Adam with an α times as large learning rate (up
    to the eps of that norm, `bench.networks.parts.instance_norm`), and a whitened image of CIFAR-10
    has norm 28 on average. An image without contrast stays zero.

    Raises:
        UserError: some class has fewer than `ipc` training images.
    """
    images = _noise(config, target_set) if config.init == "noise" else _real(config, target_set)
    return images.to(target_set.train.images)


def _noise(config: RunConfig, target_set: TargetSet) -> Tensor:
    """Standard normal noise."""
    count = len(target_set.classes) * config.ipc
    generator = torch_generator(config.seed, "distilled_images")
    images = torch.randn(count, *target_set.image_shape, generator=generator)
    images /= _norms(images)
    return images


def _norms(images: Tensor) -> Tensor:
    """The norm of each image, [n, 1, 1, 1]."""
    return images.flatten(1).norm(dim=1)[:, None, None, None]


def _real(config: RunConfig, target_set: TargetSet) -> Tensor:
    """Training images, `ipc` of each class, ordered by class, none twice."""
    generator = torch_generator(config.seed, "distilled_images/real")
    train = target_set.train
    positions = images_of_each_class(train, len(target_set.classes), config.ipc, generator)
    images = train.images[positions.to(train.images.device)]
    return F.normalize(images.flatten(1), dim=1).view_as(images)


def initial_bases(
    config: RunConfig, target_set: TargetSet, count: int, shape: tuple[int, int, int]
) -> tuple[Tensor, Tensor]:
    """Bases [count, *shape] and coefficients [classes*decoded_ipc, count] of a linear distilled
    set: standard normal noise. Each base is scaled so that it has norm 1 when enlarged, and the
    coefficients of each image so that the image has norm 1.

    So the images start with the norm of C.1, and an enlarged base with that of an image. The outer
    Adam moves every number by the learning rate, whatever its size, and a number of a small base
    moves all pixels that it is enlarged to. With this scale an enlarged base changes as fast, in
    relation to its size, as a plain image.
    """
    generator = torch_generator(config.seed, "distilled_bases")
    bases = torch.randn(count, *shape, generator=generator)
    bases /= _norms(enlarge(bases, config.basis_downsample))
    generator = torch_generator(config.seed, "distilled_coefficients")
    coefficients = torch.randn(
        len(target_set.classes) * images_per_class(config), count, generator=generator
    )
    small = (coefficients @ bases.flatten(1)).unflatten(1, shape)
    coefficients /= _norms(enlarge(small, config.basis_downsample))[..., 0, 0]
    return bases.to(target_set.train.images), coefficients.to(target_set.train.images)


def initial_labels(config: RunConfig, target_set: TargetSet) -> Tensor:
    """One-hot labels, class by class, [classes*images per class, classes]."""
    count = images_per_class(config)
    one_hot = torch.eye(len(target_set.classes)).repeat_interleave(count, dim=0)
    return one_hot.to(target_set.train.images)
