"""The six maps of differentiable Siamese augmentation (DSA): Zhao and Bilen, "Dataset condensation
with differentiable Siamese augmentation", ICML 2021, section 3 and its published code, whose
strategy is color, crop, cutout, flip, scale, rotate, and for digits the same without the flip.

Flips and rotations are those of `augment.py`. Each map here takes images [B, C, H, W] and numbers
in [0, 1), float64 on the same device, a row for each image. All are affine in the images.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

STRATEGY = ("color", "crop", "cutout", "flip", "scale", "rotate")
STRATEGY_OF_DIGITS = tuple(name for name in STRATEGY if name != "flip")
NUMBERS = 3  # the most that a map needs for an image

BRIGHTNESS = 1.0  # width of the interval around 0 that is added
SATURATION = 2.0  # largest factor on what differs from the mean over channels
CONTRAST = 0.5  # smallest factor on what differs from the mean of the image; the largest is 1 more
CROP = 0.125  # largest shift, of a side
CUTOUT = 0.5  # side of the square that is set to zero, of a side
SCALE = 1.2  # largest factor; the smallest is its inverse


def color(images: Tensor, unit: Tensor) -> Tensor:
    """Brightness, saturation and contrast, one after the other. `unit` [B, 3]."""
    bright, saturated, contrasted = (
        part[:, None, None, None] for part in unit.to(images.dtype).unbind(1)
    )
    images = images + (bright - 0.5) * BRIGHTNESS
    gray = images.mean(1, keepdim=True)
    images = (images - gray) * (saturated * SATURATION) + gray
    mean = images.mean((1, 2, 3), keepdim=True)
    return (images - mean) * (contrasted + CONTRAST) + mean


def crop(images: Tensor, unit: Tensor) -> Tensor:
    """Shift by up to an eighth of each side, by whole pixels, zeros from outside. `unit` [B, 2]."""
    furthest = [_pixels(side, CROP) for side in images.shape[2:]]
    # Pixel 0 of the padded image lies `furthest` outside.
    rows, columns = (
        torch.arange(side, device=images.device) + (part * (2 * limit + 1)).long()[:, None]
        for side, part, limit in zip(images.shape[2:], unit.unbind(1), furthest, strict=True)
    )
    padded = F.pad(images, [furthest[1], furthest[1], furthest[0], furthest[0]])
    batch = torch.arange(len(images), device=images.device)[:, None, None]
    pixels = padded.permute(0, 2, 3, 1)[batch, rows[:, :, None], columns[:, None, :]]
    return pixels.permute(0, 3, 1, 2)


def cutout(images: Tensor, unit: Tensor) -> Tensor:
    """Set a square to zero, or what lies within the image of it. `unit` [B, 2]."""
    inside = []
    for side, part in zip(images.shape[2:], unit.unbind(1), strict=True):
        size = _pixels(side, CUTOUT)
        center = (part * (side + 1 - size % 2)).long()[:, None]
        first = center - size // 2
        at = torch.arange(side, device=images.device)
        inside.append((at >= first) & (at < first + size))
    hole = inside[0][:, None, :, None] & inside[1][:, None, None, :]
    return images.masked_fill(hole, 0.0)


def scale(images: Tensor, unit: Tensor) -> Tensor:
    """Shrink or enlarge each side, bilinearly, with zeros outside. `unit` [B, 2]."""
    factors = unit * (SCALE - 1 / SCALE) + 1 / SCALE
    theta = F.pad(torch.diag_embed(factors), [0, 1])  # [B, 2, 3]
    grid = F.affine_grid(theta.to(images.dtype), list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, padding_mode="zeros", align_corners=False)


MAPS = {"color": color, "crop": crop, "cutout": cutout, "scale": scale}
WIDTHS = {"color": 3, "crop": 2, "cutout": 2, "scale": 2}  # numbers that each map takes


def _pixels(side: int, part: float) -> int:
    return int(side * part + 0.5)
