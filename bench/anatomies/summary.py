"""The windows of an anatomy over all its networks."""

import math
import statistics
from collections.abc import Iterable, Sequence
from typing import Any

# Quantities over several magnitudes, whose means and standard deviations are geometric.
GEOMETRIC = ("gradient_norm", "image_gradient_norm", "growth", "normalized_variance")
ARITHMETIC = ("outer_loss", "cosine_to_stop", "cosine_to_full")


def windows(
    records: Sequence[dict[str, Any]], state: Sequence[str], squared_norms_of_sums: Sequence[float]
) -> list[dict[str, Any]]:
    """One row per window, by stop, then by start.

    Each quantity q of `GEOMETRIC` and `ARITHMETIC`, and the growth of each part of the optimizer's
    state, has `q_mean`, `q_std` (unbiased; geometric: the factor exp(std of logarithms); None for
    one network) and `q_n`, the number of finite values (geometric: finite and positive ones).
    `growth` is the norm of the cotangent of θ_start over that of θ_stop. `seconds` is the median.
    `snr` is ‖Σg‖² / (n Σ‖g‖²) over the n networks' gradients g, the squared norm of the mean over
    the mean squared norm: 1 if all are equal, about 1/n if they are independent with mean 0.

    Args:
        records: those of `measure.Record`, network by network, each in the order of the windows.
        state: the names of the parts of the optimizer's state.
        squared_norms_of_sums: ‖Σg‖² of each window.
    """
    count = len(squared_norms_of_sums)
    rows = []
    for k, squared_norm in enumerate(squared_norms_of_sums):
        own = [with_growth(record, state) for record in records[k::count]]
        row: dict[str, Any] = {"start": own[0]["start"], "stop": own[0]["stop"], "n": len(own)}
        for name in (*GEOMETRIC, *(f"growth_{part}" for part in state)):
            row |= moments(name, (record[name] for record in own), geometric=True)
        for name in ARITHMETIC:
            row |= moments(name, (record[name] for record in own), geometric=False)
        squares = sum(record["gradient_norm"] ** 2 for record in own)
        row["snr"] = squared_norm / (len(own) * squares) if squares else math.nan
        row["seconds"] = statistics.median(record["seconds"] for record in own)
        rows.append(row)
    return rows


def with_growth(record: dict[str, Any], state: Sequence[str]) -> dict[str, Any]:
    """A record with the growth of each cotangent on its way from the stop to the start.

    The state has no cotangent at the stop, so its parts are compared with θ_stop's too.
    """
    at_stop = record["outer_gradient_norm"] or math.nan
    growths = {
        f"growth_{part}": norm / at_stop
        for part, norm in zip(state, record["state_cotangents"], strict=True)
    }
    return {**record, "growth": record["cotangent"] / at_stop, **growths}


def moments(name: str, values: Iterable[float | None], geometric: bool) -> dict[str, Any]:
    """Mean, standard deviation and number of the values that have one."""
    known = [value for value in values if value is not None and math.isfinite(value)]
    if geometric:
        known = [math.log(value) for value in known if value > 0]
    mean = statistics.fmean(known) if known else math.nan
    std = statistics.stdev(known) if len(known) > 1 else None
    if geometric:
        mean, std = exp(mean), None if std is None else exp(std)
    return {f"{name}_mean": mean, f"{name}_std": std, f"{name}_n": len(known)}


def exp(value: float) -> float:
    """The exponential function; infinite where it overflows."""
    try:
        return math.exp(value)
    except OverflowError:
        return math.inf
