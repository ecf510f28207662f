"""Publishing: a kill at any point leaves the former records or the new ones, never a mixture.

New units are written into .new/. Then SHA256SUMS is replaced, in one step: from here on the new
records are the published ones, wherever they are. Then the units move into their places. The next
publication finishes what an interrupted one left, or removes it.
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from bench.publishing.catalog import (
    STAGED,
    SUMS,
    Sums,
    digest,
    in_units,
    intact_units,
    is_intact,
    read_sums,
    record_files,
    unit_of,
)
from bench.system.errors import UserError
from bench.system.files import make_folder, write_text, writing
from bench.system.locks import locked
from bench.system.text import count

Files = dict[str, bytes]  # content by path in the folder of records


@contextmanager
def publication(root: Path) -> Iterator["Publication"]:
    """Lock a folder of records, tidy up what an interrupted publication left, and yield what
    publishes there. What is staged and not published by then is removed at the end.

    Raises:
        UserError: another process is publishing there, the checksums are damaged, or the folder
            has files of another kind.
        Unwritable: the folder cannot be written.
    """
    make_folder(root, "folder of published records")
    lock = root.parent / f".{root.name}.lock"  # not in it: git takes what is in it
    with locked(lock, f"another process is publishing into {root}"):
        try:
            if record_files(root) and not (root / SUMS).is_file():
                raise UserError(
                    f"{root} has files without {SUMS}: it is no folder of published records, or has"
                    " lost its checksums; give another folder or restore the file"
                )
            settle(root, read_sums(root))
            yield Publication(root)
        finally:
            with suppress(UserError):
                if (root / SUMS).is_file():
                    settle(root, read_sums(root))
                else:  # the first publication did not come so far
                    shutil.rmtree(root / STAGED, ignore_errors=True)


class Publication:
    """One publication into a folder of records.

    Attributes:
        former: the checksums of what is published.
        sums: those of what will be.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.former: Sums = read_sums(root)
        self.sums: Sums = dict(self.former)

    def leave_out(self, path: str) -> None:
        """Publish a unit no more."""
        self.sums = {one: checksum for one, checksum in self.sums.items() if unit_of(one) != path}

    def stage(self, files: Files) -> None:
        """Write units, each of which replaces the published one as a whole, into .new/."""
        new = {path: digest(content) for path, content in files.items()}
        for unit, sums in in_units(new).items():
            self.leave_out(unit)
            self.sums |= sums
            if is_intact(self.root, unit, sums):
                continue
            for path in sums:
                self._write(path, files[path])

    def sizes(self) -> dict[str, int]:
        """The bytes of each record that will be published, by path; missing ones count nothing."""
        paths = {path: (self.root / STAGED / path, self.root / path) for path in self.sums}
        found = {path: [p for p in places if p.is_file()] for path, places in paths.items()}
        return {path: places[0].stat().st_size for path, places in found.items() if places}

    def publish(self) -> None:
        """Make the staged records the published ones."""
        lines = [f"{checksum}  {path}\n" for path, checksum in sorted(self.sums.items())]
        make_folder(self.root / STAGED, "folder of staged records")  # `settle` may remove records
        write_text(self.root / STAGED / SUMS, "".join(lines))  # a power failure must not empty it
        with writing(self.root / SUMS):
            os.replace(self.root / STAGED / SUMS, self.root / SUMS)
        settle(self.root, self.sums)

    def _write(self, path: str, content: bytes) -> Path:
        """Write a file into .new/. A power failure may empty it: the checksum tells."""
        staged = self.root / STAGED / path
        with writing(staged):
            staged.parent.mkdir(parents=True, exist_ok=True)
            staged.write_bytes(content)
        return staged


def settle(root: Path, sums: Sums) -> None:
    """Move staged units that are published into their places, and remove all other staged files and
    the records that are not published any more, if there is a publication to finish.

    Raises:
        UserError: there is none, and records without a checksum.
        Unwritable: the folder cannot be written.
    """
    surplus = record_files(root) - sums.keys()
    if surplus and not (root / STAGED).is_dir():
        raise UserError(
            f"{SUMS} in {root} has no checksum of {count(len(surplus), 'record')}, such as"
            f" {min(surplus)}: it has lost lines, or they come from elsewhere; restore it, or"
            " remove them"
        )
    with writing(root):
        for unit, place in intact_units(root, sums).items():
            if place == root / unit:
                continue
            if (root / unit).is_dir():  # the staged one stays until it is there
                shutil.rmtree(root / unit)
            (root / unit).parent.mkdir(exist_ok=True)
            os.replace(place, root / unit)
        for path in record_files(root) - sums.keys():
            (root / path).unlink()
            for folder in (root / path).parents:
                if folder == root or any(folder.iterdir()):
                    break
                folder.rmdir()
        shutil.rmtree(root / STAGED, ignore_errors=True)  # last: it says that this is not finished
