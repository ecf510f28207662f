"""The paper's rivals, run here at equal storage: accuracy, seconds and memory, and the quoted."""

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import pandas as pd

from analysis.arguments import Request
from analysis.captions import caption
from analysis.grid_entries import Entry, GridRuns, grid_runs
from analysis.load import StoredRun
from analysis.paper import paper_table
from analysis.provenance import machine_names
from analysis.rendered_table import MISSING, RenderedTable, as_shown
from analysis.tables.cells import networks_text, run_on
from bench.config.objectives import objective_label
from bench.config.run_config import RunConfig
from bench.system.text import count, mean_std
from methods import method_label

# The grids, and the title of the table of each.
_TITLE = "The paper's rivals and RaT-BPTT at equal storage, with one evaluation"
RIVALS = {"rivals": _TITLE, "rivals_ipc10": f"{_TITLE}: ten images per class (digits: two)"}
# The rows of Table 1 and of Figure 4's table that are quoted for what an entry runs, by its name.
# BPTT in Table 1 is LinBa without its bases; ours starts its windows at inner step 1.
OF_PIXELS, OF_BASES = "table1", "parameterization"
QUOTED_BASES = {"linear": "LinBa", "idc": "IDC", "haba": "HaBa"}


def rival_table(
    name: str, request: Request, stored: Sequence[StoredRun], root: Path
) -> RenderedTable:
    """The table of one of the grids `RIVALS`.

    Raises:
        UserError: an unknown setting.
    """
    grid = grid_runs(name, request, stored, root)
    incomplete = sum(bool(grid.missing(entry)) for entry in grid.entries)
    runs = [run for entry in grid.entries for run in grid.runs(entry).values()]
    reading = [
        f"{RIVALS[name]}.",
        "Accuracy: mean ± standard deviation over n seeds, in percent; a seed's value is the mean"
        " over fresh networks. Sets whose labels are learned store more numbers.",
        "Seconds in all: those of outer steps alone, mean over seeds. Memory: the largest"
        " peak of a seed, of the GPU's tensors or of the process where there is none.",
        f"Measured on {machine_names(runs)}." if runs else "",
        "Quoted: what the paper gives for the published system on CIFAR-10 at the same number of"
        " images per class, with its own protocol (Table 1; Figure 4). Beside BPTT from step 1"
        " stands BPTT with all steps, beside RFAD RFAD with a wider network.",
    ]
    return RenderedTable(
        name=name,
        title=RIVALS[name],
        caption=caption(reading, request, runs, grid=name),
        frames=[(as_shown([_shown(row(grid, entry)) for entry in grid.entries]), "")],
        tidy=pd.DataFrame([row(grid, entry) for entry in grid.entries]),
        missing=f"{incomplete} of {count(len(grid.entries), 'row')} lack runs (column Missing)"
        if incomplete
        else "",
        commands=[request.sweep(name)] if grid.results.can_be_made() else [],
    )


def rival_frames(
    request: Request, stored: Sequence[StoredRun], root: Path
) -> list[tuple[pd.DataFrame, str]]:
    """The same beside Table 1; of each grid nothing before there are runs.

    Raises:
        UserError: an unknown setting.
    """
    tables = [rival_table(name, request, stored, root) for name in RIVALS]
    return [(one.frames[0][0], one.caption) for one in tables if one.tidy["n_seeds"].any()]


def row(grid: GridRuns, entry: Entry) -> dict[str, Any]:
    """The numbers of one entry."""
    config = entry.experiment.config
    runs = grid.runs(entry)
    evaluations = [run.result["evaluation"] for run in runs.values()]
    accuracies = [100 * evaluation["test_accuracy_mean"] for evaluation in evaluations]
    peaks = [peak for run in runs.values() if (peak := run.peak_memory_bytes())]
    storage = {run.result.get("storage_floats") for run in runs.values()}
    quoted = _quoted(entry.paper)
    return {
        "method": _name(config),
        "labels": "learned" if config.learn_labels else "hard",
        "run_on": run_on(config),
        "ours_mean": fmean(accuracies) if accuracies else None,
        "ours_std_over_seeds": stdev(accuracies) if len(accuracies) > 1 else None,
        "n_seeds": len(runs),
        "networks_a_seed": networks_text(evaluations),
        "storage_floats": storage.pop() if len(storage) == 1 else None,
        "outer_steps": config.outer_steps,
        "seconds": fmean(run.step_seconds().sum() for run in runs.values()) if runs else None,
        "memory_gib": max(peaks) / 2**30 if peaks else None,
        "quoted": quoted,
        "missing": "; ".join(grid.missing(entry)),
    }


def _shown(numbers: dict[str, Any]) -> dict[str, str]:
    mean = numbers["ours_mean"]
    text = MISSING if mean is None else mean_std(mean, numbers["ours_std_over_seeds"], ".1f")
    learned = numbers["labels"] == "learned"
    floats, seconds, memory = (numbers[key] for key in ("storage_floats", "seconds", "memory_gib"))
    return {
        "Method": numbers["method"],
        "Run on": numbers["run_on"],
        "Ours, hard labels": "" if learned else text,
        "Ours, learned labels": text if learned else "",
        "n (seeds)": str(numbers["n_seeds"]),
        "networks a seed": numbers["networks_a_seed"],
        "Floats stored": "" if floats is None else f"{floats:,}",
        "Outer steps": f"{numbers['outer_steps']:,}",
        "Seconds in all": "" if seconds is None else f"{seconds:.3g}",
        "GiB": "" if memory is None else f"{memory:.2f}",
        "Quoted": numbers["quoted"],
        "Missing": numbers["missing"],
    }


def _name(config: RunConfig) -> str:
    name = objective_label(config.method) or method_label(config.method)
    first = config.method_options.get("first")
    start = f" from step {first}" if first else ""
    kind = (
        ""
        if config.parameterization == "pixels"
        else f", parameterization={config.parameterization}"
    )
    return f"{name}{start}{kind}"


def _quoted(paper: RunConfig) -> str:
    """What the paper quotes for this system on the data set and IPC of the entry's paper scale. The
    quoted KIP has another kernel."""
    if paper.objective == "kip":
        return ""
    name, table = QUOTED_BASES.get(paper.parameterization), OF_BASES
    if name is None:
        name, table = paper.method.upper().replace("_", "-"), OF_PIXELS
    rows = {one.method.upper(): one for one in paper_table(table).rows}
    found = rows.get(name.upper())
    number = found.numbers.get((paper.dataset, paper.ipc)) if found else None
    return "" if number is None else str(number)
