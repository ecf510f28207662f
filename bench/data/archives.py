"""The files of an official packaging, read alike from a folder, a zip or a compressed tar."""

import gzip
import hashlib
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Protocol

from bench.data.readers import hash_files
from bench.errors import UserError

_DAMAGE = (OSError, EOFError, ValueError, RuntimeError, zlib.error)


class Files(Protocol):
    """Files by their names below the packaging's own folder, with `/` between the parts.

    Attributes:
        path: of the folder or the archive.
    """

    path: Path

    def names(self) -> list[str]:
        """All of them, sorted."""
        ...

    def read(self, names: Collection[str]) -> Iterator[tuple[str, bytes]]:
        """Names and contents of some, in the order in which they are read fastest.

        Raises:
            UserError: naming a file that is not there, or the archive that cannot be read.
        """
        ...

    def content_hash(self, wanted: Callable[[str], bool]) -> str:
        """Hex SHA-256 of the wanted files or more, without decompressing them."""
        ...


class FolderFiles:
    """An unpacked folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def names(self) -> list[str]:
        paths = (path for path in self.path.rglob("*") if path.is_file())
        return sorted(path.relative_to(self.path).as_posix() for path in paths)

    def read(self, names: Collection[str]) -> Iterator[tuple[str, bytes]]:
        for name in names:
            try:
                content = (self.path / name).read_bytes()
            except OSError as error:
                raise UserError(f"{self.path}: {name} cannot be read ({error.strerror})") from error
            yield name, content

    def content_hash(self, wanted: Callable[[str], bool]) -> str:
        paths = [self.path / name for name in self.names() if wanted(name)]
        return hash_files(paths, self.path)


class ZipFiles:
    """A zip that holds the folder."""

    def __init__(self, path: Path, folder: str) -> None:
        self.path, self.prefix = path, f"{folder}/"

    def names(self) -> list[str]:
        with self._open() as archive:
            return sorted(
                name.removeprefix(self.prefix)
                for name in archive.namelist()
                if name.startswith(self.prefix) and not name.endswith("/")
            )

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
        # The central directory holds the size and CRC-32 of every member: a changed one shows.
        digest = hashlib.sha256()
        with self._open() as archive:
            for entry in sorted(archive.infolist(), key=lambda entry: entry.filename):
                if wanted(entry.filename.removeprefix(self.prefix)):
                    digest.update(f"{entry.filename}\0{entry.CRC}\0{entry.file_size}\n".encode())
        return digest.hexdigest()

    def _open(self) -> zipfile.ZipFile:
        try:
            return zipfile.ZipFile(self.path)
        except (zipfile.BadZipFile, OSError, ValueError) as error:
            raise not_whole(self.path, "zip", error) from error


class TarFiles:
    """A .tgz that holds the folder. It is read from front to back, and always to the end: only
    there stands the checksum of all that was read."""

    def __init__(self, path: Path, folder: str) -> None:
        self.path, self.prefix = path, f"{folder}/"

    def names(self) -> list[str]:
        return sorted(name for name, _ in self._walk(set()))

    def read(self, names: Collection[str]) -> Iterator[tuple[str, bytes]]:
        left = set(names)
        for name, content in self._walk(set(names)):
            if content is not None:
                left.discard(name)
                yield name, content
        if left:
            raise missing(self.path, min(left))

    def content_hash(self, wanted: Callable[[str], bool]) -> str:
        with self.path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    def _walk(self, wanted: set[str]) -> Iterator[tuple[str, bytes | None]]:
        """The files of the folder in the order of the archive, with the contents of the wanted."""
        try:
            with gzip.open(self.path) as stream, tarfile.open(fileobj=stream, mode="r|") as archive:
                for member in archive:
                    name = member.name.removeprefix(self.prefix)
                    if member.isreg() and member.name.startswith(self.prefix):
                        content = archive.extractfile(member) if name in wanted else None
                        yield name, content.read() if content else None
                while stream.read(1 << 20):
                    pass
        except (*_DAMAGE, tarfile.TarError) as error:
            raise not_whole(self.path, "tgz", error) from error


def missing(path: Path, name: str) -> UserError:
    """What is said of a file that an archive does not hold."""
    return UserError(f"{path}: {name} is missing")


def not_whole(path: Path, kind: str, error: Exception) -> UserError:
    """What is said of an archive that cannot be read."""
    return UserError(f"{path} is not a whole {kind} ({error}); fetch it again")
