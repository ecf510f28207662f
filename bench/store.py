"""The run store: one folder a run, written so that a kill at any moment loses nothing but time.

    results/runs/<method>-<hash>/
      config.json             the full resolved configuration; its hash is in the folder's name
      manifest.json           versions, commit, hardware, data fingerprint, every start of the run
      metrics.jsonl           one line an outer step
      measurements.jsonl      one line a normalised variance or an accuracy of fresh networks
      checkpoint.pt           everything the run needs to go on
      progress.json           heartbeat: step, process, host (read by `bench.status`)
      log.txt                 what the run printed, when a launcher started it
      distilled.safetensors   the result, with the preprocessing that it needs
      distilled.png           the same in pixel space
      result.json             the final evaluation; written last: a run is done when it is there
      error.json              why the last start failed
      job.json                which job of which submission to a cluster makes it (`slurm`)
      claim.json              who may work on it, where several copies of a job are alive

This module imports no torch at its top: `bench.status` and the analysis read runs without it.
"""

import io
import json
import os
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from bench.config import SCHEMA_VERSION, RunConfig, run_name
from bench.errors import UserError
from bench.files import atomic_write, make_folder, read_json, write_json
from bench.resolving import resolve

JSON_LINES = ("metrics.jsonl", "measurements.jsonl")


class RunFolder:
    """One run's folder. Reading never changes it; writing is atomic, or appends whole lines."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.name = path.name

    def __repr__(self) -> str:
        return f"RunFolder({self.path})"

    # --- configuration

    def create(self, config: RunConfig) -> None:
        """Make the folder and write the configuration, unless it is there.

        Raises:
            UserError: the results folder cannot be written.
        """
        make_folder(self.path, "results folder")
        if not (self.path / "config.json").exists():
            write_json(self.path / "config.json", {"schema": SCHEMA_VERSION, **asdict(config)})

    def config(self) -> RunConfig:
        """The run's configuration.

        Raises:
            UserError: it is missing, damaged, or of another schema version.
        """
        content = read_json(self.path / "config.json")
        if content is None:
            raise UserError(f"{self.path} is no run folder: it has no config.json")
        if content.pop("schema", None) != SCHEMA_VERSION:
            raise UserError(
                f"{self.path}/config.json has another schema version; start the run anew"
            )
        return resolve(content)

    # --- small JSON files

    def read(self, name: str) -> dict[str, Any] | None:
        """`name`.json as a dictionary, or None where it is not (yet) there."""
        return read_json(self.path / f"{name}.json")

    def write(self, name: str, content: dict[str, Any]) -> None:
        write_json(self.path / f"{name}.json", content)

    def remove(self, *names: str) -> None:
        for name in names:
            (self.path / name).unlink(missing_ok=True)

    def clear(self) -> None:
        """Forget everything but the configuration, so that the run starts anew."""
        for entry in self.path.iterdir():
            if entry.name not in ("config.json", "lock"):
                entry.unlink()

    # --- records

    def records(self, name: str) -> list[dict[str, Any]]:
        """The lines of metrics.jsonl ("metrics") or measurements.jsonl ("measurements"); a last
        line that a kill cut short is left out."""
        path = self.path / f"{name}.jsonl"
        if not path.exists():
            return []
        *lines, _unfinished = path.read_bytes().split(b"\n")
        return [json.loads(line) for line in lines]

    @contextmanager
    def recorder(self, sizes: dict[str, int]) -> Iterator["Recorder"]:
        """Open the records for appending, cut back to the sizes that the checkpoint states."""
        recorder = Recorder(self.path, sizes)
        try:
            yield recorder
        finally:
            recorder.close()

    # --- checkpoint

    def save_checkpoint(self, state: dict[str, Any]) -> None:
        """Write `state` (tensors, numbers, strings, lists, dicts) atomically."""
        import torch

        with atomic_write(self.path / "checkpoint.pt") as temporary:
            torch.save(state, temporary)

    def load_checkpoint(self) -> dict[str, Any] | None:
        """What `save_checkpoint` wrote, on the CPU, or None where there is none.

        Raises:
            UserError: the file is damaged: its checksums are compared before it is believed.
        """
        import torch

        path = self.path / "checkpoint.pt"
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
                f"the checkpoint {path} is damaged ({str(error).splitlines()[0]}); delete it to"
                " start this run from its beginning, or give force=true"
            ) from error

    # --- who is at work

    @contextmanager
    def lock(self, claim: str = "") -> Iterator[None]:
        """Hold the run for this process. The operating system lets go of it when the process ends,
        however it ends.

        Args:
            claim: a name, unlike all others. Where one is given, whoever holds the run is told to
                leave it (its heartbeat looks), and waited for.

        Raises:
            RunIsTaken: another process holds it, or has claimed it after this one.
        """
        lock = FileLock(self.path / "lock")
        if claim:
            self.write("claim", {"by": claim, "time": now()})
        try:
            while True:
                try:
                    lock.acquire(timeout=1)
                    break
                except Timeout:
                    if not claim or self.claimed_by() != claim:
                        raise RunIsTaken(f"{self.name} is being run by another process") from None
        except OSError as error:
            raise UserError(f"{self.path} cannot be locked: {error.strerror}") from error
        try:
            yield
        finally:
            lock.release()

    def claimed_by(self) -> str:
        """The name given to `lock` last; empty where there was none."""
        return (self.read("claim") or {}).get("by", "")

    def is_taken(self) -> bool:
        """Whether a process holds the lock right now. Only launchers ask: asking takes the lock for
        an instant, for which `lock` has a second of patience."""
        lock = FileLock(self.path / "lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            return True
        lock.release()
        return False


class RunIsTaken(UserError):
    """Another process is at work on the run."""


class Recorder:
    """Appends lines to a run's records.

    A checkpoint states how long the records were when it was made; a resumed run cuts them back to
    that, so that no step stands in them twice.
    """

    def __init__(self, folder: Path, sizes: dict[str, int]) -> None:
        for name in JSON_LINES:
            path = folder / name
            if (path.stat().st_size if path.exists() else 0) < sizes.get(name, 0):
                raise UserError(
                    f"{path} is shorter than its checkpoint says; force=true starts the run anew"
                )
        self._files = {name: open(folder / name, "ab") for name in JSON_LINES}  # noqa: SIM115
        for name, file in self._files.items():
            file.truncate(sizes.get(name, 0))

    def append(self, name: str, record: dict[str, Any]) -> None:
        """Add a line to `name`.jsonl; others can read it at once."""
        file = self._files[f"{name}.jsonl"]
        file.write(json.dumps(record).encode() + b"\n")
        file.flush()

    def sync(self) -> None:
        """Force the lines to disk: a checkpoint must not know more than the records."""
        for file in self._files.values():
            os.fsync(file.fileno())

    def sizes(self) -> dict[str, int]:
        """The sizes of the records in bytes, for a checkpoint."""
        return {name: os.fstat(file.fileno()).st_size for name, file in self._files.items()}

    def close(self) -> None:
        for file in self._files.values():
            file.close()


class Store:
    """All runs under one results folder."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def run(self, config: RunConfig) -> RunFolder:
        """The folder of a configuration, whether it is there or not."""
        return RunFolder(self.root / "runs" / run_name(config))

    def runs(self) -> list[RunFolder]:
        """The folders of all runs that are there, by name.

        Raises:
            UserError: the results folder cannot be read.
        """
        try:
            found = sorted(self.root.glob("runs/*/config.json"))
        except OSError as error:
            raise UserError(f"{self.root} cannot be read: {error.strerror}") from error
        return [RunFolder(path.parent) for path in found]


def now() -> str:
    """The time as it is written in records: UTC, ISO 8601, seconds."""
    return datetime.now(UTC).isoformat(timespec="seconds")
