"""What stands beneath a figure: how to read it and where its numbers come from."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from analysis.figures.curves import Curves
from analysis.figures.specs import CurveFigure, FigureSpec
from analysis.labels import unlabeled_settings
from analysis.load import FinishedRun, Results
from analysis.provenance import data_text

PAPER_DATASET = "cifar10"  # of all its figures
DATASET_NAMES = {"digits": "8x8 digits", "cifar10": "CIFAR-10"}


def curve_caption(
    spec: CurveFigure, results: Results, curves: Curves, overrides: Iterable[str]
) -> str:
    """The text beneath curves, in two paragraphs: how to read it (statistic, n, networks behind a
    point), and where it comes from (scale, settings, data, selection).

    Args:
        overrides: settings that the figure was asked for with, as `key=value`.
    """
    reading = [
        headline(spec),
        _statistic(spec, results),
        _networks(spec, results),
        _settings(spec, results),
        _in_no_panel(results, curves),
        _left_out(spec, curves),
    ]
    selection = f"{selection_text(results)}; no point shown is selected."
    return f"{' '.join(filter(None, reading))}\n{origin(results, overrides)} {selection}"


def headline(spec: FigureSpec) -> str:
    """What a figure shows, and which of the paper's it is."""
    return f"{spec.title} (paper: Figure {spec.number}){spec.remark}."


def _statistic(spec: CurveFigure, results: Results) -> str:
    n = dict.fromkeys(results.experiments, 0)
    n.update(Counter(run.label for run in results.runs))
    drawn = {label: count for label, count in n.items() if count}
    counts = f"n = {_told(drawn, str)}"
    geometric = "geometric " if spec.log else ""
    spread = "×/÷ one geometric standard deviation" if spec.log else "± one standard deviation"
    band = f"; band: {spread}" if any(count > 1 for count in drawn.values()) else ""
    lone = "; a single seed has no band" if min(drawn.values(), default=0) == 1 else ""
    if not spec.smoothed_over:
        return f"Line: {geometric}mean over seeds ({counts}){band}{lone}."
    return (
        f"Thick line: {geometric}mean over seeds ({counts}), each smoothed by a rolling {geometric}"
        f"mean over {spec.smoothed_over} steps{band}{lone}. Thin line: not smoothed."
    )


def _networks(spec: CurveFigure, results: Results) -> str:
    configs = {run.label: run.config for run in results.runs}
    if spec.kind == "accuracy":
        networks = _told({k: c.accuracy_networks for k, c in configs.items()}, str)
        steps = _told({k: c.accuracy_steps for k, c in configs.items()}, str)
        return f"A seed's point: mean of {networks} fresh networks after {steps} steps."
    if spec.kind == "variance":
        samples = _told({k: c.variance_samples for k, c in configs.items()}, str)
        return f"A seed's point: over {samples} single-sample losses of one batch."
    return ""


def _settings(spec: FigureSpec, results: Results) -> str:
    told = unlabeled_settings(results.experiments, spec.told)
    return f"Settings that differ: {'; '.join(told)}." if told else ""


def _in_no_panel(results: Results, curves: Curves) -> str:
    drawn = {label for panel in curves.panels for label in panel.texts}
    others = [label for label in dict.fromkeys(curves.table["label"]) if label not in drawn]
    return f"In neither panel, so not drawn: {', '.join(others)}." if others else ""


def _left_out(spec: CurveFigure, curves: Curves) -> str:
    if curves.left_out.empty:
        return ""
    counts = Counter(curves.left_out["label"])
    told = "; ".join(f"{count} of {label}" for label, count in counts.items())
    what = "not finite or not positive" if spec.log else "not finite"
    return f"Crosses at the top: values left out because they are {what} ({told})."


def origin(results: Results, overrides: Iterable[str]) -> str:
    """Where numbers come from: grid, scale, settings, data."""
    given = ", ".join(overrides)
    data = dict.fromkeys(
        data_text(run.result) for run in results.runs
    )  # one, unless runs were mixed
    return (
        f"grid={results.grid}, scale={results.scale}{f', {given}' if given else ''};"
        f" data: {' and '.join(data)}{_stand_in(results.runs)}."
    )


def _stand_in(runs: Iterable[FinishedRun]) -> str:
    others = dict.fromkeys(run.config.dataset for run in runs)
    others.pop(PAPER_DATASET, None)
    if not others:
        return ""
    told = " and ".join(DATASET_NAMES.get(name, name) for name in others)
    return f" ({told}, standing in for the paper's {DATASET_NAMES[PAPER_DATASET]})"


def selection_text(results: Results) -> str:
    """What the runs select by. A curve shows every measured point, so nothing in it is selected;
    but what a run keeps for selection it cannot train on, so the protocol stands there too."""
    held = {
        run.label: f"selection={run.config.selection}"
        + (
            " (the published protocol, not a fair number)"
            if run.config.selection == "test"
            else f" ({100 * run.config.validation_fraction:g}% of the training set)"
        )
        for run in results.runs
    }
    return _told(held, str)


def _told(values: Mapping[str, Any], text: Callable[[Any], str]) -> str:
    """One value where all labels have the same, else each with its label."""
    distinct = list(dict.fromkeys(values.values()))
    if len(distinct) == 1:
        return text(distinct[0])
    return ", ".join(f"{text(value)} ({label})" for label, value in values.items())
