"""What a run writes on its way: records line by line, and the checkpoint that it resumes from.

A checkpoint states how long the records were when it was made, and their checksums. A resumed run
cuts them back to that size, so that no step is recorded twice. The checkpoint before the last one
is kept too: if the last one, or what was recorded since, is damaged, the run resumes from there.
"""

import io
import json
import os
import sys
import zipfile
import zlib
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, BinaryIO, Self

from bench.runs.run_folder import JSON_LINES, RunFolder
from bench.system.errors import UserError
from bench.system.files import atomic_write, checksum, writing

CHECKPOINT = "checkpoint.pt"
CHECKPOINT_BEFORE = "checkpoint.previous.pt"

Sums = dict[str, int]  # CRC-32 by file


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
        with ExitStack() as opened:
            for name in JSON_LINES:
                with writing(folder / name):
                    self._files[name] = opened.enter_context(open(folder / name, "ab"))
                    self._files[name].truncate(sizes.get(name, 0))
            self._sums: Sums = {name: checksum(folder / name) for name in JSON_LINES}
            opened.pop_all()

    def append(self, name: str, record: dict[str, Any]) -> None:
        """Add a line to `name`.jsonl; other processes can read it at once."""
        file, line = self._files[f"{name}.jsonl"], json.dumps(record).encode() + b"\n"
        with writing(Path(file.name)):
            file.write(line)
            file.flush()
        self._sums[f"{name}.jsonl"] = zlib.crc32(line, self._sums[f"{name}.jsonl"])

    def sync(self) -> None:
        """Force the lines to disk: a checkpoint must not be ahead of the records."""
        for file in self._files.values():
            with writing(Path(file.name)):
                os.fsync(file.fileno())

    def sizes(self) -> dict[str, int]:
        """The sizes of the records in bytes."""
        return {name: os.fstat(file.fileno()).st_size for name, file in self._files.items()}

    def extent(self) -> dict[str, Any]:
        """The sizes of the records and their checksums, for a checkpoint."""
        return {"record_sizes": self.sizes(), "record_sums": dict(self._sums)}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        for file in self._files.values():
            with suppress(OSError):  # lines that did not fit on a full disk; `append` has raised
                file.close()


def save_checkpoint(folder: Path, state: dict[str, Any]) -> None:
    """Write `state` (tensors, numbers, strings, lists, dicts) atomically, and keep the checkpoint
    before it. A kill leaves at least one of them whole."""
    import torch

    # Not written by torch itself, whose errors do not say why it failed.
    content = io.BytesIO()
    torch.save(state, content)
    with atomic_write(folder / CHECKPOINT) as temporary:
        with open(temporary, "wb") as file:
            file.write(content.getbuffer())
            file.flush()
            os.fsync(file.fileno())  # before the checkpoint until now is the second
        if (folder / CHECKPOINT).exists():
            os.replace(folder / CHECKPOINT, folder / CHECKPOINT_BEFORE)


def load_checkpoint(folder: Path) -> dict[str, Any] | None:
    """What `save_checkpoint` wrote, on the CPU, or None if there is no checkpoint. Of two, the last
    one that is intact and whose records are; a warning says why it is not the last.

    Raises:
        UserError: none is intact; checksums are compared.
    """
    errors: list[UserError] = []
    for name in (CHECKPOINT, CHECKPOINT_BEFORE):
        if not (folder / name).exists():
            continue
        try:
            state = _load(folder / name)
            _compare_records(folder, state)
        except UserError as error:
            errors.append(error)
            continue
        for error in errors:
            what = str(error).partition(";")[0]
            print(f"warning: {what}; resuming from the checkpoint before it", file=sys.stderr)
        if name == CHECKPOINT_BEFORE:  # the next one must not replace the only one that is intact
            with writing(folder / CHECKPOINT):
                os.replace(folder / name, folder / CHECKPOINT)
        return state
    if errors:
        raise errors[0]
    return None


def _load(path: Path) -> dict[str, Any]:
    import torch

    content = path.read_bytes()
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            if (damaged := archive.testzip()) is not None:
                raise zipfile.BadZipFile(f"wrong checksum in {damaged}")
        return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load raises many kinds for a damaged file
        raise UserError(
            f"the checkpoint {path} is damaged ({str(error).splitlines()[0]}); delete it and"
            f" {CHECKPOINT_BEFORE} to start this run from its beginning, or give force=true"
        ) from error


def _compare_records(folder: Path, state: dict[str, Any]) -> None:
    """Raise UserError if the records are shorter than a checkpoint states, or differ from what it
    has the checksums of (those of a version without checksums are not compared)."""
    sums = state.get("record_sums", {})
    for name, size in state.get("record_sizes", {}).items():
        path = folder / name
        if (path.stat().st_size if path.exists() else 0) < size:
            wrong = "is shorter than its checkpoint states"
        elif name in sums and checksum(path, size) != sums[name]:
            wrong = "was changed or damaged since its checkpoint was made"
        else:
            continue
        raise UserError(f"{path} {wrong}; give force=true to start over")


def has_records(folder: RunFolder) -> bool:
    """Whether the run has recorded an outer step."""
    path = folder.path / "metrics.jsonl"
    if not path.is_file():
        return (folder.path / "metrics.parquet").is_file()
    try:
        with open(path, "rb") as lines:  # a kill may have cut the only line short
            return lines.readline().endswith(b"\n")
    except OSError:
        return True  # whoever reads them says what is wrong
