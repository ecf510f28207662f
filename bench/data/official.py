"""CUB-200-2011 and Tiny-ImageNet as their authors publish them, packed or unpacked.

Their images are JPEG files. Two versions of the JPEG library may decode one of them into pixels
that differ by 1 in 255, and then the fingerprints differ too.
"""

import io
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from bench.data.archives import Files, FolderFiles, TarFiles, ZipFiles
from bench.data.readers import Decoded, image_errors_named
from bench.errors import UserError

if TYPE_CHECKING:
    from PIL.Image import Image

CUB_SIZE = 32
TINY_IMAGENET_SIZE = 64
SPLITS = ("train", "test")
Members = dict[str, tuple[str, int]]  # an image's file name -> (train or test, index of its class)


def find_files(data_root: Path, folder: str) -> Files | None:
    """The packaging that is called `folder`, where it lies under `data_root` unpacked, as a .zip or
    as a .tgz."""
    if (data_root / folder).is_dir():
        return FolderFiles(data_root / folder)
    if (data_root / f"{folder}.zip").is_file():
        return ZipFiles(data_root / f"{folder}.zip", folder)
    if (data_root / f"{folder}.tgz").is_file():
        return TarFiles(data_root / f"{folder}.tgz", folder)
    return None


class Cub200:
    """Caltech-UCSD Birds-200-2011, with the split of its own `train_test_split.txt`.

    Its photographs have many sizes and shapes; the paper says 32x32 and no more. Here each is
    resized as a whole, without regard to its bounding box and without keeping its proportions,
    bilinearly with antialiasing (what torchvision's `Resize((32, 32))` does). A grey photograph
    becomes three equal channels.
    """

    tables = ("images.txt", "image_class_labels.txt", "train_test_split.txt", "classes.txt")

    def __init__(self, files: Files) -> None:
        self.files = files
        self.description = f"official images in {files.path.name}, resized to {CUB_SIZE}x{CUB_SIZE}"

    def content_hash(self) -> str:
        return self.files.content_hash(
            lambda name: name in self.tables or name.startswith("images/")
        )

    def decode(self) -> Decoded:
        names, class_of, is_training, class_names = self._tables()
        ids = list(class_names)
        members: Members = {}
        for key, name in names.items():
            split = {"1": "train", "0": "test"}.get(self._entry(is_training, 2, key))
            if split is None:
                raise UserError(f"{self.files.path}: {self.tables[2]}: image {key} is not 0 or 1")
            label = self._entry(class_of, 1, key)
            self._entry(class_names, 3, label)
            members[f"images/{name}"] = split, ids.index(label)
        if len(members) < len(names):
            raise UserError(f"{self.files.path}: {self.tables[0]} lists an image twice")
        return decode_members(self.files, members, tuple(class_names.values()), resized, CUB_SIZE)

    def _tables(self) -> list[dict[str, str]]:
        """The annotations, each as its first column -> the second."""
        texts = dict(self.files.read(self.tables))
        return [columns(self.files, name, texts[name]) for name in self.tables]

    def _entry(self, table: dict[str, str], which: int, key: str) -> str:
        if key not in table:
            raise UserError(f"{self.files.path}: {self.tables[which]} has no line for {key}")
        return table[key]


class TinyImageNet:
    """Tiny-ImageNet: 200 classes of ImageNet, 64x64. Its `val` images are the test set, as is
    usual: its own test images are published without labels. Grey images become three equal
    channels. Classes go by their WordNet numbers.
    """

    tables = ("wnids.txt", "val/val_annotations.txt")

    def __init__(self, files: Files) -> None:
        self.files = files
        self.description = f"official images in {files.path.name}"

    def content_hash(self) -> str:
        return self.files.content_hash(lambda name: name in self.tables or is_image(name))

    def decode(self) -> Decoded:
        texts = dict(self.files.read(self.tables))
        classes = sorted(set(texts["wnids.txt"].decode(errors="replace").split()))
        label_of = {name: label for label, name in enumerate(classes)}
        members: Members = {}
        for name in self.files.names():
            parts = name.split("/")
            if parts[0] == "train" and is_image(name) and parts[1] in label_of:
                members[name] = "train", label_of[parts[1]]
        annotations = self.tables[1]
        for image, class_name in columns(self.files, annotations, texts[annotations]).items():
            if class_name not in label_of:
                raise UserError(f"{self.files.path}: {annotations}: unknown class {class_name}")
            members[f"val/images/{image}"] = "test", label_of[class_name]
        return decode_members(
            self.files, members, tuple(classes), of_its_own_size, TINY_IMAGENET_SIZE
        )


def is_image(name: str) -> bool:
    """Whether a file is an image of Tiny-ImageNet's train or val part."""
    parts = name.split("/")
    known = (parts[0], len(parts)) in (("train", 4), ("val", 3))
    return known and parts[-2] == "images" and name.endswith(".JPEG") and parts[-1][0] != "."


def columns(files: Files, name: str, text: bytes) -> dict[str, str]:
    """The first column of an annotation file -> the second.

    Raises:
        UserError: naming a line that has none, or repeats another.
    """
    table: dict[str, str] = {}
    for number, line in enumerate(text.decode(errors="replace").splitlines(), start=1):
        parts = line.split()
        if len(parts) < 2 or parts[0] in table:
            raise UserError(f"{files.path}: {name}, line {number} is damaged: {line[:40]!r}")
        table[parts[0]] = parts[1]
    return table


def decode_members(
    files: Files,
    members: Members,
    classes: tuple[str, ...],
    fitted: "Callable[[Image, int], Image]",
    size: int,
) -> Decoded:
    """Read all images.

    Args:
        fitted: brings an image to `size`, or raises ValueError.

    Raises:
        UserError: naming what is missing or cannot be read.
    """
    from PIL import Image

    # Filled in place: Tiny-ImageNet is 1.4 GB, which a list of images would take twice.
    order = {split: [n for n, (s, _) in members.items() if s == split] for split in SPLITS}
    pixels: dict[str, NDArray[np.uint8]] = {}
    for split, names in order.items():
        present = {members[name][1] for name in names}
        if absent := [name for label, name in enumerate(classes) if label not in present]:
            raise UserError(f"{files.path}: class {absent[0]} has no {split} images")
        pixels[split] = np.empty((len(names), size, size, 3), np.uint8)
    place = {name: (split, k) for split in SPLITS for k, name in enumerate(order[split])}
    for name, content in files.read(members):
        split, k = place[name]
        with image_errors_named(files.path, name), Image.open(io.BytesIO(content)) as image:
            pixels[split][k] = np.asarray(fitted(image.convert("RGB"), size))
    labels = {
        split: np.array([members[name][1] for name in order[split]], dtype=np.int64)
        for split in SPLITS
    }
    return Decoded(pixels["train"], labels["train"], pixels["test"], labels["test"], classes)


def resized(image: "Image", size: int) -> "Image":
    """The whole image, bilinearly; Pillow always antialiases."""
    from PIL.Image import Resampling

    return image.resize((size, size), Resampling.BILINEAR)


def of_its_own_size(image: "Image", size: int) -> "Image":
    """The image, which has the size already."""
    if image.size != (size, size):
        raise ValueError(f"its size is {image.width}x{image.height}, not {size}x{size}")
    return image
