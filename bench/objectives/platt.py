"""The Platt loss, which RFAD and RCIG share: cross-entropy at a learned temperature."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.metagrad import Adam


class PlattLoss:
    """CE(e^τ f, class) for predictions f of regression, which have no scale of their own. Its
    temperature e^-τ starts as 1 and is learned by Adam.

    Args:
        lr: of Adam.

    Attributes:
        tau: τ, float64.
        slope: of the last loss with respect to τ.
    """

    def __init__(self, lr: float, device: torch.device) -> None:
        self.tau = self.slope = torch.zeros((), dtype=torch.float64, device=device)
        self.optimizer = Adam(lr)
        self.moments, self.updates = self.optimizer.initial_state(self.tau), 0

    def __call__(self, predicted: Tensor, classes: Tensor) -> Tensor:
        """The mean over images, a scalar, of predictions [n, classes] and classes [n]."""
        tau = self.tau.detach().requires_grad_()
        loss = F.cross_entropy(tau.exp() * predicted, classes)
        (self.slope,) = torch.autograd.grad(loss, tau, retain_graph=True)
        return loss

    def update(self) -> None:
        """Move τ against the slope of the last loss."""
        self.tau, self.moments = self.optimizer.step(
            self.tau, self.slope, self.moments, self.updates
        )
        self.updates += 1

    def state(self) -> dict[str, Any]:
        """For a checkpoint."""
        return {"tau": self.tau, "moments": self.moments, "updates": self.updates}

    def load_state(self, state: dict[str, Any]) -> None:
        """Continue from what `state()` returned."""
        self.tau, self.moments = state["tau"], state["moments"]
        self.updates = state["updates"]
