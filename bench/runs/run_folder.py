"""The run store: one folder a run, written so that a kill at any moment loses nothing but time.

    results/runs/<method>-<hash>/
      config.json             the full resolved configuration, whose hash is in the folder's name,
                              and the command that made the folder
      manifest.json           versions, commit, hardware, data fingerprint, every start of the run
      metrics.jsonl           one line an outer step
      measurements.jsonl      one line a normalized variance or an accuracy of fresh networks
      checkpoint.pt           everything the run needs to go on
      progress.json           heartbeat: step, process, host (read by `bench.status`)
      log.txt                 what the run printed, when a launcher started it
      distilled.safetensors   the result, with the preprocessing that it needs
      distilled.png           the same in pixel space
      result.json             the final evaluation; written last: a run is done when it is there
      error.json              why the last start failed
      job.json                which job of which submission to a cluster makes it (`slurm`)
      takeover.json              who may work on it, where several copies of a job are alive
      anew.json               it is to be made anew (force=true), and has not begun to be
      previous/               the result before, until the new one is there

A run that is made anew keeps its result until it has another one (`rerun.py`): at every moment
result.json or previous/result.json is there, and `RunFolder.shown` is the folder that has it.

This module imports no torch at its top: `bench.status` and the analysis read runs without it.
"""

import io
import json
import os
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO

from filelock import FileLock, Timeout

from bench.config.run_config import SCHEMA_VERSION, RunConfig, run_name, values_before, written_name
from bench.runs.json_files import OF_A_RUN, REMEDIES, read_whole
from bench.system.errors import Damaged, Unwritable, UserError
from bench.system.files import atomic_write, new_folder, write_json, writing

JSON_LINES = ("metrics.jsonl", "measurements.jsonl")
PREVIOUS = "previous"


@dataclass(frozen=True)
class SmallFiles:
    """What the small JSON files of a run say at one moment.

    Attributes:
        contents: by name without ".json", of those that are there and whole.
        damages: by name, of those that are not whole, what is wrong and what to do, in a line.
        written: by name, when each was written, by the clock of the file server.
        previous: the result before, of a run that is being made anew.
    """

    contents: dict[str, dict[str, Any]] = field(default_factory=dict)
    damages: dict[str, str] = field(default_factory=dict)
    written: dict[str, float] = field(default_factory=dict)
    previous: dict[str, Any] = field(default_factory=dict)

    @property
    def done(self) -> bool:
        """Whether the run has its result, and is not to be made anew."""
        return "result" in self.contents and not {"anew"} & {*self.contents, *self.damages}


class RunFolder:
    """One run's folder. Reading never changes it; writing is atomic, or appends whole lines."""

    def __init__(self, path: Path, name: str = "") -> None:
        self.path = path
        self.name = name or path.name

    def __repr__(self) -> str:
        return f"RunFolder({self.path})"

    # --- configuration

    def create(self, config: RunConfig, command: str = "") -> None:
        """Make the folder and write the configuration, unless it is there and whole.

        Args:
            command: that makes the run and would restore a damaged configuration.

        Raises:
            Unwritable: the results folder cannot be written.
        """
        with new_folder(self.path, "results folder"):
            with suppress(Damaged):
                self.config()
                return
            self.write("config", {"schema": SCHEMA_VERSION, "command": command, **asdict(config)})

    def config(self) -> RunConfig:
        """The run's configuration, as it was written.

        Raises:
            Damaged: it is missing, or is not the one that the folder's name stands for.
            UserError: it is of another version of this program.
        """
        content = self.read("config")
        if content is None:
            raise Damaged(f"{self.path} has no config.json; {REMEDIES['config']}")
        return self._as_named(content)

    def _as_named(self, content: dict[str, Any]) -> RunConfig:
        settings = {key: value for key, value in content.items() if key != "command"}
        path = self.path / "config.json"
        if settings["schema"] != SCHEMA_VERSION:
            raise UserError(f"{path} has another schema version; start the run anew")
        if (name := written_name(settings)) != self.name:
            command = content.get("command")
            remedy = f"restored by: {command}" if command else REMEDIES["config"]
            raise Damaged(
                f"{path} was changed: it is not the configuration that the folder is named after"
                f" (that would be {name}); {remedy}"
            )
        del settings["schema"]
        try:
            return RunConfig(**{**values_before(), **settings})
        except TypeError as error:
            raise UserError(
                f"{path} is of another version ({error}); start the run anew"
            ) from error

    # --- small JSON files

    def read(self, name: str) -> dict[str, Any] | None:
        """`name`.json as a dictionary, or None where it is not (yet) there.

        Raises:
            Damaged: it cannot be read, or does not hold what it must.
        """
        return read_whole(f"{self.path}/{name}.json", OF_A_RUN[name], REMEDIES[name])

    def small_files(self) -> SmallFiles:
        """All of them, read now. Never raises: a run that cannot be read must not hide others."""
        found = SmallFiles()
        try:
            names = os.listdir(self.path)
        except (FileNotFoundError, NotADirectoryError):
            return found  # nobody has begun it
        except OSError as error:
            found.damages["config"] = f"{self.path} cannot be read: {error.strerror}"
            return found
        for name in OF_A_RUN:
            if f"{name}.json" not in names:
                continue
            try:
                if (content := self.read(name)) is None:
                    continue  # removed in this moment
                if name == "config":
                    self._as_named(content)
                found.contents[name] = content
                found.written[name] = os.stat(f"{self.path}/{name}.json").st_mtime
            except FileNotFoundError:
                continue
            except UserError as error:
                found.damages[name] = str(error)
        if "result.json" not in names and PREVIOUS in names:
            with suppress(Damaged):
                found.previous.update(self.shown.read("result") or {})
        if (found.contents or found.damages) and "config.json" not in names:
            found.damages["config"] = f"{self.path} has no config.json; {REMEDIES['config']}"
        return found

    def is_begun(self) -> bool:
        """Whether there is a folder, with a small file of a run in it or not to be looked into."""
        try:
            names = os.listdir(self.path)
            return any(f"{name}.json" in names for name in OF_A_RUN)
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError:
            return True

    def write(self, name: str, content: dict[str, Any]) -> None:
        write_json(self.path / f"{name}.json", content)

    def remove(self, *names: str) -> None:
        for name in names:
            (self.path / name).unlink(missing_ok=True)

    # --- the result, and another one in its place

    def is_done(self) -> bool:
        """Whether nothing is left to do: the run has its result, and is not to be made anew."""
        return (self.path / "result.json").exists() and not self.is_asked_anew()

    @property
    def shown(self) -> "RunFolder":
        """The folder with the run's result: this one; or, while the run is made anew, the one of
        the result before."""
        before = self.path / PREVIOUS
        made_anew = not (self.path / "result.json").exists() and (before / "result.json").exists()
        return RunFolder(before, self.name) if made_anew else self

    def has_result(self) -> bool:
        """Whether there is a result to show, this run's or that of the run before it."""
        return (self.shown.path / "result.json").exists()

    def is_asked_anew(self) -> bool:
        """Whether the run is to be made anew, and no process has begun to."""
        return (self.path / "anew.json").exists()

    def ask_anew(self) -> None:
        """Let whoever executes the run next make it anew. What is there stays until then."""
        self.write("anew", {"time": now()})
        self.remove("error.json")

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

        # Not written by torch itself, which does not say why it could not.
        content = io.BytesIO()
        torch.save(state, content)
        with atomic_write(self.path / "checkpoint.pt") as temporary:
            temporary.write_bytes(content.getbuffer())

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
    def lock(self, takeover: str = "") -> Iterator[None]:
        """Hold the run for this process. The operating system lets go of it when the process ends,
        however it ends.

        Args:
            takeover: a unique token. If one is given, the process that runs the run is told to
                leave it (its heartbeat looks), and waited for.

        Raises:
            RunIsTaken: another process holds it, or has claimed it after this one.
        """
        lock = FileLock(self.path / "lock")
        if takeover:
            self.write("takeover", {"by": takeover, "time": now()})
        try:
            while True:
                try:
                    lock.acquire(timeout=1)
                    break
                except Timeout:
                    if not takeover or self.taken_over_by() != takeover:
                        raise RunIsTaken(f"{self.name} is being run by another process") from None
        except OSError as error:
            raise Unwritable(self.path / "lock", error) from error
        try:
            yield
        finally:
            lock.release()

    def taken_over_by(self) -> str:
        """The name given to `lock` last; empty where there was none."""
        return (self.read("takeover") or {}).get("by", "")

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
        self._files: dict[str, BinaryIO] = {}
        for name in JSON_LINES:
            with writing(folder / name):
                self._files[name] = open(folder / name, "ab")  # noqa: SIM115
                self._files[name].truncate(sizes.get(name, 0))

    def append(self, name: str, record: dict[str, Any]) -> None:
        """Add a line to `name`.jsonl; others can read it at once."""
        file = self._files[f"{name}.jsonl"]
        with writing(Path(file.name)):
            file.write(json.dumps(record).encode() + b"\n")
            file.flush()

    def sync(self) -> None:
        """Force the lines to disk: a checkpoint must not know more than the records."""
        for file in self._files.values():
            with writing(Path(file.name)):
                os.fsync(file.fileno())

    def sizes(self) -> dict[str, int]:
        """The sizes of the records in bytes, for a checkpoint."""
        return {name: os.fstat(file.fileno()).st_size for name, file in self._files.items()}

    def close(self) -> None:
        for file in self._files.values():
            with suppress(OSError):  # what a full disk has not taken; the error was raised before
                file.close()


class Store:
    """All runs under one results folder."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def run(self, config: RunConfig) -> RunFolder:
        """The folder of a configuration, whether it is there or not."""
        return RunFolder(self.root / "runs" / run_name(config))

    def runs(self) -> list[RunFolder]:
        """The folders of all runs that are there, by name; also one whose configuration is not.

        Raises:
            UserError: the results folder cannot be read.
        """
        root = self.root / "runs"
        try:
            found = sorted(os.listdir(root)) if root.is_dir() else []
        except OSError as error:
            raise UserError(f"{root} cannot be read: {error.strerror}") from error
        folders = [RunFolder(root / name) for name in found if name[0] != "."]
        return [folder for folder in folders if folder.is_begun()]


def now() -> str:
    """The time as it is written in records: UTC, ISO 8601, seconds."""
    return datetime.now(UTC).isoformat(timespec="seconds")
