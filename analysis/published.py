"""The runs that a command of the analysis shows: those under `results_root` and, where it has no
newer one of the same identity, those of the published records (`python -m bench.publish`)."""

from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from analysis.arguments import PublishedOptions, Request
from analysis.load import StoredRun, print_damages, stored_of, stored_runs
from bench.config.command_line import only, typed
from bench.config.grid import choose_scale
from bench.config.run_config import Environment, RunConfig
from bench.config.values import shown
from bench.publishing.catalog import SUMS
from bench.publishing.reading import Published, PublishedRun
from bench.system.errors import Damaged, UserError
from bench.system.text import count


@dataclass(frozen=True)
class Opened:
    """A request and the runs that it is about, of all scales; `root` is the results folder."""

    request: Request
    stored: list[StoredRun]
    root: Path


def opened(
    argv: Sequence[str],
    given: dict[str, Any],
    scale: str,
    seeds: int,
    grid: str = "",
    methods: str = "",
) -> Opened:
    """What a command line asks for. Prints the scale, and how many runs are published records.

    Args:
        given: the settings on the command line, converted.
        scale, seeds, grid, methods: the options of the command, as `Request` has them.

    Raises:
        UserError: there is no such scale, or `published=` names no folder of records.
    """
    root = Path(typed(Environment, only(given, Environment)).results_root)
    folder = typed(PublishedOptions, only(given, PublishedOptions)).published
    if given.get("published") and not (Path(folder) / SUMS).is_file():
        raise UserError(
            f"published={shown(folder)} is no folder of published records: it has no {SUMS}"
        )
    published = Published(Path(folder) if folder else None)
    stored = with_published(stored_runs(root), published)
    chosen, why = _scale_of(scale, stored, root)
    print(f"scale={chosen} ({why})", flush=True)
    _print_published(stored, chosen, folder, root)
    request = Request(argv, only(given, RunConfig), chosen, seeds, grid, methods, published)
    return Opened(request, stored, root)


def _print_published(stored: Sequence[StoredRun], scale: str, folder: str, root: Path) -> None:
    """A line about the published runs among those of a scale."""
    runs = [run.folder for run in stored if run.config.scale == scale]
    records = [run for run in runs if isinstance(run, PublishedRun)]
    if records:
        number = f"{len(records)} of {count(len(runs), 'run')}"
        print(
            f"published records of {records[0].date} ({folder}): {number} at scale={scale}, of"
            f" which {root} has no newer one",
            flush=True,
        )


def with_published(own: Sequence[StoredRun], published: Published) -> list[StoredRun]:
    """Own runs and published ones; of one identity the finished or else the newer one."""
    remedy = "python -m bench.publish verify=true names the files"
    print_damages([f"{published.root}/{unit} is damaged; {remedy}" for unit in published.damaged])
    by_name = {run.folder.name: run for run in own}
    for run in stored_of(published.runs()):
        mine = by_name.get(run.folder.name)
        if mine is None or _is_newer(run, mine):
            by_name[run.folder.name] = run
    return list(by_name.values())


def _is_newer(published: StoredRun, own: StoredRun) -> bool:
    if not (published.finished and own.finished):
        return published.finished
    with suppress(Damaged):  # our own run is damaged, and will be shown as that
        ours, theirs = _finished(own), _finished(published)
        return bool(ours and theirs) and theirs > ours
    return False


def _finished(run: StoredRun) -> str:
    """When a run was finished; empty if that is unknown."""
    return (run.folder.with_result.read("result") or {}).get("finished") or ""


def _scale_of(scale: str, stored: Sequence[StoredRun], root: Path) -> tuple[str, str]:
    """(scale, reason); without finished runs of our own, `auto` is the scale of most records."""
    finished = [run for run in stored if run.finished]
    if scale == "auto" and finished and all(isinstance(r.folder, PublishedRun) for r in finished):
        counts = Counter(run.config.scale for run in finished)
        most = max(sorted(counts), key=lambda name: counts[name])
        return most, f"that of most published records; {root} has no finished run"
    return choose_scale(scale)
