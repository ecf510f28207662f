"""Small steps on maps that several layers take."""

import torch
from torch import Tensor


def mean(maps: Tensor) -> Tensor:
    """Mean over the pixels: [..., channels, height, width] -> [..., channels]."""
    # On a CPU several times as fast as Tensor.mean.
    return maps.sum((-2, -1)).div_(maps.shape[-2] * maps.shape[-1])


def per_map(scalars: Tensor) -> Tensor:
    """[..., channels] -> [..., channels, 1, 1], to meet maps."""
    return scalars[..., None, None]


def combine(
    constant: Tensor, first: tuple[Tensor, Tensor], *terms: tuple[Tensor, Tensor]
) -> Tensor:
    """constant + Σ coefficient·maps: scalars [..., batch, channels], maps [..., height, width]."""
    coefficient, maps = first
    total = torch.addcmul(per_map(constant), per_map(coefficient), maps)
    for coefficient, maps in terms:
        total.addcmul_(per_map(coefficient), maps)
    return total


def layout_of(x: Tensor) -> torch.memory_format:
    """How a batch of maps lies in memory."""
    return torch.channels_last if x.stride(1) == 1 else torch.contiguous_format


def shaped_like(x: Tensor, batch: int, channels: int | None = None) -> Tensor:
    """Stands in for an input of another size: the backward kernels that ask for an input read its
    shape and layout, never its values."""
    shape = (batch, channels or x.shape[1], *x.shape[2:])
    return torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=layout_of(x))


def pair(size: int | tuple[int, int]) -> list[int]:
    """A kernel size or stride as [height, width]."""
    return [size, size] if isinstance(size, int) else list(size)
