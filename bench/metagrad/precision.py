"""The precision of meta-gradients.

float32, the default, and float64 apply to every operation. The two reduced precisions round the
inputs of convolutions and linear layers only; sums and everything else (norms, the optimizer, the
distilled set) stay in float32:

    tf32   10 bits of mantissa, the range of float32: what tensor cores do with float32
    bf16    7 bits, and half the memory of the activations that those layers keep

A CPU emulates tf32 by rounding: slow, but it shows on any machine what tf32 does to a gradient.
torch emulates bf16, even more slowly, on a CPU without bf16 units. README.md has the errors.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from bench.metagrad.rules import Cast

REDUCED = ("tf32", "bf16")


def storage_type(precision: str) -> torch.dtype:
    """The floating point type of images, parameters and gradients."""
    return torch.float64 if precision == "float64" else torch.float32


def cast_of(precision: str) -> Cast:
    """The function applied to the inputs of convolutions and linear layers."""
    return {"tf32": to_tf32, "bf16": to_bf16}.get(precision, unchanged)


def unchanged(tensor: Tensor) -> Tensor:
    """The tensor itself."""
    return tensor


def to_bf16(tensor: Tensor) -> Tensor:
    """Half the bytes, 7 bits of mantissa."""
    return tensor.bfloat16()


def to_tf32(tensor: Tensor) -> Tensor:
    """Rounded to 10 bits of mantissa, halves away from zero; on a GPU the hardware does it."""
    if tensor.is_cuda:
        return tensor
    rounded = ((tensor.view(torch.int32) + 0x1000) & ~0x1FFF).view(torch.float32)
    return torch.where(tensor.isfinite(), rounded, tensor)


@contextmanager
def hardware_precision(precision: str) -> Iterator[None]:
    """Within the block, a GPU's convolutions and matrix products use TF32 or full float32."""
    backends = torch.backends
    before = backends.fp32_precision  # pyright: ignore[reportAttributeAccessIssue]
    chosen = "tf32" if precision == "tf32" else "ieee"
    backends.fp32_precision = chosen  # pyright: ignore[reportAttributeAccessIssue]
    try:
        yield
    finally:
        backends.fp32_precision = before  # pyright: ignore[reportAttributeAccessIssue]
