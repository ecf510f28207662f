"""Every random draw of the project, as a function of (seed, purpose, indices).

No draw depends on global state or on earlier draws. So a resumed run is bit-identical to an
uninterrupted one, and two methods with the same seed get the same networks and target batches at
the same outer step: comparisons between methods are paired.

All draws are made on the CPU and then moved to the device, so that a run sees the same numbers on
every kind of hardware. Only noise and weights, which are drawn as float32, have other last digits
on processors without AVX2 (`tests/reliability/test_reproducible.py`).
"""

import hashlib
import random
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def derive_seed(seed: int, purpose: str, *indices: int) -> int:
    """A 64-bit seed for the draw named `purpose` at `indices` (outer step, inner step, ...).

    Torch's generator on the CPU uses 32 bits of it: among 100,000 draws two may be alike by chance.
    """
    key = "/".join([str(seed), purpose, *map(str, indices)])
    return int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest(), "big")


def torch_generator(seed: int, purpose: str, *indices: int) -> "torch.Generator":
    """A CPU generator in the state that belongs to (seed, purpose, indices)."""
    import torch  # only here: the analysis draws windows, and computes nothing with torch

    return torch.Generator().manual_seed(derive_seed(seed, purpose, *indices))


def python_random(seed: int, purpose: str, *indices: int) -> random.Random:
    """The same for draws without tensors (window positions)."""
    return random.Random(derive_seed(seed, purpose, *indices))
