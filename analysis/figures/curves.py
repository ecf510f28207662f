"""The numbers behind curves: mean and standard deviation over seeds, by curve and outer step."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd

from analysis.figures.facets import Facets
from analysis.figures.specs import CurveFigure, PanelSpec
from analysis.load import Experiment, Results
from analysis.paper import PaperRange, paper_ranges
from analysis.records import seconds_before
from analysis.shifts import is_moving, shift_steps


@dataclass(frozen=True)
class Panel:
    """Curves that are drawn together.

    Attributes:
        title: above them; empty if there is only one panel.
        texts: the texts of the legend by identity of the experiment, in the legend's order.
    """

    title: str
    texts: dict[str, str]


@dataclass(frozen=True)
class Curves:
    """The numbers of a figure.

    Attributes:
        values: one row per run and outer step: run, experiment, label, method, seed, step, value
            and, where they are the horizontal axis, seconds: the mean over the experiment's seeds.
            A value is NaN where the run's is not finite or, on a logarithmic axis, not positive.
        table: one row per experiment and outer step, over seeds: quantity, experiment, label,
            method, step, mean, low, high, n. `low` and `high` are one standard deviation from
            `mean` (geometric on a logarithmic axis), and NaN where n is 1; `n` counts the seeds.
        left_out: the rows of `values` that are NaN.
        shifts: the outer steps at which moving windows shifted: by identity of the experiment, and
            by seed; methods without moving windows are not there.
        panels: the curves that are drawn together.
        paper: the paper's curve of each experiment's method, by identity, as far as its numbers are
            known and within the steps that the experiment's runs have.
    """

    values: pd.DataFrame
    table: pd.DataFrame
    left_out: pd.DataFrame
    shifts: dict[str, dict[int, list[int]]]
    panels: list[Panel]
    paper: dict[str, list[PaperRange]] = field(default_factory=dict)

    def shown_table(self, spec: CurveFigure) -> pd.DataFrame:
        """`table`, with the value of every seed if the figure draws each seed."""
        if not spec.each_seed:
            return self.table
        table = self.table.merge(self.values, on=["experiment", "label", "method", "step"])
        if self.paper:
            table["paper_median"] = [
                self._paper_median(*place)
                for place in zip(table["experiment"], table["step"], strict=True)
            ]
        return table

    def _paper_median(self, experiment: str, step: int) -> float:
        ranges = self.paper.get(experiment, [])
        return next((one.median for one in ranges if one.start <= step < one.stop), np.nan)


def curves(spec: CurveFigure, results: Results) -> Curves:
    """The numbers of a figure, from finished runs."""
    values = _values(spec, results)
    usable = np.isfinite(values["value"]) & ((values["value"] > 0) | (not spec.log))
    values["value"] = values["value"].where(usable)
    present = set(values["experiment"])
    panels = [
        Panel(panel.title, {k: text for k, text in panel.texts.items() if k in present})
        for panel in _panels(spec, results.experiments)
    ]
    panels = [panel for panel in panels if panel.texts]  # one without runs would be an empty frame
    paper = _beside(spec, results, values) if spec.each_seed and spec.number else {}
    shifts = _shifts(spec, results)
    return Curves(values, _over_seeds(spec, values), values[~usable], shifts, panels, paper)


def _beside(
    spec: CurveFigure, results: Results, values: pd.DataFrame
) -> dict[str, list[PaperRange]]:
    """The paper's curves, cut off where our runs end."""
    ends = (values.groupby("experiment")["step"].max() + 1).to_dict()
    ranges = {
        one.identity: [
            replace(part, stop=min(part.stop, ends[one.identity]))
            for part in paper_ranges(spec.number, one.config.method)
            if part.start < ends[one.identity]
        ]
        for one in results.experiments
        # The paper leaves out no first step.
        if one.identity in ends and not one.config.method_options.get("first")
    }
    return {identity: parts for identity, parts in ranges.items() if parts}


def _values(spec: CurveFigure, results: Results) -> pd.DataFrame:
    """Columns run, experiment, label, method, seed, step, value."""
    columns = ["run", "experiment", "label", "method", "seed", "step", spec.column]
    if spec.kind == "outer step":
        table = results.metrics()
    else:
        table = results.measurements()
        table = table[table["kind"] == spec.kind]
    if spec.column not in table:  # these runs did not measure it
        table = table.reindex(columns=columns).iloc[:0]
    table = table[columns].rename(columns={spec.column: "value"})
    if spec.first_steps:
        table = table[table["step"] < spec.first_steps]
    if spec.x == "seconds":
        table = _with_seconds(table, results.metrics())
    return table.assign(value=table["value"].astype("float64") * spec.unit).reset_index(drop=True)


def _with_seconds(table: pd.DataFrame, metrics: pd.DataFrame) -> pd.DataFrame:
    """The same with the column `seconds`. Seeds share it, so that their mean can be drawn."""
    of_run = dict(list(metrics.groupby("run"))) if len(metrics) else {}
    parts = [
        rows.assign(seconds=seconds_before(of_run[run], rows["step"].tolist()))
        for run, rows in table.groupby("run", sort=False)
    ]
    timed = pd.concat(parts) if parts else table.assign(seconds=np.nan)
    means = timed.groupby(["experiment", "step"])["seconds"].transform("mean")
    return timed.assign(seconds=means)


def _shifts(spec: CurveFigure, results: Results) -> dict[str, dict[int, list[int]]]:
    last = spec.first_steps or math.inf
    shifts: dict[str, dict[int, list[int]]] = {}
    if spec.x != "step":
        return shifts
    for run in filter(is_moving, results.runs):
        steps = [step for step in shift_steps(run) if step < last]
        shifts.setdefault(run.experiment.identity, {})[run.config.seed] = steps
    return shifts


def _over_seeds(spec: CurveFigure, values: pd.DataFrame) -> pd.DataFrame:
    forward, backward = (np.log, np.exp) if spec.log else (np.asarray, np.asarray)
    keys = ["experiment", "label", "method", *dict.fromkeys(("step", spec.x))]
    groups = values.assign(value=forward(values["value"])).groupby(keys, sort=False)["value"]
    table = groups.agg(mean="mean", std="std", n="count").reset_index()
    mean, std = table["mean"], table.pop("std")
    low, high = backward(mean - std), backward(mean + std)
    table.insert(0, "quantity", spec.quantity)
    return table.assign(mean=backward(mean), low=low, high=high, n=table.pop("n"))


def _panels(spec: CurveFigure, experiments: Sequence[Experiment]) -> list[Panel]:
    if spec.facets:
        return _facet_panels(spec.facets, experiments)
    if not spec.panels:
        return [Panel("", {one.identity: one.label for one in experiments})]
    return [panel_of(one, experiments) for one in spec.panels]


def _facet_panels(facets: Facets, experiments: Sequence[Experiment]) -> list[Panel]:
    """The panels that have an experiment; curves in the order of the facets."""
    panels = []
    for panel in facets.panels:
        texts = {
            one.identity: curve.name
            for curve in facets.curves
            for one in experiments
            if facets.panel_of(one.config) == panel and facets.curve_of(one.config) == curve
        }
        panels += [Panel(panel.name, _distinct(texts, experiments))] if texts else []
    return panels


def panel_of(spec: PanelSpec, experiments: Sequence[Experiment]) -> Panel:
    """The experiments that share one value of `spec.fixed`, by rising `spec.varying`. The shared
    value is the one that occurs with the most values of `spec.varying`."""
    settings = {one.identity: vars(one.config) for one in experiments}
    partners: dict[int, set[int]] = {}
    for one in settings.values():
        partners.setdefault(one[spec.fixed], set()).add(one[spec.varying])
    shared = max(partners, key=lambda value: len(partners[value]))
    values = {k: one[spec.varying] for k, one in settings.items() if one[spec.fixed] == shared}
    texts = {k: f"{spec.word} {values[k]}" for k in sorted(values, key=lambda k: values[k])}
    return Panel(f"{spec.title} {shared}", _distinct(texts, experiments))


def _distinct(texts: dict[str, str], experiments: Sequence[Experiment]) -> dict[str, str]:
    """The names of curves by identity: if two were the same, as in a grid of the user, labels."""
    if len(set(texts.values())) == len(texts):
        return texts
    return {one.identity: one.label for one in experiments if one.identity in texts}
