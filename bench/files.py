"""Files that are either whole or not there: every write that others may read goes through here."""

import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench.errors import UserError


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success it is synced and renamed onto `path`.

    A reader sees the old file or the new one, never a part. On failure nothing is left behind.
    """
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


def read_json(path: Path) -> Any | None:
    """The content of a JSON file, or None where there is none.

    Raises:
        UserError: the file is there but is not JSON.
    """
    try:
        return json.loads(path.read_text())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is damaged ({error}); delete it or restore it") from error


def exists(path: Path) -> bool:
    """Whether something is there; under a name that is too long for a file there is nothing."""
    try:
        return path.exists()
    except OSError:
        return False


def make_folder(path: Path, what: str) -> Path:
    """Create `path` and make sure that it can be written.

    Raises:
        UserError: it cannot be made or written; `what` names its purpose, e.g. "results folder".
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        raise UserError(f"the {what} {path} cannot be written: {error.strerror}") from error
    return path


def write_texts(texts: dict[str, str], stem: Path) -> list[Path]:
    """Write each text to `stem` with its ending."""
    paths = []
    for ending, text in texts.items():
        path = stem.with_name(f"{stem.name}.{ending}")
        with atomic_write(path) as temporary:
            temporary.write_text(text)
        paths.append(path)
    return paths
