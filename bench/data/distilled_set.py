"""A distilled set as a file: ours (safetensors, stating its preprocessing), and others'."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from torch import Tensor

from bench.errors import UserError
from bench.files import atomic_write

IMAGE_NAMES = ("images", "x", "data", "x_train", "image")
LABEL_NAMES = ("labels", "y", "targets", "y_train", "label")


@dataclass(frozen=True)
class DistilledSet:
    """Distilled images and labels.

    Attributes:
        images: [n, C, H, W], preprocessed like the target set; in pixels [0, 1] where the file says
            so (`metadata["space"] == "pixels"`).
        labels: [n, classes] probabilities, or [n] class indices in files made elsewhere.
        metadata: what the file says of itself: dataset, its fingerprint, the preprocessing (from
            which the whitening can be made again out of that data), the run's configuration.
    """

    images: Tensor
    labels: Tensor
    metadata: dict[str, Any]

    def save(self, path: Path) -> None:
        """Write one safetensors file, atomically."""
        tensors = {"images": self.images, "labels": self.labels}
        tensors = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
        with atomic_write(path) as temporary:
            safetensors.torch.save_file(
                tensors, temporary, metadata={"distilled_set": json.dumps(self.metadata)}
            )


def load_distilled_set(path: Path) -> DistilledSet:
    """Read a distilled set from .safetensors or .npz, made here or elsewhere.

    Images and labels are looked for under the names in use (images, x, data, ...; labels, y, ...).
    Unsigned bytes are taken as pixels and scaled to [0, 1]; channels may come last.

    Raises:
        UserError: the file is missing, damaged, or has no images and labels that fit each other.
    """
    if not path.is_file():
        raise UserError(f"there is no distilled set at {path}")
    try:
        if path.suffix == ".safetensors":
            with safetensors.safe_open(path, framework="pt") as file:
                header = file.metadata() or {}
            tensors = safetensors.torch.load_file(path)
        elif path.suffix == ".npz":
            header = {}
            with np.load(path, allow_pickle=False) as arrays:
                tensors = {name: torch.from_numpy(arrays[name]) for name in arrays.files}
        else:
            raise UserError(f"{path}: a distilled set is a .safetensors or .npz file")
        metadata = json.loads(header.get("distilled_set", "{}"))
    except UserError:
        raise
    except Exception as error:  # each format has its own ways to say that it cannot be read
        raise UserError(
            f"the distilled set {path} is damaged: {str(error).splitlines()[0]}"
        ) from error
    images = _find(tensors, IMAGE_NAMES, path)
    labels = _find(tensors, LABEL_NAMES, path)
    if images.dim() == 4 and images.shape[1] not in (1, 3) and images.shape[3] in (1, 3):
        images = images.permute(0, 3, 1, 2)
    if images.dim() != 4 or len(images) != len(labels) or labels.dim() not in (1, 2):
        raise UserError(
            f"{path}: images {list(images.shape)} and labels {list(labels.shape)} are not"
            " [n, C, H, W] and [n, classes] or [n]"
        )
    if images.dtype == torch.uint8:
        images, metadata = images.float() / 255, {**metadata, "space": "pixels"}
    return DistilledSet(images.float().contiguous(), labels, metadata)


def _find(tensors: dict[str, Tensor], names: tuple[str, ...], path: Path) -> Tensor:
    for name in names:
        if name in tensors:
            return tensors[name]
    raise UserError(
        f"{path} holds {', '.join(sorted(tensors)) or 'nothing'}, but none of {', '.join(names)}"
    )
