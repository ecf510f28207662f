"""The folder of a lab: what lies where, who may change it, what its logs say."""

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock

from bench.system.errors import UserError
from bench.system.files import make_folder, write_json

# A unix socket's path has at most 107 characters, and SLURM adds /spool/node10/node10_JOB.STEP.
LONGEST_FOLDER = 60


class LabFolder:
    """Where a lab keeps its files; nothing else may lie there."""

    PARTS = ("etc", "munge", "state", "spool", "log", "dev")

    def __init__(self, path: Path) -> None:
        """Raises: UserError: SLURM could not work with such a path."""
        self.path = path.expanduser().resolve()
        if not re.fullmatch(r"[\w./+-]+", str(self.path), re.ASCII):
            raise UserError(
                f"folder={self.path}: SLURM's files allow letters, digits, . _ - + only"
            )
        if len(str(self.path)) > LONGEST_FOLDER:
            raise UserError(
                f"folder={self.path} is too long: sockets below it need a path of at most"
                f" {LONGEST_FOLDER} characters"
            )
        self.records = self.path / "records"
        self.shape = self.path / "lab.json"
        self.slurm_conf = self.path / "etc" / "slurm.conf"
        self.munge = self.path / "munge"
        self.spool = self.path / "spool"
        self.log = self.path / "log"

    def nodes(self) -> list[str]:
        """The nodes that the lab has, or had."""
        return sorted(path.name for path in self.spool.glob("*/"))

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Held by whoever starts or stops the lab.

        Raises:
            UserError: the folder holds something that is not a lab's, or cannot be written.
        """
        make_folder(self.path, "lab's folder")
        # Looked at in this order, a lab that is being made at this moment is one: lab.json is its
        # first file after the lock.
        names = {path.name for path in self.path.iterdir()} - {"lock"}
        others = [name for name in names if not name.startswith(f".{self.shape.name}.")]
        if others and not self.shape.exists():
            raise UserError(f"folder={self.path} is not empty and is no lab's")
        with FileLock(self.path / "lock"):
            yield

    def make_afresh(self, shape: dict[str, int]) -> None:
        """Note the lab's shape and remove what an earlier lab left."""
        write_json(self.shape, shape)
        for part in self.PARTS:
            shutil.rmtree(self.path / part, ignore_errors=True)
            (self.path / part).mkdir()
        self.records.mkdir()

    def last_word(self, name: str) -> str:
        """The last error in a daemon's logs, or their last line."""
        lines: list[str] = []
        for log in (self.log / f"{name}.log", self.log / f"{name}.early"):
            with suppress(FileNotFoundError):
                lines += log.read_text(errors="replace").splitlines()
        grave = [line for line in lines if "fatal" in line or "rror" in line]
        return (grave or lines or [f"see {self.log}"])[-1]

    def tails(self, lines: int) -> str:
        """The ends of all logs."""
        told = []
        for path in sorted(self.log.glob("*")):
            if path.suffix == ".early" and path.with_suffix(".log").exists():
                continue  # the same, without the time
            end = path.read_text(errors="replace").splitlines()[-lines:]
            told.append("\n".join([f"==> {path.name}", *end, ""]))
        return "\n".join(told)
