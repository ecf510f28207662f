"""Published runs and anatomies, read as those under `results_root` are: their folders have the same
files, with Parquet in place of JSON lines."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from bench.anatomies.folder import FOLDER as ANATOMIES
from bench.anatomies.folder import AnatomyFolder
from bench.publishing.catalog import Sums, in_units, intact_units, read_sums
from bench.runs.run_folder import RunFolder

RUNS = "runs"
EVALUATIONS = "evaluations"
UNKNOWN = "an unknown date"


class PublishedRun(RunFolder):
    """A published run.

    Attributes:
        date: the day on which the last of the published runs was finished (ISO 8601).
    """

    date = ""


class PublishedAnatomy(AnatomyFolder):
    """A published anatomy; `date` is when it was finished."""

    date = ""


@dataclass(frozen=True)
class Published:
    """A folder of published records.

    Attributes:
        root: the folder; None: no records are read.
    """

    root: Path | None = None

    @cached_property
    def sums(self) -> Sums:
        """The checksums of the records.

        Raises:
            Damaged: SHA256SUMS is.
        """
        return {} if self.root is None else read_sums(self.root)

    @cached_property
    def intact(self) -> dict[str, Path]:
        """Where each unit is that has its checksums."""
        return {} if self.root is None else intact_units(self.root, self.sums)

    @property
    def damaged(self) -> list[str]:
        """The units that do not have their checksums."""
        return sorted(in_units(self.sums).keys() - self.intact.keys())

    def runs(self) -> list[PublishedRun]:
        """The intact runs, by name."""
        runs = [PublishedRun(place, name) for name, place in self._of(RUNS)]
        finished = [(run.read("result") or {}).get("finished") or "" for run in runs]
        for run in runs:
            run.date = max(finished)[:10] or UNKNOWN
            run.shown = f"{self.root}/{RUNS}/{run.name}"
        return runs

    def anatomies(self) -> list[PublishedAnatomy]:
        """The intact anatomies, by name."""
        anatomies = [PublishedAnatomy(place) for _, place in self._of(ANATOMIES)]
        for one in anatomies:
            one.date = ((one.read("result") or {}).get("finished") or "")[:10] or UNKNOWN
        return anatomies

    def evaluations(self) -> list[Path]:
        """The intact records of evaluations, by name."""
        return [place for _, place in self._of(EVALUATIONS)]

    def _of(self, folder: str) -> list[tuple[str, Path]]:
        units = [(unit.split("/"), place) for unit, place in self.intact.items()]
        return sorted((parts[1], place) for parts, place in units if parts[0] == folder)
