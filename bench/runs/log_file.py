"""The log of a run: what its processes print, if a sweep or a job started them."""

from pathlib import Path
from typing import BinaryIO

from bench.runs.run_folder import RunFolder, now
from bench.system.files import end_of_log, write_text, writing

MOST_BYTES = 10 << 20


def log_path(folder: RunFolder) -> Path:
    """The file to which a launcher redirects the output of the run."""
    return folder.path / "log.txt"


def open_log(folder: RunFolder, start: str = "") -> BinaryIO:
    """The log of a run, for what a start of it prints after a first line that ends with
    `start`. Of a log that has become long over many starts, the beginning is removed.

    Raises:
        Unwritable: the disk is full, say.
    """
    path = log_path(folder)
    with writing(path):
        if path.exists() and path.stat().st_size > MOST_BYTES:
            write_text(path, "\n".join([*end_of_log(path, MOST_BYTES // 2)[1:], ""]))
        log = open(path, "ab")  # noqa: SIM115
        log.write(f"--- {now()}{start}\n".encode())
        log.flush()
    return log
