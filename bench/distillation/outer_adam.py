"""The outer optimiser: Adam on what is learned of the distilled set."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.optim.adam import adam

BETAS, EPS = (0.9, 0.999), 1e-8  # torch's defaults, which the published code takes


@dataclass
class Moments:
    """What Adam keeps of one parameter: both moments, shaped like it, and its number of updates."""

    first: Tensor
    second: Tensor
    steps: Tensor


class OuterAdam:
    """`torch.optim.Adam` in its functional form, to the bit (a test compares).

    The class itself would import torch's compiler, which takes two seconds of every process.

    Args:
        groups: what may be updated, in groups that have a rate each.
        lr: learning rate at rate 1.
    """

    def __init__(self, groups: Sequence[Sequence[Tensor]], lr: float) -> None:
        self.groups, self.lr = groups, lr
        self.moments = [
            [Moments(torch.zeros_like(p), torch.zeros_like(p), torch.tensor(0.0)) for p in group]
            for group in groups
        ]

    @torch.no_grad()
    def step(self, learned: Sequence[tuple[Tensor, Tensor]], rates: Sequence[float]) -> None:
        """Update each (parameter, gradient), in place. What is not among them is left alone, with
        its moments; the rate of a group scales what is applied."""
        gradients = {id(parameter): gradient for parameter, gradient in learned}
        for group, moments, rate in zip(self.groups, self.moments, rates, strict=True):
            asked = [
                (parameter, gradients[id(parameter)], own)
                for parameter, own in zip(group, moments, strict=True)
                if id(parameter) in gradients
            ]
            adam(
                [parameter for parameter, _, _ in asked],
                [gradient for _, gradient, _ in asked],
                [own.first for _, _, own in asked],
                [own.second for _, _, own in asked],
                [],
                [own.steps for _, _, own in asked],
                amsgrad=False,
                beta1=BETAS[0],
                beta2=BETAS[1],
                lr=self.lr * rate,
                weight_decay=0.0,
                eps=EPS,
                maximize=False,
            )

    def state(self) -> list[list[dict[str, Any]]]:
        """For a checkpoint: the moments of each parameter of each group."""
        return [[vars(own) for own in moments] for moments in self.moments]

    def load_state(self, state: list[list[dict[str, Any]]]) -> None:
        """Go on from what `state()` returned."""
        for moments, saved in zip(self.moments, state, strict=True):
            for own, kept in zip(moments, saved, strict=True):
                own.first.copy_(kept["first"])
                own.second.copy_(kept["second"])
                own.steps.copy_(kept["steps"])
