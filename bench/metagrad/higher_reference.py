"""The reference engine: the unroll that the paper used, through the `higher` library.

It holds the graph of the whole window in memory. `higher` is unmaintained; it stays because it is
independent of the exact engine and the paper's numbers were made with it.
"""

import copy
import math
from contextlib import AbstractContextManager
from typing import Any

import higher
import torch
import torch.nn.functional as F
from torch import Tensor

from bench.metagrad.optimizers import SGD, Adam, InnerOptimizer
from bench.metagrad.precision import hardware_precision
from bench.metagrad.problem import MetaGradient, Problem, StepRange, Training, cross_entropies


class HigherEngine:
    """Meta-gradients by `higher.innerloop_ctx` and one backward pass through its record.

    Args:
        precision: one of `choices.PRECISIONS` but bf16; tf32 is the hardware's, on a GPU only.

    Raises:
        ValueError: bf16; or, when a meta-gradient is asked for, tf32 on a CPU.
    """

    def __init__(self, precision: str = "float32") -> None:
        if precision == "bf16":
            raise ValueError("engine=higher does not support precision=bf16: use float32 or tf32")
        self.precision = precision

    def meta_gradient(
        self,
        problem: Problem,
        window: StepRange,
        target_images: Tensor,
        target_labels: Tensor,
        *,
        inner_norms: bool = False,
    ) -> MetaGradient:
        norms: list[Tensor] | None = [] if inner_norms else None
        with self._hardware(problem):
            distilled, logits = self._unroll(problem, window, target_images, norms)
            loss = outer_losses(problem, logits, target_labels).mean()
            images_bar, *rest = torch.autograd.grad(loss, distilled)
        return MetaGradient(
            images_bar,
            rest[0] if rest else None,
            loss.detach(),
            None if norms is None else torch.stack(norms),
        )

    def sample_gradients(
        self, problem: Problem, window: StepRange, target_images: Tensor, target_labels: Tensor
    ) -> MetaGradient:
        with self._hardware(problem):
            distilled, logits = self._unroll(problem, window, target_images)
            losses = outer_losses(problem, logits, target_labels)
            parts = [torch.autograd.grad(loss, distilled, retain_graph=True) for loss in losses]
        stacked = [torch.stack(part) for part in zip(*parts, strict=True)]
        return MetaGradient(
            stacked[0], stacked[1] if problem.learn_labels else None, losses.detach()
        )

    def train(self, problem: Problem, steps: int, images: Tensor) -> Training:
        norms: list[Tensor] = []
        with self._hardware(problem):
            _, logits = self._unroll(problem, range(steps, steps), images, norms)
        return Training(torch.stack(norms), logits.detach())

    def _hardware(self, problem: Problem) -> AbstractContextManager[None]:
        if self.precision == "tf32" and not problem.images.is_cuda:
            raise ValueError("engine=higher supports precision=tf32 on a GPU only")
        return hardware_precision(self.precision)

    def _unroll(
        self,
        problem: Problem,
        window: StepRange,
        target_images: Tensor,
        norms: list[Tensor] | None = None,
    ) -> tuple[tuple[Tensor, ...], Tensor]:
        """The leaves (images[, labels]) and the logits [batch, classes]. Appends the norm of the
        gradient at each inner step to `norms`."""

        def note(gradients: list[Tensor]) -> list[Tensor]:
            if norms is not None:
                norms.append(torch.cat([part.detach().flatten() for part in gradients]).norm())
            return gradients

        network = copy.deepcopy(problem.network)
        network.to(problem.images)  # first: loading into float32 would round float64 parameters
        network.load_state_dict(problem.parameters)
        images = problem.images.detach().requires_grad_()
        labels = problem.labels.detach().requires_grad_(problem.learn_labels)
        with higher.innerloop_ctx(
            network, torch_optimizer(problem.optimizer, network), track_higher_grads=False
        ) as (unrolled, optimizer):
            for t in range(window.stop):
                # The warm-up runs with tracking off; switching it on at the window's start makes
                # θ_start and the optimizer's state there constants.
                in_window = t >= window.start
                optimizer._track_higher_grads = in_window
                batch_images, batch_labels = problem.inner_batch(t, images, labels)
                if not in_window:
                    batch_images, batch_labels = batch_images.detach(), batch_labels.detach()
                loss = cross_entropies(unrolled(batch_images), batch_labels).mean()
                settings = step_settings(problem.optimizer, t, in_window)
                optimizer.step(loss, override=settings, grad_callback=note)
                if not in_window:
                    detach_state(optimizer)
            logits = unrolled(target_images)
        release(network)
        return ((images, labels) if problem.learn_labels else (images,)), logits


def outer_losses(problem: Problem, logits: Tensor, target_labels: Tensor) -> Tensor:
    """The single-sample outer losses [batch]."""
    one_hot = F.one_hot(target_labels, logits.shape[1]).to(problem.labels)
    return problem.outer_loss.losses(logits, one_hot)


def release(network: torch.nn.Module) -> None:
    """Free the parameters of a network that `higher` has patched. It makes classes, which refer to
    themselves and to the network until Python's search for garbage finds them, some hundred outer
    steps later; that search does not know how much memory hangs on them, on a GPU least of all."""
    for parameter in network.parameters():
        parameter.data = parameter.data.new_empty(0)


def detach_state(optimizer: Any) -> None:
    """Cut the graph that `higher` records of its optimizer's state even with tracking off, where
    weight decay brings the parameters into it."""
    for group in optimizer.state:
        for state in group.values():
            for name, value in state.items():
                if isinstance(value, Tensor):
                    state[name] = value.detach()


def torch_optimizer(optimizer: InnerOptimizer, network: torch.nn.Module) -> torch.optim.Optimizer:
    """The torch optimizer that `higher` makes differentiable."""
    if isinstance(optimizer, SGD):
        return torch.optim.SGD(
            network.parameters(),
            lr=optimizer.lr,
            momentum=optimizer.momentum,
            weight_decay=optimizer.weight_decay,
        )
    if isinstance(optimizer, Adam):
        return torch.optim.Adam(
            network.parameters(),
            lr=optimizer.lr,
            betas=(optimizer.beta1, optimizer.beta2),
            eps=optimizer.eps,
            weight_decay=optimizer.weight_decay,
        )
    raise TypeError(f"engine=higher supports Adam and SGD, not {type(optimizer).__name__}")


def step_settings(optimizer: InnerOptimizer, t: int, in_window: bool) -> dict[str, list[Any]]:
    """All settings that change from step to step: `higher` keeps what the step before was given.

    `higher` adds Adam's eps before the bias correction; today's form is the same step with
    eps·√(1 - β2^k)."""
    assert isinstance(optimizer, Adam | SGD)
    settings: dict[str, list[Any]] = {"lr": [optimizer.learning_rate(t)]}
    if isinstance(optimizer, Adam):
        before = optimizer.eps_before_correction(in_window)
        settings["eps"] = [
            optimizer.eps * (1 if before else math.sqrt(1 - optimizer.beta2 ** (t + 1)))
        ]
    return settings
