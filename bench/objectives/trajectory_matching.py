"""MTT: Cazenavette et al., "Dataset distillation by matching training trajectories", CVPR 2022;
FTD: Du et al., "Minimizing the accumulated trajectory error to improve dataset distillation", CVPR
2023."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from bench.config.objectives import MTT
from bench.data import augment
from bench.metagrad import SGD, MeanLoss, MetaGradient, Problem, make_derivatives
from bench.metagrad.exact import backward, forward
from bench.metagrad.optimizers import State
from bench.objectives.experts import Experts
from bench.objectives.objective import Setting
from bench.training.randomness import python_random, torch_generator

LR_MOMENTUM = 0.5  # of the SGD that learns the student's learning rate
LEAST_LR = 1e-6  # of the student


class TrajectoryMatching:
    """How far N steps of a student on the distilled set end from where M epochs on real images end
    (their equation 2 and Algorithm 1):

        L = ‖ θ_N - θ*_{t+M} ‖² / ‖ θ*_t - θ*_{t+M} ‖²,    θ_{n+1} = θ_n - α ∇ℓ(θ_n),    θ_0 = θ*_t

    θ*_t are the parameters of an expert after t epochs (`experts.py`), one expert and one t drawn
    in each outer step. The learning rate α is learned along with the images, by SGD with momentum
    0.5 of its own; `α` at the end is in the result as `student_lr`, and is what their evaluation
    trains with (`bench.evaluate protocol=mtt evaluation_lr=...`).

    The gradient is exact, and needs no graph of the N steps: it is that of an unrolled window of
    SGD with another outer loss, of which the exact engine keeps parameters and gradients alone.

    In their published code, for CIFAR-10 with ten images per class, which it whitens: SGD on the
    pixels with a rate of 1e5 (a misprint, says its first author) and momentum 0.5, 5,000 outer
    steps, real images to start from. With one image per class a rate of 100 and student_steps=50
    start_epochs=2 lr_lr=1e-7. An augmented batch has one map with numbers of each image's own, for
    experts and students, which do not see the same images.

    FTD has the same objective; its experts are trained by GSAM, for which the loss around a point
    counts. In its published code the pixels have a rate of 100 for CIFAR-10 at ten images per
    class, and a moving average of the distilled set (decay 0.9995) is evaluated beside the set,
    which is left out here. ρ = 0.01 is that of its README. Copies of its code have α = 0.4; PAD,
    which is built on it, has 0.3 for CIFAR-10. Their code scales the perturbation by the squared
    parameters; here it is that of GSAM, along the gradient, for which the same ρ means more: on
    ten digits the experts end 5 % of their path away from those without FTD, with their
    perturbation 3 %.

    The student's rate is kept at 1e-6 or more: below 0 the student would climb, and MTT's code ends
    with an error.
    """

    def __init__(self, options: MTT, setting: Setting) -> None:
        self.options, self.setting = options, setting
        self.experts = Experts(options, setting)
        self.loss = MeanLoss(make_derivatives(setting.network))
        self.student_lr, self.velocity = options.student_lr, 0.0
        self.lr_gradient = torch.zeros(())  # of the last outer step

    def gradient(self, seed: int, step: int, images: Tensor, labels: Tensor) -> MetaGradient:
        options = self.options
        draw = python_random(seed, "expert", step)
        expert, epoch = draw.randrange(options.experts), draw.randrange(options.start_epochs)
        start, target = self.experts.pair(expert, epoch, options.matched_epochs)
        problem = Problem(
            self.setting.network,
            self.experts.network.unflatten(start),
            SGD(self.student_lr),
            images,
            labels,
            StudentBatches(options, seed, step),
        )
        gradient, self.lr_gradient = matching_gradient(
            self.loss, problem, options.student_steps, target
        )
        return gradient

    def after(self, step: int, images: Tensor, labels: Tensor) -> None:
        self.velocity = LR_MOMENTUM * self.velocity + self.lr_gradient.item()
        self.student_lr = max(self.student_lr - self.options.lr_lr * self.velocity, LEAST_LR)

    def prepare(self, report: Callable[[str], object]) -> None:
        self.experts.prepare(report)

    def results(self) -> dict[str, Any]:
        """The learning rate that was learned, and the seconds that the experts took once."""
        return {"student_lr": self.student_lr, "expert_seconds": self.experts.seconds()}

    def state(self) -> dict[str, Any]:
        return {"student_lr": self.student_lr, "velocity": self.velocity}

    def load_state(self, state: dict[str, Any]) -> None:
        self.student_lr, self.velocity = state["student_lr"], state["velocity"]


def matching_gradient(
    loss: MeanLoss, problem: Problem, steps: int, target: Tensor
) -> tuple[MetaGradient, Tensor]:
    """The gradient of ‖ θ_N - target ‖² / ‖ θ_0 - target ‖² through N = `steps` of plain SGD.

    Args:
        problem: its optimizer is SGD without momentum, weight decay and decay steps.
        target: [P].

    Returns:
        The gradient with respect to images, and to labels where they are learned; and that with
        respect to the learning rate, a scalar: -Σ_n ⟨cotangent of θ_{n+1}, ∇ℓ(θ_n)⟩.
    """
    window = range(steps)
    trajectory, theta = forward(loss, problem, window)
    scale = (trajectory[0].theta - target).square().sum()
    cotangent = 2 * (theta - target) / scale  # of θ_{n+1}, from the last step to the first
    of_lr = theta.new_zeros(())

    def add_step(n: int, bars: list[Tensor], theta_bar: Tensor, state_bar: State) -> None:
        nonlocal cotangent, of_lr
        of_lr = of_lr - cotangent @ trajectory[n].gradient
        cotangent = theta_bar[0]

    images, labels = backward(loss, problem, window, trajectory, cotangent[None], add_step)
    value = (theta - target).square().sum() / scale
    return MetaGradient(images[0], None if labels is None else labels[0], value), of_lr


@dataclass(frozen=True)
class StudentBatches:
    """The batch of step t of a student: a part of the distilled set, shuffled anew each time that
    all of it was used, augmented. Called as `(t, images, labels)`."""

    options: MTT
    seed: int
    step: int

    def __call__(self, t: int, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        size = self.options.student_batch or len(images)
        epoch, part = divmod(t, -(-len(images) // size))
        if size < len(images):
            generator = torch_generator(self.seed, "student/epoch", self.step, epoch)
            order = torch.randperm(len(images), generator=generator)
            positions = order.split(size)[part].to(images.device)
            images, labels = images[positions], labels[positions]
        generator = torch_generator(self.seed, "student/augment", self.step, t)
        draw = augment.draw(self.options.augmentation, len(images), generator)
        return augment.apply(images, draw.to(images.device)), labels
