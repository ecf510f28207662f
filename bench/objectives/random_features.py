"""RFAD: Loo, Hasani, Amini and Rus, "Efficient dataset distillation using random feature
approximation", NeurIPS 2022."""

import math
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.config.objectives import RFAD
from bench.metagrad import MetaGradient
from bench.objectives.kernel_regression import (
    centered,
    gradient_of,
    predictions,
    squared_error,
    without_gradient,
)
from bench.objectives.objective import PlainObjective, Setting
from bench.objectives.platt import PlattLoss
from bench.training.randomness import torch_generator

WEIGHT_VARIANCE, BIAS_STD = 2.0, 0.1  # of a layer's weights, times its inputs; of its biases

Layers = list[tuple[Tensor, Tensor]]  # weights [width, inputs, 3, 3] and biases [width]


class RandomFeatures(PlainObjective):
    """The loss of ridge regression with a kernel of random features (their Algorithm 1):

        L = 1/|T| Σ_T CE(e^τ f, class),  f = K_TS (K_SS + λI)⁻¹ y,  λ = 0.005 of the mean eigenvalue
        K = 2 · 1/(MF) Σ_m φ_m φ_mᵀ + 0.01

    φ_m are the F features of the m-th of M random convolutional networks, fresh ones in each outer
    step, so that K is an estimate of the NNGP kernel of such a network (its last layer is in the 2
    and the 0.01). The networks are 3x3 convolutions, ReLU and 2x2 average pooling, without norms,
    and with normally distributed weights and biases; they are not the run's. Labels y are the
    distilled ones minus 1/C; learned ones are at least -1/C here, and free there. CE is the
    cross-entropy: Platt scaling, with a learned temperature e^-τ (`platt.py`). Without `platt` the
    loss is half the squared distance to one-hot labels minus 1/C.

    In their published code: 8 networks of three blocks, 256 channels wide; 4 target batches of
    1,280 images without augmentation; real images to start from; AdaBelief at 0.001, and at 0.01
    for τ, where Adam is taken here. That code also learns a linear map of all images, at 0.00005,
    which starts as the identity and is applied to them in the end. It is left out here.
    """

    def __init__(self, options: RFAD, setting: Setting) -> None:
        self.options, self.setting = options, setting
        train = setting.target_set.train.images
        self.platt = PlattLoss(options.temperature_lr, train.device)

    def gradient(self, seed: int, step: int, images: Tensor, labels: Tensor) -> MetaGradient:
        targets, classes = self.setting.target_batch(seed, step)
        networks = [self.layers(seed, step, k) for k in range(self.options.networks)]
        all_features = partial(features, networks)
        of_targets = without_gradient(all_features, targets)

        def loss(images: Tensor, labels: Tensor) -> Tensor:
            own = all_features(images)
            kernels = (own @ own.T + BIAS_STD**2, of_targets @ own.T + BIAS_STD**2)
            predicted = predictions(*kernels, centered(labels), self.options.ridge)
            error = self.platt if self.options.platt else squared_error
            return error(predicted, classes)

        return gradient_of(loss, images, labels, self.setting.config.learn_labels)

    def after(self, step: int, images: Tensor, labels: Tensor) -> None:
        if self.options.platt:
            self.platt.update()

    def layers(self, seed: int, step: int, k: int) -> Layers:
        """Those of the k-th network of an outer step."""
        like = self.setting.target_set.train.images
        generator = torch_generator(seed, "network/random_features", step, k)
        layers, inputs, width = [], like.shape[1], self.options.width
        for _ in range(self.options.depth):
            weights = torch.randn(width, inputs, 3, 3, generator=generator)
            weights *= math.sqrt(WEIGHT_VARIANCE / (9 * inputs))
            biases = BIAS_STD * torch.randn(width, generator=generator)
            layers.append((weights.to(like), biases.to(like)))
            inputs = width
        return layers

    def state(self) -> dict[str, Any]:
        return self.platt.state()

    def load_state(self, state: dict[str, Any]) -> None:
        self.platt.load_state(state)


def features(networks: list[Layers], images: Tensor) -> Tensor:
    """√(2/MF) φ of all networks, [n, M*F], of images [n, C, H, W]: the products of their rows are
    the kernel of the last layer's weights."""
    parts = []
    for layers in networks:
        maps = images
        for weights, biases in layers:
            maps = F.avg_pool2d(F.conv2d(maps, weights, biases, padding=1).relu(), 2)
        parts.append(maps.flatten(1))
    together = torch.cat(parts, dim=1)
    return together * math.sqrt(WEIGHT_VARIANCE / together.shape[1])
