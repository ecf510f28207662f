"""Random augmentation of batches, on the device, differentiable with respect to the images.

Drawing and applying are separate: draws are made on the CPU, and a draw can be applied again when a
step is recomputed. The paper's published code does "flip_or_rotate"; "dsa" is `siamese.py`.
"""

import math
from dataclasses import dataclass, fields

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.data import siamese
from bench.system.choices import AUGMENTATIONS
from bench.system.errors import UserError

MAX_ANGLE = math.radians(15)
_FLIP_PROBABILITY = 0.5


@dataclass(frozen=True, eq=False)
class AugmentationDraw:
    """The augmentation of each image of a batch.

    Attributes:
        flip: bool `[B]`, whether to mirror left and right; None for no flips.
        angles: float64 radians `[B]`, counter-clockwise as seen; None for no rotation.
        color, crop, cutout, scale: float64 numbers in [0, 1) `[B, 2 or 3]` for the map of this name
            in `siamese.py`; None: not this map.
    """

    flip: Tensor | None = None
    angles: Tensor | None = None
    color: Tensor | None = None
    crop: Tensor | None = None
    cutout: Tensor | None = None
    scale: Tensor | None = None

    def to(self, device: torch.device | str) -> "AugmentationDraw":
        """The same draw on `device`."""
        return move([self], device)[0]


def move(draws: list[AugmentationDraw], device: torch.device | str) -> list[AugmentationDraw]:
    """Draws for batches of one size, moved to `device` in one transfer for each kind."""
    names = [field.name for field in fields(AugmentationDraw)]
    moved = {
        name: iter(moved_together([getattr(draw, name) for draw in draws], device))
        for name in names
    }
    return [
        AugmentationDraw(
            **{name: next(moved[name]) for name in names if getattr(draw, name) is not None}
        )
        for draw in draws
    ]


def moved_together(parts: list[Tensor | None], device: torch.device | str) -> tuple[Tensor, ...]:
    """The tensors among `parts`, all of one shape, moved as one stacked tensor."""
    present = [part for part in parts if part is not None]
    return torch.stack(present).to(device).unbind() if present else ()


def draw(kind: str, batch_size: int, generator: torch.Generator) -> AugmentationDraw:
    """Draw an augmentation for a batch.

    Args:
        kind: one of `AUGMENTATIONS`: "flip" mirrors each image with probability 1/2, "rotate" turns
            each by an angle uniform in ±15°, "flip_or_rotate" does one of the two to the whole
            batch; "dsa" does one of `siamese.STRATEGY` with the same numbers to the whole batch, to
            distill with, "dsa_each" with numbers of its own to each image, to evaluate with;
            "dsa_no_flip" and "dsa_each_no_flip" are these for digits, which must not be mirrored.
        batch_size: B.
        generator: on the CPU; from one state, every kind and type of image gets the same numbers.

    Raises:
        UserError: an unknown `kind`.
    """
    if kind not in AUGMENTATIONS:
        raise UserError(f"unknown augmentation {kind}: choose one of {', '.join(AUGMENTATIONS)}")
    if kind == "flip_or_rotate":
        coin = torch.rand((), generator=generator, dtype=torch.float64).item()
        kind = "flip" if coin < 0.5 else "rotate"
    if kind == "none":
        return AugmentationDraw()
    if kind.startswith("dsa"):
        strategy = siamese.STRATEGY_OF_DIGITS if kind.endswith("no_flip") else siamese.STRATEGY
        rows = batch_size if kind.startswith("dsa_each") else 1
        return _draw_siamese(strategy, batch_size, rows, generator)
    # An explicit type, so that the numbers do not depend on torch's default.
    unit = torch.rand(batch_size, generator=generator, dtype=torch.float64)
    if kind == "flip":
        return AugmentationDraw(flip=unit < _FLIP_PROBABILITY)
    return AugmentationDraw(angles=(2 * unit - 1) * MAX_ANGLE)


def of_each_image(kind: str) -> str:
    """The kind of augmentation that does to each image of a batch what `kind` may do to all."""
    return {"dsa": "dsa_each", "dsa_no_flip": "dsa_each_no_flip"}.get(kind, kind)


def _draw_siamese(
    strategy: tuple[str, ...], batch_size: int, rows: int, generator: torch.Generator
) -> AugmentationDraw:
    """One of the maps; `rows` of numbers, one for all images or one for each."""
    coin = torch.rand((), generator=generator, dtype=torch.float64).item()
    name = strategy[int(coin * len(strategy))]
    unit = torch.rand(rows, siamese.NUMBERS, generator=generator, dtype=torch.float64)
    unit = unit.expand(batch_size, -1).contiguous()
    if name == "flip":
        return AugmentationDraw(flip=unit[:, 0] < _FLIP_PROBABILITY)
    if name == "rotate":
        return AugmentationDraw(angles=(2 * unit[:, 0] - 1) * MAX_ANGLE)
    return AugmentationDraw(**{name: unit[:, : siamese.WIDTHS[name]]})


def apply(images: Tensor, draw: AugmentationDraw) -> Tensor:
    """Augment `[B, C, H, W]`: an affine map of the images. `draw` lies on the same device."""
    if draw.flip is not None:
        images = torch.where(draw.flip[:, None, None, None], images.flip(-1), images)
    if draw.angles is not None:
        images = _rotate(images, draw.angles)
    for name, map_ in siamese.MAPS.items():
        unit = getattr(draw, name)
        if unit is not None:
            images = map_(images, unit)
    return images


def _rotate(images: Tensor, angles: Tensor) -> Tensor:
    """Rotate each image about its center, bilinearly, with zeros outside."""
    height, width = images.shape[2:]
    cos, sin, zero = angles.cos(), angles.sin(), torch.zeros_like(angles)
    # Where each output pixel comes from, in coordinates that run from -1 to 1 along each side.
    rows = ((cos, -sin * height / width, zero), (sin * width / height, cos, zero))
    theta = torch.stack([torch.stack(row, dim=-1) for row in rows], dim=-2)  # [B, 2, 3]
    grid = F.affine_grid(theta.to(images.dtype), list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, padding_mode="zeros", align_corners=False)
