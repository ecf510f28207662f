"""Published runs, read as runs are: a published run's folder has a run's files, with Parquet in
place of JSON lines."""

from pathlib import Path

from bench.publishing.catalog import Sums as Sums
from bench.publishing.catalog import in_units, intact_units, read_sums
from bench.runs.run_folder import RunFolder

RUNS = "runs"


class PublishedRun(RunFolder):
    """A published run.

    Attributes:
        date: of the last run in these records that was finished (ISO 8601); empty if unknown.
    """

    date = ""


def published_runs(root: Path, sums: Sums | None = None) -> tuple[list[PublishedRun], list[str]]:
    """(the intact published runs by name, the names of the units that are damaged).

    Args:
        sums: what counts as published; by default what SHA256SUMS says.

    Raises:
        Damaged: the checksums are.
    """
    sums = read_sums(root) if sums is None else sums
    intact = intact_units(root, sums)
    runs = [
        PublishedRun(place, unit.partition("/")[2])
        for unit, place in sorted(intact.items())
        if unit.startswith(f"{RUNS}/")
    ]
    finished = [(run.read("result") or {}).get("finished") or "" for run in runs]
    for run in runs:
        run.date = max(finished)[:10]
    return runs, sorted(in_units(sums).keys() - intact.keys())
