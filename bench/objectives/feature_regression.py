"""FRePO: Zhou, Nezhadarya and Ba, "Dataset distillation using neural feature regression", NeurIPS
2022."""

import math
from functools import partial
from typing import Any

import torch
from torch import Tensor

from bench.config.objectives import FRePO
from bench.metagrad import MetaGradient
from bench.objectives.kernel_regression import (
    centered,
    gradient_of,
    margin,
    predictions,
    squared_error,
    without_gradient,
)
from bench.objectives.network_pool import NetworkPool
from bench.objectives.objective import PlainObjective, Setting, embedding

RIDGE = 1e-6  # as a fraction of the mean eigenvalue


class FeatureRegression(PlainObjective):
    """The error of ridge regression from the features of a network that was trained on the
    distilled set for some steps (their Algorithm 1):

        L = 1/|T| Σ_T ½ ‖ K_TS (K_SS + λI)⁻¹ y - y_T ‖² - mean_S min(largest - second of y, 1/C)

    K is the product of features φ, what the last linear layer sees; λ is 1e-6 of the mean
    eigenvalue of K_SS. The labels y are the distilled ones minus 1/C, divided by √(C/10). The last
    term, of their code, keeps learned labels in their class. No gradient flows into the network.

    The pool has `networks` of them. Each outer step draws one, follows its loss, and then trains it
    for one step on the updated distilled set, by Adam on half the squared distance of logits and y;
    after `online_steps` such steps a fresh network takes its place.

    In their published code: 10 networks, 100 steps, target batches of 1,024 images, mirrored copies
    of the distilled images beside them (not for MNIST and Fashion-MNIST), learned labels, real
    images to start from, 500,000 outer steps by LAMB at 0.0003 with a cosine decay; its version in
    torch has Adam at 0.001. Its ConvNet has no norms and doubles its width with each block. Here it
    is that of the run. A step of a network's training takes all distilled images, as there up to
    1,000. Labels here are at least 0, so y at least -1/C, of which there is no bound there.
    """

    def __init__(self, options: FRePO, setting: Setting) -> None:
        self.options, self.setting = options, setting
        apart = options.online_steps // options.networks
        ages = [apart * slot for slot in range(options.networks)]
        self.pool = NetworkPool(setting, ages, options.network_lr)

    def gradient(self, seed: int, step: int, images: Tensor, labels: Tensor) -> MetaGradient:
        targets, classes = self.setting.target_batch(seed, step)
        parameters = self.pool.flat.unflatten(self.pool.at(step).theta)
        features = partial(embedding, self.setting.network, parameters)
        of_targets = without_gradient(features, targets).double()

        def loss(images: Tensor, labels: Tensor) -> Tensor:
            y = scaled(labels)
            above = margin(y, 1)
            if self.options.mirror:
                images, y = torch.cat([images, images.flip(-1)]), torch.cat([y, y])
            own = features(images).double()
            predicted = predictions(own @ own.T, of_targets @ own.T, y, RIDGE)
            return squared_error(predicted, classes) - above

        return gradient_of(loss, images, labels, self.setting.config.learn_labels)

    def after(self, step: int, images: Tensor, labels: Tensor) -> None:
        if self.pool.at(step).age >= self.options.online_steps:
            self.pool.replace(step)
        else:
            self.pool.train(step, images, scaled(labels).to(images))

    def state(self) -> dict[str, Any]:
        return {"pool": self.pool.state()}

    def load_state(self, state: dict[str, Any]) -> None:
        self.pool.load_state(state["pool"])


def scaled(labels: Tensor) -> Tensor:
    """What networks and regression are fitted to, [n, classes] like the labels."""
    return centered(labels) / math.sqrt(labels.shape[1] / 10)
