"""Images in class folders, on disk or inside an archive."""

import io
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bench.data.archives import Files, FolderFiles, is_hidden, place_of
from bench.data.readers import Decoded, image_errors_named
from bench.system.errors import UserError

if TYPE_CHECKING:
    from PIL.Image import Image

IMAGE_SUFFIXES = (".png", ".webp", ".jpg", ".jpeg")
SPLITS = ("train", "test")
_MODES = ("L", "RGB", "RGBA", "P")  # Pillow's names of the 8-bit pixel formats


class ClassFolders:
    """Reads image files `{train,test}/<class>/<file>`, also in an archive, without extracting it.

    Args:
        decode: one image as `[H, W, C]`, for data sets whose images are converted.
    """

    def __init__(
        self, files: Files, decode: "Callable[[Image], NDArray[np.uint8]] | None" = None
    ) -> None:
        self.files, self.decode_one = files, decode
        folder = "/" if isinstance(files, FolderFiles) else ""
        self.description = f"class folders in {files.path.name}{folder}"

    def content_hash(self) -> str:
        return self.files.content_hash(lambda name: member_of(name) is not None)

    def decode(self) -> Decoded:
        members = select_members(self.files.names())
        where = place_of(self.files)
        classes = classes_of(members.values(), where)
        label_of = {name: label for label, name in enumerate(classes)}
        images: dict[str, list[NDArray[np.uint8]]] = {split: [] for split in SPLITS}
        labels: dict[str, list[int]] = {split: [] for split in SPLITS}
        first: tuple[str, tuple[int, ...]] | None = None
        for name, content in self.files.read(members):
            image = self._image(name, where, content)
            first = first or (name, image.shape)
            if image.shape[:2] != first[1][:2]:
                raise UserError(
                    f"{where}: {name} has shape {image.shape} (height, width, channels), but"
                    f" {first[0]} has {first[1]}; all images must be alike"
                )
            split, class_name = members[name]
            images[split].append(image)
            labels[split].append(label_of[class_name])
        channels = max(image.shape[2] for part in images.values() for image in part)
        train, test = (_stacked(images[split], channels) for split in SPLITS)
        train_labels, test_labels = (np.array(labels[split], dtype=np.int64) for split in SPLITS)
        return Decoded(train, train_labels, test, test_labels, tuple(classes))

    def _image(self, name: str, where: str, content: bytes) -> NDArray[np.uint8]:
        if self.decode_one is None:
            return decode_image(name, where, lambda path: content)
        from PIL import Image

        with image_errors_named(where, name), Image.open(io.BytesIO(content)) as image:
            return self.decode_one(image)


def _stacked(images: list[NDArray[np.uint8]], channels: int) -> NDArray[np.uint8]:
    """[n, H, W, C]; if some images are in color, gray ones get three equal channels."""
    return np.stack([np.broadcast_to(image, (*image.shape[:2], channels)) for image in images])


class _Member(NamedTuple):
    split: str
    class_name: str


def member_of(name: str) -> _Member | None:
    """Split and class of a file, by its path; None if it is not an image in a class folder."""
    parts = name.split("/")
    if len(parts) != 3 or parts[0] not in SPLITS or is_hidden(name):
        return None
    is_image = parts[2].lower().endswith(IMAGE_SUFFIXES)
    return _Member(parts[0], parts[1]) if is_image else None


def select_members(names: Iterable[str]) -> dict[str, _Member]:
    """The images among files; anything else (lists, read-me files) is skipped."""
    members = {name: member_of(name) for name in sorted(names)}
    return {name: member for name, member in members.items() if member is not None}


def classes_of(members: Iterable[_Member], where: str) -> list[str]:
    """The names of the classes, sorted.

    Raises:
        UserError: a split has no images, or lacks a class that the other has.
    """
    names: dict[str, set[str]] = {split: set() for split in SPLITS}
    for member in members:
        names[member.split].add(member.class_name)
    for split in SPLITS:
        if not names[split]:
            raise UserError(f"{where}: there are no images in {split}/<class>/")
    if uneven := sorted(names["train"] ^ names["test"]):
        raise UserError(f"{where}: class {uneven[0]} has images in only one of train and test")
    return sorted(names["train"])


def decode_image(path: str, where: str, read: Callable[[str], bytes]) -> NDArray[np.uint8]:
    """One image as `[H, W, C]`: one channel for gray files, else red, green, blue."""
    from PIL import Image

    with (
        image_errors_named(where, path),
        Image.open(io.BytesIO(read(path))) as image,
    ):
        if image.mode not in _MODES:
            raise ValueError(f"its pixel format {image.mode} is not 8-bit gray or color")
        return np.atleast_3d(np.asarray(image if image.mode == "L" else image.convert("RGB")))
