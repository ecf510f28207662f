"""Readers of CIFAR, CUB-200-2011 and Tiny-ImageNet as their authors publish them.

The images of the last two are JPEG files. Two versions of the JPEG library may decode them to
pixels that differ by 1 in 255; then the fingerprints differ too.
"""

import hashlib
import io
import os
import pickle
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from bench.data.archives import Files, is_hidden
from bench.data.class_folders import IMAGE_SUFFIXES
from bench.data.readers import Decoded, image_errors_named, torchvision_dataset
from bench.system.errors import UserError

if TYPE_CHECKING:
    from PIL.Image import Image

CUB_SIZE = 32
TINY_IMAGENET_SIZE = 64
SPLITS = ("train", "test")
Members = dict[str, tuple[str, int]]  # an image's file name -> (train or test, index of its class)


class CifarBatches:
    """The pickled batches of the CIFAR authors.

    Args:
        class_name: of the class in `torchvision.datasets` that has the files' names and checksums.
    """

    def __init__(self, files: Files, class_name: str) -> None:
        self.files, self.class_name = files, class_name
        self.description = f"official files in {files.path.name}"

    def content_hash(self) -> str:
        return self.files.content_hash(lambda name: "/" not in name)

    def decode(self) -> Decoded:
        dataset: Any = torchvision_dataset(self.class_name)
        train, test = (
            [name for name, _ in part] for part in (dataset.train_list, dataset.test_list)
        )
        meta: dict[str, str] = dataset.meta
        sums = dict([*dataset.train_list, *dataset.test_list, (meta["filename"], meta["md5"])])
        contents: dict[str, Any] = {}
        try:
            for name, content in self.files.read(sums):
                # Unpickling can run code: only the published bytes are unpickled.
                if hashlib.md5(content).hexdigest() != sums[name]:
                    raise UserError(f"{name} is not the published file")
                contents[name] = pickle.loads(content, encoding="latin1")
        except UserError as error:
            reason = str(error).removeprefix(f"{self.files.path}: ")
            raise UserError(
                f"the files in {self.files.path} are damaged or incomplete ({reason}); "
                "delete it and download it again"
            ) from error
        classes = tuple(contents[meta["filename"]][meta["key"]])
        (train_pixels, train_labels), (test_pixels, test_labels) = (
            self._joined([contents[name] for name in part]) for part in (train, test)
        )
        return Decoded(train_pixels, train_labels, test_pixels, test_labels, classes)

    def _joined(self, batches: list[dict[str, Any]]) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        """Pixels [n, H, W, C] and labels [n] of some batches."""
        flat = np.concatenate([batch["data"] for batch in batches])
        key = "labels" if "labels" in batches[0] else "fine_labels"
        labels = np.concatenate([np.asarray(batch[key], np.int64) for batch in batches])
        return np.ascontiguousarray(flat.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)), labels


class Cub200:
    """Caltech-UCSD Birds-200-2011, with the split of its own `train_test_split.txt`.

    Its photographs have many sizes and shapes; the paper only says 32x32. Here the whole photograph
    is resized, ignoring its bounding box and proportions, bilinearly with antialiasing (as
    torchvision's `Resize((32, 32))` does). A gray photograph gets three equal channels.
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
        return decode_members(self.files, members, tuple(class_names.values()), as_bird, CUB_SIZE)

    def _tables(self) -> list[dict[str, str]]:
        """The annotation files, each as a mapping of its first column to its second."""
        texts = dict(self.files.read(self.tables))
        return [columns(self.files, name, texts[name]) for name in self.tables]

    def _entry(self, table: dict[str, str], which: int, key: str) -> str:
        if key not in table:
            raise UserError(f"{self.files.path}: {self.tables[which]} has no line for {key}")
        return table[key]


class TinyImageNet:
    """Tiny-ImageNet: 200 classes of ImageNet, 64x64. As usual, its `val` images are the test set,
    because its test images are published without labels. Gray images get three equal channels.
    Classes are named by their WordNet numbers.

    In many copies the `val` images are sorted into class folders, with or without a folder `images`
    in each. Then the folders give the classes, and the annotations may be missing.
    """

    tables = ("wnids.txt", "val/val_annotations.txt")

    def __init__(self, files: Files) -> None:
        self.files = files
        self.description = f"official images in {files.path.name}"

    def content_hash(self) -> str:
        return self.files.content_hash(lambda name: name in self.tables or is_image(name))

    def decode(self) -> Decoded:
        names = sorted(self.files.names())
        images = [name for name in names if is_image(name)]
        train = {name: name.split("/")[1] for name in images if name.startswith("train/")}
        sorted_val, flat_val = self._val(images)
        tables = [name for name in self.tables if name in names or flat_val or not sorted_val]
        texts = dict(self.files.read(tables))
        of_folders = " ".join(train.values())
        listed = os.fsdecode(texts[self.tables[0]]) if self.tables[0] in texts else of_folders
        classes = sorted(set(listed.split()))
        test = dict(sorted_val.values())
        annotations = self.tables[1]
        if annotations in texts:
            for image, class_name in columns(self.files, annotations, texts[annotations]).items():
                path, in_folder = sorted_val.get(image, (f"val/images/{image}", class_name))
                if in_folder != class_name:
                    raise UserError(
                        f"{self.files.path}: {path} belongs to {class_name} by {annotations}"
                    )
                test[path] = class_name
        label_of = {name: label for label, name in enumerate(classes)}
        if unknown := sorted(set(test.values()) - set(classes)):
            where = annotations if annotations in texts else "val"
            raise UserError(f"{self.files.path}: {where}: unknown class {unknown[0]}")
        members: Members = {
            name: ("train", label_of[class_name])
            for name, class_name in train.items()
            if class_name in label_of
        }
        members |= {name: ("test", label_of[class_name]) for name, class_name in test.items()}
        size = TINY_IMAGENET_SIZE
        return decode_members(self.files, members, tuple(classes), as_tiny_image, size)

    def _val(self, images: list[str]) -> tuple[dict[str, tuple[str, str]], set[str]]:
        """The `val` images in class folders, by file name: (path, class); and the file names of
        those in `val/images`. An image in both places is only among the latter."""
        parts = [name.split("/") for name in images if name.startswith("val/")]
        flat = {path[-1] for path in parts if path[1] == "images"}
        in_classes: dict[str, tuple[str, str]] = {}
        for path in parts:
            if path[-1] in flat:
                continue
            if path[-1] in in_classes:
                raise UserError(
                    f"{self.files.path}: {'/'.join(path)} and {in_classes[path[-1]][0]} have the"
                    " same name, which images of val never have"
                )
            in_classes[path[-1]] = "/".join(path), path[1]
        return in_classes, flat


def is_image(name: str) -> bool:
    """Whether a file is an image of Tiny-ImageNet's train or val part."""
    *above, file = name.split("/")
    if len(above) == 3 and above[2] == "images":
        del above[2]
    if len(above) != 2 or above[0] not in ("train", "val") or is_hidden(name):
        return False
    return file.lower().endswith(IMAGE_SUFFIXES) and above != ["train", "images"]


def columns(files: Files, name: str, text: bytes) -> dict[str, str]:
    """An annotation file as a mapping of its first column to its second.

    Raises:
        UserError: names a line that has no second column or repeats another.
    """
    table: dict[str, str] = {}
    for number, line in enumerate(os.fsdecode(text).splitlines(), start=1):
        parts = line.split()
        if len(parts) < 2 or parts[0] in table:
            raise UserError(f"{files.path}: {name}, line {number} is damaged: {line[:40]!r}")
        table[parts[0]] = parts[1]
    return table


def decode_members(
    files: Files,
    members: Members,
    classes: tuple[str, ...],
    decode_one: "Callable[[Image], NDArray[np.uint8]]",
    size: int,
) -> Decoded:
    """Read and decode all images.

    Args:
        decode_one: returns `[size, size, 3]`, or raises ValueError.

    Raises:
        UserError: names what is missing or cannot be read.
    """
    from PIL import Image

    # Filled in place: a list of images would double the 1.4 GB of Tiny-ImageNet.
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
            pixels[split][k] = decode_one(image)
    labels = {
        split: np.array([members[name][1] for name in order[split]], dtype=np.int64)
        for split in SPLITS
    }
    return Decoded(pixels["train"], labels["train"], pixels["test"], labels["test"], classes)


def as_bird(image: "Image") -> NDArray[np.uint8]:
    """A whole photograph of CUB, resized bilinearly (Pillow always antialiases): `[H, W, C]`."""
    from PIL.Image import Resampling

    small = image.convert("RGB").resize((CUB_SIZE, CUB_SIZE), Resampling.BILINEAR)
    return np.asarray(small)


def as_tiny_image(image: "Image") -> NDArray[np.uint8]:
    """An image of Tiny-ImageNet, as `[H, W, C]`, if it has the right size."""
    size = TINY_IMAGENET_SIZE
    if image.size != (size, size):
        raise ValueError(f"its size is {image.width}x{image.height}, not {size}x{size}")
    return np.asarray(image.convert("RGB"))
