"""The exact engine: one adjoint step for each inner step, without an unrolled graph.

The forward pass is plain training. It stores (θ_t, s_t, g_t) for each step of the window:
parameters, optimizer state and inner gradient. The backward pass walks the window in reverse. At
each step the optimizer's part of the adjoint is closed-form and elementwise (`optimizers.py`); it
yields the cotangent w of g_t. The network's part is the product of second derivatives with that
vector, (∂²ℓ/∂θ²)·w and (∂²ℓ/∂U∂θ)ᵀ·w (`derivatives.py`). The product needs the activations of that
step. The forward pass stores those of the last steps, as many as the memory budget allows; the
others are recomputed. Both give the same numbers, bit for bit on a CPU (where they would not,
no activations are stored).
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor, nn

from bench.metagrad.choice import make_derivatives
from bench.metagrad.compiled import CompiledOptimizer
from bench.metagrad.derivatives import Derivatives, pull_back
from bench.metagrad.mean_loss import MeanLinearization, MeanLoss
from bench.metagrad.optimizers import State
from bench.metagrad.precision import hardware_precision
from bench.metagrad.problem import MetaGradient, Problem, StepRange, Training

# (t, gradients of the window [t, stop), cotangent of θ_t, cotangents of s_t) -> None
AtStep = Callable[[int, list[Tensor], Tensor, State], None]


@dataclass
class WindowStep:
    """What the forward pass stores of one step of the window.

    Attributes:
        linearization: the activations, if the memory budget allows storing them.
    """

    theta: Tensor
    state: State
    gradient: Tensor
    linearization: MeanLinearization | None


class ExactEngine:
    """Exact meta-gradients without an unrolled graph (see the module's docstring).

    Args:
        activation_budget: bytes of activations to store for the backward pass; 0: recompute all.
        images_at_once: largest part of a batch to process at once; 0: chosen by device. Other
            parts round differently.
        sample_chunk: how many single-sample cotangents `sample_gradients` carries at once.
        precision: one of `choices.PRECISIONS`.
        compiled: run the steps as compiled functions (`compiled.py`), which always recompute
            activations.
        derivatives: how to differentiate a network; None: `make_derivatives`.
    """

    def __init__(
        self,
        activation_budget: int = 0,
        *,
        images_at_once: int = 0,
        sample_chunk: int = 10,
        precision: str = "float32",
        compiled: bool = False,
        derivatives: Callable[[nn.Module], Derivatives] | None = None,
    ) -> None:
        self.activation_budget = activation_budget
        self.images_at_once = images_at_once
        self.sample_chunk = sample_chunk
        self.precision, self.compiled = precision, compiled
        self.derivatives = derivatives or partial(
            make_derivatives, precision=precision, compiled=compiled
        )
        self._network: nn.Module | None = None
        self._optimizer: CompiledOptimizer | None = None

    def meta_gradient(
        self,
        problem: Problem,
        window: StepRange,
        target_images: Tensor,
        target_labels: Tensor,
        *,
        inner_norms: bool = False,
    ) -> MetaGradient:
        loss, problem = self._ready(problem)
        norms: list[Tensor] | None = [] if inner_norms else None
        with hardware_precision(self.precision):
            steps, theta = forward(loss, problem, window, self.activation_budget, norms)
            labels = one_hot(target_labels, problem.labels)
            theta_bar, losses = loss.gradient(theta, target_images, labels, problem.outer_loss)
            images_bar, labels_bar = backward(loss, problem, window, steps, theta_bar.unsqueeze(0))
        return MetaGradient(
            images_bar[0],
            None if labels_bar is None else labels_bar[0],
            losses.mean(),
            None if norms is None else torch.stack(norms),
        )

    def sample_gradients(
        self, problem: Problem, window: StepRange, target_images: Tensor, target_labels: Tensor
    ) -> MetaGradient:
        loss, problem = self._ready(problem)
        with hardware_precision(self.precision):
            steps, theta = forward(loss, problem, window, self.activation_budget)
            labels = one_hot(target_labels, problem.labels)
            samples = [
                loss.gradient(theta, *sample, problem.outer_loss)
                for sample in zip(target_images.split(1), labels.split(1), strict=True)
            ]
            theta_bars = torch.stack([gradient for gradient, _ in samples])
            parts = [
                backward(loss, problem, window, steps, chunk)
                for chunk in theta_bars.split(self.sample_chunk)
            ]
        return MetaGradient(
            torch.cat([images for images, _ in parts]),
            torch.cat([labels for _, labels in parts if labels is not None])
            if problem.learn_labels
            else None,
            torch.cat([losses for _, losses in samples]),
        )

    def train(self, problem: Problem, steps: int, images: Tensor) -> Training:
        loss, problem = self._ready(problem)
        norms: list[Tensor] = []
        with hardware_precision(self.precision):
            _, theta = forward(loss, problem, range(steps, steps), norms=norms)
            return Training(torch.stack(norms), loss.logits(theta, images))

    def _ready(self, problem: Problem) -> tuple[MeanLoss, Problem]:
        """The inner loss, and the problem, with its optimizer compiled if `compiled`. Both are
        cached for the next problem with the same network and optimizer."""
        if self._network is not problem.network:
            self._network = problem.network
            self._loss = MeanLoss(self.derivatives(problem.network), self.images_at_once)
        if not self.compiled:
            return self._loss, problem
        if self._optimizer is None or self._optimizer.optimizer is not problem.optimizer:
            self._optimizer = CompiledOptimizer(problem.optimizer)
        return self._loss, replace(problem, optimizer=self._optimizer)


@torch.no_grad()
def forward(
    loss: MeanLoss,
    problem: Problem,
    window: StepRange,
    activation_budget: int = 0,
    norms: list[Tensor] | None = None,
) -> tuple[list[WindowStep], Tensor]:
    """Train from θ_0 to θ_stop: the steps of the window, which may be empty, and θ_stop. Appends
    the norm of the gradient at each inner step to `norms`."""
    theta = loss.derivatives.flatten(problem.parameters)
    state = problem.optimizer.initial_state(theta)
    # One block for all steps: many small tensors that stay, between large ones that are freed,
    # would fragment memory by several times their size.
    block = theta.new_empty(window.stop - window.start, 2 + len(state), len(theta))
    steps: list[WindowStep] = []
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
        if norms is not None:
            norms.append(gradient.norm())
        if t >= window.start:
            row = torch.stack([theta, gradient, *state], out=block[t - window.start])
            steps.append(WindowStep(row[0], tuple(row[2:]), row[1], linearization))
        in_window = t >= window.start
        theta, state = problem.optimizer.step(theta, gradient, state, t, in_window)
    return steps, theta


def backward(
    loss: MeanLoss,
    problem: Problem,
    window: StepRange,
    steps: list[WindowStep],
    theta_bar: Tensor,
    at_step: AtStep | None = None,
) -> tuple[Tensor, Tensor | None]:
    """Pull cotangents of θ_stop back to the distilled set.

    Args:
        theta_bar: [directions, P]: any number of cotangents through the one trajectory.
        at_step: called after each inner step t, from the last to the first, with the gradients of
            the window [t, stop), of the images and of labels that are learned, which the next step
            changes in place, and with the cotangents of θ_t and of s_t; [directions, ...] all.

    Returns:
        Cotangents of the images and, where they are learned, of the labels, with a leading
        [directions].
    """
    images = problem.images.detach().requires_grad_()
    labels = problem.labels.detach().requires_grad_(problem.learn_labels)
    distilled = (images, labels) if problem.learn_labels else (images,)
    bars = [part.new_zeros(len(theta_bar), *part.shape) for part in distilled]
    state_bar = tuple(torch.zeros_like(theta_bar) for _ in steps[0].state)
    for t, step in zip(reversed(range(window.start, window.stop)), reversed(steps), strict=True):
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
        if at_step is not None:
            at_step(t, bars, theta_bar, state_bar)
    return bars[0], bars[1] if problem.learn_labels else None


def one_hot(classes: Tensor, like: Tensor) -> Tensor:
    """Class indices [batch] -> labels [batch, classes] of the type and the number of classes of
    `like`. (`F.one_hot` looks at the indices, for which the host has to wait.)"""
    return torch.eye(like.shape[1], dtype=like.dtype, device=like.device)[classes]
