"""One interface to the files of a data set in a folder, a zip or a tar."""

import bz2
import gzip
import hashlib
import lzma
import os
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any, Protocol, Self

from bench.data.readers import hash_files
from bench.system.errors import UserError

_DAMAGE = (OSError, EOFError, ValueError, RuntimeError, zlib.error, lzma.LZMAError)
TAR_ENDINGS = (".tar.gz", ".tgz", ".tar", ".tar.bz2", ".tar.xz")
ENDINGS = (".zip", *TAR_ENDINGS)


def is_hidden(name: str) -> bool:
    """Whether a file is hidden or made by macOS: .DS_Store, ._x, in a folder __MACOSX."""
    return any(part.startswith(".") or part == "__MACOSX" for part in name.split("/"))


class Files(Protocol):
    """Files by their path below the data set's folder, with `/` between the parts. Hidden files
    are skipped.

    Attributes:
        path: of the folder or the archive.
        prefix: of the data set's folder within an archive: empty, or ending in `/`.
    """

    @property
    def path(self) -> Path: ...

    @property
    def prefix(self) -> str: ...

    def names(self) -> Iterator[str]:
        """The names of all files; for an archive in its order."""
        ...

    def read(self, names: Collection[str]) -> Iterator[tuple[str, bytes]]:
        """Names and contents of some files, in the order that is fastest to read.

        Raises:
            UserError: names a file that is missing, or an archive that cannot be read.
        """
        ...

    def content_hash(self, wanted: Callable[[str], bool]) -> str:
        """Hex SHA-256 that changes if a wanted file does; nothing is decompressed for it."""
        ...


def place_of(files: Files) -> str:
    """The folder of the files, for messages."""
    return f"{files.path}, {files.prefix}" if files.prefix else str(files.path)


class FolderFiles:
    """An unpacked folder."""

    def __init__(self, path: Path) -> None:
        self.path, self.prefix = path, ""

    def names(self) -> Iterator[str]:
        for folder, folders, files in os.walk(self.path, followlinks=True):
            folders[:] = sorted(name for name in folders if not is_hidden(name))
            for name in sorted(files):
                if not is_hidden(name):
                    yield Path(folder, name).relative_to(self.path).as_posix()

    def read(self, names: Collection[str]) -> Iterator[tuple[str, bytes]]:
        for name in names:
            try:
                content = (self.path / name).read_bytes()
            except OSError as error:
                raise UserError(f"{self.path}: {name} cannot be read ({error.strerror})") from error
            yield name, content

    def content_hash(self, wanted: Callable[[str], bool]) -> str:
        paths = [self.path / name for name in sorted(self.names()) if wanted(name)]
        return hash_files(paths, self.path)


@dataclass(frozen=True)
class Archive:
    """What both kinds of archives have in common: the folder of the data set in them."""

    path: Path
    prefix: str = ""

    def below(self, prefix: str) -> Self:
        """The same archive with another folder of the data set."""
        return replace(self, prefix=prefix)


class ZipFiles(Archive):
    """A zip with the data set's folder in it."""

    def names(self) -> Iterator[str]:
        with self._open() as archive:
            entries = archive.namelist()
        for entry in entries:
            name = entry.removeprefix(self.prefix)
            if entry.startswith(self.prefix) and not entry.endswith("/") and not is_hidden(name):
                yield name

    def read(self, names: Collection[str]) -> Iterator[tuple[str, bytes]]:
        with self._open() as archive:
            for name in names:
                try:
                    content = archive.read(self.prefix + name)
                except KeyError as error:
                    raise missing(self.path, name) from error
                except (*_DAMAGE, zipfile.BadZipFile) as error:
                    raise UserError(f"{self.path}: {name} cannot be read ({error})") from error
                yield name, content

    def content_hash(self, wanted: Callable[[str], bool]) -> str:
        # The central directory has the size and CRC-32 of every member, which detects a change.
        digest = hashlib.sha256()
        with self._open() as archive:
            for entry in sorted(archive.infolist(), key=lambda entry: entry.filename):
                name = entry.filename.removeprefix(self.prefix)
                if entry.filename.startswith(self.prefix) and wanted(name):
                    digest.update(f"{entry.filename}\0{entry.CRC}\0{entry.file_size}\n".encode())
        return digest.hexdigest()

    def _open(self) -> zipfile.ZipFile:
        try:
            return zipfile.ZipFile(self.path)
        except (zipfile.BadZipFile, OSError, ValueError) as error:
            raise incomplete(self.path, "zip", error) from error


class TarFiles(Archive):
    """A tar, compressed or not, with the data set's folder in it. It is read from front to back
    and, for contents, always to the end, where the checksum of the compressed file is."""

    def names(self) -> Iterator[str]:
        return (name for name, _ in self._walk(set()))

    def read(self, names: Collection[str]) -> Iterator[tuple[str, bytes]]:
        remaining = set(names)
        for name, content in self._walk(set(names)):
            if content is not None:
                remaining.discard(name)
                yield name, content
        if remaining:
            raise missing(self.path, min(remaining))

    def content_hash(self, wanted: Callable[[str], bool]) -> str:
        with self.path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    def _walk(self, wanted: set[str]) -> Iterator[tuple[str, bytes | None]]:
        """Names of files in the order of the archive, with the contents of the wanted ones."""
        try:
            with (
                self._decompressed() as stream,
                tarfile.open(fileobj=stream, mode="r|") as archive,
            ):
                for member in archive:
                    path = member.name.removeprefix("./")  # as `tar -C folder .` writes
                    name = path.removeprefix(self.prefix)
                    if member.isreg() and path.startswith(self.prefix) and not is_hidden(name):
                        content = archive.extractfile(member) if name in wanted else None
                        yield name, content.read() if content else None
                while stream.read(1 << 20):
                    pass
        except (*_DAMAGE, tarfile.TarError) as error:
            raise incomplete(self.path, self.path.suffix.removeprefix("."), error) from error

    def _decompressed(self) -> IO[Any]:
        with self.path.open("rb") as file:
            start = file.read(3)
        openers: dict[bytes, Any] = {
            b"\x1f\x8b": gzip.open,
            b"BZ": bz2.open,
            b"\xfd7": lzma.open,
        }
        opener = openers.get(start[:2])
        return opener(self.path) if opener else self.path.open("rb")


def missing(path: Path, name: str) -> UserError:
    """The error for a file that an archive does not hold."""
    return UserError(f"{path}: {name} is missing")


def incomplete(path: Path, kind: str, error: Exception) -> UserError:
    """The error for an archive that cannot be read."""
    return UserError(f"{path} is not a complete {kind} ({error}); download it again")
