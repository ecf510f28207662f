"""What the numbers of a distilled set made elsewhere are, and the way back to pixels in [0, 1].

A file seldom says. Where the numbers leave no doubt they are taken for what they must be, and where
they leave some, the assumption is told with its reason, or refused. They are judged as a whole: a
few values outside a range say nothing of an optimiser's images, which nothing keeps within it.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from bench.data.target_set import TargetSet
from bench.system.errors import UserError

SPACES = ("preprocessed", "pixels", "pixels255", "normalized")
MINUS_ONE_TO_ONE = ([0.5], [0.5])  # mean and std of what lies in -1..1

_ALL = 0.95  # the part of the values that decides
_MARGIN = 0.1  # how far outside a range they may lie, in its length
_SAMPLE = 2000  # images of the target set to compare with

# Of the whitened images of a data set, the directions in which its pixels have half of their energy
# hold 0.01 (CIFAR-10) to 0.06 (digits), of the paper's distilled sets 0.02 and 0.03; of pixels 0.5,
# of pixels that were distilled without bounds (DC) 0.4.
_SMOOTH = 0.2
# The spread of whitened distilled images beside that of whitened real ones: the paper's have 0.4
# and 0.6. The images that it begins with, noise of norm 1, have 0.03.
_SPREADS = (0.1, 3.0)


def whole_numbers(images: Tensor, file: str, space: str) -> tuple[Tensor, tuple[str, ...]]:
    """Pixels in [0, 1] from whole numbers or truth values, by the range of their type; and what was
    assumed.

    Raises:
        UserError: some are below 0, or it is not clear which number is white.
    """
    values = images.double()
    low, high = int(values.min()), int(values.max())
    if images.dtype == torch.bool:
        return images.float(), ()
    if low < 0:
        raise UserError(
            f"{file}: whole numbers from {low} to {high} are no pixels; mean=... and std=... say"
            " what they are (pixels in 0..1 = number * std + mean)"
        )
    own = torch.iinfo(images.dtype).max
    high = min(high, own)  # float64 rounds 2**63 - 1 up
    ranges = [top for top in (255, 65535) if top < own] + [own]
    white = 255 if space == "pixels255" else next(top for top in ranges if high <= top)
    named = f"{file}: the whole numbers go up to {high}"
    if high > white:
        raise UserError(f"{named}, which is no pixel in 0..255: space=pixels255 cannot be")
    if white > 255 and high < white / 16:
        raise UserError(
            f"{named}, which are neither in 0..255 nor what 0..{white} would look like; the number"
            f" for white is named as in mean=0 std={1 / high:.3g} (1/{high})"
        )
    notes: tuple[str, ...] = ()
    if white != own or high <= 1:
        other = "otherwise: mean=0 std=..., 1 divided by the number for white"
        notes = (f"{named}; taken as of 0..{white} ({other})",)
    return (values / white).float(), notes


def assume_space(images: Tensor, target_set: TargetSet) -> tuple[str, str]:
    """(space, why) of images that come without a statement; "minus_one_to_one" is among the spaces.

    Args:
        images: floats [n, C, H, W].
        target_set: whose whitening they may have.

    Raises:
        UserError: they could be in more than one, and none is likelier.
    """
    low, high = images.min().item(), images.max().item()
    between = f"the values lie between {low:.3g} and {high:.3g}"
    inside = {top: _part_between(images, 0, top) for top in (1, 255)}
    doubt = doubt_whitened(images, target_set)
    is_image = doubt is not None
    is_bright = bool(images.mean() > 0.25 * images.std())
    if (low >= 0 and high <= 1) or (is_image and is_bright and inside[1] >= _ALL):
        told = "taken as pixels"
        if low < 0 or high > 1:
            told = f"nearly all between 0 and 1; {told} that were not clipped"
        return "pixels", f"{between}; {told} (otherwise: space=preprocessed)"
    if high > 50 and ((low >= 0 and high <= 255) or (inside[255] >= _ALL and is_bright)):
        return "pixels255", f"{between}; taken as pixels in 0..255 (otherwise: space=...)"
    reaches = low < -0.8 and high > 0.8 and _part_between(images, -1, 1) >= _ALL
    if is_image and reaches and low >= -1.2 and high <= 1.2:
        return "minus_one_to_one", (
            f"{between}; taken as pixels brought to -1..1 (otherwise: space=preprocessed, or"
            " space=normalized mean=[...] std=[...])"
        )
    if low < 0 and doubt is None:
        return "preprocessed", (
            f"{between}, so they are no pixels; taken as whitened like the target set"
            " (otherwise: space=normalized mean=[...] std=[...])"
        )
    if low < 0:
        raise UserError(
            f"{between}, so they are no pixels in [0, 1], and {doubt}: type mean=[...] std=[...] if"
            " they are normalized pixels, space=preprocessed if they are whitened all the same"
        )
    raise UserError(
        f"{between}, which tells neither pixels in [0, 1] nor in 0..255: name the space="
        f" ({', '.join(SPACES)})"
    )


def doubt_pixels(pixels: Tensor) -> str | None:
    """Why values are unlikely to be pixels in [0, 1], however little they are clipped."""
    part = ((pixels > -0.5) & (pixels < 1.5)).float().mean().item()
    if part > 0.5:
        return None
    return f"{100 * part:.0f} % of the values lie between -0.5 and 1.5 as pixels in 0..1"


def _part_between(images: Tensor, low: float, high: float) -> float:
    margin = _MARGIN * (high - low)
    return ((images >= low - margin) & (images <= high + margin)).float().mean().item()


def doubt_whitened(images: Tensor, target_set: TargetSet) -> str | None:
    """Why images [n, C, H, W] are unlikely to be whitened as the target set is; None where nothing
    speaks against it."""
    whitened = target_set.train.images[:_SAMPLE].float()
    spread, real = images.std().item(), whitened.std().item()
    name = target_set.name
    ours = "whitened" if target_set.whitening.eigenvectors is not None else "normalized"
    if not real * _SPREADS[0] <= spread <= real * _SPREADS[1]:
        return (
            f"their spread is {spread:.3g}, and that of the images of {name} as {ours} here"
            f" {real:.3g}"
        )
    if target_set.whitening.eigenvectors is None:
        means = images.flatten(1).mean(dim=1)
        if means.square().mean().sqrt() > 0.3 * spread:
            return f"their means are not 0, as those of the images of {name} as {ours} here are"
    elif (share := _smooth_part(images, target_set)) > _SMOOTH:
        return (
            f"{100 * share:.0f} % of their energy lies where pixels have half of theirs, and of the"
            f" images of {name} as {ours} here {100 * _smooth_part(whitened, target_set):.0f} %"
        )
    return None


def _smooth_part(images: Tensor, target_set: TargetSet) -> float:
    """The part of the energy of images, each without its mean, in the directions in which the
    pixels of the target set have half of theirs."""
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
    """Pixels in [0, 1], unless the images themselves leave that range.

    Args:
        images: [n, C, H, W].
        space: pixels, pixels255, or normalized: (pixels - mean) / std, channel by channel.
        mean, std: of "normalized", in units of pixels in [0, 1]; one number, or one a channel.

    Raises:
        UserError: mean and std are missing, do not fit the channels, or a std is not positive.
    """
    if space == "pixels":
        return images
    if space == "pixels255":
        return images / 255
    if not mean or not std:
        raise UserError("space=normalized needs the mean=[...] and std=[...] of the normalisation")
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
