"""What stands above a table: how to read it, where its numbers come from, and what is missing."""

from collections.abc import Sequence

from analysis.arguments import sweeps_first
from analysis.paper import content
from analysis.provenance import data_text, selection_text
from analysis.tables.cells import Table
from bench.system.text import count


def caption(table: Table, scale: str, settings: Sequence[str]) -> str:
    """How to read the table and where its numbers come from, in one paragraph."""
    runs = {run.folder.name: run for cell in table.cells for run in cell.runs}
    configs = [run.config for run in runs.values()]
    place = f"(paper: {table.paper.place})"
    parts = [f"{table.paper.title} {place}.", _reading(table), _comparison(table, scale)]
    if any(row.quoted for row in table.paper.rows):
        parts.append("Quoted rows are the paper's record of other methods; nothing here ran them.")
    if table.spec.hours:
        parts.append(_machines(table))
    given = "".join(f", {text}" for text in settings)
    data = dict.fromkeys(data_text(run.result) for run in runs.values())
    origin = f"; data: {' and '.join(data)}" if data else "; no finished run"
    parts.append(f"grid={table.spec.grid}, scale={scale}{given}{origin}.")
    return " ".join(filter(None, [*parts, "" if table.spec.hours else selection_text(configs)]))


def _reading(table: Table) -> str:
    if table.spec.hours:
        return (
            "Ours: mean ± standard deviation over seeds of the hours of all outer steps, without"
            " measurements, and the median of one step. Whatever else the machine did is in them."
        )
    return (
        "Ours: mean ± standard deviation over n seeds, a distilled set each; a seed's value is the"
        f" mean over fresh networks. The paper's ±: {table.paper.spread}."
    )


def _comparison(table: Table, scale: str) -> str:
    if table.comparable:
        return "Difference: ours less the paper's, in points."
    if table.spec.hours:
        return (
            f"The paper's hours are those of a {content()['efficiency']['hardware']}, up to its"
            " own end of training: no difference is computed."
        )
    stand_in = " The bundled digits stand in for every data set." if scale == "quick" else ""
    return (
        "These runs are not in the paper's setting, and no difference to its numbers is"
        f" computed.{stand_in}"
    )


def _machines(table: Table) -> str:
    told: dict[str, None] = {}
    for cell in table.cells:
        for run in cell.runs:
            starts = run.manifest.get("starts") or [{}]
            hardware = starts[-1].get("hardware") or {}
            machine = hardware.get("gpu") or hardware.get("cpu") or "an unknown machine"
            told[f"{run.config.outer_steps} outer steps on {machine}"] = None
    return f"Ours: {' and '.join(told)}." if told else ""


def missing_text(table: Table) -> list[str]:
    """Lines that say what is missing and how to make it."""
    lacking = [cell for cell in table.cells if cell.missing]
    if not lacking:
        return []
    commands = sweeps_first(command for cell in table.cells for command in cell.commands)
    told = f"{len(lacking)} of {count(len(table.cells), 'number')} lack runs (column Missing)"
    if not commands:
        return [f"{told}."]
    return [f"{told}; make them with:", *commands]
