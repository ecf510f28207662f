"""DM: Zhao and Bilen, "Dataset condensation with distribution matching", WACV 2023."""

import torch
from torch import Tensor

from bench.config.objectives import DM
from bench.metagrad import MetaGradient
from bench.objectives.objective import Setting, StatelessObjective, augment_class, embedding


class DistributionMatching(StatelessObjective):
    """The squared distance of the class means of embeddings (their equation 5 and Algorithm 1):

        L = Σ_c ‖ mean_real ψ(A_ω(x)) - mean_distilled ψ(A_ω(s)) ‖²

    ψ is a fresh, untrained network in each outer step, without its last linear layer, and A_ω the
    Siamese augmentation, with one draw for all images of a class.

    In their published code: 256 real images per class, SGD on the pixels with a rate of 1 (of 10
    from 100 distilled images per class on) and momentum 0.5, 20,000 outer steps, real images to
    start from.
    """

    def __init__(self, options: DM, setting: Setting) -> None:
        self.options, self.setting = options, setting

    def gradient(self, seed: int, step: int, images: Tensor, labels: Tensor) -> MetaGradient:
        setting, kind = self.setting, self.options.augmentation
        theta = setting.fresh_network(seed, step)
        moving = images.detach().requires_grad_()
        real = setting.real_images(seed, step, self.options.real_ipc)
        losses = []
        for label, distilled in enumerate(moving.unflatten(0, (setting.classes, -1))):

            def mean(batch: Tensor, label: int = label) -> Tensor:
                augmented = augment_class(kind, seed, step, label, batch)
                return embedding(setting.network, theta, augmented).mean(0)

            with torch.no_grad():
                target = mean(real[label])
            losses.append((target - mean(distilled)).square().sum())
        loss = torch.stack(losses).sum()
        (gradient,) = torch.autograd.grad(loss, moving)
        return MetaGradient(gradient, None, loss.detach())
