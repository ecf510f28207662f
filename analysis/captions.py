"""Captions of figures, tables and verdicts: how to read them, and the source of their numbers."""

from collections.abc import Iterable, Sequence

from analysis.arguments import Request
from analysis.load import FinishedRun
from analysis.setting_sources import ours_text


def caption(
    reading: Iterable[str],
    request: Request,
    runs: Sequence[FinishedRun],
    *,
    grid: str = "",
    selected: str = "",
) -> str:
    """A caption of two lines: how to read what is shown, and its source.

    Args:
        reading: sentences; empty ones are dropped.
        runs: the finished runs behind the numbers.
        grid: their grid, where there is only one.
        selected: what the selection applies to; continues the statement of the protocol.
    """
    settings = [f"grid={grid}"] if grid else []
    settings += [f"scale={request.scale}", *request.settings()]
    data = f"data: {' and '.join(_data_of(runs))}" if runs else "no finished run"
    source = [f"{', '.join(settings)}; {data}."]
    if any(run.config.dataset == "digits" for run in runs):
        source.append("The bundled 8x8 digits stand in for the paper's data sets.")
    if request.scale == "paper":
        source.append(ours_text())
    if runs:
        source.append(f"{selection_text(runs)}{selected}.")
    return f"{' '.join(filter(None, reading))}\n{' '.join(source)}"


def _data_of(runs: Iterable[FinishedRun]) -> list[str]:
    """The copies of the data behind runs: one, unless runs are mixed."""
    return list(dict.fromkeys(data_text(run) for run in runs))


def data_text(run: FinishedRun) -> str:
    """The copy of the data that a run used."""
    data = run.result.get("data") or {}
    return f"{data.get('source', 'unknown')}, fingerprint {data.get('fingerprint', 'unknown')}"


def selection_text(runs: Iterable[FinishedRun]) -> str:
    """The selection protocol of runs."""
    texts = dict.fromkeys(
        "selection=test (the published protocol, not a fair number)"
        if run.config.selection == "test"
        else f"selection=validation ({100 * run.config.validation_fraction:g}% of the training set;"
        " the paper selects by test accuracy)"
        for run in runs
    )
    return " and ".join(texts)
