"""What an outer step differentiates, and what it applies."""

from unittest.mock import patch

import torch
from torch import Tensor

from bench.distillation.outer_loop import Distillation, OuterStep
from bench.distillation.replicas import replica_config
from bench.metagrad import Problem


def coming_problem(distillation: Distillation, replica: int = 0) -> Problem:
    """The bilevel problem of a replica in the coming outer step."""
    config, step = replica_config(distillation.config, replica), distillation.step
    images, labels = distillation.parameters.at(step)
    return distillation._problem(config, distillation.window(step).stop, images, labels)


def step_and_applied(distillation: Distillation) -> tuple[OuterStep, Tensor]:
    """One outer step, and the gradients that its optimizer was given, as one vector."""
    optimizer = distillation.outer_optimizer
    with patch.object(optimizer, "step", wraps=optimizer.step) as step:
        record = distillation.outer_step()
    learned = step.call_args.args[0]
    return record, torch.cat([gradient.flatten() for _, gradient in learned])
