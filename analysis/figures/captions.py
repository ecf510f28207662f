"""Captions of curves."""

from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

from analysis.arguments import Request
from analysis.captions import caption
from analysis.figures.curves import Curves
from analysis.figures.specs import CurveFigure, FigureSpec
from analysis.labels import unlabeled_settings
from analysis.load import FORMER_VARIANCE, Results
from analysis.paper import paper_figure
from analysis.provenance import machine_names
from analysis.records import collected
from bench.config.run_config import RunConfig


def curve_caption(spec: CurveFigure, results: Results, curves: Curves, request: Request) -> str:
    """The caption of curves: statistic, n, networks behind a point, settings, source."""
    reading = [
        headline(spec),
        _statistic(spec, results),
        unfinished_text(results),
        _paper(spec, curves),
        _networks(spec, results),
        _seconds(spec, results),
        settings_text(spec, results),
        _in_no_panel(results, curves),
        former_variance_text(spec, results),
        _left_out(spec, curves),
        _shifts(results, curves),
    ]
    return caption(
        reading,
        request,
        results.runs,
        grid=results.grid,
        selected="; every measured point is shown, none is selected",
    )


def headline(spec: FigureSpec) -> str:
    """The title of a figure and its number in the paper."""
    place = f"paper: Figure {spec.number}" if spec.number else "not in the paper"
    return f"{spec.title} ({place}){spec.remark}."


def _statistic(spec: CurveFigure, results: Results) -> str:
    counts = [(one.label, len(results.runs_of(one))) for one in results.experiments]
    counts = [(label, n) for label, n in counts if n]
    if spec.each_seed:
        return f"Each line is a seed (n = {_by_label(counts)}), neither averaged nor smoothed."
    geometric = "geometric " if spec.log else ""
    spread = "×/÷ one geometric standard deviation" if spec.log else "± one standard deviation"
    band = f"; band: {spread}" if any(n > 1 for _, n in counts) else ""
    single = "; a single seed has no band" if any(n == 1 for _, n in counts) else ""
    return f"Line: {geometric}mean over seeds (n = {_by_label(counts)}){band}{single}."


def unfinished_text(results: Results) -> str:
    """The runs that are shown though they are not finished."""
    runs = [run for run in results.runs if not run.result]
    if not runs:
        return ""
    texts = ", ".join(
        f"{run.experiment.label} seed {run.config.seed}"
        f" ({len(collected(run.folder, 'metrics'))} of {run.config.outer_steps} outer steps)"
        for run in runs
    )
    return f"Not finished, and shown as far as they have come: {texts}."


def _paper(spec: CurveFigure, curves: Curves) -> str:
    if not curves.paper:
        return ""
    entry = paper_figure(spec.number)
    return (
        f"Level red lines: the paper's own curve on {entry['run_on']}, as medians over ranges of"
        f" outer steps ({entry['source']})."
    )


def _networks(spec: CurveFigure, results: Results) -> str:
    def values(value: Callable[[RunConfig], Any]) -> str:
        with_runs = [one for one in results.experiments if results.runs_of(one)]
        return _by_label([(one.label, value(one.config)) for one in with_runs])

    if spec.kind == "accuracy":
        networks, steps = values(lambda c: c.accuracy_networks), values(lambda c: c.accuracy_steps)
        return f"Each seed's value is the mean of {networks} fresh networks after {steps} steps."
    if spec.kind == "variance":
        samples = values(lambda c: c.variance_samples)
        return (
            f"Each seed's value is the variance over {samples} single-sample gradients of one"
            " batch, averaged over entries, divided by the squared norm of the whole batch's"
            " gradient in the same outer step."
        )
    return ""


def former_variance_text(spec: CurveFigure, results: Results) -> str:
    """The runs whose variances were recorded by a definition that figures do not use any more."""
    if spec.kind != "variance":
        return ""
    table = results.measurements()
    runs = table[table["kind"] == FORMER_VARIANCE].groupby("label", sort=False)["run"].nunique()
    if runs.empty:
        return ""
    texts = ", ".join(f"{count} of {label}" for label, count in runs.items())
    return (
        f"Not recorded, and not drawn, by runs made before this definition ({texts}): they divided"
        " by the squared norm of the mean of their own samples; force=true makes them again."
    )


def _seconds(spec: CurveFigure, results: Results) -> str:
    if spec.x != "seconds":
        return ""
    return (
        "Seconds: of all outer steps before a measurement, without measurements, mean over seeds"
        f" (on {machine_names(results.runs)}; runs beside each other slow each other)."
    )


def settings_text(spec: CurveFigure, results: Results) -> str:
    """The settings in which experiments differ that their names do not state."""
    with_runs = [one for one in results.experiments if results.runs_of(one)]
    experiments = [(one.label, one.config) for one in with_runs]
    keys = spec.unlabeled
    if facets := spec.facets:
        panels = [(facets.panel_of(config), config) for _, config in experiments]
        experiments = [*{panel.name: config for panel, config in panels if panel}.items()]
        keys = facets.stated
    texts = unlabeled_settings(experiments, keys)
    return f"Settings that differ: {'; '.join(texts)}." if texts else ""


def _in_no_panel(results: Results, curves: Curves) -> str:
    in_a_panel = {identity for panel in curves.panels for identity in panel.texts}
    others = [
        one.label
        for one in results.experiments
        if one.identity not in in_a_panel and results.runs_of(one)
    ]
    return f"Not drawn, because they belong to no panel: {', '.join(others)}." if others else ""


def _left_out(spec: CurveFigure, curves: Curves) -> str:
    if curves.left_out.empty:
        return ""
    groups = curves.left_out.groupby("experiment", sort=False)["label"]
    texts = "; ".join(f"{len(labels)} of {labels.iloc[0]}" for _, labels in groups)
    reason = "not finite or not positive" if spec.log else "not finite"
    return f"Crosses at the top: values left out because they are {reason} ({texts})."


def _shifts(results: Results, curves: Curves) -> str:
    """When each moving window shifted."""
    texts = [
        f"{one.label} {_shifts_by_seed(curves.shifts[one.identity])}"
        for one in results.experiments
        if one.identity in curves.shifts
    ]
    if not texts:
        return ""
    return f"Bars at the bottom: outer steps at which a window shifted ({'; '.join(texts)})."


def _shifts_by_seed(shifts: dict[int, list[int]]) -> str:
    return ", ".join(
        f"seed {seed}: {' and '.join(map(str, steps)) or 'never'}"
        for seed, steps in sorted(shifts.items())
    )


def _by_label(values: Iterable[tuple[str, Any]]) -> str:
    """One value if all labels have the same; if most have, that one and the labels with others;
    otherwise each value with its label."""
    values = list(values)
    ((usual, number),) = Counter(value for _, value in values).most_common(1)
    others = [f"{label}: {value}" for label, value in values if value != usual]
    if not others:
        return str(usual)
    if 2 * number <= len(values):
        return ", ".join(f"{value} ({label})" for label, value in values)
    return f"{usual} ({', '.join(others)})"
