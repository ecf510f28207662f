"""Tensors cached on disk with a checksum; a damaged cache file is rebuilt.

The files are memory-mapped, so that several processes on one machine share one copy in memory.
"""

import json
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from bench.system.errors import UserError
from bench.system.files import atomic_write, make_folder
from bench.system.locks import locked


@dataclass(frozen=True, eq=False)
class Stored:
    """Named tensors with facts about them, which JSON can hold."""

    tensors: dict[str, Tensor]
    facts: dict[str, Any] = field(default_factory=dict)


def load_or_build(path: Path, build: Callable[[], Stored]) -> Stored:
    """The content of the cache file `path`, built and written if it is missing or damaged.

    Concurrent processes wait for the first to build it. A complete cache needs no write permission.
    `path` must identify the content: a change of `build` is not detected.

    Raises:
        UserError: the folder cannot be written, or what was written does not read back.
    """
    stored = load(path)
    if stored is not None:
        return stored
    folder = make_folder(path.parent, "cache folder")
    lock = path.with_name(path.name + ".lock")
    with locked(lock, f"another process is preparing {path.name}", wait=True, quiet=True):
        stored = load(path)  # another process may have built it meanwhile
        if stored is not None:
            return stored
        content = build()
        try:
            for orphan in folder.glob(f".{path.name}.*"):
                orphan.unlink()  # of a killed writer: the lock excludes a living one
            save(path, content)
        except (OSError, SafetensorError) as error:
            raise UserError(f"cannot write into the cache folder {folder}: {error}") from error
    stored = load(path)
    if stored is None:
        raise UserError(f"{path} was written but does not read back; check the disk it lies on")
    return stored


def rows(path: Path, name: str, indices: Sequence[int]) -> list[Tensor]:
    """Some rows of a tensor in a cache file, read without the others. Their checksum is not
    compared: `load_or_build` has to have returned the file's content before."""
    with safe_open(path, framework="pt") as file:
        part = file.get_slice(name)
        return [part[index] for index in indices]


def facts(path: Path) -> dict[str, Any]:
    """The facts in a cache file, read without its tensors; likewise."""
    with safe_open(path, framework="pt") as file:
        return json.loads(file.metadata()["facts"])


def save(path: Path, stored: Stored) -> None:
    """Write tensors and facts with a checksum over all of them, atomically."""
    facts = json.dumps(stored.facts, sort_keys=True)
    header = {"facts": facts, "checksum": _checksum(stored.tensors, facts)}
    with atomic_write(path) as temporary:
        save_file(stored.tensors, temporary, metadata=header)


def load(path: Path) -> Stored | None:
    """Tensors mapped from `path`, or None where the file is missing, incomplete or damaged."""
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        facts = header.get("facts", "")
        if header.get("checksum") != _checksum(tensors, facts):
            return None
        return Stored(tensors, json.loads(facts))
    except (OSError, SafetensorError, ValueError):
        return None


def _checksum(tensors: dict[str, Tensor], facts: str) -> str:
    """CRC-32 over facts, names, types, shapes and bytes: against damage, not against malice."""
    checksum = zlib.crc32(facts.encode())
    for name, tensor in sorted(tensors.items()):
        described = f"{name} {tensor.dtype} {tuple(tensor.shape)}"
        checksum = zlib.crc32(described.encode(), checksum)
        flat = tensor.contiguous().reshape(-1).view(torch.uint8)
        checksum = zlib.crc32(flat.numpy().data, checksum)
    return f"{checksum:08x}"
