"""Read a distilled set from a folder of class folders of image files."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from bench.data.class_folders import IMAGE_SUFFIXES
from bench.data.readers import image_errors_named
from bench.evaluation.structures import Content
from bench.system.errors import UserError

Picture = NDArray[np.uint8] | NDArray[np.uint16]

# Pillow's names of pixel formats: gray, with 1 or 8 bits or transparency; 16 bits; color.
_GRAY = ("1", "L", "LA", "La")
_DEEP = ("I", "I;16", "I;16B", "I;16L", "I;16N")
_COLOR = ("P", "PA", "RGB", "RGBA", "RGBa", "RGBX")


def read_folder(folder: Path) -> Content:
    """Read the image files in `<folder>/<class>/`. Labels are indices of the class folders, which
    are sorted with numbers as numbers: class 2 before class 10.

    Raises:
        UserError: there are no images, one cannot be read, or they differ in height and width.
    """
    files = sorted(
        (
            file
            for file in folder.glob("*/*")
            if file.suffix.lower() in IMAGE_SUFFIXES and not file.name.startswith(".")
        ),
        key=lambda file: (natural(file.parent.name), natural(file.name)),
    )
    if not files:
        raise UserError(
            f"{folder} is neither a run folder nor a folder of class folders: there are no images"
            f" ({', '.join(IMAGE_SUFFIXES)}) in <class>/"
        )
    names = list(dict.fromkeys(file.parent.name for file in files))
    images: list[Picture] = []
    seen: set[str] = set()
    for file in files:
        path = file.relative_to(folder).as_posix()
        image = _decoded(file, f"{folder}: {path}", seen)
        if images and image.shape[:2] != images[0].shape[:2]:
            raise UserError(
                f"{folder}: {path} has shape {image.shape} (height, width, channels), the first"
                f" image {images[0].shape}; all images must be alike"
            )
        images.append(image)
    labels = torch.tensor([names.index(file.parent.name) for file in files])
    pixels = torch.from_numpy(_stacked(images)).permute(0, 3, 1, 2)  # [n, C, H, W]
    notes = (f"{folder.name} holds transparent images; their transparency is ignored",)
    return Content(
        {"images": pixels, "labels": labels},
        metadata={"class_folders": names},
        notes=notes if "transparent" in seen else (),
    )


def _decoded(file: Path, where: str, seen: set[str]) -> Picture:
    """One image as `[H, W, C]`: one channel for gray files, else red, green, blue; with 16 bits if
    the file has them. "transparent" is added to `seen` if a part of it is."""
    from PIL import Image

    with image_errors_named(where, file.name), Image.open(file) as image:
        if image.has_transparency_data and np.asarray(image.convert("RGBA"))[..., 3].min() < 255:
            seen.add("transparent")
        if image.mode in _DEEP:
            values = np.atleast_3d(np.asarray(image))
            if values.min() < 0 or values.max() > 65535:
                raise ValueError("it has more than 16 bits")
            return values.astype(np.uint16)
        if image.mode not in (*_GRAY, *_COLOR):
            raise ValueError(f"its pixel format {image.mode} is neither gray nor red, green, blue")
        return np.atleast_3d(np.asarray(image.convert("L" if image.mode in _GRAY else "RGB")))


def _stacked(images: list[Picture]) -> "NDArray[Any]":
    """[n, H, W, C], with the most channels and bits that any image has."""
    channels = max(image.shape[2] for image in images)
    deep = any(image.dtype == np.uint16 for image in images)
    alike = [
        image.astype(np.uint16) * 257 if deep and image.dtype == np.uint8 else image
        for image in images
    ]
    return np.stack([np.broadcast_to(image, (*image.shape[:2], channels)) for image in alike])


def natural(name: str) -> list[tuple[int, int, str]]:
    """A key that sorts numbers within names as numbers."""
    parts = re.findall(r"\d+|\D+", name)
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in parts]
