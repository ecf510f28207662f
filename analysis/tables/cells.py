"""The tables that results are set beside the paper's in: which runs answer to which number."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from analysis.arguments import Request
from analysis.grid_entries import GridRuns, grid_exists, grid_runs, seeds_text
from analysis.load import FinishedRun, StoredRun, collected
from analysis.paper import Number, PaperTable, Row, paper_table
from bench.system.text import count

Column = tuple[str | int, ...]
WIDE = "wide_convnet"


@dataclass(frozen=True)
class TableSpec:
    """One table.

    Attributes:
        name: as it is asked for.
        paper: its key among the paper's numbers.
        grid: the runs behind it.
        heading: what its columns are in the paper.
        hours: it shows times, not accuracies.
        storage: it shows what a distilled set takes to store, beside what it may.
    """

    name: str
    paper: str
    grid: str
    heading: tuple[str, ...]
    hours: bool = False
    storage: bool = False


TABLES = {
    spec.name: spec
    for spec in (
        TableSpec("1", "table1", "standard_benchmarks", ("Data set", "IPC")),
        TableSpec("2", "table2", "architectures", ("Architecture",)),
        TableSpec(
            "parameterization",
            "parameterization",
            "parameterization",
            ("Data set", "IPC"),
            storage=True,
        ),
        TableSpec("inner_optimizer", "inner_optimizer", "inner_optimizer", ()),
        TableSpec("efficiency", "efficiency", "efficiency", (), hours=True),
    )
}


@dataclass
class Cell:
    """A number of the paper, and what our runs say of it.

    Attributes:
        column: its column in the paper's table.
        seeds: our values by seed, in the unit of the table.
        evaluations: the records behind them.
        runs: the finished runs behind them.
        run_on: what was run, in words; empty where nothing stands for this number.
        missing: what is not there yet.
        commands: how to make it.
    """

    method: str
    column: Column
    paper: Number
    seeds: dict[int, float] = field(default_factory=dict)
    evaluations: list[dict[str, Any]] = field(default_factory=list)
    runs: list[FinishedRun] = field(default_factory=list)
    run_on: str = ""
    missing: list[str] = field(default_factory=list)
    commands: list[str] = field(default_factory=list)

    @property
    def mean(self) -> float | None:
        return fmean(self.seeds.values()) if self.seeds else None

    @property
    def std(self) -> float | None:
        return stdev(self.seeds.values()) if len(self.seeds) > 1 else None

    @property
    def networks(self) -> list[int]:
        """Networks behind the value of a seed: one number, unless runs were mixed."""
        return sorted({evaluation["n"] for evaluation in self.evaluations})


@dataclass(frozen=True)
class Table:
    """A table's numbers; `grid` is None where this version has no such grid."""

    spec: TableSpec
    paper: PaperTable
    grid: GridRuns | None
    cells: list[Cell]
    comparable: bool


def table(spec: TableSpec, request: Request, stored: Sequence[StoredRun], root: Path) -> Table:
    """The numbers of a table, from the runs under `root`.

    Raises:
        UserError: a setting that no run has.
    """
    paper = paper_table(spec.paper)
    grid = grid_runs(spec.grid, request, stored, root) if grid_exists(spec.grid) else None
    cells = []
    for row in paper.rows:
        if not row.quoted:
            own = [
                _cell(spec, variant, row, column, settings, grid, request, root)
                for variant, settings in _variants(spec, row)
                for column in row.numbers
                if column != ("average",)
            ]
            cells += own
            if ("average",) in row.numbers:
                cells.append(_average(row, own))
    return Table(spec, paper, grid, cells, comparable(spec, request))


def comparable(spec: TableSpec, request: Request) -> bool:
    """Whether a difference to the paper means something: at the paper's scale, with no setting
    changed but the selection, and never for times, which are those of another machine."""
    changed = {text.partition("=")[0] for text in request.settings()} - {"selection"}
    return request.scale == "paper" and not changed and not spec.hours


def _variants(spec: TableSpec, row: Row) -> Iterator[tuple[str, dict[str, Any]]]:
    """What we run for a row of the paper: its name and the settings that find it in the grid."""
    match spec.name:
        case "parameterization":
            linear = row.method.startswith("Linear")
            yield row.method, {"parameterization": "linear" if linear else "pixels"}
        case "inner_optimizer":
            yield row.method, {"inner_optimizer": "sgd" if "SGD" in row.method else "adam"}
        case "efficiency":
            yield f"{row.method}, engine=higher", {"engine": "higher"}
            yield f"{row.method}, engine=exact", {"engine": "exact"}
        case _:
            yield row.method, {}


def _place(spec: TableSpec, row: Row, column: Column) -> tuple[dict[str, Any], str]:
    """The settings of a column's entry, and the other network that it is tested on, if any."""
    if spec.name == "2":
        transfer = row.method == "Transfer"
        return ({"arch": "convnet"}, str(column[0])) if transfer else ({"arch": column[0]}, "")
    if len(column) == 2:
        settings = {"dataset": column[0], "ipc": column[1]}
        return settings, WIDE if "transfer" in row.method else ""
    return {}, ""


def _cell(
    spec: TableSpec,
    method: str,
    row: Row,
    column: Column,
    settings: Mapping[str, Any],
    grid: GridRuns | None,
    request: Request,
    root: Path,
) -> Cell:
    cell = Cell(method, column if spec.heading else (), row.numbers[column])
    if grid is None:
        cell.missing.append(f"no grid {spec.grid} in this version")
        return cell
    own, network = _place(spec, row, column)
    entry = grid.entry({**settings, **own})
    cell.run_on = _run_on(entry.config.dataset, entry.config.ipc, network or entry.config.arch)
    cell.missing = grid.missing(entry)
    if cell.missing:
        cell.commands.append(request.sweep(spec.grid))
    untested = {}
    for seed, run in grid.runs(entry).items():
        evaluation = grid.evaluation(run, network)
        if evaluation is None:
            untested[seed] = str(root / "runs" / run.folder.name)
            continue
        cell.seeds[seed] = hours(run) if spec.hours else 100 * evaluation["test_accuracy_mean"]
        cell.evaluations.append(evaluation)
        cell.runs.append(run)
    if untested:
        cell.missing.append(f"{seeds_text([*untested])} not tested on {network}")
        cell.commands.append(request.evaluate([*untested.values()], network))
    elif network and cell.missing and network not in entry.config.transfer_to:
        cell.commands.append(f"# after it, this command names what tests the sets on {network}")
    return cell


def _run_on(dataset: str, ipc: int, network: str) -> str:
    return f"{dataset}, IPC {ipc}, {network}"


def hours(run: FinishedRun) -> float:
    """The time of a run's outer steps, without its measurements."""
    return float(collected(run.folder, "metrics")["seconds"].sum()) / 3600


def median_seconds(run: FinishedRun) -> float:
    """Of an outer step: what else the machine did disturbs it less than their sum."""
    return float(collected(run.folder, "metrics")["seconds"].median())


def _average(row: Row, cells: Sequence[Cell]) -> Cell:
    """The mean over all columns of each seed that all of them have."""
    found = Cell(row.method, ("average",), row.numbers[("average",)], run_on="all of the above")
    common = set.intersection(*(set(cell.seeds) for cell in cells))
    found.seeds = {seed: fmean(cell.seeds[seed] for cell in cells) for seed in sorted(common)}
    if common:
        found.evaluations = [evaluation for cell in cells for evaluation in cell.evaluations]
    lacking = sum(not cell.seeds for cell in cells)
    if lacking:
        found.missing.append(f"{lacking} of {count(len(cells), 'column')} have no run")
    elif not common:
        found.missing.append("no seed has all columns")
    return found
