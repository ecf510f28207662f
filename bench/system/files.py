"""Reading and writing of files. Writes are atomic: a reader never sees a part of a file."""

import errno
import json
import os
import re
import shutil
import tempfile
import time
import zlib
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from bench.system.errors import Damaged, Unwritable

# As `atomic_write` names them: the file's name and eight random characters.
TEMPORARY_NAME = re.compile(r"\.(?P<name>.+)\.[a-z0-9_]{8}(\.\w+)?")
ORPHANED_AFTER_SECONDS = 600.0  # far longer than a small file is being written

LEAST_FREE_BYTES = 64 << 10  # with less free space a file system counts as full


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn write errors inside the `with` block into one-line errors that name `path`.

    Raises:
        Unwritable: in place of an `OSError`, or of what a library written in Rust makes of one.
    """
    try:
        yield
    except OSError as error:
        raise Unwritable(path, error) from error
    except Exception as error:
        if number := re.search(r"\(os error (\d+)\)", str(error)):
            raise Unwritable(path, OSError(int(number[1]), "")) from error
        raise


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success it is synced and renamed onto `path`.

    A reader sees the old file or the new one, never a part. On failure nothing is left behind.

    Raises:
        Unwritable: for example, the disk is full or the folder belongs to another user.
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


def remove_orphans(folder: Path, by_others: Collection[str] | None = ()) -> None:
    """Remove the temporary files that killed processes have left in `folder`.

    Args:
        by_others: files that another process may be writing now; None: any file. Their temporary
            files are removed some minutes later.
    """
    for path in folder.iterdir():
        if (match := TEMPORARY_NAME.fullmatch(path.name)) is None:
            continue
        with suppress(OSError):
            age = time_there(folder) - path.stat().st_mtime
            others_write = by_others is None or match["name"] in by_others
            if not others_write or age > ORPHANED_AFTER_SECONDS:
                path.unlink()


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON, atomically. NaN and infinities are kept, as Python's `json`
    writes them, so that a diverged loss stays visible."""
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(value, indent=2, sort_keys=False) + "\n")


def overwrite_json(path: Path, value: Any) -> None:
    """Overwrite the JSON file at `path` in place, which works on a full disk if both contents are
    short. For an instant, a reader may see a mixture of both.

    Raises:
        OSError: there is no such file, or it cannot be written either.
    """
    text = (json.dumps(value, indent=2) + "\n").encode()
    with open(path, "r+b") as file:
        file.write(text.ljust(os.fstat(file.fileno()).st_size))


def write_text(path: Path, text: str, encoding: str = "utf-8") -> None:
    """Write a text, atomically, with the same bytes in every locale."""
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding=encoding)


def read_json(path: Path | str) -> Any | None:
    """The content of a JSON file, or None if there is no such file.

    Raises:
        Damaged: the file cannot be read or is not JSON.
    """
    try:
        return json.loads(_read_bytes(path))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise Damaged(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:  # no JSON, no UTF-8, an endless number
        reason = str(error) if os.path.getsize(path) else "it is empty"
        raise Damaged(f"{path} is damaged ({reason})") from error


def _read_bytes(path: Path | str) -> bytes:
    for is_last in (False, True):
        try:
            with open(path, "rb") as file:
                return file.read()
        except OSError as error:
            if error.errno != errno.ESTALE or is_last:
                raise  # else it was replaced on the file server while it was being opened
    raise AssertionError


def checksum(path: Path, size: int | None = None) -> int:
    """The CRC-32 of a file's first `size` bytes; by default of all. 0 if it does not exist."""
    try:
        with open(path, "rb") as file:
            return zlib.crc32(file.read(-1 if size is None else size))
    except FileNotFoundError:
        return 0


def end_of_log(path: Path, most_bytes: int = 100_000) -> list[str]:
    """The lines at the end of a log; none if it cannot be read."""
    try:
        with open(path, "rb") as log:
            log.seek(max(0, os.fstat(log.fileno()).st_size - most_bytes))
            return log.read().decode(errors="replace").strip().splitlines()
    except OSError:
        return []


def exists(path: Path) -> bool:
    """Whether the path exists; False for a name that is too long for a file."""
    try:
        return path.exists()
    except OSError:
        return False


def make_folder(path: Path, what: str) -> Path:
    """Create the folder `path` and check that it is writable; if not, remove what was created.

    Args:
        what: its purpose for the error message, e.g. "results folder".

    Raises:
        Unwritable: it cannot be created or written.
    """
    with new_folder(path, what):
        return path


@contextmanager
def new_folder(path: Path, what: str) -> Iterator[Path]:
    """The same; if the `with` block fails, created folders that are empty are removed again."""
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
    """The time of the clock that stamps files in `folder`: on a network file system the server's,
    which may differ from this machine's. If `folder` is not writable, this machine's time."""
    try:
        with tempfile.TemporaryFile(dir=folder) as probe:
            return os.fstat(probe.fileno()).st_mtime
    except OSError:
        return time.time()


def is_full(folder: Path) -> bool:
    """Whether the file system of `folder` is full; False if that is unknown."""
    try:
        files = os.statvfs(folder)
        return (
            shutil.disk_usage(folder).free < LEAST_FREE_BYTES or 0 == files.f_favail < files.f_files
        )
    except (OSError, AttributeError):
        return False


def write_texts(texts: dict[str, str], stem: Path) -> list[Path]:
    """Write each text to a file: `stem` with the ending that is the text's key."""
    paths = []
    for ending, text in texts.items():
        path = stem.with_name(f"{stem.name}.{ending}")
        write_text(path, text)
        paths.append(path)
    return paths
