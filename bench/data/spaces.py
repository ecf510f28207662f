"""What the numbers of a distilled set made elsewhere are, and the way back to pixels in [0, 1].

A file seldom says. Where the numbers leave no doubt they are taken for what they must be, and where
they leave some, the assumption is told with its reason, or refused.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from bench.errors import UserError

SPACES = ("preprocessed", "pixels", "pixels255", "normalised")


def assume_space(images: Tensor) -> tuple[str, str]:
    """(space, why) of images that come without a statement.

    Args:
        images: floats of any shape.

    Raises:
        UserError: they could be in more than one, and none is likelier.
    """
    low, high = images.min().item(), images.max().item()
    between = f"the values lie between {low:.3g} and {high:.3g}"
    if low < 0:
        return "preprocessed", (
            f"{between}, so they are no pixels; taken as whitened like the target set"
            " (otherwise: space=normalised mean=[...] std=[...])"
        )
    if high <= 1:
        return "pixels", f"{between}; taken as pixels (otherwise: space=preprocessed)"
    if high > 50 and high <= 255:
        return "pixels255", f"{between}; taken as pixels in 0..255 (otherwise: space=...)"
    raise UserError(
        f"{between}, which tells neither pixels in [0, 1] nor in 0..255: name the space="
        f" ({', '.join(SPACES)})"
    )


def to_pixels(images: Tensor, space: str, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Pixels in [0, 1], unless the images themselves leave that range.

    Args:
        images: [n, C, H, W].
        space: pixels, pixels255, or normalised: (pixels - mean) / std, channel by channel.
        mean, std: of "normalised", in units of pixels in [0, 1]; one number, or one a channel.

    Raises:
        UserError: mean and std are missing, do not fit the channels, or a std is not positive.
    """
    if space == "pixels":
        return images
    if space == "pixels255":
        return images / 255
    if not mean or not std:
        raise UserError("space=normalised needs the mean=[...] and std=[...] of the normalisation")
    channels = images.shape[1]
    if len(mean) not in (1, channels) or len(std) not in (1, channels):
        raise UserError(
            f"mean={list(mean)} std={list(std)}: the images have {channels} channels; give one"
            " number, or one for each"
        )
    if min(std) <= 0:
        raise UserError(f"std={list(std)} must be positive")
    shape = (1, -1, 1, 1)
    shift, scale = (torch.tensor(values, dtype=images.dtype).view(shape) for values in (mean, std))
    return images * scale + shift
