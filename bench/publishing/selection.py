"""The runs that a publication is about, as a command line selects them."""

from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.config.grid import load_grid, requested
from bench.config.identity import experiment_identity
from bench.config.run_config import RunConfig
from bench.runs.heartbeat import Progress, progress_of
from bench.runs.records import has_records
from bench.runs.run_folder import RunFolder, Store
from bench.system.errors import UserError

STOPPED = ("stopped", "lost")  # they will be resumed, or not


@dataclass
class Selection:
    """Runs of some grids at one scale.

    Attributes:
        finished, failed, unfinished: in the order of their names. Unfinished ones have recorded
            outer steps, and no process runs them.
        others: how many runs are in another state, by state; they are not published.
        grids: the grids of each run, by the name of its folder.
    """

    finished: list[tuple[RunFolder, RunConfig]] = field(default_factory=list)
    failed: list[tuple[RunFolder, Progress]] = field(default_factory=list)
    unfinished: list[tuple[RunFolder, Progress]] = field(default_factory=list)
    others: Counter[str] = field(default_factory=Counter)
    grids: dict[str, list[str]] = field(default_factory=dict)

    def first_seeds(self, published: Iterable[RunFolder]) -> dict[str, int]:
        """The lowest finished seed of each experiment, also among published runs."""
        configs = [config for _, config in self.finished]
        for run in published:
            if run.has_result():
                with suppress(UserError):  # of another version: no run of this one is like it
                    configs.append(run.config())
        first: dict[str, int] = {}
        for config in configs:
            experiment = experiment_identity(config)
            first[experiment] = min(config.seed, first.get(experiment, config.seed))
        return first


def selected(
    root: Path,
    grids: Sequence[str],
    scale: str,
    overrides: dict[str, Any],
    methods: Sequence[str],
    where: dict[str, Any],
) -> Selection:
    """The runs under a results folder that have the settings of a grid, whatever the seed.

    Args:
        overrides: settings that the sweeps were given.
        methods: only these; if there are none, all.
        where: only runs with these settings, of which each grid has one at least.

    Raises:
        UserError: there is no such grid, a setting is invalid, or no run of a grid is `where`.
    """
    grids_of: dict[str, list[str]] = {}
    for name in grids:
        grid = load_grid(name)
        for config in requested(grid, scale, overrides, where=where):
            if not methods or config.method in methods:
                names = grids_of.setdefault(experiment_identity(config), [])
                names += [] if grid.name in names else [grid.name]
    selection = Selection()
    for folder in Store(root).runs():
        try:
            config = folder.config()
        except UserError:
            continue  # which run it was is not known
        if (names := grids_of.get(experiment_identity(config))) is None:
            continue
        selection.grids[folder.name] = names
        if folder.has_result():
            selection.finished.append((folder.with_result, config))
            continue
        progress = progress_of(folder)
        if progress.state == "failed":
            selection.failed.append((folder, progress))
        elif progress.state in STOPPED and has_records(folder):
            selection.unfinished.append((folder, progress))
        else:
            selection.others[progress.state] += 1
    return selection
