"""A distilled set as a file: ours (safetensors, stating its preprocessing), and others'."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
from torch import Tensor

from bench.data.formats import Content, read_content
from bench.errors import UserError
from bench.files import atomic_write

IMAGE_NAMES = (
    *("images", "x", "data", "x_train", "image", "imgs", "train_images", "images_train"),
    *("image_syn", "images_syn", "syn_images", "synthetic_images", "distilled_images"),
)
LABEL_NAMES = (
    *("labels", "y", "targets", "y_train", "label", "target", "train_labels", "labels_train"),
    *("label_syn", "labels_syn", "syn_labels", "synthetic_labels", "distilled_labels"),
    "soft_labels",
)


@dataclass(frozen=True)
class DistilledSet:
    """Distilled images and labels.

    Attributes:
        images: [n, C, H, W], preprocessed like the target set; in pixels [0, 1] where the file says
            so (`metadata["space"] == "pixels"`).
        labels: [n, classes] probabilities; in files made elsewhere also logits, or [n] class
            indices, or None where the file has none: then the images lie class by class.
        metadata: what the file says of itself: dataset, its fingerprint, the preprocessing (from
            which the whitening can be made again out of that data), the run's configuration.
        notes: what was assumed in reading it, in words for the user.
    """

    images: Tensor
    labels: Tensor | None
    metadata: dict[str, Any]
    notes: tuple[str, ...] = ()

    def save(self, path: Path) -> None:
        """Write one safetensors file, atomically."""
        tensors = {
            name: value.detach().cpu().contiguous()
            for name, value in (("images", self.images), ("labels", self.labels))
            if value is not None
        }
        with atomic_write(path) as temporary:
            safetensors.torch.save_file(
                tensors, temporary, metadata={"distilled_set": json.dumps(self.metadata)}
            )


def load_distilled_set(path: Path, *, index: int = 0, labels: Path | None = None) -> DistilledSet:
    """Read a distilled set made here or elsewhere, from any format of `bench.data.formats`.

    Images and labels are looked for under the names in use (images, x, data, ...; labels, y, ...).
    Whole numbers are taken as pixels in 0..255 and scaled to [0, 1]; channels may come last; images
    may come as [classes, ipc, C, H, W].

    Args:
        index: which set, of a file that holds several.
        labels: another file that holds the labels.

    Raises:
        UserError: the file is missing, damaged, or has no images and labels that fit each other.
    """
    content = read_content(path, index)
    notes = list(content.notes)
    images = _find(content, IMAGE_NAMES, path)
    if images is None:
        raise _no_tensor(content, IMAGE_NAMES, path)
    found = _find(content, LABEL_NAMES, path)
    if labels is not None:
        if found is not None:
            notes.append(f"labels from {labels.name}, not those in {path.name}")
        found = _labels_alone(labels)
    elif found is None and not content.bare and len(content.tensors) > 1:
        raise _no_tensor(content, LABEL_NAMES, path, "; labels=PATH names another file of them")
    images, found = _shaped(images, found, path)
    metadata = dict(content.metadata)
    if labels is not None:
        metadata.pop("class_folders", None)  # these labels number classes, not folders
    if not images.is_floating_point():
        if images.min() < 0 or images.max() > 255:
            raise UserError(f"{path}: whole numbers outside 0..255 are no pixels")
        images, metadata = images.float() / 255, {**metadata, "space": "pixels"}
        if images.max() <= 1 / 255:
            notes.append("the images are whole numbers, none above 1: taken as of 0..255")
    images = images.float().contiguous()
    if not images.isfinite().all():
        raise UserError(f"{path}: some values of the images are not finite")
    return DistilledSet(images, found, metadata, tuple(notes))


def _shaped(images: Tensor, labels: Tensor | None, path: Path) -> tuple[Tensor, Tensor | None]:
    """Images as [n, C, H, W], labels as [n, classes] or [n]."""
    told = f"images {list(images.shape)}"
    if labels is not None:
        told = f"{told} and labels {list(labels.shape)}"
    if images.dim() == 5:  # [classes, ipc, C, H, W]
        if labels is not None and labels.shape[:2] == images.shape[:2]:
            labels = labels.flatten(0, 1)
        images = images.flatten(0, 1)
    if images.dim() == 4 and images.shape[1] not in (1, 3) and images.shape[3] in (1, 3):
        images = images.permute(0, 3, 1, 2)
    if labels is not None and labels.dim() == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    fits = labels is None or (len(images) == len(labels) and labels.dim() in (1, 2))
    if images.dim() != 4 or not len(images) or not fits:
        raise UserError(f"{path}: {told} are not [n, C, H, W] and [n, classes] or [n]")
    return images, labels


def _labels_alone(path: Path) -> Tensor:
    """The labels of a file that may hold nothing else."""
    content = read_content(path)
    if content.bare:
        return content.tensors["images"]
    if (labels := _find(content, LABEL_NAMES, path)) is None:
        raise _no_tensor(content, LABEL_NAMES, path)
    return labels


def _find(content: Content, names: tuple[str, ...], path: Path) -> Tensor | None:
    """The tensor that goes by one of `names`, in a group of an HDF5 file too; None where there is
    none."""
    found = [name for name in content.tensors if name.rpartition("/")[2].lower() in names]
    if len(found) > 1:
        raise UserError(
            f"{path} holds {' and '.join(found)}, and each of them could be the {names[0]}: save a"
            " file with one"
        )
    return content.tensors[found[0]] if found else None


def _no_tensor(content: Content, names: tuple[str, ...], path: Path, remedy: str = "") -> UserError:
    held = ", ".join(sorted(content.tensors)) or "nothing"
    return UserError(f"{path} holds {held}, but none of {', '.join(names)}{remedy}")
