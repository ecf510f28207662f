"""Results as tidy tables: the finished runs of a grid, their outer steps and their measurements.

Which runs belong to a grid is decided by `experiment_identity`, the configuration without its seed:
any number of finished seeds counts, and a run with any other setting never gets in between.
"""

import json
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.labels import Variant, differences, distinct_labels
from bench.config.grid import Grid, requested
from bench.config.run_config import RunConfig, experiment_identity
from bench.runs.heartbeat import progress_of
from bench.runs.run_folder import RunFolder, Store
from bench.system.errors import Damaged, Unwritable, UserError
from bench.system.files import atomic_write

MOST_SETTINGS = 2  # that somebody gave to a sweep and forgot
MOST_DAMAGES = 5  # that are named one by one


@dataclass(frozen=True)
class StoredRun:
    """A run that has a folder, finished or not."""

    folder: RunFolder
    config: RunConfig
    experiment: str
    finished: bool


@dataclass(frozen=True)
class FinishedRun:
    """A finished run of a grid; `label` names its experiment, as in legends and tables."""

    folder: RunFolder
    config: RunConfig
    label: str
    manifest: dict[str, Any]
    result: dict[str, Any]


@dataclass(frozen=True)
class MissingRun:
    """A run that the grid asks for, or that was begun for it, and that has no result."""

    label: str
    seed: int
    state: str


@dataclass(frozen=True)
class Results:
    """What a grid has to show at one scale.

    Attributes:
        experiments: one configuration an experiment, by label, in the grid's order.
        runs: the finished ones, in the grid's order, then by seed.
        missing: what is not finished.
    """

    grid: str
    scale: str
    experiments: dict[str, RunConfig]
    runs: list[FinishedRun]
    missing: list[MissingRun]

    def metrics(self) -> pd.DataFrame:
        """One row a run and outer step: run, method, label, seed, and what `OuterStep` records."""
        return self._table("metrics")

    def measurements(self) -> pd.DataFrame:
        """One row a run and measurement: run, method, label, seed, step, `kind` ("variance" or
        "accuracy"), and what was measured; accuracies of single networks are left out."""
        table = self._table("measurements")
        counted = table["n"].notna() if "n" in table else pd.Series(False, index=table.index)
        return table.assign(kind=counted.map({True: "accuracy", False: "variance"}))

    def restricted(self, shown: Callable[[RunConfig], bool]) -> "Results":
        """The same for some of the experiments only."""
        experiments = {label: c for label, c in self.experiments.items() if shown(c)}
        return replace(
            self,
            experiments=experiments,
            runs=[run for run in self.runs if run.label in experiments],
            missing=[run for run in self.missing if run.label in experiments],
        )

    def _table(self, name: str) -> pd.DataFrame:
        tables = []
        for run in self.runs:
            table = collected(run.folder, name)
            if table.empty:
                continue
            who = {"run": run.folder.name, "method": run.config.method, "label": run.label}
            for place, (key, value) in enumerate({**who, "seed": run.config.seed}.items()):
                table.insert(place, key, value)
            tables.append(table)
        return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()


def stored_runs(root: Path) -> list[StoredRun]:
    """All runs under a results folder. One whose configuration is damaged belongs to no grid and is
    left out, which is said; so is one of another version, silently."""
    found, damages = [], []
    for folder in Store(root).runs():
        try:
            config = folder.config()
        except Damaged as error:
            damages.append(str(error))
            continue
        except UserError:
            continue
        found.append(StoredRun(folder, config, experiment_identity(config), folder.has_result()))
    tell_left_out(damages)
    return found


def tell_left_out(damages: Sequence[str]) -> None:
    """Say of each run that is left out what of it is damaged and what to do."""
    for damage in damages[:MOST_DAMAGES]:
        print(f"note: left out: {damage}", file=sys.stderr)
    if (more := len(damages) - MOST_DAMAGES) > 0:
        print(f"note: left out: {more} more; python -m bench.status names them", file=sys.stderr)


def load_results(
    stored: Sequence[StoredRun],
    grid: Grid,
    scale: str,
    overrides: dict[str, Any],
    *,
    seeds: int | None = None,
    methods: Sequence[str] = (),
    variants: Sequence[Variant] = (),
    told: Sequence[str] = (),
) -> Results:
    """The runs of `grid` at `scale` among the stored ones.

    Args:
        stored: from `stored_runs`.
        overrides: settings as they were given to the sweep; `seed` is the first seed asked for.
        seeds: how many seeds are asked for (finished ones beyond them count all the same); by
            default what the grid states.
        methods: only these; by default all.
        variants, told: what experiments are called, as for `distinct_labels`.

    Raises:
        UserError: a setting that no run has, a method that the grid has not, a damaged result.
    """
    asked = requested(grid, scale, overrides, seeds=seeds or 0, methods=methods)
    experiments: dict[str, RunConfig] = {}
    for config in asked:
        experiments.setdefault(experiment_identity(config), config)
    distinct = distinct_labels([*experiments.values()], variants, told)
    labels = dict(zip(experiments, distinct, strict=True))

    runs, missing, damages = [], [], []
    for key, label in labels.items():
        own = {run.config.seed: run for run in stored if run.experiment == key}
        wanted = {config.seed for config in asked if experiment_identity(config) == key}
        for seed in sorted(wanted | own.keys()):
            if seed in own and own[seed].finished:
                folder, shown = own[seed].folder, own[seed].folder.shown
                try:
                    result = shown.read("result") or {}
                except Damaged as error:
                    damages.append(str(error))
                    missing.append(MissingRun(label, seed, "damaged (result.json)"))
                    continue
                manifest = _origin(shown)
                runs.append(FinishedRun(folder, own[seed].config, label, manifest, result))
            else:
                state = _state(own[seed].folder) if seed in own else "not started"
                missing.append(MissingRun(label, seed, state))
    tell_left_out(damages)
    by_label = {labels[key]: config for key, config in experiments.items()}
    return Results(grid.name, scale, by_label, runs, missing)


def _origin(folder: RunFolder) -> dict[str, Any]:
    """What a run was made with; nothing, where that is damaged: its numbers stand all the same."""
    try:
        return folder.read("manifest") or {}
    except Damaged as error:
        print(f"note: {error}", file=sys.stderr)
        return {}


def _state(folder: RunFolder) -> str:
    progress = progress_of(folder)
    at = f" at outer step {progress.step}" if progress.step else ""
    cause = f" ({progress.cause.partition(':')[0]})" if progress.state == "failed" else ""
    return f"{progress.state}{at}{cause}"


def settings_of_others(stored: Sequence[StoredRun], results: Results) -> dict[str, Any]:
    """What sets the finished runs of the same methods and scale apart from those asked for: the
    smallest such difference that most of them share; empty where there are none. A run that
    differs in more than `MOST_SETTINGS` is of another grid.

    Someone who swept with `outer_steps=60` and plots without it learns so from this.
    """
    found: Counter[str] = Counter()
    for run in stored:
        likely = [c for c in results.experiments.values() if c.method == run.config.method]
        if run.finished and run.config.scale == results.scale and likely:
            nearest = min((differences(run.config, c) for c in likely), key=len)
            if len(nearest) <= MOST_SETTINGS:
                found[json.dumps(nearest)] += 1
    if not found:
        return {}
    return json.loads(min(found, key=lambda text: (len(json.loads(text)), -found[text])))


def collected(folder: RunFolder, name: str) -> pd.DataFrame:
    """The records "metrics" or "measurements" of a finished run as a table, lists left out.

    They are collected once into a Parquet file beside the JSON lines and read from there as long as
    it is the newer of the two; where the folder cannot be written, from the JSON lines every time.

    Raises:
        UserError: the records are missing or damaged.
    """
    folder = folder.shown
    lines, parquet = folder.path / f"{name}.jsonl", folder.path / f"{name}.parquet"
    if _is_newer(parquet, lines):
        try:
            return pd.read_parquet(parquet)
        except (OSError, ValueError):  # cut short by a copy; the JSON lines are the original
            pass
    if not lines.exists():
        raise UserError(f"{lines} is missing: the run is finished but cannot be drawn")
    try:
        table = _tidy(folder.records(name))
    except json.JSONDecodeError as error:
        raise UserError(f"{lines} is damaged ({error}); restore it or run anew") from error
    try:
        with atomic_write(parquet) as temporary:
            table.to_parquet(temporary, index=False)
    except Unwritable:
        pass  # a results folder that belongs to someone else
    return table


def _tidy(records: list[dict[str, Any]]) -> pd.DataFrame:
    plain = [
        {key: value for key, value in record.items() if not isinstance(value, list)}
        for record in records
    ]
    table = pd.DataFrame(plain)
    # A standard deviation of one network is null: a number that is not there, not an object.
    nulls = [key for key in table if table[key].isna().all()]
    return table.astype(dict.fromkeys(nulls, "float64"))


def _is_newer(parquet: Path, lines: Path) -> bool:
    if not parquet.is_file():
        return False
    return not lines.exists() or parquet.stat().st_mtime_ns > lines.stat().st_mtime_ns
