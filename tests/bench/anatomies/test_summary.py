"""The windows of an anatomy over networks, against numbers worked out by hand."""

import math
from typing import Any

import pytest

from bench.anatomies.options import starts_of, stops_of
from bench.anatomies.summary import windows


def record(network: int, norm: float, **other: Any) -> dict[str, Any]:
    return {
        **{"network": network, "start": 1, "stop": 3, "outer_loss": 2.0, "seconds": 1.0 + network},
        **{"gradient_norm": norm, "image_gradient_norm": norm / 2},
        **{"cosine_to_stop": 0.5, "cosine_to_full": -0.5, "outer_gradient_norm": 4.0},
        **{"cotangent": 8.0, "state_cotangents": [2.0], "normalized_variance": None, **other},
    }


def test_the_signal_to_noise_ratio_of_known_gradients() -> None:
    # (3, 0) and (0, 4): the mean is (1.5, 2) with squared norm 6.25, the mean squared norm 12.5.
    (row,) = windows([record(0, 3.0), record(1, 4.0)], ["momentum"], [25.0])
    assert row["snr"] == pytest.approx(6.25 / 12.5)
    (row,) = windows([record(0, 3.0), record(1, 3.0)], ["momentum"], [36.0])
    assert row["snr"] == pytest.approx(1)


def test_means_and_spreads_are_geometric_where_values_span_magnitudes() -> None:
    (row,) = windows([record(0, 1.0), record(1, 100.0)], ["momentum"], [1.0])
    assert row["gradient_norm_mean"] == pytest.approx(10)
    assert row["gradient_norm_std"] == pytest.approx(math.exp(math.log(100) / math.sqrt(2)))
    assert (row["growth_mean"], row["growth_momentum_mean"]) == pytest.approx((2, 0.5))
    assert (row["cosine_to_full_mean"], row["cosine_to_full_std"]) == (-0.5, 0)
    assert row["seconds"] == 1.5
    assert (row["n"], row["gradient_norm_n"], row["normalized_variance_n"]) == (2, 2, 0)
    assert math.isnan(row["normalized_variance_mean"])


def test_values_that_are_not_finite_are_left_out_and_counted() -> None:
    records = [record(0, 1.0, cotangent=math.inf), record(1, math.nan), record(2, 0.0)]
    (row,) = windows(records, ["momentum"], [math.nan])
    assert row["gradient_norm_n"] == 1  # neither NaN nor 0 has a logarithm
    assert row["growth_n"] == 2
    assert math.isnan(row["snr"])


def test_a_single_network_has_no_spread() -> None:
    (row,) = windows([record(0, 2.0)], ["momentum"], [4.0])
    assert (row["gradient_norm_mean"], row["gradient_norm_std"]) == (pytest.approx(2), None)


def test_the_rows_are_the_windows_in_the_order_of_the_records() -> None:
    other = {"start": 0, "stop": 2}
    records = [record(0, 1.0, **other), record(0, 2.0), record(1, 1.0, **other), record(1, 2.0)]
    rows = windows(records, ["momentum"], [4.0, 16.0])
    assert [(row["start"], row["stop"], row["gradient_norm_mean"]) for row in rows] == [
        (0, 2, pytest.approx(1)),
        (1, 3, pytest.approx(2)),
    ]


def test_stops_are_evenly_spaced_and_end_with_the_trajectory() -> None:
    assert stops_of(60, 4) == [15, 30, 45, 60]
    assert stops_of(30, 12) == [2, 5, 8, 10, 12, 15, 18, 20, 22, 25, 28, 30]
    assert stops_of(3, 12) == [1, 2, 3]
    assert stops_of(250, 1) == [250]


def test_the_first_starts_are_never_left_out() -> None:
    assert starts_of(30, 30) == list(range(30))
    assert starts_of(101, 11) == [0, 1, 2, 3, 4, 5, 10, 20, 30, 40, 50, 60, 70, 80, 90, 100]
    assert starts_of(1, 2) == [0]
