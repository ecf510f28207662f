"""Readers of image files sorted into class folders, on disk or inside a zip."""

import hashlib
import io
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bench.data.readers import Decoded, hash_files, image_errors_named
from bench.errors import UserError

IMAGE_SUFFIXES = (".png", ".webp", ".jpg", ".jpeg")
SPLITS = ("train", "test")
_MODES = ("L", "RGB", "RGBA", "P")  # Pillow's names of the 8-bit pixel formats


class ClassFolders:
    """Image files in `<folder>/{train,test}/<class>/`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.description = f"class folders in {folder.name}/"

    def content_hash(self) -> str:
        return hash_files([self.folder / member.path for member in self._members()], self.folder)

    def decode(self) -> Decoded:
        return _decode(self._members(), str(self.folder), lambda p: (self.folder / p).read_bytes())

    def _members(self) -> list["_Member"]:
        files = self.folder.glob("*/*/*")
        return _select_members((file.relative_to(self.folder).as_posix() for file in files), "")


class ClassZip:
    """Image files in a zip, as `<name>/{train,test}/<class>/<file>`; nothing is extracted."""

    def __init__(self, path: Path, name: str) -> None:
        self.path = path
        self.name = name
        self.description = f"class folders in {path.name}"

    def content_hash(self) -> str:
        # The central directory holds the size and CRC-32 of every member: a changed image shows.
        digest = hashlib.sha256()
        with self._open() as archive:
            for member in self._members(archive):
                entry = archive.getinfo(member.path)
                digest.update(f"{entry.filename}\0{entry.CRC}\0{entry.file_size}\n".encode())
        return digest.hexdigest()

    def decode(self) -> Decoded:
        with self._open() as archive:
            return _decode(self._members(archive), f"{self.path}, {self.name}/", archive.read)

    def _members(self, archive: zipfile.ZipFile) -> list["_Member"]:
        return _select_members(archive.namelist(), f"{self.name}/")

    def _open(self) -> zipfile.ZipFile:
        try:
            return zipfile.ZipFile(self.path)
        except (zipfile.BadZipFile, OSError, ValueError) as error:
            raise UserError(f"{self.path} is not a whole zip ({error}); fetch it again") from error


class _Member(NamedTuple):
    split: str
    class_name: str
    path: str  # within the folder or the zip


def _select_members(paths: Iterable[str], prefix: str) -> list[_Member]:
    """The images among `paths`, sorted; anything else (lists, read-me files) is passed over."""
    members: list[_Member] = []
    for path in sorted(set(paths)):
        parts = path.removeprefix(prefix).split("/")
        if path.startswith(prefix) and len(parts) == 3 and parts[0] in SPLITS:
            hidden = any(part.startswith(".") for part in parts)
            if parts[2].lower().endswith(IMAGE_SUFFIXES) and not hidden:
                members.append(_Member(parts[0], parts[1], path))
    return members


def _decode(members: list[_Member], where: str, read: Callable[[str], bytes]) -> Decoded:
    names = {split: {m.class_name for m in members if m.split == split} for split in SPLITS}
    for split in SPLITS:
        if not names[split]:
            raise UserError(f"{where}: there are no images in {split}/<class>/")
    if uneven := sorted(names["train"] ^ names["test"]):
        raise UserError(f"{where}: class {uneven[0]} has images in only one of train and test")
    classes = sorted(names["train"])
    label_of = {name: label for label, name in enumerate(classes)}

    images: dict[str, list[NDArray[np.uint8]]] = {split: [] for split in SPLITS}
    labels: dict[str, list[int]] = {split: [] for split in SPLITS}
    shape: tuple[int, ...] = ()
    for member in members:
        image = decode_image(member.path, where, read)
        shape = shape or image.shape
        if image.shape != shape:
            raise UserError(
                f"{where}: {member.path} has shape {image.shape} (height, width, channels), but "
                f"{members[0].path} has {shape}; all images must be alike"
            )
        images[member.split].append(image)
        labels[member.split].append(label_of[member.class_name])
    train, test = (np.stack(images[split]) for split in SPLITS)
    train_labels, test_labels = (np.array(labels[split], dtype=np.int64) for split in SPLITS)
    return Decoded(train, train_labels, test, test_labels, tuple(classes))


def decode_image(path: str, where: str, read: Callable[[str], bytes]) -> NDArray[np.uint8]:
    """One image as `[H, W, C]`: one channel for grey files, else red, green, blue."""
    from PIL import Image

    with (
        image_errors_named(where, path),
        Image.open(io.BytesIO(read(path))) as image,
    ):
        if image.mode not in _MODES:
            raise ValueError(f"its pixel format {image.mode} is not 8-bit grey or colour")
        return np.atleast_3d(np.asarray(image if image.mode == "L" else image.convert("RGB")))
