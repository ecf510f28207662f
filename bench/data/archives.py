"""One interface to the files of a data set in a folder, a zip or a tar."""

import bz2
import gzip
import hashlib
import io
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

# Limits that decompression bombs exceed. The largest file of a data set (CIFAR-100's train) has
# 155 MB, and images can hardly be compressed further.
LARGEST_FILE = 1 << 28
ANY_SIZE, LARGEST_RATIO = 1 << 28, 100  # of a compressed tar: bytes, and times its own size


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
        root = self.path.resolve()
        # By folder, the folders that it lies in: a link to one of them would be followed for ever.
        above = {str(self.path): {str(root), *map(str, root.parents)}}
        for folder, folders, files in os.walk(self.path, followlinks=True):
            around = above.pop(folder)
            real = {name: os.path.realpath(f"{folder}/{name}") for name in sorted(folders)}
            folders[:] = [name for name in real if not is_hidden(name) and real[name] not in around]
            above |= {os.path.join(folder, name): {*around, real[name]} for name in folders}
            for name in sorted(files):
                if not is_hidden(name) and os.path.isfile(f"{folder}/{name}"):
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
                    refuse_large(self.path, name, archive.getinfo(self.prefix + name).file_size)
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
        except (zipfile.BadZipFile, OSError, ValueError, RuntimeError) as error:
            raise incomplete(self.path, "zip", error) from error


class TarFiles(Archive):
    """A tar, compressed or not, with the data set's folder in it. It is read from front to back
    and, for contents, always to the end, where the checksum of the compressed file is.

    A file that was appended a second time (`tar -r`, `tar -u`) replaces the first where a tar is
    extracted, which a stream cannot do: it is an error.
    """

    def names(self) -> Iterator[str]:
        return (name for name, _ in self._walk(set()))

    def read(self, names: Collection[str]) -> Iterator[tuple[str, bytes]]:
        remaining = set(names)
        for name, content in self._walk(set(names)):
            if content is not None:
                if name not in remaining:
                    raise UserError(f"{self.path} holds {name} twice; pack its folder again")
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
                        if name not in wanted:
                            yield name, None
                            continue
                        refuse_large(self.path, name, member.size)
                        content = archive.extractfile(member)
                        yield name, content.read() if content else None
                while stream.read(1 << 20):
                    pass
        except (*_DAMAGE, tarfile.TarError) as error:
            raise incomplete(self.path, self.path.suffix.removeprefix("."), error) from error

    def _decompressed(self) -> Any:
        with self.path.open("rb") as file:
            start = file.read(3)
        openers: dict[bytes, Any] = {
            b"\x1f\x8b": gzip.open,
            b"BZ": bz2.open,
            b"\xfd7": lzma.open,
        }
        opener = openers.get(start[:2])
        return _Bounded(opener(self.path), self.path) if opener else self.path.open("rb")


class _Bounded(io.RawIOBase):
    """A decompressed stream that ends with an error where it is a decompression bomb."""

    def __init__(self, stream: IO[bytes], path: Path) -> None:
        self.stream, self.path = stream, path
        self.remaining = max(ANY_SIZE, LARGEST_RATIO * path.stat().st_size)

    def readinto(self, buffer: Any) -> int:
        content = self.stream.read(len(buffer))
        self.remaining -= len(content)
        if self.remaining < 0:
            raise UserError(
                f"{self.path} is a decompression bomb: it holds more than {LARGEST_RATIO} times as"
                " many bytes as it has"
            )
        buffer[: len(content)] = content
        return len(content)

    def close(self) -> None:
        self.stream.close()
        super().close()


def refuse_large(path: Path, name: str, size: int) -> None:
    """Raise UserError if no file of a data set is as large."""
    if size > LARGEST_FILE:
        raise UserError(f"{path}: {name} has {size:,} bytes; no file of a data set has as many")


def missing(path: Path, name: str) -> UserError:
    """The error for a file that an archive does not hold."""
    return UserError(f"{path}: {name} is missing")


def incomplete(path: Path, kind: str, error: Exception) -> UserError:
    """The error for an archive that cannot be read."""
    return UserError(f"{path} is not a complete {kind} ({error}); download it again")
