"""Products and convolutions of bf16 numbers on a processor that has no units for them.

torch's own way there takes ten to a hundred times as long as float32. The product of two bf16
numbers is exact in float32, and units carry the sums in float32. So the same answers, up to the
order of the sums, come from float32 and one rounding of what comes out.
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


class ImitatedBf16(TorchDispatchMode):
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
