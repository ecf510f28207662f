"""Bilinear upsampling of images by a whole factor, and its transpose, which gradients need.

Upsampling is linear and separable: one small matrix each for height and width. So the transpose is
exact and deterministic on every device (torch's backward pass adds up in arbitrary order on CUDA).
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def enlarge(images: Tensor, factor: int) -> Tensor:
    """[n, C, h, w] to [n, C, factor*h, factor*w], as
    `F.interpolate(images, scale_factor=factor, mode="bilinear", align_corners=False)`."""
    height, width = (_weights(side, factor, images) for side in images.shape[-2:])
    return height @ images @ width.T


def enlarge_transposed(of_enlarged: Tensor, factor: int) -> Tensor:
    """The gradient of the images [n, C, h, w] from that of the enlarged images [n, C, factor*h,
    factor*w]."""
    height, width = (
        _weights(side // factor, factor, of_enlarged) for side in of_enlarged.shape[-2:]
    )
    return height.T @ of_enlarged @ width


def _weights(side: int, factor: int, like: Tensor) -> Tensor:
    """The weight of each of `side` pixels in each of the factor*side enlarged pixels, [factor*side,
    side]."""
    one_hot = torch.eye(side, dtype=like.dtype, device=like.device)[None]  # [1, side, side]
    return F.interpolate(one_hot, scale_factor=factor, mode="linear", align_corners=False)[0].T
