"""The losses of outputs and labels against torch's own."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from bench.metagrad import OUTER_LOSSES
from bench.system import choices


@pytest.fixture
def outputs() -> tuple[Tensor, Tensor]:
    """Logits [6, 4] and labels [6, 4], not normalized."""
    generator = torch.Generator().manual_seed(0)
    logits, labels = torch.randn(2, 6, 4, dtype=torch.float64, generator=generator)
    return 3 * logits, labels.abs()


@pytest.mark.parametrize("name", choices.OUTER_LOSSES)
def test_the_slopes_are_the_gradient_of_the_losses(
    outputs: tuple[Tensor, Tensor], name: str
) -> None:
    logits, labels = outputs[0].requires_grad_(), outputs[1]
    loss = OUTER_LOSSES[name]
    (expected,) = torch.autograd.grad(loss.losses(logits, labels).sum(), logits)
    torch.testing.assert_close(loss.slopes(logits, labels).detach(), expected, rtol=1e-12, atol=0)


def test_the_losses_are_torchs(outputs: tuple[Tensor, Tensor]) -> None:
    logits, labels = outputs
    for name, function in (("mse", F.mse_loss), ("cross_entropy", F.cross_entropy)):
        losses = OUTER_LOSSES[name].losses(logits, labels)
        assert losses.shape == (6,)
        torch.testing.assert_close(losses.mean(), function(logits, labels), rtol=1e-12, atol=0)
