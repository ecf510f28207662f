"""The folders of runs, written so that a kill at any point loses nothing but time.

    results/runs/<method>-<hash>/
      config.json             the full resolved configuration, whose hash is in the folder's name,
                              and the command that made the folder
      manifest.json           versions, commit, hardware, data fingerprint, every start of the run
      metrics.jsonl           one line per outer step
      measurements.jsonl      one line per variance over samples or accuracy of fresh networks
      checkpoint.pt           everything that the run needs to resume
      checkpoint.previous.pt  the same of the checkpoint before it, until the run is finished
      progress.json           heartbeat: step, process, host (read by `bench.status`)
      log.txt                 what the run printed, if a launcher started it
      distilled.safetensors   the distilled set, with its preprocessing
      distilled.png           the distilled set in pixel space
      result.json             the final evaluation; written last, so a run that has it is done
      error.json              why the last start failed
      job.json                the cluster job that runs it, and its submission (`slurm`)
      takeover.json           the token of the process that may run it, if several try
      anew.json               a rerun was requested (force=true) and has not started
      previous/               the previous result, until the rerun has a new one

A rerun keeps the previous result until it has a new one (`rerun.py`): at any time result.json or
previous/result.json exists, and `RunFolder.with_result` is the folder that has it.

Reading needs no torch: `bench.status` and the analysis do without it.
"""

import json
import os
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench.config.identity import run_name
from bench.config.run_config import RunConfig
from bench.runs.configuration import as_written, read_config
from bench.runs.json_files import OF_A_RUN, REMEDIES, SmallFiles, read_whole, with_checksum
from bench.system.errors import Damaged, UserError
from bench.system.files import checksum, new_folder, write_json

PREVIOUS = "previous"
SET_FILE, PICTURE = "distilled.safetensors", "distilled.png"
JSON_LINES = ("metrics.jsonl", "measurements.jsonl")
# Have a checksum; the name of the folder is config's.
CHECKED = ("manifest", "evaluations", "result")


def name_of(distilled: str) -> str:
    """The name of a distilled set's run, or of its file, of the path that was typed."""
    path = Path(distilled)
    name = path.parent.name if path.name == SET_FILE else path.name
    return name or distilled


class RunFolder:
    """One run's folder. Reading never changes it; writing is atomic, or appends whole lines."""

    def __init__(self, path: Path, name: str = "") -> None:
        self.path = path
        self.name = name or path.name
        self.shown = str(path)  # in commands that name the run

    def __repr__(self) -> str:
        return f"RunFolder({self.path})"

    # --- configuration

    def create(self, config: RunConfig, command: str = "") -> None:
        """Make the folder and write the configuration, unless it is there and intact.

        Args:
            command: starts the run, and would restore a damaged configuration.

        Raises:
            Unwritable: the results folder cannot be written.
        """
        with new_folder(self.path, "results folder"):
            with suppress(Damaged):
                self.config()
                return
            self.write("config", {"command": command, **as_written(config)})

    def config(self) -> RunConfig:
        """The run's configuration, as it was written.

        Raises:
            Damaged: it is missing, or is not the one that the folder is named after.
            UserError: it was written by another version of this program.
        """
        content = self.read("config")
        if content is None:
            raise Damaged(f"{self.path} has no config.json; {REMEDIES['config']}")
        return self._as_named(content)

    def _as_named(self, content: dict[str, Any]) -> RunConfig:
        command = content.get("command")
        remedy = f"restored by: {command}" if command else REMEDIES["config"]
        return read_config(content, self.name, f"{self.path / 'config.json'}", remedy)

    # --- small JSON files

    def read(self, name: str) -> dict[str, Any] | None:
        """`name`.json as a dictionary, or None if it does not exist (yet).

        Raises:
            Damaged: it cannot be read, or lacks what it must contain.
        """
        return read_whole(f"{self.path}/{name}.json", OF_A_RUN[name], REMEDIES[name])

    def compare(self, *names: str) -> None:
        """Raise Damaged if a file of the finished run (one of `names`, by default any) differs from
        what the result states the checksum of, or is among the records and missing; a distilled
        set may have been removed. Results made before there were checksums state none.
        """
        stated = (self.read("result") or {}).get("checksums") or {}
        for name in [name for name in names or stated if name in stated]:
            path = self.path / name
            try:
                found = checksum(path)
            except OSError as error:  # it is unreadable, or a folder
                raise Damaged(f"{path} cannot be read: {error.strerror}") from error
            if not path.exists() and name in JSON_LINES:
                wrong = "is missing"
            elif path.exists() and found != stated[name]:
                wrong = "was changed or damaged after the run had finished"
            else:
                continue
            raise Damaged(f"{path} {wrong}; restore it, or make the run again with force=true")

    def small_files(self) -> SmallFiles:
        """Read all of them. Never raises: a run that cannot be read must not hide other runs."""
        files = SmallFiles()
        try:
            names = os.listdir(self.path)
        except (FileNotFoundError, NotADirectoryError):
            return files  # not started
        except OSError as error:
            files.damages["config"] = f"{self.path} cannot be read: {error.strerror}"
            return files
        for name in OF_A_RUN:
            if f"{name}.json" not in names:
                continue
            try:
                if (content := self.read(name)) is None:
                    continue  # removed just now
                if name == "config":
                    self._as_named(content)
                files.contents[name] = content
                files.written[name] = os.stat(f"{self.path}/{name}.json").st_mtime
            except FileNotFoundError:
                continue
            except UserError as error:
                files.damages[name] = str(error)
            except OSError as error:
                files.damages[name] = f"{self.path}/{name}.json cannot be read: {error.strerror}"
        if "result.json" not in names and PREVIOUS in names:
            with suppress(Damaged):
                files.previous.update(self.with_result.read("result") or {})
        if (files.contents or files.damages) and "config.json" not in names:
            files.damages["config"] = f"{self.path} has no config.json; {REMEDIES['config']}"
        return files

    def is_started(self) -> bool:
        """Whether the folder exists and contains a small file of a run, or cannot be listed."""
        try:
            names = os.listdir(self.path)
            return any(f"{name}.json" in names for name in OF_A_RUN)
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError:
            return True

    def write(self, name: str, content: dict[str, Any]) -> None:
        if name in CHECKED:
            content = with_checksum(content)
        write_json(self.path / f"{name}.json", content)

    def remove(self, *names: str) -> None:
        for name in names:
            (self.path / name).unlink(missing_ok=True)

    # --- the result and its rerun

    def is_done(self) -> bool:
        """Whether the run has its result, and no rerun was requested."""
        return (self.path / "result.json").exists() and not self.is_rerun_requested()

    @property
    def with_result(self) -> "RunFolder":
        """The folder with the run's result: this one or, during a rerun, that of the previous
        result."""
        previous = self.path / PREVIOUS
        is_rerun = not (self.path / "result.json").exists() and (previous / "result.json").exists()
        return RunFolder(previous, self.name) if is_rerun else self

    def has_result(self) -> bool:
        """Whether there is a result to show, the new or the previous one."""
        return (self.with_result.path / "result.json").exists()

    def is_rerun_requested(self) -> bool:
        """Whether a rerun was requested and has not started."""
        return (self.path / "anew.json").exists()

    def request_rerun(self) -> None:
        """Request a rerun, which the next process that executes the run starts. Until then all
        files stay."""
        self.write("anew", {"time": now()})
        self.remove("error.json")

    # --- records

    def records(self, name: str) -> list[dict[str, Any]]:
        """The lines of metrics.jsonl ("metrics") or measurements.jsonl ("measurements"), without a
        last line that a kill cut short."""
        path = self.path / f"{name}.jsonl"
        if not path.exists():
            return []
        *lines, _unfinished = path.read_bytes().split(b"\n")
        return [json.loads(line) for line in lines]

    # --- takeovers

    def taken_over_by(self) -> str:
        """The last token given to `run_lock.lock`; empty if there was none."""
        return (self.read("takeover") or {}).get("by", "")


class Store:
    """All runs under one results folder."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def run(self, config: RunConfig) -> RunFolder:
        """The folder of a configuration, which need not exist."""
        return RunFolder(self.root / "runs" / run_name(config))

    def runs(self) -> list[RunFolder]:
        """All existing run folders, by name, including those without a configuration.

        Raises:
            UserError: the results folder cannot be read.
        """
        root = self.root / "runs"
        try:
            names = sorted(os.listdir(root)) if root.is_dir() else []
        except OSError as error:
            raise UserError(f"{root} cannot be read: {error.strerror}") from error
        folders = [RunFolder(root / name) for name in names if name[0] != "."]
        return [folder for folder in folders if folder.is_started()]


def now() -> str:
    """The current time as recorded: UTC, ISO 8601, in seconds."""
    return datetime.now(UTC).isoformat(timespec="seconds")
