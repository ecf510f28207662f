"""What an outer step applies."""

from unittest.mock import patch

import torch
from torch import Tensor

from bench.distillation.outer_loop import Distillation, OuterStep


def step_and_applied(distillation: Distillation) -> tuple[OuterStep, Tensor]:
    """One outer step, and the gradients that its optimiser was given, as one vector."""
    optimizer = distillation.outer_optimizer
    with patch.object(optimizer, "step", wraps=optimizer.step) as step:
        record = distillation.outer_step()
    learned = step.call_args.args[0]
    return record, torch.cat([gradient.flatten() for _, gradient in learned])
