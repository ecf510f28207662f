"""The exact engine: the meta-gradient by one adjoint step an inner step, without an unrolled graph.

The forward pass runs the trajectory as plain training and keeps (θ_t, s_t, g_t) of the steps in the
window: parameters, optimiser state and inner gradient. The backward pass walks the window in
reverse. At each step the optimiser's part of the adjoint is closed-form and elementwise
(`optimizers.py`); it yields the cotangent w of g_t. The network's part is the product of second
derivatives with that one vector, (∂²ℓ/∂θ²)·w and (∂²ℓ/∂U∂θ)ᵀ·w (`derivatives.py`). It needs the
activations of that step: those of the last steps are kept from the forward pass as far as the
memory budget goes, those of the others are computed again. Both give the same numbers, on a CPU
bit for bit (where they would not, nothing is kept).
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from bench.metagrad.choice import make_derivatives
from bench.metagrad.compiled import CompiledOptimizer
from bench.metagrad.derivatives import pull_back
from bench.metagrad.mean_loss import MeanLinearization, MeanLoss
from bench.metagrad.optimizers import State
from bench.metagrad.precision import hardware_precision
from bench.metagrad.problem import MetaGradient, Problem, StepRange


@dataclass
class KeptStep:
    """What the forward pass leaves of one step of the window.

    Attributes:
        linearization: the activations, where the memory budget allows to keep them.
    """

    theta: Tensor
    state: State
    gradient: Tensor
    linearization: MeanLinearization | None


class ExactEngine:
    """See the module's first lines.

    Args:
        activation_budget: bytes of activations to keep for the backward pass; 0: compute all again.
        images_at_once: largest part of a batch that is worked on at one time; 0: as suits the
            device. Sums over other parts round differently.
        sample_chunk: how many single-sample cotangents `sample_gradients` carries at once.
        precision: one of `choices.PRECISIONS`.
        compiled: run the steps as compiled functions (`compiled.py`); activations are then
            always computed again.
    """

    def __init__(
        self,
        activation_budget: int = 0,
        images_at_once: int = 0,
        sample_chunk: int = 10,
        precision: str = "float32",
        compiled: bool = False,
    ) -> None:
        self.activation_budget = activation_budget
        self.images_at_once = images_at_once
        self.sample_chunk = sample_chunk
        self.precision, self.compiled = precision, compiled
        self._network: nn.Module | None = None
        self._optimizer: CompiledOptimizer | None = None

    def meta_gradient(
        self, problem: Problem, window: StepRange, target_images: Tensor, target_labels: Tensor
    ) -> MetaGradient:
        loss, problem = self._ready(problem)
        with hardware_precision(self.precision):
            kept, theta = forward(loss, problem, window, self.activation_budget)
            labels = one_hot(target_labels, problem.labels)
            theta_bar, losses = loss.gradient(theta, target_images, labels, problem.outer_loss)
            images_bar, labels_bar = backward(loss, problem, window, kept, theta_bar.unsqueeze(0))
        return MetaGradient(
            images_bar[0], None if labels_bar is None else labels_bar[0], losses.mean()
        )

    def sample_gradients(
        self, problem: Problem, window: StepRange, target_images: Tensor, target_labels: Tensor
    ) -> MetaGradient:
        loss, problem = self._ready(problem)
        with hardware_precision(self.precision):
            kept, theta = forward(loss, problem, window, self.activation_budget)
            labels = one_hot(target_labels, problem.labels)
            samples = [
                loss.gradient(theta, *sample, problem.outer_loss)
                for sample in zip(target_images.split(1), labels.split(1), strict=True)
            ]
            theta_bars = torch.stack([gradient for gradient, _ in samples])
            parts = [
                backward(loss, problem, window, kept, chunk)
                for chunk in theta_bars.split(self.sample_chunk)
            ]
        return MetaGradient(
            torch.cat([images for images, _ in parts]),
            torch.cat([labels for _, labels in parts if labels is not None])
            if problem.learn_labels
            else None,
            torch.cat([losses for _, losses in samples]),
        )

    def _ready(self, problem: Problem) -> tuple[MeanLoss, Problem]:
        """The inner loss, and the problem with a compiled optimiser if so wanted. Both are kept for
        the next problem with the same network and optimiser."""
        if self._network is not problem.network:
            self._network = problem.network
            derivatives = make_derivatives(problem.network, self.precision, self.compiled)
            self._loss = MeanLoss(derivatives, self.images_at_once)
        if not self.compiled:
            return self._loss, problem
        if self._optimizer is None or self._optimizer.optimizer is not problem.optimizer:
            self._optimizer = CompiledOptimizer(problem.optimizer)
        return self._loss, replace(problem, optimizer=self._optimizer)


@torch.no_grad()
def forward(
    loss: MeanLoss, problem: Problem, window: StepRange, activation_budget: int = 0
) -> tuple[list[KeptStep], Tensor]:
    """Train from θ_0 to θ_stop: the steps of the window, and θ_stop."""
    theta = loss.derivatives.flatten(problem.parameters)
    state = problem.optimizer.initial_state(theta)
    # One block for what all steps keep: many small pieces that stay, between large ones that go,
    # would leave holes in memory worth several times as much.
    block = theta.new_empty(window.stop - window.start, 2 + len(state), len(theta))
    kept: list[KeptStep] = []
    affordable = 0
    for t in range(window.stop):
        batch = problem.inner_batch(t, problem.images, problem.labels)
        if t == window.start and activation_budget and loss.derivatives.repeatable:
            affordable = activation_budget // loss.linearization_bytes(theta, *batch)
        linearization = None
        if t < max(window.start, window.stop - affordable):
            gradient, _ = loss.gradient(theta, *batch)
        else:
            linearization = loss.linearize(theta, *batch)
            gradient = linearization.gradient()
        if t >= window.start:
            row = torch.stack([theta, gradient, *state], out=block[t - window.start])
            kept.append(KeptStep(row[0], tuple(row[2:]), row[1], linearization))
        in_window = t >= window.start
        theta, state = problem.optimizer.step(theta, gradient, state, t, in_window)
    return kept, theta


def backward(
    loss: MeanLoss, problem: Problem, window: StepRange, kept: list[KeptStep], theta_bar: Tensor
) -> tuple[Tensor, Tensor | None]:
    """Pull cotangents of θ_stop back to the distilled set.

    Args:
        theta_bar: [directions, P]: any number of cotangents through the one trajectory.

    Returns:
        Cotangents of the images and, where they are learned, of the labels, with a leading
        [directions].
    """
    images = problem.images.detach().requires_grad_()
    labels = problem.labels.detach().requires_grad_(problem.learn_labels)
    distilled = (images, labels) if problem.learn_labels else (images,)
    bars = [part.new_zeros(len(theta_bar), *part.shape) for part in distilled]
    state_bar = tuple(torch.zeros_like(theta_bar) for _ in kept[0].state)
    for t, step in zip(reversed(range(window.start, window.stop)), reversed(kept), strict=True):
        theta_bar, gradient_bar, state_bar = problem.optimizer.adjoint(
            theta_bar, state_bar, step.theta, step.gradient, step.state, t
        )
        batch = problem.inner_batch(t, images, labels)
        theta_part, *batch_bars = (
            step.linearization.hvp(gradient_bar)
            if step.linearization
            else loss.hvp(step.theta, batch[0].detach(), batch[1].detach(), gradient_bar)
        )
        theta_bar = theta_bar + theta_part
        # Through whatever chose and augmented the batch.
        moving = [i for i, part in enumerate(batch) if part.requires_grad]
        parts = pull_back([batch[i] for i in moving], [batch_bars[i] for i in moving], distilled)
        for bar, part in zip(bars, parts, strict=True):
            if part is not None:  # None: nothing of it is in this step's batch
                bar += part
    return bars[0], bars[1] if problem.learn_labels else None


def one_hot(classes: Tensor, like: Tensor) -> Tensor:
    """Class indices [batch] -> labels [batch, classes] of the type and the number of classes of
    `like`. (`F.one_hot` looks at the indices, for which the host has to wait.)"""
    return torch.eye(like.shape[1], dtype=like.dtype, device=like.device)[classes]
