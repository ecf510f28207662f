"""A pool of networks that are trained on the distilled set between the outer steps, which FRePO and
RCIG share."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from bench.metagrad import Adam
from bench.metagrad.flat import FlatNetwork
from bench.objectives.objective import Setting
from bench.training.randomness import python_random


@dataclass(frozen=True)
class Member:
    """A network of the pool.

    Attributes:
        theta: its parameters [P].
        moments: of Adam, shaped like them.
        updates: steps of training that it had.
        age: the same, and for a network of the first pool what it started with, so that they are
            not all replaced at once.
    """

    theta: Tensor
    moments: tuple[Tensor, ...]
    updates: int
    age: int


class NetworkPool:
    """One network of the pool, drawn for each outer step, is used and then trained, by Adam on half
    the squared distance of logits and labels, with all distilled images in a batch.

    Args:
        ages: of the first networks.
        lr: of Adam.
    """

    def __init__(self, setting: Setting, ages: Sequence[int], lr: float) -> None:
        self.setting, self.seed = setting, setting.config.seed
        self.flat, self.optimizer = FlatNetwork(setting.network), Adam(lr)
        self.members = [self._fresh(slot, 0, age) for slot, age in enumerate(ages)]

    def at(self, step: int) -> Member:
        """The network of an outer step."""
        return self.members[self._slot(step)]

    def train(self, step: int, images: Tensor, labels: Tensor, updates: int = 1) -> None:
        """Train it for so many steps, on images [n, C, H, W] and labels [n, classes]."""
        member = self.at(step)
        theta, moments = member.theta, member.moments
        for t in range(member.updates, member.updates + updates):
            moving = theta.detach().requires_grad_()
            errors = self.flat(moving, images) - labels
            (gradient,) = torch.autograd.grad(0.5 * errors.square().sum(1).mean(), moving)
            theta, moments = self.optimizer.step(theta, gradient, moments, t)
        self.members[self._slot(step)] = Member(
            theta, moments, member.updates + updates, member.age + updates
        )

    def replace(self, step: int) -> None:
        """Put a fresh network in its place."""
        slot = self._slot(step)
        self.members[slot] = self._fresh(slot, step + 1, 0)

    def _slot(self, step: int) -> int:
        return python_random(self.seed, "pool", step).randrange(len(self.members))

    def _fresh(self, slot: int, step: int, age: int) -> Member:
        theta = self.flat.flatten(self.setting.fresh_network(self.seed, slot, step))
        return Member(theta, self.optimizer.initial_state(theta), 0, age)

    def state(self) -> list[dict[str, Any]]:
        """For a checkpoint."""
        return [vars(member) for member in self.members]

    def load_state(self, state: list[dict[str, Any]]) -> None:
        """Continue from what `state()` returned."""
        self.members = [Member(**saved) for saved in state]
