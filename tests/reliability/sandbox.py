"""A folder in which a command gets bad input, and what is wrong with how the command ends."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.conftest import REPOSITORY

LONGEST_LINE = 1500

# The settings that name what a command may write.
PLACES = ("results_root", "cache_root", "output", "published", "data_root")


@dataclass(frozen=True)
class Outcome:
    """How a command ended.

    Attributes:
        status: its exit status; negative if a signal ended it.
        beside: the paths that it changed, or tried to change, beside the cache and the places that
            its settings name.
    """

    arguments: Sequence[str]
    status: int
    out: str
    err: str
    beside: Sequence[str]

    def faults(self, allowed: Iterable[int] = (0, 2)) -> list[str]:
        """What is wrong with it: the command must be done (status 0) or end with one line (2)."""
        faults = [f"touched {path}" for path in self.beside]
        lines = self.err.splitlines()
        errors = [line for line in lines if not line.startswith("note: ")]
        if "Traceback" in self.err + self.out:
            faults.append("traceback")
        elif self.status not in allowed:
            faults.append(f"exit status {self.status}")
        elif self.status and (len(errors) != 1 or lines[-1] != errors[0]):
            faults.append(f"{len(errors)} lines")
        elif self.status == 2 and not errors[0].startswith("error: "):
            faults.append("no error")
        if self.status == 0 and any("error:" in line or "Warning" in line for line in lines):
            faults.append("done, with an error")
        if repeated := {line for line in lines if lines.count(line) > 1}:
            faults.append(f"said twice: {repeated}")
        if self.status == 2 and errors and errors[-1].removeprefix("error: ") in self.out:
            faults.append("said in the output too")
        if any(len(line) > LONGEST_LINE for line in lines):
            faults.append(f"a line of {max(map(len, lines))} characters")
        if not all(line.isprintable() for line in lines):
            faults.append("control characters")
        return faults

    def __str__(self) -> str:
        return f"{self.arguments!r}\n{self.status}\n{self.out[-1500:]}\n{self.err[-3000:]}"


class Sandbox:
    """Runs commands in a folder of their own; `case_server.py` describes it.

    Args:
        folder: an empty one.
        cache: of the decoded and whitened images.
    """

    def __init__(self, folder: Path, cache: Path) -> None:
        self.folder, self.cases = folder, 0
        environment = {
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "JE_ARROW_MALLOC_CONF": "background_thread:false",  # the server forks
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHONPATH": str(REPOSITORY),
            "PATH": str(folder / "no programs"),
            "HOME": str(folder),
            "MPLCONFIGDIR": str(cache / "matplotlib"),
            "BENCH_CACHE_ROOT": str(cache),
            "BENCH_PUBLISHED": "",
        }
        self.server = subprocess.Popen(
            [sys.executable, "-m", "tests.reliability.case_server"],
            cwd=REPOSITORY,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def close(self) -> None:
        self.server.communicate()

    def run(
        self,
        module: str,
        *arguments: str,
        prepare: Callable[[Path], object] = lambda here: None,
        stdin: bytes = b"",
        computes: bool = False,
    ) -> Outcome:
        """Run `python -m MODULE ARGUMENTS`.

        Args:
            prepare: puts files into the folder that the command starts in.
            computes: whether the command goes on to what takes long.
        """
        self.cases += 1
        folder = self.folder / f"case {self.cases}"
        for name in ("here", "home", "tmp"):
            (folder / name).mkdir(parents=True)
        (folder / "stdin").write_bytes(stdin)
        prepare(folder / "here")
        before = tree(folder)
        request = {
            "module": module,
            "arguments": arguments,
            "folder": str(folder),
            "computes": computes,
        }
        assert self.server.stdin is not None
        assert self.server.stdout is not None
        print(json.dumps(request), file=self.server.stdin, flush=True)
        status = int(self.server.stdout.readline())
        out, err, noted = (
            (folder / name).read_text(errors="replace") if (folder / name).exists() else ""
            for name in ("stdout", "stderr", "beside")
        )
        after = tree(folder)
        places = allowed_places(folder / "here", arguments)
        changed = [
            path
            for path in sorted(before.keys() | after.keys())
            if before.get(path) != after.get(path)
        ]
        shutil.rmtree(folder)
        beside = [path for path in (*changed, *noted.splitlines()) if not within(path, places)]
        return Outcome(arguments, status, out, err, beside)


def within(path: str, places: Iterable[str]) -> bool:
    """Whether a path is one of the places or below one."""
    return any(f"{path}/".startswith(f"{place.rstrip('/')}/") for place in places)


def allowed_places(here: Path, arguments: Iterable[str]) -> list[str]:
    """The paths that a command may change: those that its settings name, and its output."""
    folder = here.parent
    places = [here / "results", *(folder / name for name in ("stdout", "stderr", "beside"))]
    for key, _, value in (argument.partition("=") for argument in arguments):
        if key in PLACES:
            places += [here / value, Path(value.replace("~", str(folder / "home"), 1))]
    return [os.path.normpath(here / place) for place in places]


def tree(folder: Path) -> dict[str, tuple[float, int]]:
    """Everything below a folder with its time and size; of folders only that they are there."""
    listed: dict[str, tuple[float, int]] = {}
    for above, folders, files in os.walk(folder):
        listed |= {os.path.join(above, name): (0.0, 0) for name in folders}
        for name in files:
            path = os.path.join(above, name)
            about = os.lstat(path)
            listed[path] = (about.st_mtime, about.st_size)
    return listed
