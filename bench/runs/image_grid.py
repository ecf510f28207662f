"""Distilled images as one picture."""

from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from bench.data import Whitening
from bench.system.choices import PICTURE_GAP as GAP
from bench.system.files import atomic_write

SMALLEST_SIDE = 64  # pixels an image is enlarged to at least: 8x8 digits would be specks


def save_picture(path: Path, images: Tensor, whitening: Whitening, columns: int) -> None:
    """Draw whitened images [n, C, H, W] in pixel space, `columns` a row, as a PNG.

    The whitening is inverted. Distilled images may leave the range of real images, so pixels
    outside [0, 1] are clipped.
    """
    pixels = whitening.to_pixels(images.detach().float().cpu())
    pixels = (pixels * 255).round().to(torch.uint8)
    zoom = max(1, -(-SMALLEST_SIDE // pixels.shape[-1]))
    pixels = pixels.repeat_interleave(zoom, dim=2).repeat_interleave(zoom, dim=3)
    count, channels, height, width = pixels.shape
    rows = -(-count // columns)
    sheet = torch.full(
        (channels, rows * (height + GAP) + GAP, columns * (width + GAP) + GAP),
        255,
        dtype=torch.uint8,
    )
    for index, image in enumerate(pixels):
        top = GAP + index // columns * (height + GAP)
        left = GAP + index % columns * (width + GAP)
        sheet[:, top : top + height, left : left + width] = image
    array = sheet.permute(1, 2, 0).numpy()  # [H, W, C]
    with atomic_write(path) as temporary:
        Image.fromarray(array if channels == 3 else array[:, :, 0]).save(temporary, format="PNG")
