"""First and second derivatives of a network's training loss with respect to its parameters.

The interface between the exact engine and a network, and two implementations: by the layers' rules
(`layered.py`), if every layer has one, and by torch's autograd, here, for every other network. A
batch's loss is a sum over its images, each computed independently: a network that mixes the images
of a batch (batch norm) is not supported.
"""

from collections.abc import Mapping, Sequence
from typing import Protocol

import torch

# torch.autograd imports it, with sympy, to check its first cotangents: here it is imported once,
# and before anything forks.
import torch.fx.experimental.symbolic_shapes
from torch import Tensor

from bench.metagrad.flat import FlatNetwork
from bench.metagrad.problem import CROSS_ENTROPY, Loss, cross_entropies


class Linearization(Protocol):
    """The gradient of Σ losses on one batch at θ, and its derivative there."""

    def gradient(self) -> Tensor:
        """[P]"""
        ...

    def hvp(self, directions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Derivatives of ⟨gradient, direction⟩ with respect to θ, the images and the labels.

        Args:
            directions: [directions, P].

        Returns:
            The Hessian-vector products [directions, P] and the mixed derivatives, with leading
            [directions].
        """
        ...


class Derivatives(Protocol):
    """A network's loss Σ_i -⟨label_i, log softmax(logits_i)⟩ as a function of θ [P].

    Images are [batch, C, H, W] and labels [batch, classes] everywhere.

    Attributes:
        repeatable: whether `linearize(...).gradient()` has the bits of `gradient(...)`.
    """

    repeatable: bool

    def flatten(self, parameters: Mapping[str, Tensor]) -> Tensor:
        """Parameters by name -> θ [P]."""
        ...

    def logits(self, theta: Tensor, images: Tensor) -> Tensor:
        """[batch, classes]; stores nothing."""
        ...

    def gradient(
        self, theta: Tensor, images: Tensor, labels: Tensor, loss: Loss = CROSS_ENTROPY
    ) -> tuple[Tensor, Tensor]:
        """(gradient [P], losses [batch]) of any loss; stores nothing."""
        ...

    def linearize(self, theta: Tensor, images: Tensor, labels: Tensor) -> Linearization:
        """The same gradient, storing what its derivative needs."""
        ...

    def linearization_bytes(self, theta: Tensor, images: Tensor, labels: Tensor) -> int:
        """Bytes that `linearize` stores. Pass copies: of a view, all memory behind it counts."""
        ...


class AutogradDerivatives:
    """By torch's autograd: reverse-over-reverse, for any module. Not repeatable: torch uses other
    formulas for a norm's backward pass when that will be differentiated."""

    repeatable = False

    def __init__(self, network: FlatNetwork) -> None:
        self.network = network

    def flatten(self, parameters: Mapping[str, Tensor]) -> Tensor:
        return self.network.flatten(parameters)

    @torch.no_grad()
    def logits(self, theta: Tensor, images: Tensor) -> Tensor:
        return self.network(theta, images)

    @torch.enable_grad()
    def gradient(
        self, theta: Tensor, images: Tensor, labels: Tensor, loss: Loss = CROSS_ENTROPY
    ) -> tuple[Tensor, Tensor]:
        theta = theta.detach().requires_grad_()
        losses = loss.losses(self.network(theta, images.detach()), labels.detach())
        (gradient,) = torch.autograd.grad(losses.sum(), theta)
        return gradient, losses.detach()

    @torch.enable_grad()
    def linearize(self, theta: Tensor, images: Tensor, labels: Tensor) -> "AutogradLinearization":
        leaves = tuple(part.detach().requires_grad_() for part in (theta, images, labels))
        losses = cross_entropies(self.network(leaves[0], leaves[1]), leaves[2])
        (gradient,) = torch.autograd.grad(losses.sum(), leaves[0], create_graph=True)
        return AutogradLinearization(gradient, leaves)

    def linearization_bytes(self, theta: Tensor, images: Tensor, labels: Tensor) -> int:
        storages: dict[int, int] = {}

        def note(tensor: Tensor) -> Tensor:
            storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            self.linearize(theta, images, labels)
        storages.pop(theta.untyped_storage().data_ptr(), None)  # the weights are views of it
        return sum(storages.values())


class AutogradLinearization:
    """Stores the graph of the gradient."""

    def __init__(self, gradient: Tensor, leaves: tuple[Tensor, ...]) -> None:
        self._gradient, self._leaves = gradient, leaves

    def gradient(self) -> Tensor:
        return self._gradient.detach()

    def hvp(self, directions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        theta, images, labels = pull_back([self._gradient], [directions], self._leaves)
        assert theta is not None
        assert images is not None
        assert labels is not None
        return theta, images, labels


def pull_back(
    outputs: Sequence[Tensor], cotangents: Sequence[Tensor], leaves: Sequence[Tensor]
) -> tuple[Tensor | None, ...]:
    """Cotangents of `outputs`, with a leading [directions], -> of `leaves`; None for a leaf that no
    output depends on. Does not free the graph."""
    one = len(cotangents[0]) == 1
    parts = torch.autograd.grad(
        outputs,
        leaves,
        [cotangent[0] if one else cotangent for cotangent in cotangents],
        is_grads_batched=not one,
        allow_unused=True,
        retain_graph=True,
    )
    return tuple(part.unsqueeze(0) if one and part is not None else part for part in parts)
