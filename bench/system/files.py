"""Files that are either whole or not there: every write that others may read goes through here."""

import errno
import json
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from bench.system.errors import Damaged, Unwritable

LEAST_FREE_BYTES = 64 << 10  # with less than that a file system is as good as full


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """What the system refuses within is told in one line that names `path`.

    Raises:
        Unwritable: in place of an `OSError`, or of what a library written in Rust makes of one.
    """
    try:
        yield
    except OSError as error:
        raise Unwritable(path, error) from error
    except Exception as error:
        if found := re.search(r"\(os error (\d+)\)", str(error)):
            raise Unwritable(path, OSError(int(found.group(1)), "")) from error
        raise


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success it is synced and renamed onto `path`.

    A reader sees the old file or the new one, never a part. On failure nothing is left behind.

    Raises:
        Unwritable: the disk is full, say, or the folder belongs to somebody else.
    """
    with writing(path), _temporary(path) as temporary:
        yield temporary


@contextmanager
def _temporary(path: Path) -> Iterator[Path]:
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=path.suffix)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with open(temporary, "rb") as written:
            os.fsync(written.fileno())
        umask = os.umask(0)  # mkstemp makes private files; a shared results folder needs the umask
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON, atomically. NaN and infinities are written as Python's `json`
    does: a diverged loss must stay visible."""
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(value, indent=2, sort_keys=False) + "\n")


def overwrite_json(path: Path, value: Any) -> None:
    """Write `value` over the JSON file at `path`, in place: where the disk is full this needs no
    more of it, as long as both are short. A reader may see some of each for an instant.

    Raises:
        OSError: it is not there, or cannot be written this way either.
    """
    text = (json.dumps(value, indent=2) + "\n").encode()
    with open(path, "r+b") as file:
        file.write(text.ljust(os.fstat(file.fileno()).st_size))


def write_text(path: Path, text: str) -> None:
    """Write a text, atomically."""
    with atomic_write(path) as temporary:
        temporary.write_text(text)


def read_json(path: Path | str) -> Any | None:
    """The content of a JSON file, or None where there is none.

    Raises:
        Damaged: the file is there but cannot be read, or is not JSON.
    """
    try:
        return json.loads(_read_bytes(path))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise Damaged(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:  # no JSON, no UTF-8, a number without an end
        told = str(error) if os.path.getsize(path) else "it is empty"
        raise Damaged(f"{path} is damaged ({told})") from error


def _read_bytes(path: Path | str) -> bytes:
    for is_last in (False, True):
        try:
            with open(path, "rb") as file:
                return file.read()
        except OSError as error:
            if error.errno != errno.ESTALE or is_last:
                raise  # else it was replaced on the file server between two of our questions
    raise AssertionError


def end_of_log(path: Path, most_bytes: int = 100_000) -> list[str]:
    """The lines at the end of a log; none where it cannot be read."""
    try:
        with open(path, "rb") as log:
            log.seek(max(0, os.fstat(log.fileno()).st_size - most_bytes))
            return log.read().decode(errors="replace").strip().splitlines()
    except OSError:
        return []


def exists(path: Path) -> bool:
    """Whether something is there; under a name that is too long for a file there is nothing."""
    try:
        return path.exists()
    except OSError:
        return False


def make_folder(path: Path, what: str) -> Path:
    """Create `path` and make sure that it can be written. What cannot be is not left half made.

    Raises:
        Unwritable: it cannot be made or written; `what` names its purpose, e.g. "results folder".
    """
    with new_folder(path, what):
        return path


@contextmanager
def new_folder(path: Path, what: str) -> Iterator[Path]:
    """The same; where the `with` block fails, folders that were made for it and are empty are
    removed again."""
    missing = [folder for folder in (path, *path.parents) if not exists(folder)]
    try:
        try:
            path.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=path):
                pass
        except OSError as error:
            raise Unwritable(f"the {what} {path}", error) from error
        yield path
    except BaseException:
        for folder in missing:
            with suppress(OSError):
                folder.rmdir()
        raise


def time_there(folder: Path) -> float:
    """The time by the clock that stamps the files in `folder`: on a network file system the
    server's, from which this machine's may differ. Where `folder` cannot be written, this
    machine's."""
    try:
        with tempfile.TemporaryFile(dir=folder) as probe:
            return os.fstat(probe.fileno()).st_mtime
    except OSError:
        return time.time()


def is_full(folder: Path) -> bool:
    """Whether nothing more can be written where `folder` lies; False where that is not known."""
    try:
        files = os.statvfs(folder)
        return (
            shutil.disk_usage(folder).free < LEAST_FREE_BYTES or 0 == files.f_favail < files.f_files
        )
    except (OSError, AttributeError):
        return False


def write_texts(texts: dict[str, str], stem: Path) -> list[Path]:
    """Write each text to `stem` with its ending."""
    paths = []
    for ending, text in texts.items():
        path = stem.with_name(f"{stem.name}.{ending}")
        write_text(path, text)
        paths.append(path)
    return paths
