"""The tables of the paper, and the runs that stand for each of its numbers."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from analysis.arguments import Request
from analysis.grid_entries import GridRuns, grid_runs, seeds_text
from analysis.load import FinishedRun, StoredRun
from analysis.paper import Number, PaperTable, Row, paper_table
from bench.config.run_config import RunConfig
from bench.system.text import count

Column = tuple[str | int, ...]
WIDE = "wide_convnet"
# Table 2's AlexNet has average pools in the paper's published code. The literature's has max pools:
# a column of ours beside it.
ALEXNET, ALEXNET_MAXPOOL = ("alexnet",), ("alexnet_maxpool",)
NETWORKS: dict[Column, str] = {ALEXNET: "alexnet_avgpool", ALEXNET_MAXPOOL: "alexnet"}


@dataclass(frozen=True)
class TableSpec:
    """One table.

    Attributes:
        name: the value of `table=`.
        paper: its key in paper.yaml.
        grid: the runs behind it.
        heading: the headings of its columns in the paper.
        hours: it shows times, not accuracies.
        storage: it shows the storage of a distilled set beside the budget.
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
            *("parameterization", "parameterization", "parameterization", ("Data set", "IPC")),
            storage=True,
        ),
        TableSpec("inner_optimizer", "inner_optimizer", "inner_optimizer", ()),
        TableSpec("efficiency", "efficiency", "efficiency", (), hours=True),
    )
}


@dataclass
class Cell:
    """A number of the paper and our runs for it.

    Attributes:
        column: its column in the paper's table.
        seeds: our values by seed, in the unit of the table.
        evaluations: the records behind them.
        runs: the finished runs behind them.
        run_on: data set, IPC and network of our runs, in words.
        missing: what is missing, in words.
        commands: the commands that make it.
    """

    method: str
    column: Column
    paper: Number
    run_on: str
    seeds: dict[int, float] = field(default_factory=dict)
    evaluations: list[dict[str, Any]] = field(default_factory=list)
    runs: list[FinishedRun] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    commands: list[str] = field(default_factory=list)

    @property
    def mean(self) -> float | None:
        return fmean(self.seeds.values()) if self.seeds else None

    @property
    def std(self) -> float | None:
        return stdev(self.seeds.values()) if len(self.seeds) > 1 else None

    @property
    def networks(self) -> str:
        """Networks behind the value of a seed: one number, unless runs are mixed."""
        return networks_text(self.evaluations)


@dataclass(frozen=True)
class Table:
    """The numbers of a table."""

    spec: TableSpec
    paper: PaperTable
    cells: list[Cell]
    comparable: bool


def table(spec: TableSpec, request: Request, stored: Sequence[StoredRun], root: Path) -> Table:
    """The numbers of a table, from the runs under `root`.

    Raises:
        UserError: an unknown setting.
    """
    paper = paper_table(spec.paper)
    grid = grid_runs(spec.grid, request, stored, root)
    cells = []
    for row in paper.rows:
        if not row.quoted:
            measured = [
                _cell(spec, variant, row, column, number, settings, grid, request)
                for variant, settings in variants(spec, row)
                for column, number in _columns(spec, row)
                if column != ("average",)
            ]
            cells += measured
            if ("average",) in row.numbers:
                cells.append(_average(row, measured))
    return Table(spec, paper, cells, comparable(spec, request))


def comparable(spec: TableSpec, request: Request) -> bool:
    """Whether a difference to the paper is computed: at `scale=paper`, with no setting changed but
    the selection, and never for times, which the paper measured on another machine. Some settings
    of that scale are ours, which the caption says."""
    return request.has_paper_settings() and not spec.hours


def variants(spec: TableSpec, row: Row) -> Iterator[tuple[str, dict[str, Any]]]:
    """The experiments for a row of the paper: name, and settings that find it in the grid."""
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


def _columns(spec: TableSpec, row: Row) -> Iterator[tuple[Column, Number]]:
    """The columns of the paper's row with its numbers, and those that are ours alone."""
    for column, number in row.numbers.items():
        yield column, number
        if spec.name == "2" and column == ALEXNET:
            yield ALEXNET_MAXPOOL, Number(None, absent="not reported")


def column_settings(spec: TableSpec, row: Row, column: Column) -> tuple[dict[str, Any], str]:
    """The settings of a column's entry, and the other network that it is tested on, if any."""
    if spec.name == "2":
        network = NETWORKS.get(column, str(column[0]))
        transfer = row.method == "Transfer"
        return ({"arch": "convnet"}, network) if transfer else ({"arch": network}, "")
    if len(column) == 2:
        settings = {"dataset": column[0], "ipc": column[1]}
        return settings, WIDE if "transfer" in row.method else ""
    return {}, ""


def _cell(
    spec: TableSpec,
    method: str,
    row: Row,
    column: Column,
    number: Number,
    settings: Mapping[str, Any],
    grid: GridRuns,
    request: Request,
) -> Cell:
    of_column, network = column_settings(spec, row, column)
    entry = grid.entry({**settings, **of_column})
    config = entry.experiment.config
    cell = Cell(
        method,
        column if spec.heading else (),
        number,
        run_on(config, network),
        missing=grid.missing(entry),
    )
    if grid.can_be_made(entry):
        cell.commands.append(request.sweep(spec.grid))
    untested = {}
    for seed, run in grid.runs(entry).items():
        evaluation = grid.evaluation(run, network)
        if evaluation is None:
            untested[seed] = run.folder.shown
            continue
        accuracy = 100 * evaluation["test_accuracy_mean"]
        cell.seeds[seed] = run.step_seconds().sum() / 3600 if spec.hours else accuracy
        cell.evaluations.append(evaluation)
        cell.runs.append(run)
    if untested:
        cell.missing.append(f"{seeds_text([*untested])} not evaluated on {network}")
        cell.commands.append(request.evaluate([*untested.values()], network))
    elif network and cell.missing and network not in config.transfer_to:
        cell.commands.append(f"# then repeat this command to see how to test the sets on {network}")
    return cell


def run_on(config: RunConfig, network: str = "") -> str:
    """Data set, IPC and network of an experiment, in words."""
    return f"{config.dataset}, IPC {config.ipc}, {network or config.arch}"


def networks_text(evaluations: Sequence[dict[str, Any]]) -> str:
    """The numbers of networks behind evaluations: one, unless runs are mixed."""
    return "/".join(map(str, sorted({evaluation["n"] for evaluation in evaluations})))


def _average(row: Row, cells: Sequence[Cell]) -> Cell:
    """The mean over all columns, for each seed that all of them have."""
    average = Cell(row.method, ("average",), row.numbers[("average",)], "all of the above")
    common = set.intersection(*(set(cell.seeds) for cell in cells))
    average.seeds = {seed: fmean(cell.seeds[seed] for cell in cells) for seed in sorted(common)}
    if common:
        average.evaluations = [evaluation for cell in cells for evaluation in cell.evaluations]
    empty = sum(not cell.seeds for cell in cells)
    if empty:
        average.missing.append(f"{empty} of {count(len(cells), 'column')} have no run")
    elif not common:
        average.missing.append("no seed has all columns")
    return average
