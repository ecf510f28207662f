"""A network as a function of one flat parameter vector."""

import torch
from torch import Tensor, nn
from torch.func import functional_call

from bench.metagrad.problem import inner_loss


class FlatNetwork:
    """`network` as a function (θ, images) -> logits with θ of shape [P].

    Attributes:
        theta_0: the given parameters, flattened in the order of their names in the module.
    """

    def __init__(self, network: nn.Module, parameters: dict[str, Tensor]) -> None:
        self.network = network
        self.names = list(parameters)
        self.shapes = [tensor.shape for tensor in parameters.values()]
        self.sizes = [tensor.numel() for tensor in parameters.values()]
        self.theta_0 = torch.cat([tensor.reshape(-1) for tensor in parameters.values()]).detach()

    def __call__(self, theta: Tensor, images: Tensor) -> Tensor:
        """Logits [batch, classes]."""
        pieces = theta.split(self.sizes)
        named = {
            name: piece.view(shape)
            for name, piece, shape in zip(self.names, pieces, self.shapes, strict=True)
        }
        return functional_call(self.network, named, (images,))

    def gradient(self, theta: Tensor, images: Tensor, labels: Tensor) -> Tensor:
        """∇ℓ(θ) [P] of the inner loss on one batch; no graph is kept."""
        theta = theta.detach().requires_grad_()
        (grad,) = torch.autograd.grad(inner_loss(self(theta, images), labels), theta)
        return grad
