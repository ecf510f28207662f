"""DC and DSA: Zhao, Mopuri and Bilen, "Dataset condensation with gradient matching", ICLR 2021;
Zhao and Bilen, "Dataset condensation with differentiable Siamese augmentation", ICML 2021."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.config.objectives import DC
from bench.data import augment
from bench.metagrad import MetaGradient
from bench.objectives.objective import Parameters, PlainObjective, Setting, augment_class, logits
from bench.training.randomness import torch_generator

EPS = 1e-6  # added to the product of two norms, as in the published code


class GradientMatching(PlainObjective):
    """The distance of the gradients of a network on real and on distilled images of a class, summed
    over classes (DC's equations 9 and 10, Algorithm 1):

        L = Σ_c Σ_layers Σ_outputs 1 - ⟨g, h⟩ / (‖g‖ ‖h‖ + 1e-6)

    g and h are the rows of a layer's weights, [outputs, rest]: of one output node each. Biases and
    norms do not count. The network is trained on the distilled set between the outer steps, for
    `network_steps` steps of plain SGD, and drawn anew every `outer_steps_per_network`.

    DSA augments the real and the distilled images of a class alike (its equation 9), and the
    network's training by numbers of each image's own.

    In their published code: SGD on the pixels with a rate of 0.1 and momentum 0.5; noise (DC) or
    real images (DSA) to start from; 1,000 networks. A step of the network's training takes all
    distilled images at once, as there up to 256.
    """

    def __init__(self, options: DC, setting: Setting) -> None:
        self.options, self.setting = options, setting
        self.theta: Parameters = {}
        self.number = -1  # of the network, counted over the run

    def gradient(self, seed: int, step: int, images: Tensor, labels: Tensor) -> MetaGradient:
        setting, options = self.setting, self.options
        # A run that goes back (`not_finite=restore`) goes on with the networks of the coming steps.
        if (number := step // options.outer_steps_per_network) != self.number:
            self.theta, self.number = setting.fresh_network(seed, number), number
        moving = images.detach().requires_grad_()
        real = setting.real_images(seed, step, options.real_ipc)
        losses = []
        for label, distilled in enumerate(moving.unflatten(0, (setting.classes, -1))):
            target, own = (
                self._gradients(augment_class(options.augmentation, seed, step, label, one), label)
                for one in (real[label], distilled)
            )
            losses.append(distance([part.detach() for part in target], own))
        loss = torch.stack(losses).sum()
        (gradient,) = torch.autograd.grad(loss, moving)
        return MetaGradient(gradient, None, loss.detach())

    def _gradients(self, images: Tensor, label: int) -> list[Tensor]:
        """Of the mean cross-entropy of images of one class, with respect to every weight;
        differentiable where the images are."""
        theta = {name: value.detach().requires_grad_() for name, value in self.theta.items()}
        weights = [value for value in theta.values() if value.dim() > 1]
        targets = torch.full((len(images),), label, device=images.device)
        loss = F.cross_entropy(logits(self.setting.network, theta, images), targets)
        return list(torch.autograd.grad(loss, weights, create_graph=images.requires_grad))

    def after(self, step: int, images: Tensor, labels: Tensor) -> None:
        options = self.options
        if (step + 1) % options.outer_steps_per_network == 0:
            return  # a fresh network comes next
        kind = augment.of_each_image(options.augmentation)
        for t in range(options.network_steps):
            generator = torch_generator(self.setting.config.seed, "network/augment", step, t)
            draw = augment.draw(kind, len(images), generator).to(images.device)
            theta = {name: value.detach().requires_grad_() for name, value in self.theta.items()}
            outputs = logits(self.setting.network, theta, augment.apply(images, draw))
            loss = F.cross_entropy(outputs, labels)
            gradients = torch.autograd.grad(loss, list(theta.values()))
            self.theta = {
                name: value.detach() - options.network_lr * gradient
                for (name, value), gradient in zip(theta.items(), gradients, strict=True)
            }

    def state(self) -> dict[str, Any]:
        return {"theta": dict(self.theta), "number": self.number}

    def load_state(self, state: dict[str, Any]) -> None:
        self.theta, self.number = dict(state["theta"]), state["number"]


def distance(targets: list[Tensor], gradients: list[Tensor]) -> Tensor:
    """The sum over layers and output nodes of 1 - cosine of two lists of weights' gradients, each
    [outputs, ...]."""
    total = targets[0].new_zeros(())
    for target, gradient in zip(targets, gradients, strict=True):
        one, other = target.flatten(1), gradient.flatten(1)
        norms = one.norm(dim=1) * other.norm(dim=1)
        total = total + (1 - (one * other).sum(1) / (norms + EPS)).sum()
    return total
