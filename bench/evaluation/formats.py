"""Read a file or folder of any supported format into named tensors.

What the numbers mean is decided elsewhere: `distilled_set.py` finds images and labels,
`interpretation.py` interprets them.
"""

import argparse
import json
import os
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.torch
import torch

from bench.config.values import shown
from bench.evaluation.image_folder import read_folder
from bench.evaluation.pixel_ranges import SPACES
from bench.evaluation.structures import Content, as_tensor, content_of
from bench.system.errors import UserError

INSTALL_H5PY = "pip install -e '.[formats]'"
# What is read of the description in one of our files.
STATED = {"config": dict, "space": str, "fingerprint": str, "zca": bool, "zca_lambda": int | float}
OBJECTS = "Python objects, which are not loaded"


def read_content(path: Path, index: int = -1) -> Content:
    """Read a .safetensors, .npz, .npy, .pt, .pth, .h5 or .hdf5 file, or a folder of class folders.

    Args:
        index: which set of a file with several (a list of pairs of images and labels); -1: the
            first.

    Raises:
        UserError: missing, damaged, of another format, no such index, or h5py is not installed.
    """
    if path.is_dir():
        content = read_folder(path)
    elif not path.is_file():
        raise UserError(f"there is no distilled set at {path}")
    elif reader := READERS.get(path.suffix.lower()):
        try:
            content = reader(path, index)
        except UserError:
            raise
        except Exception as error:  # every format raises other errors for a damaged file
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise UserError(f"the distilled set {path} is damaged: {reason}") from error
    else:
        raise UserError(
            f"{path}: a distilled set is a file of {', '.join(READERS)}, or a folder of class"
            " folders of images"
        )
    if index >= content.sets:
        raise UserError(f"index={index}: {path} holds {content.sets} set(s), counted from 0")
    return content


def _read_safetensors(path: Path, index: int) -> Content:
    with safetensors.safe_open(path, framework="pt") as file:
        header = file.metadata() or {}
    metadata = _stated(json.loads(header.get("distilled_set", "{}")))
    return Content(safetensors.torch.load_file(path), metadata=metadata)


def _stated(metadata: Any) -> dict[str, Any]:
    """What one of our files states.

    Raises:
        ValueError: it is not what a file of ours states.
    """
    if not isinstance(metadata, dict):
        raise ValueError("its description is not a mapping")
    for key, kind in STATED.items():
        if not isinstance(metadata.get(key, None), kind | None):
            raise ValueError(f"it states {key}={shown(metadata[key])}")
    if metadata.get("space") not in (None, *SPACES):
        raise ValueError(f"it states space={shown(metadata['space'])}")
    # Only a folder, or a file with an entry for each class, has these.
    return {k: v for k, v in metadata.items() if k not in ("class_folders", "class_entries")}


def _read_npz(path: Path, index: int) -> Content:
    arrays = {}
    with np.load(path, allow_pickle=False) as file:
        for name in file.files:
            arrays[name] = _unless_objects(lambda name=name: file[name])
    return _named(arrays)


def _read_npy(path: Path, index: int) -> Content:
    array = _unless_objects(lambda: np.load(path, allow_pickle=False))
    if (tensor := as_tensor(array)) is None:
        raise UserError(
            f"{path} holds {_kind(array)}, not an array of numbers: save the images alone,"
            " np.save(path, images), or np.savez(path, images=..., labels=...)"
        )
    return Content({"images": tensor}, bare=True)


def _unless_objects(load: Callable[[], Any]) -> Any:
    """The array that `load` returns; None if it holds Python objects."""
    try:
        return load()
    except ValueError as error:
        if "allow_pickle" in str(error):
            return None
        raise


def _kind(array: Any) -> str:
    """What an array without numbers holds."""
    return "text" if array is not None and array.dtype.kind in "SUT" else OBJECTS


def _named(arrays: dict[str, Any]) -> Content:
    """Arrays by name; those without numbers are set aside."""
    converted = {name: as_tensor(array) for name, array in arrays.items()}
    tensors = {name: tensor for name, tensor in converted.items() if tensor is not None}
    aside = {name: _kind(arrays[name]) for name, tensor in converted.items() if tensor is None}
    return Content(tensors, aside)


def _read_h5(path: Path, index: int) -> Content:
    try:
        import h5py  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise UserError(f"{path}: reading it needs h5py: {INSTALL_H5PY}") from error
    arrays: dict[str, Any] = {}

    def note(name: str | bytes, item: Any) -> None:
        name = os.fsdecode(name)  # h5py gives bytes where a name is no UTF-8
        if isinstance(item, h5py.Dataset):
            is_text = h5py.check_string_dtype(item.dtype) is not None
            arrays[name] = np.array("") if is_text else np.asarray(item[()])

    with h5py.File(path, "r") as file:
        file.visititems(note)
    return _named(arrays)


def _read_torch(path: Path, index: int) -> Content:
    """Read a file of `torch.save` without running its code (`weights_only=True`). Besides tensors,
    numpy arrays, numbers and parsed arguments are allowed, which published files hold."""
    names = ("?", *(f"{kind}{size}" for kind in "iu" for size in (1, 2, 4, 8)))
    kinds = [type(np.dtype(name)) for name in (*names, "f2", "f4", "f8", "g", "U1", "S1")]
    core: Any = np._core.multiarray  # pyright: ignore[reportAttributeAccessIssue]
    plain = [np.ndarray, np.dtype, core.scalar, core._reconstruct, argparse.Namespace, *kinds]
    old_names = [
        (core.scalar, "numpy.core.multiarray.scalar"),
        (core._reconstruct, "numpy.core.multiarray._reconstruct"),
    ]
    try:
        with torch.serialization.safe_globals([*plain, *old_names]), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that checking sparse tensors takes time
            held = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        objects = ("Unsupported global", "Unsupported class", "unrecognized function")
        if any(words in str(error) for words in objects):
            named = re.search(r"GLOBAL ([\w.]+)", str(error))
            which = f" ({named[1]})" if named else ""
            raise UserError(
                f"{path} holds Python objects besides tensors{which}, which are not loaded:"
                ' save the images and labels alone, torch.save({"images": ..., "labels": ...},'
                " path)"
            ) from error
        raise UserError(f"the distilled set {path} is damaged: torch.load fails on it") from error
    if (content := content_of(held, path.name, index)) is None:
        raise UserError(
            f"{path} is neither a dictionary with images and labels, nor a pair of them, nor a list"
            " of such pairs, nor one tensor of images, nor a list of one for each class"
        )
    return content


READERS: dict[str, Callable[[Path, int], Content]] = {
    ".safetensors": _read_safetensors,
    ".npz": _read_npz,
    ".npy": _read_npy,
    ".pt": _read_torch,
    ".pth": _read_torch,
    ".h5": _read_h5,
    ".hdf5": _read_h5,
}
