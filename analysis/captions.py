"""Captions of figures, tables and verdicts: how to read them, and the source of their numbers."""

from collections.abc import Iterable, Sequence

from analysis.arguments import Request
from analysis.load import FinishedRun
from analysis.setting_sources import ours_text
from bench.config.run_config import RunConfig
from bench.publishing.reading import PublishedRun
from bench.system.text import count


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
    source.append(published_text(runs))
    return f"{' '.join(filter(None, reading))}\n{' '.join(filter(None, source))}"


def published_text(runs: Iterable[FinishedRun]) -> str:
    """Which of the runs are published records, and of when; empty if none is."""
    folders = {run.folder.name: run.folder for run in runs}.values()
    dates = [folder.date for folder in folders if isinstance(folder, PublishedRun)]
    if not dates:
        return ""
    part = "" if len(dates) == len(folders) else f" ({len(dates)} of {count(len(folders), 'run')})"
    return f"Source: published records of {dates[0]}{part}."


def _data_of(runs: Iterable[FinishedRun]) -> list[str]:
    """The copies of the data behind runs: one, unless runs are mixed."""
    return list(dict.fromkeys(data_text(run) for run in runs))


def data_text(run: FinishedRun) -> str:
    """The copy of the data that a run used."""
    data = run.result.get("data") or run.manifest.get("data") or {}
    return f"{data.get('source', 'unknown')}, fingerprint {data.get('fingerprint', 'unknown')}"


def selection_text(runs: Iterable[FinishedRun]) -> str:
    """The selection protocols of runs."""
    return " and ".join(dict.fromkeys(_selection_text(run.config) for run in runs))


def _selection_text(config: RunConfig) -> str:
    held_out = f"{100 * config.validation_fraction:g}%"
    match config.selection:
        case "test":
            return (
                "selection=test (as in one published version of the paper's code, not a fair"
                " number; the version that the paper cites selects on the whole training set)"
            )
        case "train" if config.validation_fraction == 0:
            return (
                "selection=train (on the whole training set, as in the version of the code that"
                " the paper cites)"
            )
        case "train":
            return (
                f"selection=train (on the training set without {held_out} that are held out; the"
                " version of the code that the paper cites selects on all of it)"
            )
    return (
        f"selection=validation ({held_out} of the training set, held out; the version of the code"
        " that the paper cites selects on the whole training set, another on the test set)"
    )
