"""The range of the values in a file made elsewhere, and the conversion to pixels in [0, 1].

Files seldom state it. If the values allow one range only, it is used; otherwise the assumption is
noted with its reason, or loading fails. A few values outside a range prove nothing, because an
optimizer does not keep images within it, so the values are judged as a whole.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from bench.data.target_set import TargetSet
from bench.system.errors import UserError

SPACES = ("preprocessed", "pixels", "pixels255", "normalized")
MINUS_ONE_TO_ONE = ([0.5], [0.5])  # mean and std of values in -1..1

_ALL = 0.95  # fraction of the values that must be in a range
_MARGIN = 0.1  # how far outside of it they may be, in its length
_SAMPLE = 2000  # images of the target set to compare with

# Fraction of the energy in the directions that hold half of the energy of pixels: 0.01 (CIFAR-10)
# to 0.06 (digits) for whitened images, 0.02 and 0.03 for the paper's distilled sets, 0.5 for
# pixels, 0.4 for pixels that were distilled without bounds (DC).
_SMOOTH = 0.2
# Spread of whitened distilled images relative to whitened real ones: 0.4 and 0.6 for the paper's
# sets, 0.03 for its initial images, noise of norm 1.
_SPREADS = (0.1, 3.0)


def whole_numbers(images: Tensor, file: str, space: str) -> tuple[Tensor, tuple[str, ...]]:
    """Pixels in [0, 1] from whole numbers or booleans, by the range of their type, and notes on
    what was assumed.

    Raises:
        UserError: some are negative, or it is not clear which number is white.
    """
    values = images.double()
    low, high = int(values.min()), int(values.max())
    if images.dtype == torch.bool:
        return images.float(), ()
    if low < 0:
        raise UserError(
            f"{file}: whole numbers from {low} to {high} are not pixels; give mean=... and std=..."
            " (pixels in 0..1 = number * std + mean)"
        )
    largest = torch.iinfo(images.dtype).max
    high = min(high, largest)  # float64 rounds 2**63 - 1 up
    ranges = [top for top in (255, 65535) if top < largest] + [largest]
    white = 255 if space == "pixels255" else next(top for top in ranges if high <= top)
    named = f"{file}: the whole numbers go up to {high}"
    if high > white:
        raise UserError(f"{named}, which is not a pixel in 0..255: space=pixels255 is invalid")
    if white > 255 and high < white / 16:
        raise UserError(
            f"{named}, which is neither within 0..255 nor likely for 0..{white}; give the number"
            f" for white, as in mean=0 std={1 / high:.3g} (1/{high})"
        )
    notes: tuple[str, ...] = ()
    if white != largest or high <= 1:
        other = "otherwise: mean=0 std=..., 1 divided by the number for white"
        notes = (f"{named}; read as of 0..{white} ({other})",)
    return (values / white).float(), notes


def assume_space(images: Tensor, target_set: TargetSet) -> tuple[str, str]:
    """(space, reason) of images whose file does not state it; the space may be "minus_one_to_one".

    Args:
        images: floats [n, C, H, W].
        target_set: its whitening may be that of the images.

    Raises:
        UserError: several spaces are equally likely.
    """
    low, high = images.min().item(), images.max().item()
    between = f"the values are between {low:.3g} and {high:.3g}"
    inside = {top: _part_between(images, 0, top) for top in (1, 255)}
    doubt = doubt_whitened(images, target_set)
    is_image = doubt is not None
    is_bright = bool(images.mean() > 0.25 * images.std())
    if (low >= 0 and high <= 1) or (is_image and is_bright and inside[1] >= _ALL):
        reading = "read as pixels"
        if low < 0 or high > 1:
            reading = "nearly all between 0 and 1; read as pixels that were not clipped"
        return "pixels", f"{between}; {reading} (otherwise: space=preprocessed)"
    if high > 50 and ((low >= 0 and high <= 255) or (inside[255] >= _ALL and is_bright)):
        return "pixels255", f"{between}; read as pixels in 0..255 (otherwise: space=...)"
    reaches = low < -0.8 and high > 0.8 and _part_between(images, -1, 1) >= _ALL
    if is_image and reaches and low >= -1.2 and high <= 1.2:
        return "minus_one_to_one", (
            f"{between}; read as pixels scaled to -1..1 (otherwise: space=preprocessed, or"
            " space=normalized mean=[...] std=[...])"
        )
    if low < 0 and doubt is None:
        return "preprocessed", (
            f"{between}, so they are not pixels; read as whitened like the target set"
            " (otherwise: space=normalized mean=[...] std=[...])"
        )
    if low < 0:
        raise UserError(
            f"{between}, so they are not pixels in [0, 1], and {doubt}: give mean=[...] std=[...]"
            " if they are normalized pixels, space=preprocessed if they are whitened nevertheless"
        )
    raise UserError(
        f"{between}, which fits neither pixels in [0, 1] nor in 0..255: give space=..."
        f" ({', '.join(SPACES)})"
    )


def doubt_pixels(pixels: Tensor) -> str | None:
    """Why values are unlikely to be pixels in [0, 1], even unclipped ones; None if they may be."""
    part = ((pixels > -0.5) & (pixels < 1.5)).float().mean().item()
    if part > 0.5:
        return None
    return f"{100 * part:.0f} % of the values are between -0.5 and 1.5 as pixels in 0..1"


def _part_between(images: Tensor, low: float, high: float) -> float:
    margin = _MARGIN * (high - low)
    return ((images >= low - margin) & (images <= high + margin)).float().mean().item()


def doubt_whitened(images: Tensor, target_set: TargetSet) -> str | None:
    """Why images [n, C, H, W] are unlikely to be whitened like the target set; None if they may
    be."""
    whitened = target_set.train.images[:_SAMPLE].float()
    spread, real = images.std().item(), whitened.std().item()
    name = target_set.name
    ours = "whitened" if target_set.whitening.eigenvectors is not None else "normalized"
    if not real * _SPREADS[0] <= spread <= real * _SPREADS[1]:
        return (
            f"their spread is {spread:.3g}, and that of the images of {name} as {ours} here is"
            f" {real:.3g}"
        )
    if target_set.whitening.eigenvectors is None:
        means = images.flatten(1).mean(dim=1)
        if means.square().mean().sqrt() > 0.3 * spread:
            return f"their means are not 0, as those of the images of {name} as {ours} here are"
        return f"pixels normalized by channel look like the images of {name} as {ours} here"
    if (share := _smooth_part(images, target_set)) > _SMOOTH:
        return (
            f"{100 * share:.0f} % of their energy is where pixels have half of theirs, and for the"
            f" images of {name} as {ours} here {100 * _smooth_part(whitened, target_set):.0f} %"
        )
    return None


def _smooth_part(images: Tensor, target_set: TargetSet) -> float:
    """The fraction of the energy of images, each minus its mean, in the directions that hold half
    of the energy of the target set's pixels."""
    whitening = target_set.whitening
    assert whitening.eigenvectors is not None
    assert whitening.gains is not None
    # gains = (E + λ mean(E))^(-1/2), ascending in E; the least E is 0, as each image has mean 0.
    energy = whitening.gains.double().pow(-2)
    energy = (energy - energy.min()).flip(0)
    half = int((energy.cumsum(0) < energy.sum() / 2).sum()) + 1
    flat = images.flatten(1).float()
    flat = flat - flat.mean(dim=1, keepdim=True)
    directions = whitening.eigenvectors[:, -half:].to(flat)
    whole = flat.square().sum().item()
    return (flat @ directions).square().sum().item() / whole if whole else 0.0


def to_pixels(images: Tensor, space: str, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Pixels in [0, 1]; images that exceed the range of their space are not clipped.

    Args:
        images: [n, C, H, W].
        space: pixels, pixels255, or normalized: (pixels - mean) / std, channel by channel.
        mean, std: for "normalized", of pixels in [0, 1]; one number, or one per channel.

    Raises:
        UserError: mean and std are missing, do not fit the channels, or a std is not positive.
    """
    if space == "pixels":
        return images
    if space == "pixels255":
        return images / 255
    if not mean or not std:
        raise UserError("space=normalized needs the mean=[...] and std=[...] of the normalization")
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
