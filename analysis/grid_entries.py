"""The runs behind a number of the paper: a grid's entry, found by its settings at `scale=paper`.

At `scale=quick` the entry of Table 1's cell "CIFAR-10, IPC 10" is a run on digits. Its settings at
the paper's scale say at every scale which cell it belongs to.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from analysis.arguments import Request
from analysis.labels import AT_THE_END, differences, flat_settings
from analysis.load import (
    Experiment,
    FinishedRun,
    Results,
    StoredRun,
    load_results,
    print_damages,
)
from bench.config.grid import Grid, expand, load_grid
from bench.config.identity import experiment_identity, written_config
from bench.config.objectives import UNROLLED
from bench.config.resolve import on_network
from bench.config.run_config import RunConfig
from bench.publishing.reading import EVALUATIONS
from bench.runs.json_files import without_checksum
from bench.runs.run_folder import SET_FILE, name_of
from bench.system.errors import Damaged, UserError
from methods import options_before


@dataclass(frozen=True)
class Entry:
    """An entry of a grid.

    Attributes:
        experiment: what it is at the requested scale.
        paper: what it is at `scale=paper`.
    """

    experiment: Experiment
    paper: RunConfig

    def has(self, settings: Mapping[str, Any]) -> bool:
        """Whether it has these settings at the paper's scale; `method_options` as a whole, or one
        as `method_options.name`."""
        unrolled = self.paper.objective == UNROLLED
        later = options_before(self.paper.method) if unrolled else {}
        before = {f"method_options.{key}": v for key, v in later.items()}
        paper = {**before, **vars(self.paper), **flat_settings(self.paper)}
        return all(key in paper and paper[key] == value for key, value in settings.items())


@dataclass(frozen=True)
class GridRuns:
    """A grid's entries with their runs.

    Attributes:
        results: the finished and the missing runs.
        transfers: evaluations on other networks made by `bench.evaluate`, by (name of the run's
            folder, network).
    """

    grid: Grid
    entries: list[Entry]
    results: Results
    transfers: dict[tuple[str, str], dict[str, Any]]

    def entry(self, settings: Mapping[str, Any]) -> Entry:
        """The one entry with these settings at the paper's scale.

        Raises:
            UserError: no entry has them, or several do.
        """
        entries = [entry for entry in self.entries if entry.has(settings)]
        if len(entries) != 1:
            text = ", ".join(f"{key}={value}" for key, value in settings.items())
            raise UserError(
                f"grid {self.grid.name} has {len(entries)} entries with {text} at scale=paper;"
                " there must be exactly one"
            )
        return entries[0]

    def runs(self, entry: Entry) -> dict[int, FinishedRun]:
        """Its finished runs, by seed."""
        return {run.config.seed: run for run in self.results.runs_of(entry.experiment)}

    def missing(self, entry: Entry) -> list[str]:
        """Its missing seeds, by status, such as "seeds 1, 2 not started"."""
        states: dict[str, list[int]] = {}
        for run in self.results.missing_of(entry.experiment):
            states.setdefault(run.state, []).append(run.seed)
        return [f"{seeds_text(seeds)} {state}" for state, seeds in states.items()]

    def diverged(self, entry: Entry) -> list[int]:
        """The seeds whose runs diverged."""
        return [run.seed for run in self.results.missing_of(entry.experiment) if run.diverged]

    def can_be_made(self, entry: Entry) -> bool:
        """Whether a sweep can make some of the missing seeds."""
        return len(self.diverged(entry)) < len(self.results.missing_of(entry.experiment))

    def evaluation(self, run: FinishedRun, network: str = "") -> dict[str, Any] | None:
        """A run's final evaluation, or the evaluation of its distilled set on another network; None
        if that has not been made."""
        if not network:
            return run.result["evaluation"]
        transfers = run.result.get("transfers") or {}
        return transfers.get(network) or self.transfers.get((run.folder.name, network))


def grid_runs(name: str, request: Request, stored: Sequence[StoredRun], root: Path) -> GridRuns:
    """A grid of the project with its runs under `root`.

    Raises:
        UserError: there is no such grid, or a setting is unknown.
    """
    grid = load_grid(name)
    results = load_results(
        stored, grid, request.scale, request.overrides, seeds=request.seeds or None
    )
    experiments = {experiment.identity: experiment for experiment in results.experiments}
    overrides = {k: v for k, v in request.overrides.items() if k not in ("scale", "seed")}
    of_entries = _one_per_entry(grid, request.scale, overrides)
    entries = [
        Entry(experiments[experiment_identity(config)], paper)
        for config, paper in zip(of_entries, at_paper_scale(name), strict=True)
    ]
    of_runs = {run.folder.name: (run.config, run.result) for run in results.runs}
    return GridRuns(grid, entries, results, transfers_of(of_runs, root))


def _one_per_entry(grid: Grid, scale: str, overrides: dict[str, Any]) -> list[RunConfig]:
    """One configuration per entry, also where two entries are the same run at this scale."""
    singles = [replace(grid, runs=[run]) for run in grid.runs]
    return [config for single in singles for config in expand(single, scale, overrides, seeds=1)]


@cache
def at_paper_scale(name: str) -> list[RunConfig]:
    """The configuration of each entry of a grid at `scale=paper`."""
    return _one_per_entry(load_grid(name), "paper", {})


def seeds_text(seeds: Sequence[int]) -> str:
    """`seed 1` or `seeds 1, 2`."""
    return f"seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}"


def transfers_of(
    runs: Mapping[str, tuple[RunConfig, Mapping[str, Any]]], root: Path
) -> dict[tuple[str, str], dict[str, Any]]:
    """Evaluations of runs that `bench.evaluate distilled=RUN arch=...` recorded, by name of the run
    and network; a record is skipped if any other setting, the data or the distilled set differs.

    Args:
        runs: configuration and result by the names of their folders.
    """
    evaluations = {}
    for record, config in evaluation_records(sorted(root.glob(f"{EVALUATIONS}/*.json"))):
        name = name_of(record["distilled"])
        if "evaluation" not in record or name not in runs:  # scores, or another set
            continue
        run_config, result = runs[name]
        own_set = (result.get("checksums") or {}).get(SET_FILE)  # a rerun may have replaced it
        if (
            config.arch != run_config.arch
            and config.seed == run_config.seed
            and record["data"].get("fingerprint") == result.get("data", {}).get("fingerprint")
            and own_set in (None, record.get("set_checksum", own_set))
            and not record.get("read_as", {}).get("labels")  # other labels, another set
            and record["config"].keys() <= vars(config).keys()
            and set(differences(config, on_network(run_config, config.arch))) <= set(AT_THE_END)
        ):
            evaluations[name, config.arch] = record["evaluation"]
    return evaluations


def evaluation_records(paths: Iterable[Path]) -> Iterator[tuple[dict[str, Any], RunConfig]]:
    """What `bench.evaluate` and `bench.scores` recorded in these files, with its configuration.
    Files that hold something else are skipped, damaged ones with a note."""
    for path in paths:
        try:
            record = without_checksum(
                json.loads(path.read_text(encoding="utf-8")), path, "delete it"
            )
            config = written_config(record["config"])
            if {"distilled", "what", "data"} <= record.keys():
                yield record, config
        except Damaged as error:
            print_damages([str(error)])
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            continue
