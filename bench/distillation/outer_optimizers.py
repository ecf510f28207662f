"""The outer optimizers, on the learned parts of the distilled set: Adam, and SGD with momentum."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.optim.adam import adam

from bench.config.run_config import RunConfig

Pairs = list[tuple[Tensor, Tensor]]  # (parameter, gradient)

BETAS, EPS = (0.9, 0.999), 1e-8  # torch's defaults, which the published code takes


@dataclass
class Moments:
    """The state of one parameter: both of Adam's moments, shaped like it, and its number of
    updates. The first moment of SGD is its momentum buffer; it has no second."""

    first: Tensor
    second: Tensor
    steps: Tensor


class OuterOptimizer:
    """What the outer optimizers share: the moments of each parameter.

    Args:
        groups: the parameters, in groups that have a rate each.
        lr: learning rate at rate 1.
    """

    def __init__(self, groups: Sequence[Sequence[Tensor]], lr: float) -> None:
        self.groups, self.lr = groups, lr
        self.moments = [
            [Moments(torch.zeros_like(p), torch.zeros_like(p), torch.tensor(0.0)) for p in group]
            for group in groups
        ]

    @torch.no_grad()
    def step(self, learned: Pairs, rates: Sequence[float]) -> None:
        """Update each (parameter, gradient), in place. Other parameters and their moments stay as
        they are. The rate of a group scales the learning rate."""
        gradients = {id(parameter): gradient for parameter, gradient in learned}
        for group, moments, rate in zip(self.groups, self.moments, rates, strict=True):
            updates = [
                (parameter, gradients[id(parameter)], moment)
                for parameter, moment in zip(group, moments, strict=True)
                if id(parameter) in gradients
            ]
            self._update(updates, self.lr * rate)

    def _update(self, updates: list[tuple[Tensor, Tensor, Moments]], lr: float) -> None:
        raise NotImplementedError

    def alignment(self, learned: Pairs) -> float:
        """Cosine of the meta-gradient and of its mean so far, as the optimizer weighs it (the first
        moment), over everything that is learned; NaN where one of them is 0."""
        moments = {
            id(parameter): moment.first
            for group, moments in zip(self.groups, self.moments, strict=True)
            for parameter, moment in zip(group, moments, strict=True)
        }
        means = [(parameter, moments[id(parameter)]) for parameter, _ in learned]
        dots = [
            (mean * gradient).sum() for (_, gradient), (_, mean) in zip(learned, means, strict=True)
        ]
        norms = whole_norm(learned) * whole_norm(means)
        return torch.where(norms > 0, sum(dots[1:], start=dots[0]) / norms, math.nan).item()

    def state(self) -> list[list[dict[str, Any]]]:
        """For a checkpoint: the moments of each parameter of each group."""
        return [[vars(moment) for moment in moments] for moments in self.moments]

    def load_state(self, state: list[list[dict[str, Any]]]) -> None:
        """Continue from what `state()` returned."""
        for moments, saved_moments in zip(self.moments, state, strict=True):
            for moment, saved in zip(moments, saved_moments, strict=True):
                moment.first.copy_(saved["first"])
                moment.second.copy_(saved["second"])
                moment.steps.copy_(saved["steps"])


class OuterAdam(OuterOptimizer):
    """`torch.optim.Adam` in its functional form, bit for bit (a test compares them).

    The class itself would import torch's compiler, which takes two seconds in every process.
    """

    def _update(self, updates: list[tuple[Tensor, Tensor, Moments]], lr: float) -> None:
        adam(
            [parameter for parameter, _, _ in updates],
            [gradient for _, gradient, _ in updates],
            [moment.first for _, _, moment in updates],
            [moment.second for _, _, moment in updates],
            [],
            [moment.steps for _, _, moment in updates],
            amsgrad=False,
            beta1=BETAS[0],
            beta2=BETAS[1],
            lr=lr,
            weight_decay=0.0,
            eps=EPS,
            maximize=False,
        )


class OuterSGD(OuterOptimizer):
    """`torch.optim.SGD` with heavy-ball momentum, bit for bit.

    Args:
        momentum: the factor on the sum of all gradients before.
    """

    def __init__(self, groups: Sequence[Sequence[Tensor]], lr: float, momentum: float) -> None:
        super().__init__(groups, lr)
        self.momentum = momentum

    def _update(self, updates: list[tuple[Tensor, Tensor, Moments]], lr: float) -> None:
        for parameter, gradient, moment in updates:
            moment.first.mul_(self.momentum).add_(gradient)
            moment.steps += 1
            parameter.add_(moment.first, alpha=-lr)


def make_outer_optimizer(config: RunConfig, groups: Sequence[Sequence[Tensor]]) -> OuterOptimizer:
    """The outer optimizer of a configuration."""
    if config.outer_optimizer == "sgd":
        return OuterSGD(groups, config.outer_lr, config.outer_momentum)
    return OuterAdam(groups, config.outer_lr)


def whole_norm(learned: Pairs) -> Tensor:
    """The norm of the meta-gradient over all learned (parameter, gradient) pairs together."""
    squares = [gradient.square().sum() for _, gradient in learned]
    return sum(squares[1:], start=squares[0]).sqrt()
