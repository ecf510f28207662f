"""A finished run is made anew: what is shown is its old result until it has a new one, whatever
happens in between.

`force=true` only writes anew.json (`RunFolder.ask_anew`), and a submission that is refused removes
it again. Whoever executes the run next, holding its lock, calls `begin_anew`: it links the files of
the finished run into previous/, then removes result.json, then the others, and anew.json last. What
is killed in between is done again by whoever executes the run next. When the new result.json is
written, previous/ goes.
"""

import os
import shutil
from pathlib import Path

from bench.runs.run_folder import PREVIOUS, RunFolder
from bench.system.errors import Unwritable

# What belongs to the process that makes a run, not to its result.
OF_THE_PROCESS = ("lock", "log.txt", "job.json", "takeover.json", "progress.json", "anew.json")


def begin_anew(run: RunFolder) -> None:
    """Where a run is asked to be made anew: set its result aside and forget all else.

    Raises:
        Unwritable: the folder cannot be written.
    """
    if not run.is_asked_anew():
        return
    try:
        if (run.path / "result.json").exists():
            _copy_to_previous(run)
            run.remove("result.json")  # from here on the copy is what is shown
        for file in _files_of_the_result(run):
            if file.name != "config.json":
                file.unlink()
        run.remove("anew.json")
    except OSError as error:
        raise Unwritable(run.path, error) from error


def forget_previous(run: RunFolder) -> None:
    """Remove the old result of a run that has its new one."""
    assert (run.path / "result.json").exists()
    shutil.rmtree(run.path / PREVIOUS, ignore_errors=True)


def _copy_to_previous(run: RunFolder) -> None:
    previous, copy = run.path / PREVIOUS, run.path / f".{PREVIOUS}"
    for old in (previous, copy):  # of an earlier time, or left by a kill
        if old.exists():
            shutil.rmtree(old)
    copy.mkdir()
    for file in _files_of_the_result(run):
        try:
            os.link(file, copy / file.name)
        except OSError:  # a file system without links
            shutil.copy2(file, copy / file.name)
    copy.rename(previous)


def _files_of_the_result(run: RunFolder) -> list[Path]:
    """All files but those of the process, which may be writing some at this moment."""
    return [
        file
        for file in run.path.iterdir()
        if not file.name.startswith(".") and file.name not in OF_THE_PROCESS and file.is_file()
    ]
