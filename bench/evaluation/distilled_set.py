"""A distilled set and its file: which entries are the images and the labels.

Our own files are safetensors that state their preprocessing; files made elsewhere may be anything
that `formats.py` reads.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from bench.evaluation.formats import read_content
from bench.evaluation.image_folder import natural
from bench.evaluation.structures import Content, is_set, rate_note
from bench.system.errors import UserError
from bench.system.files import atomic_write

IMAGE_NAMES = (
    *("images", "x", "data", "x_train", "image", "imgs", "train_images", "images_train"),
    *("image_syn", "images_syn", "syn_images", "synthetic_images", "distilled_images"),
    *("x_syn", "x_distill", "x_distilled", "x_proto"),
)
LABEL_NAMES = (
    *("labels", "y", "targets", "y_train", "label", "target", "train_labels", "labels_train"),
    *("label_syn", "labels_syn", "syn_labels", "synthetic_labels", "distilled_labels"),
    *("soft_labels", "y_syn", "y_distill", "y_distilled", "y_proto"),
)
RATE_NAMES = ("lr", "learning_rate", "syn_lr", "lr_syn")


@dataclass(frozen=True)
class DistilledSet:
    """Distilled images and labels.

    Attributes:
        images: [n, C, H, W], preprocessed like the target set, or pixels in [0, 1] if
            `metadata["space"] == "pixels"`. In a file made elsewhere: unchanged, of any type, and
            in a layout that `bench.evaluation.layout` brings to this one.
        labels: [n, classes] probabilities. In a file made elsewhere also other forms of soft
            labels, or class indices, of any shape that fits the images; None if there are none.
        metadata: what the file states: dataset, its fingerprint, the preprocessing (enough to
            repeat the whitening), the run's configuration. Of a folder, the names of its
            `class_folders`; of a file with an entry per class, the names of its `class_entries`.
            Labels [n] are indices into either.
        lengths: if the images were a list of stacks, the length of each.
        unsure: entries that may be the labels, if none has a name that says so.
        notes: what was assumed in reading the file, for the user.
    """

    images: Tensor
    labels: Tensor | None
    metadata: dict[str, Any]
    lengths: tuple[int, ...] = ()
    unsure: tuple[str, ...] = ()
    notes: tuple[str, ...] = field(default=())

    @property
    def is_ours(self) -> bool:
        """Whether a run of this project wrote the file."""
        return "config" in self.metadata

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


def load_distilled_set(
    path: Path,
    *,
    index: int = -1,
    labels: Path | None = None,
    images_key: str = "",
    labels_key: str = "",
) -> DistilledSet:
    """Read a distilled set made here or elsewhere, from any format of `bench.evaluation.formats`.

    Images and labels are found by common names (images, x, data, ...; labels, y, ...), or are the
    first two arrays of a file without names, or the file has an entry of images per class.

    Args:
        index: which set of a file with several; -1: the first.
        labels: another file that holds the labels.
        images_key, labels_key: the names of images and labels, if the file has other ones.

    Raises:
        UserError: the file is missing or damaged, or it is not clear which entry is which.
    """
    content = read_content(path, index)
    notes = list(content.notes)
    metadata = dict(content.metadata)
    own_key = "" if labels else labels_key  # else it is a name in the file of the labels
    labels_name = _find(content, LABEL_NAMES, path, own_key, "labels_key")
    images_name = _find(content, IMAGE_NAMES, path, images_key, "images_key")
    if images_name is None and not images_key:
        content, images_name, labels_name = _without_names(content, labels_name)
        metadata |= content.metadata
    if images_name is None:
        raise _no_tensor(content, IMAGE_NAMES, path, "images")
    images = content.tensors[images_name]
    label_tensor = content.tensors[labels_name] if labels_name else None
    unsure: tuple[str, ...] = ()
    if labels is not None:
        if label_tensor is not None:
            notes.append(f"labels from {labels.name}, not those in {path.name}")
        label_tensor = _labels_alone(labels, labels_key)
        for key in ("class_folders", "class_entries"):  # the labels in the file are class indices
            metadata.pop(key, None)
    elif label_tensor is None:
        _refuse_aside(content, LABEL_NAMES, path, "labels")
        unsure = _perhaps_labels(content, images_name)
    for name, tensor in content.tensors.items():
        if name.rpartition("/")[2].lower() in RATE_NAMES and tensor.numel() == 1:
            notes += [note for note in rate_note([tensor.item()], path.name) if note not in notes]
    lengths = content.lengths.get(images_name, ())
    return DistilledSet(images, label_tensor, metadata, lengths, unsure, tuple(notes))


def _find(
    content: Content, names: tuple[str, ...], path: Path, key: str, setting: str
) -> str | None:
    """The name of the tensor called `key` by the user, or with one of `names`, which may be nested;
    None if there is none."""
    if key:
        if key in content.tensors:
            if not content.tensors[key].dim():
                raise UserError(f"{setting}={key}: in {path} this is a single number")
            return key
        raise UserError(f"{setting}={key}: {path} holds {_listed(content)}")
    least = 1 if setting == "labels_key" else 2
    matches = [
        name
        for name, tensor in content.tensors.items()
        if name.rpartition("/")[2].lower() in names and tensor.dim() >= least
    ]
    if len(matches) > 1:
        raise UserError(
            f"{path} holds {' and '.join(matches)}, and each of them could be the {names[0]}: name"
            f" the right one, {setting}={matches[0]}"
        )
    return matches[0] if matches else None


def _without_names(
    content: Content, labels_name: str | None
) -> tuple[Content, str | None, str | None]:
    """Content, images and labels (if any) of a file whose names do not identify them: numbered
    arrays, as `numpy.savez(path, images, labels)` writes, or one array per class."""
    first, second = (content.tensors.get(f"arr_{k}") for k in (0, 1))
    if first is not None and (second is None or is_set(first, second)):
        return content, "arr_0", labels_name or ("arr_1" if second is not None else None)
    if first is not None and second is not None and is_set(second, first) and second.dim() >= 4:
        return content, "arr_1", "arr_0"
    stacks = {name: tensor for name, tensor in content.tensors.items() if tensor.dim() >= 2}
    names = sorted(stacks, key=natural)
    tails = {(tensor.dim(), *tensor.shape[1:]) for tensor in stacks.values()}
    if labels_name is not None or len(names) < 2 or len(tails) > 1:
        return content, None, labels_name
    parts = [stacks[name] if stacks[name].dim() != 3 else stacks[name][None] for name in names]
    numbers = torch.arange(len(parts)).repeat_interleave(torch.tensor([len(p) for p in parts]))
    entries = {"class_entries": [name.rpartition("/")[2] for name in names]}
    whole = Content({"images": torch.cat(parts), "labels": numbers}, metadata=entries)
    return whole, "images", "labels"


def _labels_alone(path: Path, key: str) -> Tensor:
    """The labels in a file that may hold nothing else."""
    content = read_content(path)
    name = "images" if content.bare else _find(content, LABEL_NAMES, path, key, "labels_key")
    if name is None and len(content.tensors) == 1:
        name = next(iter(content.tensors))
    if name is None:
        raise _no_tensor(content, LABEL_NAMES, path, "labels")
    if not content.tensors[name].dim():
        raise UserError(f"{path}: its labels are a single number")
    return content.tensors[name]


def _perhaps_labels(content: Content, images_name: str) -> tuple[str, ...]:
    """The names of entries with as many rows as there are images or stacks of images."""
    images = content.tensors[images_name]
    lengths = {len(images), images.shape[:2].numel(), len(content.lengths.get(images_name, ()))}
    return tuple(
        name
        for name, tensor in content.tensors.items()
        if name != images_name and tensor.dim() and len(tensor) in lengths and len(tensor) > 1
    )


def _refuse_aside(content: Content, names: tuple[str, ...], path: Path, what: str) -> None:
    """Reject images or labels that are not numbers."""
    for name, kind in content.aside.items():
        if name.rpartition("/")[2].lower() in names:
            remedy = "; labels=PATH names another file of them" if what == "labels" else ""
            raise UserError(f"{path}: its {what}, {name}, are {kind}, not numbers{remedy}")


def _no_tensor(content: Content, names: tuple[str, ...], path: Path, what: str) -> UserError:
    _refuse_aside(content, names, path, what)
    for name, tensor in content.tensors.items():
        if name.rpartition("/")[2].lower() in names:
            return UserError(
                f"{path}: its {what}, {name}, have the shape {list(tensor.shape)}, which is none of"
                f" {what}; {what}_key=NAME names others"
            )
    return UserError(
        f"{path} holds {_listed(content)}, but none of {', '.join(names)}: name what holds the"
        f" {what}, {what}_key=NAME"
    )


def _listed(content: Content) -> str:
    """The names of the tensors, at most twelve."""
    names = sorted(content.tensors, key=natural)
    more = f" and {len(names) - 12} more" if len(names) > 12 else ""
    return (", ".join(names[:12]) or "no numbers") + more
