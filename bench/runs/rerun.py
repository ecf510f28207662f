"""The rerun of a finished run, which keeps its previous result until it has a new one.

`force=true` only writes anew.json (`RunFolder.request_rerun`); a submission that fails removes it
again. The process that executes the run next, and has its lock, calls `start_rerun`: this links the
files of the finished run into previous/, then removes result.json, then the other files, and
anew.json last. If it is killed on the way, the next process that executes the run repeats it. When
the new result.json is written, previous/ is removed.
"""

import os
import shutil
from pathlib import Path

from bench.runs.run_folder import PREVIOUS, RunFolder
from bench.system.errors import Unwritable

# Files that belong to the process that executes a run, not to its result.
OF_THE_PROCESS = ("lock", "log.txt", "job.json", "takeover.json", "progress.json", "anew.json")


def start_rerun(run: RunFolder) -> None:
    """If a rerun was requested, move the result to previous/ and remove all other files.

    Raises:
        Unwritable: the folder cannot be written.
    """
    if not run.is_rerun_requested():
        return
    try:
        if (run.path / "result.json").exists():
            _copy_to_previous(run)
            run.remove("result.json")  # from here on the copy is shown
        for file in _files_of_the_result(run):
            if file.name != "config.json":
                file.unlink()
        run.remove("anew.json")
    except OSError as error:
        raise Unwritable(run.path, error) from error


def remove_previous(run: RunFolder) -> None:
    """Remove the previous result of a run that has its new one."""
    assert (run.path / "result.json").exists()
    shutil.rmtree(run.path / PREVIOUS, ignore_errors=True)


def _copy_to_previous(run: RunFolder) -> None:
    previous, copy = run.path / PREVIOUS, run.path / f".{PREVIOUS}"
    for stale in (previous, copy):  # from an earlier rerun, or left by a kill
        if stale.exists():
            shutil.rmtree(stale)
    copy.mkdir()
    for file in _files_of_the_result(run):
        try:
            os.link(file, copy / file.name)
        except OSError:  # a file system without links
            shutil.copy2(file, copy / file.name)
    copy.rename(previous)


def _files_of_the_result(run: RunFolder) -> list[Path]:
    """All files except those of the process, which may be writing some of them now."""
    return [
        file
        for file in run.path.iterdir()
        if not file.name.startswith(".") and file.name not in OF_THE_PROCESS and file.is_file()
    ]
