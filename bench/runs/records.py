"""What a run writes on its way: records line by line, and the checkpoint that it resumes from.

A checkpoint states how long the records were when it was made. A resumed run cuts them back to that
size, so that no step is recorded twice.
"""

import io
import json
import os
import zipfile
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO, Self

from bench.system.errors import UserError
from bench.system.files import atomic_write, writing

JSON_LINES = ("metrics.jsonl", "measurements.jsonl")
CHECKPOINT = "checkpoint.pt"


class Recorder:
    """Appends lines to a run's records, until the `with` block ends.

    Args:
        folder: of the run.
        sizes: bytes of each file at the checkpoint; the files are cut back to that.

    Raises:
        UserError: a file is shorter than the checkpoint states.
        Unwritable: a file cannot be written; from `append` and `sync` too.
    """

    def __init__(self, folder: Path, sizes: dict[str, int]) -> None:
        for name in JSON_LINES:
            path = folder / name
            if (path.stat().st_size if path.exists() else 0) < sizes.get(name, 0):
                raise UserError(
                    f"{path} is shorter than its checkpoint states; give force=true to start over"
                )
        self._files: dict[str, BinaryIO] = {}
        for name in JSON_LINES:
            with writing(folder / name):
                self._files[name] = open(folder / name, "ab")  # noqa: SIM115
                self._files[name].truncate(sizes.get(name, 0))

    def append(self, name: str, record: dict[str, Any]) -> None:
        """Add a line to `name`.jsonl; other processes can read it at once."""
        file = self._files[f"{name}.jsonl"]
        with writing(Path(file.name)):
            file.write(json.dumps(record).encode() + b"\n")
            file.flush()

    def sync(self) -> None:
        """Force the lines to disk: a checkpoint must not be ahead of the records."""
        for file in self._files.values():
            with writing(Path(file.name)):
                os.fsync(file.fileno())

    def sizes(self) -> dict[str, int]:
        """The sizes of the records in bytes, for a checkpoint."""
        return {name: os.fstat(file.fileno()).st_size for name, file in self._files.items()}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        for file in self._files.values():
            with suppress(OSError):  # lines that did not fit on a full disk; `append` has raised
                file.close()


def save_checkpoint(folder: Path, state: dict[str, Any]) -> None:
    """Write `state` (tensors, numbers, strings, lists, dicts) atomically."""
    import torch

    # Not written by torch itself, whose errors do not say why it failed.
    content = io.BytesIO()
    torch.save(state, content)
    with atomic_write(folder / CHECKPOINT) as temporary:
        temporary.write_bytes(content.getbuffer())


def load_checkpoint(folder: Path) -> dict[str, Any] | None:
    """What `save_checkpoint` wrote, on the CPU, or None if there is no checkpoint.

    Raises:
        UserError: the file is damaged; its checksums are compared.
    """
    import torch

    path = folder / CHECKPOINT
    if not path.exists():
        return None
    content = path.read_bytes()
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            if (damaged := archive.testzip()) is not None:
                raise zipfile.BadZipFile(f"wrong checksum in {damaged}")
        return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load raises many kinds for a damaged file
        raise UserError(
            f"the checkpoint {path} is damaged ({str(error).splitlines()[0]}); delete it to start"
            " this run from its beginning, or give force=true"
        ) from error
