"""The distilled set before its first update: noise, real images or bases; one-hot labels."""

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.config.identity import images_per_class, images_per_label
from bench.config.run_config import RunConfig
from bench.data import TargetSet
from bench.distillation.upsampling import enlarge
from bench.training.batches import images_of_each_class
from bench.training.randomness import torch_generator


def initial_images(config: RunConfig, target_set: TargetSet, per_class: int) -> Tensor:
    """Noise or real images (`config.init`), [classes*per_class, C, H, W], each scaled to an L2 norm
    of `config.init_norm`, by default 1.

    The paper starts from noise and notes that real images work as well (C.1). It states the scale
    for noise. Here real images have the same scale, for the paper's reason: before an instance norm
    an image that is α times as large needs an outer Adam with an α times as large learning rate (up
    to the eps of that norm, `bench.networks.parts.instance_norm`), and a whitened image of CIFAR-10
    has norm 28 on average. An image without contrast stays zero. The rivals move images at the
    scale of real ones (`init_norm=0`).

    Raises:
        UserError: some class has fewer than `per_class` training images.
    """
    make = _noise if config.init == "noise" else _real
    return make(config, target_set, per_class).to(target_set.train.images)


def _noise(config: RunConfig, target_set: TargetSet, per_class: int) -> Tensor:
    """Standard normal noise."""
    count = len(target_set.classes) * per_class
    generator = torch_generator(config.seed, "distilled_images")
    images = torch.randn(count, *target_set.image_shape, generator=generator)
    if config.init_norm:
        images /= _norms(images) / config.init_norm
    return images


def _norms(images: Tensor) -> Tensor:
    """The norm of each image, [n, 1, 1, 1]."""
    return images.flatten(1).norm(dim=1)[:, None, None, None]


def _real(config: RunConfig, target_set: TargetSet, per_class: int) -> Tensor:
    """Training images, `per_class` of each class, ordered by class, none twice."""
    generator = torch_generator(config.seed, "distilled_images/real")
    train = target_set.train
    positions = images_of_each_class(train, len(target_set.classes), per_class, generator)
    images = train.images[positions.to(train.images.device)]
    if not config.init_norm:
        return images.clone()
    return F.normalize(images.flatten(1), dim=1).view_as(images) * config.init_norm


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
    """One-hot labels, class by class, [classes*labels per class, classes]: one for each image, or
    for each stored image or base that several are decoded from."""
    count = images_per_class(config) // images_per_label(config)
    one_hot = torch.eye(len(target_set.classes)).repeat_interleave(count, dim=0)
    return one_hot.to(target_set.train.images)
