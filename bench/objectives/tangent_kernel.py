"""KIP: Nguyen, Chen and Lee, "Dataset meta-learning from kernel ridge-regression", ICLR 2021, and
Nguyen, Novak, Xiao and Lee, "Dataset distillation with infinitely wide convolutional networks",
NeurIPS 2021."""

import math

import torch
from torch import Tensor

from bench.config.objectives import KIP
from bench.metagrad import MetaGradient
from bench.objectives.kernel_regression import centered, gradient_of, predictions, squared_error
from bench.objectives.objective import Setting, StatelessObjective

WEIGHT_VARIANCE, BIAS_VARIANCE = 2.0, 0.01  # of a layer's weights, times its inputs; of its biases
RIDGE = 1e-6  # as a fraction of the mean eigenvalue
PARALLEL = 1 - 1e-12  # a cosine above this is that of an input with itself


class TangentKernel(StatelessObjective):
    """The error of ridge regression with the neural tangent kernel of an infinitely wide network
    (their "kernel inducing points"):

        L = 1/|T| Σ_T ½ ‖ K_TS (K_SS + λI)⁻¹ y - y_T ‖²,  λ = 1e-6 of the mean eigenvalue of K_SS

    Labels y are the distilled ones minus 1/C; learned ones may become as negative there as they
    like, and here -1/C. Nothing is random but the target batches.

    K is here that of a fully connected ReLU network, in closed form, which is the first paper's
    (depth 1 in its published code, with Adam at 0.04 on real images, target batches of 5,000 and
    labels that are not learned; its loss is 1/C of this one). The numbers that are quoted of KIP
    are of the second paper: its kernel of a convolutional network with pooling takes a product over
    all pairs of pixels for each pair of images, on hundreds of GPUs, and is out of reach here. So
    what this objective reaches says nothing about those.
    """

    def __init__(self, options: KIP, setting: Setting) -> None:
        self.options, self.setting = options, setting

    def gradient(self, seed: int, step: int, images: Tensor, labels: Tensor) -> MetaGradient:
        targets, classes = self.setting.target_batch(seed, step)
        targets = targets.flatten(1).double()

        def loss(images: Tensor, labels: Tensor) -> Tensor:
            own = images.flatten(1).double()
            of_distilled, of_targets = (
                tangent_kernel(inputs, own, self.options.depth) for inputs in (own, targets)
            )
            return squared_error(
                predictions(of_distilled, of_targets, centered(labels), RIDGE), classes
            )

        return gradient_of(loss, images, labels, self.setting.config.learn_labels)


def tangent_kernel(inputs: Tensor, others: Tensor, depth: int) -> Tensor:
    """The neural tangent kernel Θ of a fully connected network with `depth` hidden ReLU layers of
    infinite width, [n, m] for inputs [n, d] and [m, d] (Jacot, Gabriel and Hongler, NeurIPS 2018;
    the expectations are those of Cho and Saul, NeurIPS 2009).

    With u the cosine that belongs to the covariance Σ, and q its diagonal, a layer has

        Σ' = 2 · √(q q') (√(1 - u²) + (π - arccos u) u) / 2π + 0.01
        Θ' = Σ' + 2 · Θ (π - arccos u) / 2π

    The slope of arccos is infinite where two inputs are equal. There u is 1 wherever they move
    together, and its derivative is taken as 0.
    """
    weights = WEIGHT_VARIANCE / inputs.shape[1]
    covariance = weights * inputs @ others.T + BIAS_VARIANCE
    ours, theirs = (weights * x.square().sum(1) + BIAS_VARIANCE for x in (inputs, others))
    kernel = covariance
    for _ in range(depth):
        lengths = (ours[:, None] * theirs).sqrt()
        cosine = covariance / lengths
        parallel = cosine >= PARALLEL
        cosine = torch.where(parallel, 0, cosine).clamp(min=-PARALLEL)
        slope = torch.where(parallel, 1, 1 - cosine.arccos() / math.pi)  # (π - arccos u) / π
        curve = (1 - cosine.square()).sqrt() / math.pi + slope * cosine
        curve = torch.where(parallel, 1, curve)
        covariance = WEIGHT_VARIANCE / 2 * lengths * curve + BIAS_VARIANCE
        kernel = covariance + WEIGHT_VARIANCE / 2 * slope * kernel
        ours, theirs = (WEIGHT_VARIANCE / 2 * q + BIAS_VARIANCE for q in (ours, theirs))
    return kernel
