"""The exact engine: the meta-gradient by one adjoint step an inner step, without an unrolled graph.

The forward pass runs the trajectory as plain training and keeps (θ_t, s_t) of the steps in the
window. The backward pass walks the window in reverse. At each step the optimiser's part of the
adjoint is closed-form and elementwise (`optimizers.py`); it yields the cotangent w of the inner
gradient g_t = ∂ℓ(θ_t, U)/∂θ. The network's part is the product of second derivatives with that one
vector, (∂²ℓ/∂θ²)·w and (∂²ℓ/∂U∂θ)ᵀ·w, both from a single reverse-over-reverse pass through the
recomputed g_t. Memory in the window grows by the parameter copies only.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from bench.metagrad.flat import FlatNetwork
from bench.metagrad.optimizers import State
from bench.metagrad.problem import MetaGradient, Problem, StepRange, inner_loss, outer_losses


@dataclass(frozen=True)
class Trajectory:
    """What the forward pass leaves for the backward pass: θ_stop, and (θ_t, s_t) in the window."""

    network: FlatNetwork
    theta_stop: Tensor
    thetas: list[Tensor]
    states: list[State]


class ExactEngine:
    """Constant memory in the window; see the module's first lines.

    Args:
        sample_chunk: how many single-sample cotangents `sample_gradients` carries at once. Memory
            grows with it, by the activations of one inner batch each.
    """

    def __init__(self, sample_chunk: int = 10) -> None:
        self.sample_chunk = sample_chunk

    def meta_gradient(
        self, problem: Problem, window: StepRange, target_images: Tensor, target_labels: Tensor
    ) -> MetaGradient:
        trajectory = run_forward(problem, window)
        theta = trajectory.theta_stop.requires_grad_()
        loss = outer_losses(trajectory.network(theta, target_images), target_labels).mean()
        (theta_bar,) = torch.autograd.grad(loss, theta)
        images_bar, labels_bar = run_backward(problem, window, trajectory, theta_bar)
        return MetaGradient(images_bar, labels_bar, loss.detach())

    def sample_gradients(
        self, problem: Problem, window: StepRange, target_images: Tensor, target_labels: Tensor
    ) -> MetaGradient:
        trajectory = run_forward(problem, window)
        theta = trajectory.theta_stop.requires_grad_()
        losses = outer_losses(trajectory.network(theta, target_images), target_labels)
        parts: list[tuple[Tensor, Tensor | None]] = []
        for chosen in torch.arange(len(losses), device=losses.device).split(self.sample_chunk):
            one_hot = torch.zeros(
                len(chosen), len(losses), dtype=losses.dtype, device=losses.device
            )
            one_hot[torch.arange(len(chosen)), chosen] = 1
            (theta_bars,) = torch.autograd.grad(
                losses, theta, one_hot, retain_graph=True, is_grads_batched=True
            )
            parts.append(run_backward(problem, window, trajectory, theta_bars))
        return MetaGradient(
            torch.cat([images for images, _ in parts]),
            torch.cat([labels for _, labels in parts if labels is not None])
            if problem.learn_labels
            else None,
            losses.detach(),
        )


def run_forward(problem: Problem, window: StepRange) -> Trajectory:
    """Train from θ_0 to θ_stop, keeping the states inside the window."""
    network = FlatNetwork(problem.network, problem.parameters)
    theta, state = network.theta_0, problem.optimizer.initial_state(network.theta_0)
    thetas: list[Tensor] = []
    states: list[State] = []
    images, labels = problem.images.detach(), problem.labels.detach()
    for t in range(window.stop):
        if t >= window.start:
            thetas.append(theta)
            states.append(state)
        with torch.no_grad():
            batch_images, batch_labels = problem.inner_batch(t, images, labels)
        grad = network.gradient(theta, batch_images, batch_labels)
        theta, state = problem.optimizer.step(theta, grad, state, t)
    return Trajectory(network, theta, thetas, states)


def run_backward(
    problem: Problem, window: StepRange, trajectory: Trajectory, theta_bar: Tensor
) -> tuple[Tensor, Tensor | None]:
    """Pull cotangents of θ_stop back to the distilled set.

    Args:
        theta_bar: [P], or [samples, P] for many cotangents through the one trajectory.

    Returns:
        Cotangents of the images and, where they are learned, of the labels, with the leading
        dimension of `theta_bar`.
    """
    batched = theta_bar.dim() == 2
    lead = theta_bar.shape[:-1]
    images = problem.images.detach().requires_grad_()
    labels = problem.labels.detach().requires_grad_(problem.learn_labels)
    distilled = (images, labels) if problem.learn_labels else (images,)
    bars = [
        torch.zeros(*lead, *part.shape, dtype=part.dtype, device=part.device) for part in distilled
    ]
    state_bar = tuple(torch.zeros_like(theta_bar) for _ in trajectory.states[0])
    for t in reversed(range(window.start, window.stop)):
        theta = trajectory.thetas[t - window.start].detach().requires_grad_()
        state = trajectory.states[t - window.start]
        batch_images, batch_labels = problem.inner_batch(t, images, labels)
        loss = inner_loss(trajectory.network(theta, batch_images), batch_labels)
        (grad,) = torch.autograd.grad(loss, theta, create_graph=True)
        theta_bar, grad_bar, state_bar = problem.optimizer.adjoint(
            theta_bar, state_bar, theta.detach(), grad.detach(), state, t
        )
        # What a step's batch does not contain has no gradient from it, hence allow_unused.
        theta_part, *parts = torch.autograd.grad(
            grad,
            (theta, *distilled),
            grad_bar,
            is_grads_batched=batched,
            allow_unused=True,
        )
        theta_bar = theta_bar + theta_part
        for bar, part in zip(bars, parts, strict=True):
            if part is not None:
                bar += part
    return bars[0], bars[1] if problem.learn_labels else None
