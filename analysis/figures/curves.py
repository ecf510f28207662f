"""The numbers behind curves: mean and spread over seeds, for each curve and outer step."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from analysis.figures.specs import CurveFigure, PanelSpec

if TYPE_CHECKING:
    import pandas as pd

    from analysis.load import Results
    from bench.config.run_config import RunConfig


@dataclass(frozen=True)
class Panel:
    """Curves that are drawn together.

    Attributes:
        title: above them; empty where there is one panel only.
        texts: what the legend says, by label, in its order.
    """

    title: str
    texts: dict[str, str]


@dataclass(frozen=True)
class Curves:
    """The numbers of a figure.

    Attributes:
        table: one row a label and outer step, in the order of the legend: quantity, label, method,
            step, mean, low, high, n; where the figure is smoothed also smooth_mean, smooth_low,
            smooth_high. `low` and `high` lie one standard deviation over seeds from `mean` (where
            the figure is logarithmic: geometric ones) and are NaN where n is 1. `n` counts the
            seeds behind the row.
        left_out: label, method and step of the values that no mean can hold: not finite or, on a
            logarithmic axis, not positive. One row a value.
        panels: which curves are drawn together.
    """

    table: "pd.DataFrame"
    left_out: "pd.DataFrame"
    panels: list[Panel]


def curves(spec: CurveFigure, results: "Results") -> Curves:
    """The numbers of a figure, from finished runs."""
    values = _values(spec, results)
    usable = values["value"].abs() != float("inf")
    usable &= values["value"].notna()
    if spec.log:
        usable &= values["value"] > 0
    left_out = values.loc[~usable, ["label", "method", "step"]].reset_index(drop=True)
    values["value"] = _forward(spec, values["value"].where(usable))
    table = _over_seeds(spec, values)
    if spec.smoothed_over:
        values["value"] = values.groupby("run")["value"].transform(
            lambda own: own.rolling(spec.smoothed_over, center=True, min_periods=1).mean()
        )
        smooth = _over_seeds(spec, values)
        for column in ("mean", "low", "high"):
            table[f"smooth_{column}"] = smooth[column]
    drawn = list(dict.fromkeys(table["label"]))
    return Curves(table, left_out, _panels(spec, results, drawn))


def _values(spec: CurveFigure, results: "Results") -> "pd.DataFrame":
    """Columns run, label, method, seed, step, value, in the order of the runs and steps."""
    if spec.kind == "outer step":
        table = results.metrics()
    else:
        table = results.measurements()
        table = table[table["kind"] == spec.kind]
    if spec.column not in table:  # these runs measured no such thing
        table = table.reindex(columns=["run", "label", "method", "seed", "step", spec.column])
        table = table.iloc[:0]
    table = table.rename(columns={spec.column: "value"})
    if spec.first_steps:
        table = table[table["step"] < spec.first_steps]
    table = table[["run", "label", "method", "seed", "step", "value"]].copy()
    table["value"] = table["value"].astype("float64") * spec.unit
    return table


def _over_seeds(spec: CurveFigure, values: "pd.DataFrame") -> "pd.DataFrame":
    groups = values.groupby(["label", "method", "step"], sort=False)["value"]
    table = groups.agg(mean="mean", spread="std", n="count").reset_index()
    spread = table.pop("spread")
    n = table.pop("n")
    table["low"] = _backward(spec, table["mean"] - spread)
    table["high"] = _backward(spec, table["mean"] + spread)
    table["mean"] = _backward(spec, table["mean"])
    table["n"] = n
    table.insert(0, "quantity", spec.quantity)
    return table


def _forward(spec: CurveFigure, values: "pd.Series") -> "pd.Series":
    import numpy as np

    return np.log(values) if spec.log else values  # pyright: ignore[reportReturnType]


def _backward(spec: CurveFigure, values: "pd.Series") -> "pd.Series":
    import numpy as np

    return np.exp(values) if spec.log else values  # pyright: ignore[reportReturnType]


def _panels(spec: CurveFigure, results: "Results", drawn: list[str]) -> list[Panel]:
    """The panels of a figure, with those of their curves that have a run."""
    if not spec.panels:
        return [Panel("", {label: label for label in drawn})]
    found = [panel_of(one, results.experiments) for one in spec.panels]
    return [Panel(p.title, {k: text for k, text in p.texts.items() if k in drawn}) for p in found]


def panel_of(spec: PanelSpec, experiments: "Mapping[str, RunConfig]") -> Panel:
    """The experiments that share the value of `spec.fixed` which most values of `spec.varying` go
    with, by rising `spec.varying`."""
    settings = {label: asdict(config) for label, config in experiments.items()}
    partners: dict[int, set[int]] = {}
    for own in settings.values():
        partners.setdefault(own[spec.fixed], set()).add(own[spec.varying])
    shared = max(partners, key=lambda value: len(partners[value]))
    values = {k: own[spec.varying] for k, own in settings.items() if own[spec.fixed] == shared}
    texts = {k: f"{spec.word} {values[k]}" for k in sorted(values, key=lambda k: values[k])}
    return Panel(f"{spec.title} {shared}", texts)
