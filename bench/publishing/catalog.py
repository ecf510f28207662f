"""The folder of published records, and the file of checksums that says what belongs to it.

    results/published/
      SHA256SUMS       the checksum of every record, as `sha256sum --check` reads it
      runs/NAME/       a run (`records.py`)
      anatomy/NAME/    what `bench.anatomy` measured
      evaluations/     what `bench.evaluate` and `bench.scores` recorded of other sets
      report.html      the report on these records
      .new/            records that are being published (`publication.py`)

A *unit* is published as a whole: the folder of a run or of an anatomy, or a single file. Other
files in the folder, such as the pictures of documents, are no records.
"""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from bench.system.errors import Damaged

SUMS = "SHA256SUMS"
STAGED = ".new"
FOLDERS = ("runs", "anatomy", "evaluations")
REPORT = "report.html"
LINE = re.compile(r"([0-9a-f]{64})  (\S[^\x00-\x1f]*)")

Sums = dict[str, str]  # SHA-256 by path in the folder, with forward slashes


@dataclass(frozen=True)
class Problems:
    """How a folder differs from its checksums; paths in the folder, in order."""

    damaged: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    surplus: list[str] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.damaged or self.missing or self.surplus)


def digest(content: bytes) -> str:
    """The checksum, as SHA256SUMS has it."""
    return hashlib.sha256(content).hexdigest()


def unit_of(path: str) -> str:
    """The unit that a file belongs to: `runs/NAME` of `runs/NAME/result.json`."""
    return "/".join(path.split("/")[:2])


def read_sums(root: Path) -> Sums:
    """The checksums of a folder; empty if nothing is published there.

    Raises:
        Damaged: the file cannot be read, or is no list of checksums.
    """
    path = root / SUMS
    try:
        text = path.read_text(encoding="utf-8") if path.is_file() else ""
    except (OSError, UnicodeDecodeError) as error:
        raise Damaged(f"{path} cannot be read ({error})") from error
    *lines, rest = text.split("\n")
    found = [LINE.fullmatch(line) for line in lines]
    if rest or not all(found):
        raise Damaged(
            f"{path} is damaged (a line is no checksum); restore it, for example from git"
        )
    return {match[2]: match[1] for match in found if match}


def in_units(sums: Mapping[str, str]) -> dict[str, Sums]:
    """The checksums by unit."""
    units: dict[str, Sums] = {}
    for path, checksum in sums.items():
        units.setdefault(unit_of(path), {})[path] = checksum
    return units


def intact_units(root: Path, sums: Mapping[str, str]) -> dict[str, Path]:
    """Where each unit is that has its checksums: in its place or, if a publication was interrupted,
    in .new/. The others are damaged or incomplete, or have files without a checksum."""
    places = {
        unit: next((base for base in (root, root / STAGED) if is_intact(base, unit, files)), None)
        for unit, files in in_units(sums).items()
    }
    return {unit: base / unit for unit, base in places.items() if base is not None}


def is_intact(base: Path, unit: str, sums: Mapping[str, str]) -> bool:
    """Whether all files of a unit have their checksums, and no file in its folder has none."""
    intact = all(_digest_of(base / path) == checksum for path, checksum in sums.items())
    return intact and _files(base, unit) <= sums.keys()


def _files(base: Path, folder: str) -> set[str]:
    """The files in a folder by path from `base`, without those that an operating system hides
    there, such as .DS_Store, and without folders, which git does not keep."""
    paths = [
        path.relative_to(base / folder) for path in (base / folder).rglob("*") if path.is_file()
    ]
    shown = [path for path in paths if not any(part.startswith(".") for part in path.parts)]
    return {f"{folder}/{path.as_posix()}" for path in shown}


def _digest_of(path: Path) -> str:
    """The checksum of a file; empty if it cannot be read."""
    try:
        return digest(path.read_bytes())
    except (OSError, ValueError):  # a damaged line of SHA256SUMS may hold what no path can
        return ""


def check(root: Path) -> Problems:
    """Compare every record with its checksum.

    Raises:
        Damaged: the checksums themselves are.
    """
    sums, problems = read_sums(root), Problems()
    intact = intact_units(root, sums)
    for path, checksum in sorted(sums.items()):
        if unit_of(path) not in intact and _digest_of(root / path) != checksum:
            (problems.damaged if (root / path).exists() else problems.missing).append(path)
    problems.surplus.extend(sorted(record_files(root) - sums.keys()))
    return problems


def record_files(root: Path) -> set[str]:
    """The files that are records by their place, whether SHA256SUMS names them or not."""
    found = {path for name in (*FOLDERS, STAGED) for path in _files(root, name)}
    return found | ({REPORT} if (root / REPORT).is_file() else set())
