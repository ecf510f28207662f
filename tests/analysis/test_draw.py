"""That figures can be read: in grey, by colour-blind readers, and with nothing cut or covered; and
that the curves in them are the numbers behind them."""

import math
import shutil
from dataclasses import replace
from itertools import combinations
from typing import TYPE_CHECKING
from unittest.mock import ANY, patch

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure
from matplotlib.text import Text

from analysis.arguments import Request
from analysis.figures.captions import curve_caption
from analysis.figures.curves import Curves, curves
from analysis.figures.draw import make_figure
from analysis.figures.facets import FIRST_STEPS
from analysis.figures.pictures import curve_looks
from analysis.figures.specs import FIGURES, CurveFigure
from analysis.figures.style import (
    PAPER_LINE,
    PAPER_TEXT,
    RC,
    SMALL_POINTS,
    VALUE_LOOKS,
    Look,
    looks,
)
from analysis.load import Results, load_results, stored_runs
from analysis.paper import paper_ranges
from bench.config.grid import load_grid, single_run
from methods import METHODS, method_look
from tests.analysis.color_vision import VISIONS, lab
from tests.analysis.reading import assert_readable

if TYPE_CHECKING:
    from tests.analysis.conftest import Maker

METHOD_LOOKS = {m: look for m in METHODS if (look := method_look(m))}
TOGETHER = {
    "figures 2, 3, 7": [METHOD_LOOKS[m] for m in ("bptt", "t_bptt", "r_bptt", "rat_bptt")],
    "figure 5": [METHOD_LOOKS[m] for m in ("rat_bptt", "forward_window", "backward_window")],
    "figure 6, left": VALUE_LOOKS[:4],
    "figure 6, right": [VALUE_LOOKS[2], *VALUE_LOOKS[4:]],
}
CURVES = {number: spec for number, spec in FIGURES.items() if isinstance(spec, CurveFigure)}


@pytest.mark.parametrize("vision", VISIONS)
@pytest.mark.parametrize("together", TOGETHER.values(), ids=TOGETHER)
def test_curves_of_a_figure_differ_in_colour_for_every_vision(
    together: list[Look], vision: str
) -> None:
    for one, other in combinations(together, 2):
        distance = np.linalg.norm(lab(one.color, vision) - lab(other.color, vision))
        assert distance > 20, (one, other, distance)  # 2 can just be seen side by side


@pytest.mark.parametrize("together", TOGETHER.values(), ids=TOGETHER)
def test_curves_of_a_figure_differ_in_lightness(together: list[Look]) -> None:
    for one, other in combinations(together, 2):
        lightness = [lab(look.color, "normal")[0] for look in (one, other)]
        assert abs(lightness[0] - lightness[1]) > 8, (one, other, lightness)


def test_no_two_curves_of_a_figure_share_colour_dash_or_marker() -> None:
    stabilized = curve_looks(CURVES[8], found_for(CURVES[8]))
    facets = [curve.look for curve in FIRST_STEPS.curves]
    for together in [*TOGETHER.values(), list(stabilized.values()), facets]:
        for part in ("color", "dash", "marker"):
            assert len({getattr(look, part) for look in together}) == len(together)


def found_for(spec, stored=(), grid: str = "") -> Results:
    return load_results(
        stored,
        load_grid(grid or spec.grid),
        "quick",
        {},
        variants=spec.variants,
        unlabeled=spec.unlabeled,
    )


def test_a_method_keeps_its_look_and_others_get_looks_of_their_own() -> None:
    experiments = {
        "a": single_run("quick", {"method": "early_rat_bptt"}),
        "b": single_run("quick", {"method": "rat_bptt"}),
        "c": single_run("quick", {"method": "rat_bptt", "window_size": 5}),
        "d": single_run("quick", {"method": "t_bptt"}),
    }
    found = looks(experiments)
    assert list(found) == ["a", "b", "c", "d"]
    assert found["b"] == METHOD_LOOKS["rat_bptt"]
    assert found["d"] == METHOD_LOOKS["t_bptt"]
    assert len({look.color for look in found.values()}) == 4


@pytest.mark.parametrize(
    ("number", "long_labels"), [(n, False) for n in CURVES] + [(n, True) for n in (2, 3, 6)]
)
def test_no_text_is_cut_or_covered_or_too_small(
    results: "Maker", tmp_path, number: int | str, long_labels: bool
) -> None:
    spec = CURVES[number]
    grid = spec.grid
    if long_labels:
        own = tmp_path / "own.yaml"
        own.write_text(
            "runs:\n- {method: rat_bptt, inner_weight_decay: 0.0005, inner_momentum: 0.9}\n"
            "- {method: bptt, inner_decay_steps: [10, 20], outer_lr: 0.00012345}\n"
        )
        grid = str(own)
        for entry in load_grid(grid).runs:
            settings = {key: value for key, value in entry.items() if key != "scales"}
            results.run(single_run("quick", settings))
    else:
        results.grid(grid)
    found = found_for(spec, stored_runs(results.root), grid)
    numbers = curves(spec, found)
    text = curve_caption(spec, found, numbers, Request(["inner_lr=0.02"] * 5, {}, "quick"))
    with mpl.rc_context(RC):
        figure = make_figure(spec, numbers, curve_looks(spec, found), text)
        assert_readable(figure)
        for axes in figure.axes:
            small = spec.each_seed or spec.facets
            assert axes.get_window_extent().height / figure.dpi > (0.7 if small else 1.5)
            low, high = axes.get_ylim()
            assert sum(low <= tick <= high for tick in axes.get_yticks()) >= 2
        assert all(
            float(item.get_fontsize()) >= SMALL_POINTS
            for item in figure.findobj(Text)
            if isinstance(item, Text) and item.get_text()
        )


def figure_of(spec: CurveFigure, numbers: Curves, found: Results) -> Figure:
    with mpl.rc_context(RC):
        figure = make_figure(spec, numbers, curve_looks(spec, found), "")
        FigureCanvasAgg(figure).draw()
    return figure


def means_by_text(figure: Figure) -> list[dict[str, list[float]]]:
    """For each panel the y values of the curve with each text of the legend."""
    panels = []
    for axes, legend in zip(figure.axes, figure.legends, strict=True):
        by_look = {
            (line.get_color(), line.get_marker()): np.asarray(line.get_ydata()).tolist()
            for line in axes.get_lines()
            if line.get_marker() != "x" and len(np.asarray(line.get_ydata()))
        }
        panels.append(
            {
                text.get_text(): by_look[handle.get_color(), handle.get_marker()]
                for text, handle in zip(legend.get_texts(), legend.get_lines(), strict=True)
            }
        )
    return panels


@pytest.mark.parametrize("number", [3, 7])
def test_lines_and_bands_are_the_numbers_of_the_csv(results: "Maker", number: int) -> None:
    results.grid("methods_comparison", seeds=3)
    spec = CURVES[number]
    found = found_for(spec, stored_runs(results.root))
    numbers = curves(spec, found)
    figure = figure_of(spec, numbers, found)
    (means,), (axes,) = means_by_text(figure), figure.axes
    bands = [band for band in axes.collections if isinstance(band, PolyCollection)]
    assert len(bands) == len(means) == 4
    for experiment, band in zip(found.experiments, bands, strict=True):
        rows = numbers.table[numbers.table["experiment"] == experiment.identity]
        assert means[experiment.label] == pytest.approx(list(rows["mean"]))
        corners = {(x, round(y, 6)) for x, y in np.asarray(band.get_paths()[0].vertices).tolist()}
        for column in ("low", "high"):
            assert corners >= {
                (x, round(y, 6)) for x, y in zip(rows["step"], rows[column], strict=True)
            }


def test_figure_2_draws_every_value_of_every_seed_so_that_no_spike_is_smoothed(
    results: "Maker",
) -> None:
    for config in results.configs("methods_comparison", 3):
        spike = 10 * config.seed
        results.run(config, norm=lambda _, step, s=spike: 1000.0 if step == s else 1.0 + step / 99)
    spec = CURVES[2]
    found = found_for(spec, stored_runs(results.root))
    figure = figure_of(spec, curves(spec, found), found)
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    assert titles == ["BPTT", "T-BPTT", "R-BPTT", "RaT-BPTT"]
    for axes in figure.axes:
        lines = [np.asarray(line.get_ydata()).tolist() for line in axes.get_lines()]
        seeds = [line for line in lines if 1000.0 in line]
        assert sorted(line.index(1000.0) for line in seeds) == [0, 10, 20]
        assert {len(line) for line in seeds} == {40}


def test_figure_2_draws_the_papers_medians_in_the_panel_of_their_method(results: "Maker") -> None:
    results.grid("methods_comparison")  # 40 outer steps: two of the paper's seven ranges
    spec = CURVES[2]
    found = found_for(spec, stored_runs(results.root))
    numbers = curves(spec, found)
    figure = figure_of(spec, numbers, found)
    for method, axes in zip(("bptt", "t_bptt", "r_bptt", "rat_bptt"), figure.axes, strict=True):
        drawn = [line for line in axes.get_lines() if line.get_color() == PAPER_LINE["color"]]
        expected = [one.median for one in paper_ranges(2, method)[:2]]
        assert [np.asarray(line.get_ydata()).tolist() for line in drawn] == [
            [median] * 2 for median in expected
        ]
        assert [np.asarray(line.get_xdata()).tolist() for line in drawn] == [[0, 10], [10, 40]]
        for line, median in zip(drawn, expected, strict=True):
            assert line.get_color() not in {
                look.color for look in curve_looks(spec, found).values()
            }
            low, high = axes.get_ylim()
            assert low < median < high
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == [PAPER_TEXT]
    text = curve_caption(spec, found, numbers, Request([], {}, "quick"))
    assert "the paper's own curve on CIFAR-10, IPC 10" in text
    table = numbers.shown_table(spec)
    row = table[(table["method"] == "t_bptt") & (table["step"] == 12)].iloc[0]
    assert row["paper_median"] == 0.045


def test_a_method_without_the_first_step_has_no_curve_of_the_paper(results: "Maker") -> None:
    results.grid("methods_ipc10")
    spec = replace(CURVES[2], grid="methods_ipc10")
    found = found_for(spec, stored_runs(results.root))
    without = [
        one.label for one in found.experiments if one.identity not in curves(spec, found).paper
    ]
    assert without == ["BPTT from step 1"]


def test_experiments_of_the_same_label_have_curves_of_their_own(results: "Maker") -> None:
    results.grid("window_ablation")
    with patch("analysis.load.distinct_labels", lambda configs, *_: ["same"] * len(configs)):
        found = found_for(CURVES[5], stored_runs(results.root))
    figure = figure_of(CURVES[5], curves(CURVES[5], found), found)
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["same"] * 4
    lines = [np.asarray(line.get_ydata()) for line in figure.axes[0].get_lines()]
    assert len({line[-1] for line in lines if len(line)}) == 4


def test_figure_6_draws_the_records_of_each_unroll_length_and_of_each_window_size(
    results: "Maker",
) -> None:
    for config in results.configs("unroll_and_window", 2):
        level = config.unroll_length + config.window_size / 100  # one that tells each run
        results.run(config, accuracy=lambda c, step, v=level: (v + c.seed + step / 1000) / 100)
    spec = CURVES[6]
    found = found_for(spec, stored_runs(results.root))
    left, right = means_by_text(figure_of(spec, curves(spec, found), found))
    steps = range(0, 41, 10)

    def mean(unroll: int, window: int) -> list[float]:
        return [unroll + window / 100 + 0.5 + step / 1000 for step in steps]

    assert list(left) == [f"unroll length {n}" for n in (20, 30, 50, 75)]
    assert list(right) == [f"window size {n}" for n in (10, 15, 25)]
    for unroll in (20, 30, 50, 75):
        assert left[f"unroll length {unroll}"] == pytest.approx(mean(unroll, 10))
    for window in (10, 15, 25):
        assert right[f"window size {window}"] == pytest.approx(mean(50, window))


@pytest.mark.parametrize("name", CURVES)
def test_a_figure_is_drawn_from_the_runs_of_any_one_experiment(
    results: "Maker", name: int | str
) -> None:
    spec = CURVES[name]
    for alone in found_for(spec).experiments:
        run = results.run(alone.config)
        found = found_for(spec, stored_runs(results.root))
        numbers = curves(spec, found)
        drawn = figure_of(spec, numbers, found)
        assert len(drawn.axes) == len(numbers.panels) >= 1
        assert all(panel.texts == {alone.identity: ANY} for panel in numbers.panels)
        assert all(axes.get_lines() for axes in drawn.axes)
        shutil.rmtree(run.path)


@pytest.mark.parametrize("name", CURVES)
def test_a_run_without_any_finite_number_is_marked_and_hides_no_other(
    results: "Maker", name: int | str
) -> None:
    spec = CURVES[name]
    finite, nan = found_for(spec).experiments[:2]
    results.run(nan.config, norm=lambda *_: math.nan, accuracy=lambda *_: math.nan)
    results.run(finite.config)
    found = found_for(spec, stored_runs(results.root))
    numbers = curves(spec, found)
    color = curve_looks(spec, found)[nan.identity].color
    lines = [line for axes in figure_of(spec, numbers, found).axes for line in axes.get_lines()]
    (marks,) = [one for one in lines if one.get_marker() == "x"]
    assert marks.get_color() == color
    assert any(len(np.asarray(one.get_ydata())) > 2 for one in lines if one is not marks)


def test_figure_8_names_stabilized_bptt_as_the_paper_does_and_states_the_settings(
    results: "Maker",
) -> None:
    for config in results.configs("stabilization", 2):
        level = config.clip_ratio + len(config.clipping) + config.unroll_length
        results.run(config, accuracy=lambda c, step, v=level: (v + len(c.method)) / 100)
    spec = CURVES[8]
    found = found_for(spec, stored_runs(results.root))
    numbers = curves(spec, found)
    (panel,) = means_by_text(figure_of(spec, numbers, found))
    assert {name: values[0] for name, values in panel.items()} == pytest.approx(
        {
            "BPTT": 2 + 3 + 30 + 4,
            "BPTT-Gradient Clipping": 1.05 + 3 + 30 + 4,
            "BPTT-Normalized Gradient": 2 + 9 + 30 + 4,
            "BPTT-Increasing Windows": 2 + 3 + 45 + 12,
            "R-BPTT": 2 + 3 + 30 + 6,
            "RaT-BPTT": 2 + 3 + 30 + 8,
        }
    )
    text = curve_caption(spec, found, numbers, Request([], {}, "quick"))
    assert "clip_ratio=2.0, with BPTT-Gradient Clipping 1.05" in text
    assert "unroll_length=30, with BPTT-Increasing Windows 45" in text
