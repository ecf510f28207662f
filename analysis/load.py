"""Results as tidy tables: the finished runs of a grid, their outer steps and their measurements.

Runs are matched to a grid by `experiment_identity`, the hash of the configuration without its seed:
every finished seed counts, and a run with any other setting is never mixed in.
"""

import json
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from analysis.labels import Variant, differences, distinct_labels
from analysis.records import REMEDY, collected
from bench.config.grid import Grid, requested
from bench.config.identity import experiment_identity
from bench.config.run_config import RunConfig
from bench.publishing.reading import PublishedRun
from bench.runs.heartbeat import progress_of
from bench.runs.records import has_records
from bench.runs.run_folder import RunFolder, Store
from bench.system.errors import Damaged, UserError
from bench.system.text import count

MAX_FORGOTTEN_SETTINGS = 2  # a run that differs in more is of another grid
MAX_DAMAGES_SHOWN = 5
FORMER_VARIANCE = "former variance"  # over the norm of its own samples' mean, recorded alone


@dataclass(frozen=True)
class StoredRun:
    """A run that has a folder; `experiment` is its `experiment_identity`."""

    folder: RunFolder
    config: RunConfig
    experiment: str
    finished: bool

    # Each is read once, however many grids, figures and claims of a command show the run.
    @cached_property
    def result(self) -> dict[str, Any]:
        """The result of a finished run.

        Raises:
            Damaged: it is, or the run's records are damaged or missing.
        """
        folder = self.folder.with_result
        result = folder.read("result") or {}
        folder.compare()
        if not result.get("checksums"):  # it is of before there were any
            _parse(folder)
        return result

    @cached_property
    def manifest(self) -> dict[str, Any]:
        """The manifest; empty if it is damaged, since the run's numbers are still valid."""
        try:
            return self.folder.with_result.read("manifest") or {}
        except Damaged as error:
            print(f"note: {error}", file=sys.stderr)
            return {}


@dataclass(frozen=True)
class Experiment:
    """One configuration of a grid, whatever the seed.

    Attributes:
        identity: its `experiment_identity`, by which runs are matched.
        label: its name in legends and tables; for display only.
    """

    identity: str
    label: str
    config: RunConfig


@dataclass(frozen=True)
class FinishedRun:
    """A finished run of a grid; or, without a result, an unfinished one that curves show too."""

    folder: RunFolder
    config: RunConfig
    experiment: Experiment
    manifest: dict[str, Any]
    result: dict[str, Any]

    def step_seconds(self) -> pd.Series:
        """Of each outer step, without measurements."""
        return collected(self.folder, "metrics")["seconds"]

    def peak_memory_bytes(self) -> int | None:
        """The peak of the GPU's tensors, or of the process where there is no GPU."""
        peaks = self.result.get("peak_memory_bytes") or {}
        return peaks.get("device") or peaks.get("process") or None


@dataclass(frozen=True)
class MissingRun:
    """A run without a final result, which the grid asks for or which was started for it.

    Attributes:
        diverged: it failed because it diverged, which is a result too: to start it again is no
            remedy.
    """

    experiment: Experiment
    seed: int
    state: str
    diverged: bool = False


@dataclass(frozen=True)
class Results:
    """The runs of a grid at one scale.

    Attributes:
        experiments: in the grid's order.
        runs: the finished ones, in the grid's order, then by seed; also unfinished ones with
            records, if they were asked for.
        missing: those that are not finished.
    """

    grid: str
    scale: str
    experiments: list[Experiment]
    runs: list[FinishedRun]
    missing: list[MissingRun]

    def runs_of(self, experiment: Experiment) -> list[FinishedRun]:
        return [run for run in self.runs if run.experiment.identity == experiment.identity]

    def missing_of(self, experiment: Experiment) -> list[MissingRun]:
        return [run for run in self.missing if run.experiment.identity == experiment.identity]

    def can_be_made(self) -> bool:
        """Whether a sweep can make some of what is missing."""
        return not all(run.diverged for run in self.missing)

    def metrics(self) -> pd.DataFrame:
        """One row per outer step: run, experiment, label, method, seed, fields of `OuterStep`."""
        return self._table("metrics")

    def measurements(self) -> pd.DataFrame:
        """One row per run and measurement: run, experiment, label, method, seed, step, `kind`
        ("accuracy", "variance" or `FORMER_VARIANCE`) and the measured values, except accuracies of
        single networks."""
        table = self._table("measurements")
        recorded = [
            table[column].notna() if column in table else np.zeros(len(table), bool)
            for column in ("n", "samples")
        ]
        return table.assign(kind=np.select(recorded, ["accuracy", "variance"], FORMER_VARIANCE))

    def restricted(self, shown: Callable[[RunConfig], bool]) -> "Results":
        """The same for some of the experiments only."""
        return replace(
            self,
            experiments=[one for one in self.experiments if shown(one.config)],
            runs=[run for run in self.runs if shown(run.experiment.config)],
            missing=[run for run in self.missing if shown(run.experiment.config)],
        )

    def _table(self, name: str) -> pd.DataFrame:
        every = [(run, collected(run.folder, name)) for run in self.runs]
        parts = [(run, table) for run, table in every if not table.empty]
        if not parts:
            return pd.DataFrame()
        owners = pd.DataFrame(
            {
                "run": run.folder.name,
                "experiment": run.experiment.identity,
                "label": run.experiment.label,
                "method": run.config.method,
                "seed": run.config.seed,
            }
            for run, _ in parts
        )
        rows = np.repeat(np.arange(len(parts)), [len(table) for _, table in parts])
        whole = pd.concat([table for _, table in parts], ignore_index=True)
        return pd.concat([owners.iloc[rows].reset_index(drop=True), whole], axis=1)


def stored_runs(root: Path) -> list[StoredRun]:
    """All runs under a results folder. A run whose configuration is damaged or of another version
    is skipped with a note."""
    return stored_of(Store(root).runs())


def stored_of(folders: Iterable[RunFolder]) -> list[StoredRun]:
    """The same of some run folders."""
    runs, damages, others = [], [], 0
    for folder in folders:
        try:
            config = folder.config()
        except Damaged as error:
            damages.append(str(error))
            continue
        except UserError:
            others += 1
            continue
        runs.append(StoredRun(folder, config, experiment_identity(config), folder.has_result()))
    print_damages(damages)
    if others:
        what = f"{count(others, 'run')} of another version"
        print(f"note: skipped: {what}; python -m bench.status says which", file=sys.stderr)
    return runs


def print_damages(damages: Sequence[str]) -> None:
    """Print a note for each run that is skipped because it is damaged."""
    for damage in damages[:MAX_DAMAGES_SHOWN]:
        print(f"note: skipped: {damage}", file=sys.stderr)
    if (more := len(damages) - MAX_DAMAGES_SHOWN) > 0:
        print(f"note: skipped: {more} more; python -m bench.status names them", file=sys.stderr)


def load_results(
    stored: Sequence[StoredRun],
    grid: Grid,
    scale: str,
    overrides: dict[str, Any],
    *,
    seeds: int | None = None,
    methods: Sequence[str] = (),
    variants: Sequence[Variant] = (),
    unlabeled: Sequence[str] = (),
    unfinished: bool = False,
) -> Results:
    """The runs of `grid` at `scale` among the stored ones.

    Args:
        stored: from `stored_runs`.
        overrides: the settings that the sweep was given; `seed` is the first seed.
        seeds: how many seeds there should be, by default the grid's number; further finished seeds
            count too.
        methods: only these; by default all.
        variants, unlabeled: how experiments are labeled, as for `distinct_labels`.
        unfinished: whether runs that are not finished are shown as far as they have come.

    Raises:
        UserError: an unknown setting, or a method that is not in the grid.
    """
    configs = requested(grid, scale, overrides, seeds=seeds or 0, methods=methods)
    wanted: dict[str, dict[int, RunConfig]] = {}
    for config in configs:
        wanted.setdefault(experiment_identity(config), {})[config.seed] = config
    firsts = [next(iter(by_seed.values())) for by_seed in wanted.values()]
    labels = distinct_labels(firsts, variants, unlabeled)
    experiments = [Experiment(*one) for one in zip(wanted, labels, firsts, strict=True)]

    runs, missing, damages = [], [], []
    for experiment in experiments:
        by_seed = {run.config.seed: run for run in stored if run.experiment == experiment.identity}
        for seed in sorted(wanted[experiment.identity].keys() | by_seed.keys()):
            run = by_seed.get(seed)
            if run is None or not run.finished:
                missing.append(_missing(experiment, seed, run))
            if run is None or not (run.finished or (unfinished and has_records(run.folder))):
                continue
            try:
                if not run.finished:
                    _parse(run.folder)
                about = (run.config, experiment, run.manifest, run.result if run.finished else {})
                runs.append(FinishedRun(run.folder, *about))
            except Damaged as error:
                damages.append(str(error))
                if run.finished:
                    missing.append(MissingRun(experiment, seed, "damaged"))
    print_damages(damages)
    return Results(grid.name, scale, experiments, runs, missing)


def _parse(folder: RunFolder) -> None:
    """Raise Damaged if the records of a run are missing, empty or cannot be read. Those of
    published runs have been compared with their checksums."""
    for name in () if isinstance(folder, PublishedRun) else ("metrics", "measurements"):
        if collected(folder, name).empty and name == "metrics":
            raise Damaged(f"{folder.path} has a result and no outer step; {REMEDY}")


def _missing(experiment: Experiment, seed: int, run: StoredRun | None) -> MissingRun:
    if run is None:
        return MissingRun(experiment, seed, "not started")
    progress = progress_of(run.folder)
    at = f" at outer step {progress.step}" if progress.step else ""
    cause = f" ({progress.cause.partition(':')[0]})" if progress.state == "failed" else ""
    state = f"{progress.state}{at}{cause}"
    return MissingRun(experiment, seed, state, progress.kind == "diverged")


def settings_of_others(stored: Sequence[StoredRun], results: Results) -> dict[str, Any]:
    """The settings that someone who swept with `outer_steps=60` forgot when plotting.

    That is the smallest difference, shared by most, between finished runs of the same methods and
    scale and the experiments of `results`; empty if there is none.
    """
    counts: Counter[str] = Counter()
    for run in stored:
        configs = [one.config for one in results.experiments]
        likely = [config for config in configs if config.method == run.config.method]
        if run.finished and run.config.scale == results.scale and likely:
            nearest = min((differences(run.config, config) for config in likely), key=len)
            if len(nearest) <= MAX_FORGOTTEN_SETTINGS:
                counts[json.dumps(nearest)] += 1
    if not counts:
        return {}
    return json.loads(min(counts, key=lambda text: (len(json.loads(text)), -counts[text])))
