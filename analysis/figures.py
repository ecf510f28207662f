"""The figures that results are drawn as: what each shows, and the numbers behind it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from analysis.labels import METHOD_NAMES

if TYPE_CHECKING:
    import pandas as pd

    from analysis.load import Results


@dataclass(frozen=True)
class FigureSpec:
    """One figure of the paper.

    Attributes:
        number: in the paper.
        title: what it shows, in a line.
        quantity: name of the plotted quantity in the CSV.
        kind: where it is recorded: "outer step", or a kind of measurement.
        column: its column there.
        unit: what one of `column` is worth in the plotted unit.
        y_label: with the unit, where there is one.
        log: drawn on a logarithmic axis; then means and spreads are geometric.
        first_steps: only so many outer steps are shown; 0: all.
        smoothed_over: outer steps of the rolling mean that is drawn over the noisy curve; 0: none.
        remark: what a reader must know besides; continues the title in the caption.
        names: what methods are called in this figure.
    """

    number: int
    title: str
    quantity: str
    kind: str
    column: str
    y_label: str
    unit: float = 1.0
    log: bool = False
    first_steps: int = 0
    smoothed_over: int = 0
    remark: str = ""
    names: Mapping[str, str] = field(default_factory=lambda: METHOD_NAMES)


FIGURES = {
    spec.number: spec
    for spec in (
        FigureSpec(
            2,
            "Meta-gradient norm over the first outer steps",
            quantity="image_gradient_norm",
            kind="outer step",
            column="image_gradient_norm",
            y_label="Meta-gradient norm (log scale)",
            log=True,
            first_steps=500,
            smoothed_over=25,
            remark=": mean over images of the norm of each image's gradient, before clipping",
        ),
        FigureSpec(
            3,
            "Test accuracy during distillation",
            quantity="test_accuracy_percent",
            kind="accuracy",
            column="test_accuracy_mean",
            unit=100.0,
            y_label="Test accuracy (%)",
        ),
        FigureSpec(
            5,
            "Test accuracy during distillation, by where the window lies",
            quantity="test_accuracy_percent",
            kind="accuracy",
            column="test_accuracy_mean",
            unit=100.0,
            y_label="Test accuracy (%)",
            remark="; in the paper's words, the forward window starts at the end of the trajectory"
            " and the backward window at its beginning",
            names={**METHOD_NAMES, "rat_bptt": "Random uniform (RaT-BPTT)"},
        ),
        FigureSpec(
            7,
            "Normalised variance of the meta-gradient",
            quantity="normalized_variance",
            kind="variance",
            column="normalized_variance",
            y_label="Normalised variance (log scale)",
            log=True,
        ),
    )
}


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
    """

    table: "pd.DataFrame"
    left_out: "pd.DataFrame"


def curves(spec: FigureSpec, results: "Results") -> Curves:
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
    return Curves(table, left_out)


def _values(spec: FigureSpec, results: "Results") -> "pd.DataFrame":
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


def _over_seeds(spec: FigureSpec, values: "pd.DataFrame") -> "pd.DataFrame":
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


def _forward(spec: FigureSpec, values: "pd.Series") -> "pd.Series":
    import numpy as np

    return np.log(values) if spec.log else values  # pyright: ignore[reportReturnType]


def _backward(spec: FigureSpec, values: "pd.Series") -> "pd.Series":
    import numpy as np

    return np.exp(values) if spec.log else values  # pyright: ignore[reportReturnType]
