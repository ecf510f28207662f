"""The folder of one anatomy, written so that a kill at any point loses one network at most.

    results/anatomy/<distilled set>-<hash>/
      settings.json    the distilled set, the windows, and the configuration that its networks are
                       trained with; the hash in the folder's name is of what determines the numbers
      manifest.json    versions, commit, hardware, data fingerprint, every start of the command
      checkpoint.pt    after each network: all records, and the sums of all gradients, from which
                       the command resumes
      checkpoint.previous.pt   the checkpoint before it, until the end
      records.jsonl    at the end: one line per network and window (`measure.Record`)
      result.json      one entry per window over all networks (`summary.py`); written last

Reading needs no torch.
"""

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench.config.identity import values_before
from bench.config.run_config import RunConfig
from bench.runs.json_files import NUMBER, Shape, read_whole, with_checksum
from bench.runs.records import CHECKPOINT, CHECKPOINT_BEFORE
from bench.system.errors import Damaged, UserError
from bench.system.files import atomic_write, checksum, remove_orphans, write_json
from bench.system.locks import locked

FOLDER = "anatomy"  # in results_root
SHAPES: dict[str, Shape] = {
    "settings": {
        "distilled": str,
        "what": str,
        "starts": list,
        "stops": list,
        "state": list,
        "config": dict,
    },
    "manifest": {"data": {"source": str, "fingerprint": str}, "threads": int, "starts": list},
    "result": {"networks": int, "windows": list, "seconds": NUMBER},
}
REMEDY = "force=true measures it again"


class AnatomyFolder:
    """One anatomy's folder. Writing is atomic."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def name(self) -> str:
        return self.path.name

    def read(self, name: str) -> dict[str, Any] | None:
        """`name`.json, or None if it does not exist (yet).

        Raises:
            Damaged: it cannot be read, or lacks what it must contain.
        """
        return read_whole(self.path / f"{name}.json", SHAPES[name], REMEDY)

    def write(self, name: str, content: dict[str, Any]) -> None:
        write_json(self.path / f"{name}.json", with_checksum(content))

    def write_finished(self, records: list[dict[str, Any]], result: dict[str, Any]) -> None:
        """The records and the result that was computed of them, which replace earlier ones."""
        path = self.path / "records.jsonl"
        (self.path / "result.json").unlink(missing_ok=True)  # it states the checksum of the former
        with atomic_write(path) as temporary:
            temporary.write_text("".join(f"{json.dumps(record)}\n" for record in records))
        self.write("result", {**result, "records_sum": checksum(path)})

    def config(self) -> RunConfig:
        """The configuration that the networks were trained with.

        Raises:
            UserError: it is missing, damaged or of another version.
        """
        settings = self.read("settings")
        if settings is None:
            raise Damaged(f"{self.path} has no settings.json; {REMEDY}")
        try:
            return RunConfig(**{**values_before(), **settings["config"]})
        except TypeError as error:
            raise UserError(
                f"{self.path}/settings.json is of another version ({error}); {REMEDY}"
            ) from error

    def records(self) -> list[dict[str, Any]]:
        """One per network and window; of published records, the part that is drawn.

        Raises:
            Damaged: the file is missing, no JSON, or not what the result was computed of.
        """
        if (published := self.path / "records.parquet").is_file():
            from pandas import read_parquet

            return [
                {str(k): v for k, v in r.items()}
                for r in read_parquet(published).to_dict("records")
            ]
        path = self.path / "records.jsonl"
        stated = (self.read("result") or {}).get("records_sum")
        if stated not in (None, checksum(path)):
            raise Damaged(f"{path} was changed or damaged; {REMEDY}")
        try:
            return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        except (OSError, ValueError) as error:
            raise Damaged(f"{path} cannot be read ({error}); {REMEDY}") from error

    def clear(self) -> None:
        """Remove what was measured."""
        made = ("result.json", "records.jsonl", CHECKPOINT, CHECKPOINT_BEFORE, "manifest.json")
        for name in made:
            (self.path / name).unlink(missing_ok=True)

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Lock the folder for this process.

        Raises:
            UserError: another process has it.
        """
        with locked(self.path / "lock", f"{self.name} is being measured by another process"):
            remove_orphans(self.path)
            yield


def named(stem: str, determining: dict[str, Any]) -> str:
    """The name of the folder of an anatomy.

    Args:
        determining: everything that its numbers depend on.
    """
    text = json.dumps(determining, sort_keys=True)
    return f"{stem}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"


def finished_anatomies(root: Path) -> list[AnatomyFolder]:
    """The anatomies under a results folder that have a result, by name.

    Raises:
        UserError: the folder cannot be read.
    """
    folder = root / FOLDER
    try:
        names = sorted(os.listdir(folder)) if folder.is_dir() else []
    except OSError as error:
        raise UserError(f"{folder} cannot be read: {error.strerror}") from error
    return [
        AnatomyFolder(folder / name) for name in names if (folder / name / "result.json").exists()
    ]
