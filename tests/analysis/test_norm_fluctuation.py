"""That the fluctuation of norms is what its name says: on records with a known answer."""

import math
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from analysis.load import Experiment, FinishedRun
from analysis.paper import paper_figure, paper_ranges
from analysis.verdicts.quantities import FIRST_STEPS, MEDIAN_STEPS, QUANTITIES
from bench.config.run_config import RunConfig
from bench.runs.records import Recorder
from bench.runs.run_folder import Store

AROUND, IN_ALL = "norm_fluctuation", "norm_total_fluctuation"
STEPS = np.arange(FIRST_STEPS)
REDRAW = STEPS // MEDIAN_STEPS  # the number of the random window of each step


@pytest.fixture
def fluctuation(tmp_path: Path):
    """A function: the quantity of a run with these logarithms of the norm."""

    def measured(quantity: str, log_norms: NDArray[np.float64]) -> float:
        config = RunConfig(seed=len(list(tmp_path.iterdir())))
        folder = Store(tmp_path / str(config.seed)).run(config)
        folder.create(config)
        with Recorder(folder.path, {}) as recorder:
            for step, value in enumerate(log_norms.tolist()):
                norm = None if math.isnan(value) else math.exp(value)
                recorder.append("metrics", {"step": step, "image_gradient_norm": norm})
        run = FinishedRun(folder, config, Experiment("", "", config), {}, {})
        values = QUANTITIES[quantity].of(run, {})
        return math.exp(values[0]) if values else math.nan

    return measured


def test_around_the_median_neither_trend_nor_jumps_count(fluctuation) -> None:
    noise = 0.15 * np.random.default_rng(0).standard_normal(FIRST_STEPS)
    trend = -STEPS / 200  # its standard deviation is 0.72
    jumps = np.random.default_rng(1).normal(0, 0.3, 20)[REDRAW]
    assert fluctuation(AROUND, noise) == pytest.approx(0.15, rel=0.05)
    assert fluctuation(AROUND, noise + trend) == pytest.approx(0.15, rel=0.05)
    assert fluctuation(AROUND, noise + trend + jumps) == pytest.approx(0.15, rel=0.15)
    assert fluctuation(AROUND, trend + jumps) < 0.05
    whole = noise + trend + jumps
    assert fluctuation(IN_ALL, whole) == pytest.approx(whole.std(ddof=1))
    assert fluctuation(IN_ALL, whole) > 5 * 0.15


def test_spikes_count_in_full(fluctuation) -> None:
    spikes = np.where(STEPS % 20 == 10, 3.0, 0.0)  # no rolling median sees a step in twenty
    assert fluctuation(AROUND, spikes) == pytest.approx(spikes.std(ddof=1))


def test_the_rolling_median_is_centered_and_shorter_at_both_ends(fluctuation) -> None:
    log_norms = np.random.default_rng(3).standard_normal(60).cumsum()
    half = MEDIAN_STEPS // 2
    medians = [np.median(log_norms[max(0, k - half) : k + half + 1]) for k in range(60)]
    expected = (log_norms - medians).std(ddof=1)
    assert fluctuation(AROUND, log_norms) == pytest.approx(expected, rel=1e-12)


def test_a_step_without_a_norm_leaves_no_fluctuation_and_later_steps_no_trace(
    fluctuation,
) -> None:
    noise = np.random.default_rng(4).standard_normal(FIRST_STEPS)
    longer = np.concatenate([noise, np.full(100, 50.0)])
    assert fluctuation(AROUND, longer) == fluctuation(AROUND, noise)
    for bad in (np.nan, np.inf, -np.inf):  # -inf: a norm of 0
        broken = noise.copy()
        broken[7] = bad
        assert math.isnan(fluctuation(AROUND, broken))
        assert math.isnan(fluctuation(IN_ALL, broken))
    assert math.isnan(fluctuation(AROUND, np.full(5, np.nan)))
    assert math.isnan(fluctuation(AROUND, np.array([1.0])))


def test_on_curves_like_the_papers_the_median_separates_the_methods_and_the_whole_does_not(
    fluctuation,
) -> None:
    stated = paper_figure(2)["fluctuation"]
    rng = np.random.default_rng(5)
    found = {AROUND: {}, IN_ALL: {}}
    for method in stated[AROUND]:
        ranges = paper_ranges(2, method)
        middles = [(one.start + one.stop) / 2 for one in ranges]
        trend = np.interp(STEPS, middles, [math.log(one.median) for one in ranges])
        noise = stated[AROUND][method] * rng.standard_normal(FIRST_STEPS)
        # A window of RaT-BPTT has its own level; its medians by range show a part of these jumps.
        jumps = 0.23 * _standardized(rng.standard_normal(20))[REDRAW] * (method == "rat_bptt")
        for quantity, by_method in found.items():
            by_method[method] = fluctuation(quantity, trend + jumps + noise)
    for quantity, by_method in found.items():
        assert by_method == pytest.approx(stated[quantity], abs=0.05), quantity
    around, in_all = found[AROUND], found[IN_ALL]
    assert max(around["t_bptt"], around["rat_bptt"]) < 0.5 * min(around["bptt"], around["r_bptt"])
    assert in_all["rat_bptt"] > in_all["bptt"]  # the paper's claim, failed by its own curve


def _standardized(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return (values - values.mean()) / values.std()


def test_the_papers_medians_fill_the_first_500_steps() -> None:
    for method in ("bptt", "t_bptt", "r_bptt", "rat_bptt"):
        ranges = paper_ranges(2, method)
        assert (ranges[0].start, ranges[-1].stop) == (0, FIRST_STEPS)
        assert [one.stop for one in ranges[:-1]] == [one.start for one in ranges[1:]]
        assert all(0 < one.median < 2 for one in ranges)
    assert paper_ranges(2, "forward_window") == []
    assert paper_ranges(3, "bptt") == []
