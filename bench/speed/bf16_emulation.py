"""Emulate bf16 matrix products and convolutions on a processor without bf16 units.

torch's own fallback takes ten to a hundred times as long as float32. The product of two bf16
numbers is exact in float32, and bf16 units accumulate in float32. So float32 arithmetic followed by
one rounding gives the same result, up to the order of the sums.
"""

from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

OPERATIONS = {
    "aten::convolution",
    "aten::convolution_backward",
    "aten::mm",
    "aten::bmm",
}


class EmulatedBf16(TorchDispatchMode):
    """Within a `with` block, products and convolutions of bf16 are computed in float32."""

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        halves = args and isinstance(args[0], torch.Tensor) and args[0].dtype == torch.bfloat16
        if not halves or func._schema.name not in OPERATIONS:
            return func(*args, **(kwargs or {}))
        result = func(*tree_map_only(torch.Tensor, torch.Tensor.float, args), **(kwargs or {}))
        return tree_map_only(torch.Tensor, torch.Tensor.bfloat16, result)
