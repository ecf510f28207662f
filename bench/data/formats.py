"""What a file or folder made elsewhere holds: tensors under names, whatever the format.

Nothing is decided here about what the numbers mean; that is `distilled_set.py` and `spaces.py`.
"""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.torch
import torch
from torch import Tensor

from bench.data.class_folders import IMAGE_SUFFIXES, decode_image
from bench.errors import UserError

INSTALL_H5PY = "pip install -e '.[formats]'"


@dataclass(frozen=True)
class Content:
    """What was found in one file or folder.

    Attributes:
        tensors: by name, of any shape and type.
        bare: the file holds one tensor or array without a name, here called "images".
        sets: how many sets of images and labels the file holds; the tensors are those of one.
        metadata: what a file of ours says of itself; of a folder the names of its `class_folders`.
        notes: what had to be assumed while reading, in words for the user.
    """

    tensors: dict[str, Tensor]
    bare: bool = False
    sets: int = 1
    metadata: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def read_content(path: Path, index: int = 0) -> Content:
    """Read a .safetensors, .npz, .npy, .pt, .pth, .h5 or .hdf5 file, or a folder of class folders.

    Args:
        index: which set, of a file that holds several (a list of pairs of images and labels).

    Raises:
        UserError: nothing there, damaged, of another format, no such index, or h5py is missing.
    """
    if path.is_dir():
        content = _read_folder(path)
    elif not path.is_file():
        raise UserError(f"there is no distilled set at {path}")
    elif reader := READERS.get(path.suffix.lower()):
        try:
            content = reader(path, index)
        except UserError:
            raise
        except Exception as error:  # each format has its own ways to say that it cannot be read
            told = (str(error).splitlines() or [type(error).__name__])[0]
            raise UserError(f"the distilled set {path} is damaged: {told}") from error
    else:
        raise UserError(
            f"{path}: a distilled set is a file of {', '.join(READERS)}, or a folder of class"
            " folders of images"
        )
    if not 0 <= index < content.sets:
        raise UserError(f"index={index}: {path} holds {content.sets} set(s), counted from 0")
    return content


def _read_safetensors(path: Path, index: int) -> Content:
    with safetensors.safe_open(path, framework="pt") as file:
        header = file.metadata() or {}
    metadata = json.loads(header.get("distilled_set", "{}"))
    return Content(safetensors.torch.load_file(path), metadata=metadata)


def _read_npz(path: Path, index: int) -> Content:
    with np.load(path, allow_pickle=False) as arrays:
        return Content({name: torch.from_numpy(arrays[name]) for name in arrays.files})


def _read_npy(path: Path, index: int) -> Content:
    return Content({"images": torch.from_numpy(np.load(path, allow_pickle=False))}, bare=True)


def _read_h5(path: Path, index: int) -> Content:
    try:
        import h5py  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise UserError(f"{path}: h5py is needed to read it: {INSTALL_H5PY}") from error
    tensors: dict[str, Tensor] = {}

    def note(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset) and item.dtype.kind in "biuf":
            tensors[name] = torch.from_numpy(np.asarray(item[()]))

    with h5py.File(path, "r") as file:
        file.visititems(note)
    return Content(tensors)


def _read_torch(path: Path, index: int) -> Content:
    """What `torch.save` wrote, read without running any code in it (`weights_only=True`); numpy
    arrays and numbers, which the field's files hold beside tensors, are plain data too."""
    kinds = [type(np.dtype(name)) for name in ("f2", "f4", "f8", "i4", "i8", "u1", "?")]
    core: Any = np._core.multiarray  # pyright: ignore[reportAttributeAccessIssue]
    plain = [np.ndarray, np.dtype, core.scalar, core._reconstruct, *kinds]
    old_names = [
        (core.scalar, "numpy.core.multiarray.scalar"),
        (core._reconstruct, "numpy.core.multiarray._reconstruct"),
    ]
    try:
        with torch.serialization.safe_globals([*plain, *old_names]):
            held = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        told = ("Unsupported global", "Unsupported class", "unrecognized function")
        if any(words in str(error) for words in told):
            raise UserError(
                f"{path} holds Python objects beside tensors, and they are not run here: save the"
                ' images and labels alone, torch.save({"images": ..., "labels": ...}, path)'
            ) from error
        raise UserError(f"the distilled set {path} is damaged: torch.load fails on it") from error
    return _arranged(held, path, index)


def _arranged(held: Any, path: Path, index: int) -> Content:
    """Names for what lies in a .pt file without any, in the layouts that the field uses."""
    if _is_array(held):
        return Content({"images": _tensor(held)}, bare=True)
    if isinstance(held, dict):
        if isinstance(held.get("data"), list | tuple):  # DC, DSA, DM: {"data": [[x, y], ...], ...}
            return _arranged(held["data"], path, index)
        tensors = {str(name): _tensor(value) for name, value in held.items() if _is_array(value)}
        return Content(tensors)
    if isinstance(held, list | tuple) and held:
        if _is_pair(held):
            return Content({"images": _tensor(held[0]), "labels": _tensor(held[1])})
        if all(_is_pair(part) for part in held):
            chosen = _arranged(held[min(index, len(held) - 1)], path, 0)
            told = f"{path.name} holds {len(held)} sets; taken is index={index}"
            notes = (told,) if len(held) > 1 else ()
            return Content(chosen.tensors, sets=len(held), notes=notes)
    raise UserError(
        f"{path} is neither a dictionary with images and labels, nor a pair of them, nor a list of"
        " such pairs, nor one tensor of images"
    )


def _is_array(value: Any) -> bool:
    return isinstance(value, Tensor | np.ndarray)


def _is_pair(value: Any) -> bool:
    """Images and their labels."""
    return (
        isinstance(value, list | tuple)
        and len(value) == 2
        and all(map(_is_array, value))
        and value[0].ndim >= 4
        and value[1].ndim <= 2
    )


def _tensor(value: "Tensor | np.ndarray[Any, Any]") -> Tensor:
    return value.detach() if isinstance(value, Tensor) else torch.from_numpy(value)


def _read_folder(folder: Path) -> Content:
    """Image files in `<folder>/<class>/`; labels number the class folders in their order, in which
    numbers count as numbers: class 2 before class 10."""
    files = sorted(
        (
            file
            for file in folder.glob("*/*")
            if file.suffix.lower() in IMAGE_SUFFIXES and not file.name.startswith(".")
        ),
        key=lambda file: (_natural(file.parent.name), _natural(file.name)),
    )
    if not files:
        raise UserError(
            f"{folder} is neither a run folder nor a folder of class folders: there are no images"
            f" ({', '.join(IMAGE_SUFFIXES)}) in <class>/"
        )
    names = list(dict.fromkeys(file.parent.name for file in files))
    images = []
    for file in files:
        path = file.relative_to(folder).as_posix()
        image = decode_image(path, str(folder), lambda p: (folder / p).read_bytes())
        if images and image.shape != images[0].shape:
            raise UserError(
                f"{folder}: {path} has shape {image.shape} (height, width, channels), the first"
                f" image {images[0].shape}; all images must be alike"
            )
        images.append(image)
    labels = torch.tensor([names.index(file.parent.name) for file in files])
    pixels = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)  # [n, C, H, W]
    return Content({"images": pixels, "labels": labels}, metadata={"class_folders": names})


def _natural(name: str) -> list[tuple[int, int, str]]:
    """A key that sorts numbers within names as numbers."""
    parts = re.findall(r"\d+|\D+", name)
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in parts]


READERS: dict[str, Callable[[Path, int], Content]] = {
    ".safetensors": _read_safetensors,
    ".npz": _read_npz,
    ".npy": _read_npy,
    ".pt": _read_torch,
    ".pth": _read_torch,
    ".h5": _read_h5,
    ".hdf5": _read_h5,
}
