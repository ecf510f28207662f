"""The runs behind a number: an entry of a grid, named by what it is at `scale=paper`.

The entry of Table 1's cell "CIFAR-10, IPC 10" is a run on digits at `scale=quick`; its settings at
the paper's scale say which cell it stands for, at any scale.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from analysis.arguments import Request
from analysis.labels import AT_THE_END, differences
from analysis.load import FinishedRun, Results, StoredRun, load_results
from bench.config.grid import Grid, expand, grid_names, load_grid
from bench.config.run_config import RunConfig, experiment_identity
from bench.system.errors import UserError


@dataclass(frozen=True)
class Entry:
    """An entry of a grid.

    Attributes:
        label: of its experiment, as in the results.
        config: what it is at the scale asked for.
        paper: what it is at `scale=paper`.
    """

    label: str
    config: RunConfig
    paper: RunConfig

    def has(self, settings: Mapping[str, Any]) -> bool:
        """Whether it has these settings at the paper's scale; `method_options` as a whole."""
        own = asdict(self.paper)
        return all(key in own and own[key] == value for key, value in settings.items())


@dataclass(frozen=True)
class GridRuns:
    """A grid's entries with the runs that are there.

    Attributes:
        results: the finished and the missing runs.
        transfers: evaluations on other networks that were made by hand, by (name of the run's
            folder, network).
    """

    grid: Grid
    entries: list[Entry]
    results: Results
    transfers: dict[tuple[str, str], dict[str, Any]]

    def entry(self, settings: Mapping[str, Any]) -> Entry:
        """The one entry that has these settings at the paper's scale.

        Raises:
            UserError: none has, or more than one.
        """
        found = [entry for entry in self.entries if entry.has(settings)]
        if len(found) != 1:
            told = ", ".join(f"{key}={value}" for key, value in settings.items())
            raise UserError(
                f"grid {self.grid.name} has {len(found)} entries with {told} at scale=paper;"
                " there must be one"
            )
        return found[0]

    def runs(self, entry: Entry) -> dict[int, FinishedRun]:
        """Its finished runs, by seed."""
        return {r.config.seed: r for r in self.results.runs if r.label == entry.label}

    def missing(self, entry: Entry) -> list[str]:
        """What it lacks, by state, such as "seeds 1, 2 not started"."""
        states: dict[str, list[int]] = {}
        for run in self.results.missing:
            if run.label == entry.label:
                states.setdefault(run.state, []).append(run.seed)
        return [f"{seeds_text(seeds)} {state}" for state, seeds in states.items()]

    def evaluation(self, run: FinishedRun, network: str = "") -> dict[str, Any] | None:
        """A run's final evaluation, or that of its distilled set on another network; None where
        nobody has made that one yet."""
        if not network:
            return run.result["evaluation"]
        own = run.result.get("transfers") or {}
        return own.get(network) or self.transfers.get((run.folder.name, network))


def grid_runs(name: str, request: Request, stored: Sequence[StoredRun], root: Path) -> GridRuns:
    """A grid of the project with its runs under `root`.

    Raises:
        UserError: there is no such grid, or a setting that no run has.
    """
    grid = load_grid(name)
    results = load_results(
        stored, grid, request.scale, request.overrides, seeds=request.seeds or None
    )
    labels = {experiment_identity(config): label for label, config in results.experiments.items()}
    overrides = {k: v for k, v in request.overrides.items() if k not in ("scale", "seed")}
    entries = [
        Entry(labels[experiment_identity(config)], config, paper)
        for config, paper in zip(
            _of_each_entry(grid, request.scale, overrides), _at_paper_scale(name), strict=True
        )
    ]
    return GridRuns(grid, entries, results, _transfers(results, root))


def _of_each_entry(grid: Grid, scale: str, overrides: dict[str, Any]) -> list[RunConfig]:
    """One configuration an entry, also where two entries are the same run at this scale."""
    alone = [replace(grid, runs=[run]) for run in grid.runs]
    return [config for one in alone for config in expand(one, scale, overrides, seeds=1)]


@cache
def _at_paper_scale(name: str) -> list[RunConfig]:
    return _of_each_entry(load_grid(name), "paper", {})


def seeds_text(seeds: Sequence[int]) -> str:
    """`seed 1` or `seeds 1, 2`."""
    return f"seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}"


def grid_exists(name: str) -> bool:
    """Whether the project has the grid."""
    return name in grid_names()


def _transfers(results: Results, root: Path) -> dict[tuple[str, str], dict[str, Any]]:
    """What `bench.evaluate distilled=RUN arch=...` recorded of these runs; a record in which any
    other setting was changed too is left out."""
    configs = {run.folder.name: run.config for run in results.runs}
    found = {}
    for path in sorted(root.glob("evaluations/*.json")):
        try:
            record = json.loads(path.read_text())
            distilled, config = Path(record["distilled"]), RunConfig(**record["config"])
            evaluation = record["evaluation"]
        except (OSError, ValueError, TypeError, KeyError):
            continue  # damaged, or of another version
        name = distilled.parent.name if distilled.suffix == ".safetensors" else distilled.name
        own = configs.get(name)
        if own is None or config.arch == own.arch or config.seed != own.seed:
            continue
        if set(differences(config, own)) <= {"arch", "width", "depth", *AT_THE_END}:
            found[name, config.arch] = evaluation
    return found
