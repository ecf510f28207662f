"""First and second derivatives of a network by the layers' rules (`rules/`), without autograd."""

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from bench.metagrad.flat import FlatNetwork
from bench.metagrad.problem import CROSS_ENTROPY, Loss, logit_gradient
from bench.metagrad.rules import Application, Cast, Parameters
from bench.metagrad.trace import Node, trace


class LayerDerivatives:
    """For networks of the layers in `rules/`, joined by sums (residual networks).

    Args:
        cast: applied to the inputs of convolutions and linear layers: the precision.
        layout: memory layout of batches of maps; changes speed only.

    Raises:
        UnknownLayer: a layer has no rule.
    """

    repeatable = True

    def __init__(
        self,
        network: FlatNetwork,
        cast: Cast = lambda tensor: tensor,
        layout: torch.memory_format = torch.channels_last,
    ) -> None:
        self.network, self.cast, self.layout = network, cast, layout
        self.nodes = trace(network.network)
        self.last_use = {i: n for n, node in enumerate(self.nodes) for i in node.inputs}

    def flatten(self, parameters: Mapping[str, Tensor]) -> Tensor:
        return self.network.flatten(parameters)

    @torch.no_grad()
    def logits(self, theta: Tensor, images: Tensor) -> Tensor:
        return Pass(self, theta, images, keep=False).logits

    @torch.no_grad()
    def gradient(
        self, theta: Tensor, images: Tensor, labels: Tensor, loss: Loss = CROSS_ENTROPY
    ) -> tuple[Tensor, Tensor]:
        forward = Pass(self, theta, images)
        losses = loss.losses(forward.logits, labels)
        slopes = loss.slopes(forward.logits, labels)
        return self.network.flatten(forward.backward(slopes)), losses

    @torch.no_grad()
    def linearize(self, theta: Tensor, images: Tensor, labels: Tensor) -> "LayerLinearization":
        return LayerLinearization(self, theta, images, labels)

    def hvp(
        self, theta: Tensor, images: Tensor, labels: Tensor, directions: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """`linearize(...).hvp(directions)`, as one function of tensors."""
        return self.linearize(theta, images, labels).hvp(directions)

    def linearization_bytes(self, theta: Tensor, images: Tensor, labels: Tensor) -> int:
        linearization = self.linearize(theta, images, labels)
        tensors = [*linearization.outputs.values()]
        for application in linearization.forward.applications:
            tensors += vars(application).values() if application else ()
        storages = {
            part.untyped_storage().data_ptr(): part.untyped_storage().nbytes()
            for part in tensors
            if isinstance(part, Tensor)
        }
        storages.pop(theta.untyped_storage().data_ptr(), None)  # the weights are views of it
        return sum(storages.values())


class Pass:
    """A network applied to one batch, forward and then backward.

    Args:
        keep: False where no backward pass will follow.
    """

    def __init__(
        self, derivatives: LayerDerivatives, theta: Tensor, images: Tensor, keep: bool = True
    ) -> None:
        if images.ndim != 4:
            raise ValueError(
                f"the layers' rules take images [batch, C, H, W], not {list(images.shape)};"
                " use ExactEngine(derivatives=autograd_derivatives)"
            )
        self.derivatives = derivatives
        self.parameters = derivatives.network.unflatten(theta)
        self.applications: list[Application | None] = []
        values: dict[int, Tensor] = {
            0: images.detach().contiguous(memory_format=derivatives.layout)
        }
        for n, node in enumerate(derivatives.nodes):
            inputs = [values[i] for i in node.inputs]
            application = None
            if node.layer:
                parameters = self.of(node, self.parameters)
                application = node.layer(parameters, derivatives.cast)
                values[n + 1] = application.forward(inputs[0])
            else:
                if len({part.shape for part in inputs}) > 1:
                    raise ValueError("the network adds values of different shapes")
                values[n + 1] = sum(inputs[1:], inputs[0])
            self.applications.append(application if keep else None)
            for i in node.inputs:
                if derivatives.last_use[i] == n:
                    values.pop(i, None)
        self.logits = values[len(derivatives.nodes)]

    @staticmethod
    def of(node: Node, parameters: dict[str, Tensor]) -> Parameters:
        return tuple(parameters[name] for name in node.parameters)

    def backward(self, logits_bar: Tensor) -> dict[str, Tensor]:
        """The gradients of the parameters by name. Frees the applications on the way."""
        gradients: dict[str, Tensor] = {}
        for n, node, application, gy in self.walk(logits_bar):
            if application:
                parts = application.parameter_gradients(gy)
                gradients.update(zip(node.parameters, parts, strict=True))
            self.applications[n] = None
        return gradients

    def walk(self, logits_bar: Tensor) -> Iterator[tuple[int, Node, Application | None, Tensor]]:
        """The nodes from the last to the first, each with the gradient of its output."""
        bars = {len(self.applications): logits_bar}
        for n, node in reversed(list(enumerate(self.derivatives.nodes))):
            gy, application = bars.pop(n + 1), self.applications[n]
            for i in node.inputs:
                if i > 0:
                    accumulate(bars, i, application.input_gradient(gy) if application else gy)
            yield n, node, application, gy


class LayerLinearization:
    """Stores the activations and their gradients."""

    def __init__(
        self, derivatives: LayerDerivatives, theta: Tensor, images: Tensor, labels: Tensor
    ) -> None:
        self.derivatives = derivatives
        self.forward = Pass(derivatives, theta, images)
        logits_bar = logit_gradient(self.forward.logits, labels)
        # Gradients of outputs, where they enter second derivatives.
        self.outputs = {
            n: gy for n, node, _, gy in self.forward.walk(logits_bar) if node.parameters
        }
        self.softmax = self.forward.logits.softmax(dim=1)
        self.mass = labels.sum(dim=1, keepdim=True)

    @torch.no_grad()
    def gradient(self) -> Tensor:
        gradients: dict[str, Tensor] = {}
        for n, node in enumerate(self.derivatives.nodes):
            application = self.forward.applications[n]
            if application and node.parameters:
                parts = application.parameter_gradients(self.outputs[n])
                gradients.update(zip(node.parameters, parts, strict=True))
        return self.derivatives.network.flatten(gradients)

    def hvp(self, directions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        # As a block: torch 2.11 compiles no decorated method of an object made in compiled code.
        with torch.no_grad():
            moved = self.derivatives.network.unflatten(directions)
            logits_dot = self._tangent(moved)
            # log softmax(z) moves by ż - ⟨softmax, ż⟩
            log_dot = logits_dot - (self.softmax * logits_dot).sum(dim=-1, keepdim=True)
            theta_bar, images_bar = self._tangent_backward(self.mass * self.softmax * log_dot)
            return theta_bar, images_bar, -log_dot

    def _tangent(self, moved: dict[str, Tensor]) -> Tensor:
        """The tangent of the logits, [directions, batch, classes]."""
        values: dict[int, Tensor | None] = {0: None}
        nodes = self.derivatives.nodes
        for n, node in enumerate(nodes):
            inputs = [values[i] for i in node.inputs]
            application = self.forward.applications[n]
            if application:
                values[n + 1] = application.tangent(inputs[0], Pass.of(node, moved))
            else:
                moving = [value for value in inputs if value is not None]
                values[n + 1] = sum(moving[1:], moving[0]) if moving else None
            for i in node.inputs:
                if self.derivatives.last_use[i] == n:
                    values.pop(i, None)
        logits_dot = values[len(nodes)]
        assert logits_dot is not None, "a network without parameters"
        return logits_dot

    def _tangent_backward(self, logits_bar_dot: Tensor) -> tuple[Tensor, Tensor]:
        """ġ of the parameters, [directions, P], and of the images."""
        gradients: dict[str, Tensor] = {}
        bars = {len(self.derivatives.nodes): logits_bar_dot}
        for n, node in reversed(list(enumerate(self.derivatives.nodes))):
            gy_dot = bars.pop(n + 1)
            gy = self.outputs.get(n, gy_dot)  # not read by a layer without parameters
            application = self.forward.applications[n]
            if application is None:
                for i in node.inputs:
                    accumulate(bars, i, gy_dot)
                continue
            parts = application.tangent_parameter_gradients(gy, gy_dot)
            gradients.update(zip(node.parameters, parts, strict=True))
            accumulate(bars, node.inputs[0], application.tangent_input_gradient(gy, gy_dot))
        network = self.derivatives.network
        flat = torch.cat([gradients[name].flatten(1) for name in network.names], dim=1)
        return flat, bars[0]


def accumulate(bars: dict[int, Tensor], i: int, part: Tensor) -> None:
    """Add to the gradient with respect to value `i`."""
    bars[i] = bars[i] + part if i in bars else part
