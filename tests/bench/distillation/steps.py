"""Outer steps of runs that are compared: what they record, and where they end."""

import io
from dataclasses import replace

import torch

from bench.config.run_config import RunConfig
from bench.data import TargetSet
from bench.distillation.outer_loop import Distillation


def same_state(one: object, other: object) -> bool:
    """Bit for bit, through any nesting."""
    if isinstance(one, torch.Tensor):
        return isinstance(other, torch.Tensor) and torch.equal(one, other)
    if isinstance(one, dict):
        return (
            isinstance(other, dict)
            and one.keys() == other.keys()
            and all(same_state(value, other[key]) for key, value in one.items())
        )
    if isinstance(one, list):
        return isinstance(other, list) and all(map(same_state, one, other))
    return one == other


def recorded(distillation: Distillation, steps: int) -> list[object]:
    return [replace(distillation.outer_step(), seconds=0.0) for _ in range(steps)]


def resumed_halfway(
    config: RunConfig, digits: TargetSet
) -> tuple[Distillation, Distillation, Distillation]:
    """A run after six outer steps; one that made them with a checkpoint, written and read, after
    three; and one that stopped there."""
    whole, stopped, resumed = (Distillation(config, digits) for _ in range(3))
    recorded(whole, 6)
    recorded(stopped, 3)
    file = io.BytesIO()
    torch.save(stopped.state(), file)
    file.seek(0)
    resumed.load_state(torch.load(file, weights_only=True))
    recorded(resumed, 3)
    return whole, resumed, stopped
