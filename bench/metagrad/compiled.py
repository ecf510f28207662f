"""The steps of a trajectory as compiled functions (`torch.compile`).

Four functions of tensors are compiled: the gradient, the product of second derivatives (which
recomputes the activations), an optimizer step and its adjoint. On a GPU the first two are replayed
as CUDA graphs: a step is a handful of launches instead of hundreds, its elementwise passes are
fused, and the host runs ahead of the device. On a CPU it gains little (README.md).

Compiled code rounds differently. The first result for each shape is compared with the eager one.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from bench.metagrad.layered import LayerDerivatives
from bench.metagrad.optimizers import Coefficients, InnerOptimizer, State
from bench.metagrad.problem import CROSS_ENTROPY, Loss

Tensors = tuple[Tensor, ...]

# Each shape of a batch and each network is compiled separately.
MOST_COMPILED_SHAPES = 64
COEFFICIENTS_AT_ONCE = 256  # inner steps whose coefficients go to the device together


WITHOUT = "compile=never force=true starts again without it"


class WrongCompilation(RuntimeError):
    """Compiled code gives another result than eager code, or cannot be compiled."""


class Compiled:
    """A compiled function of tensors, compared with the eager one for each new shape.

    Args:
        function: returns a tuple of tensors and changes nothing.
        tolerance: largest distance between the two, relative to the norm.
    """

    def __init__(self, function: Callable[..., Any], tolerance: float) -> None:
        torch._dynamo.config.recompile_limit = MOST_COMPILED_SHAPES
        self.function, self.tolerance = function, tolerance
        self.on_gpu = torch.cuda.is_available()
        self.compiled = torch.compile(
            function,
            fullgraph=True,
            dynamic=False,
            options={"triton.cudagraphs": True} if self.on_gpu else None,
        )
        self.compared: set[Any] = set()

    @torch.no_grad()
    def __call__(self, *inputs: Tensor) -> Any:
        if self.on_gpu:
            torch.compiler.cudagraph_mark_step_begin()
        try:
            results = self.compiled(*inputs)
        except Exception as error:
            from torch._dynamo.exc import TorchDynamoException  # it takes seconds to import

            if not isinstance(error, TorchDynamoException):
                raise
            # This version of torch lacks something.
            name, why = self.function.__qualname__, first_line(error)
            raise WrongCompilation(f"torch.compile: {name}: {why}; {WITHOUT}") from error
        # A replayed graph overwrites its results at the next replay.
        outputs = tuple(output.clone() for output in results)
        key = tuple((part.shape, part.dtype, part.device) for part in inputs)
        if key not in self.compared:
            self.compare(outputs, self.function(*inputs))
            self.compared.add(key)
        return outputs

    def compare(self, outputs: Tensors, expected: Tensors) -> None:
        """Compare the compiled outputs with the eager ones.

        Raises:
            WrongCompilation: an output differs by more than the tolerance.
        """
        for output, eager in zip(outputs, expected, strict=True):
            norm = eager.norm()
            distance = (output - eager).norm()
            if norm.isfinite() and not distance <= self.tolerance * norm:
                raise WrongCompilation(
                    f"torch.compile: {self.function.__qualname__} is off by {distance / norm:.1e};"
                    f" {WITHOUT}"
                )


class CompiledDerivatives:
    """`LayerDerivatives` with compiled functions. Stores no activations, so a memory budget has
    no effect (`repeatable` is False)."""

    repeatable = False

    def __init__(self, eager: LayerDerivatives, precision: str) -> None:
        self.eager = eager
        # Rounding, with room: where a ReLU's input is near 0, its last bit decides over a whole
        # path. 3e-3 was seen in float32. A wrong formula is off by much more.
        self.tolerance = {"float64": 1e-9, "float32": 0.05, "tf32": 0.3, "bf16": 0.5}[precision]
        self.flatten, self.logits = eager.flatten, eager.logits
        self.linearization_bytes = eager.linearization_bytes
        self._gradients: dict[Loss, Compiled] = {}
        self.hvp = Compiled(eager.hvp, self.tolerance)

    def gradient(
        self, theta: Tensor, images: Tensor, labels: Tensor, loss: Loss = CROSS_ENTROPY
    ) -> tuple[Tensor, Tensor]:
        if loss not in self._gradients:

            def gradient_of_loss(
                theta: Tensor, images: Tensor, labels: Tensor
            ) -> tuple[Tensor, Tensor]:
                return self.eager.gradient(theta, images, labels, loss)

            self._gradients[loss] = Compiled(gradient_of_loss, self.tolerance)
        return self._gradients[loss](theta, images, labels)

    def linearize(self, theta: Tensor, images: Tensor, labels: Tensor) -> "CompiledLinearization":
        return CompiledLinearization(self, (theta, images, labels))


class CompiledLinearization:
    """Stores θ and the batch, not the activations."""

    def __init__(self, derivatives: CompiledDerivatives, at: tuple[Tensor, Tensor, Tensor]) -> None:
        self.derivatives, self.at = derivatives, at

    def gradient(self) -> Tensor:
        gradient, _ = self.derivatives.gradient(*self.at)
        return gradient

    def hvp(self, directions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return self.derivatives.hvp(*self.at, directions)


class CompiledOptimizer(InnerOptimizer):
    """An inner optimizer whose step and adjoint are one compiled elementwise function each."""

    def __init__(self, optimizer: InnerOptimizer) -> None:
        self.optimizer = optimizer
        self._update = torch.compile(optimizer.update, fullgraph=True, dynamic=False)
        self._update_adjoint = torch.compile(
            optimizer.update_adjoint, fullgraph=True, dynamic=False
        )
        self._numbers: dict[Any, Tensor] = {}

    def initial_state(self, theta: Tensor) -> State:
        return self.optimizer.initial_state(theta)

    def coefficients(self, t: int, in_window: bool) -> tuple[float, ...]:
        return self.optimizer.coefficients(t, in_window)

    @torch.no_grad()
    def update(
        self, theta: Tensor, grad: Tensor, state: State, coefficients: Coefficients
    ) -> tuple[Tensor, State]:
        return self._update(theta, grad, state, coefficients)

    @torch.no_grad()
    def update_adjoint(
        self,
        theta_bar: Tensor,
        state_bar: State,
        theta: Tensor,
        grad: Tensor,
        state: State,
        coefficients: Coefficients,
    ) -> tuple[Tensor, Tensor, State]:
        return self._update_adjoint(theta_bar, state_bar, theta, grad, state, coefficients)

    def step(
        self, theta: Tensor, grad: Tensor, state: State, t: int, in_window: bool = False
    ) -> tuple[Tensor, State]:
        return self.update(theta, grad, state, self._on_device(t, in_window, theta))

    def adjoint(
        self, theta_bar: Tensor, state_bar: State, theta: Tensor, grad: Tensor, state: State, t: int
    ) -> tuple[Tensor, Tensor, State]:
        return self.update_adjoint(
            theta_bar, state_bar, theta, grad, state, self._on_device(t, True, theta)
        )

    def _on_device(self, t: int, in_window: bool, theta: Tensor) -> Coefficients:
        """The coefficients as tensors, moved to the device for many steps at a time. As Python
        numbers, each step would be compiled separately."""
        block = t // COEFFICIENTS_AT_ONCE
        key = block, in_window, theta.device, theta.dtype
        if key not in self._numbers:
            first = block * COEFFICIENTS_AT_ONCE
            steps = range(first, first + COEFFICIENTS_AT_ONCE)
            numbers = [self.optimizer.coefficients(step, in_window) for step in steps]
            self._numbers[key] = torch.tensor(numbers, dtype=theta.dtype, device=theta.device)
        return self._numbers[key][t % COEFFICIENTS_AT_ONCE].unbind()


def first_line(error: Exception) -> str:
    """The first line of an error's text, or its kind where it has none."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__


def compile_error(device: torch.device) -> str:
    """Why `torch.compile` does not work here, in one line; empty if it works. It needs a C++
    compiler, on a GPU also Triton."""
    try:
        one = torch.compile(lambda x: x + 1, fullgraph=True)(torch.zeros(2, device=device))
    except Exception as error:  # whatever is missing: compilers, headers, room, a supported GPU
        return first_line(error)
    return "" if bool((one == 1).all()) else "compiled code gives another result than eager code"
