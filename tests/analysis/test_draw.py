"""That figures can be read: in grey, by colour-blind readers, and with nothing cut or covered; and
that the curves in them are the numbers behind them."""

from itertools import combinations
from typing import TYPE_CHECKING

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text

from analysis.figures.captions import curve_caption
from analysis.figures.curves import Curves, curves
from analysis.figures.draw import make_figure
from analysis.figures.specs import FIGURES, CurveFigure
from analysis.figures.style import RC, SMALL_POINTS, VALUE_LOOKS, Look, looks, value_looks
from analysis.load import Results, load_results, stored_runs
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
    stabilised = looks(found_for(FIGURES[8]).experiments)
    for together in [*TOGETHER.values(), list(stabilised.values())]:
        for part in ("color", "dash", "marker"):
            assert len({getattr(look, part) for look in together}) == len(together)


def found_for(spec, stored=(), grid: str = "") -> Results:
    return load_results(
        stored,
        load_grid(grid or spec.grid),
        "quick",
        {},
        variants=spec.variants,
        told=spec.told,
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
    results: "Maker", tmp_path, number: int, long_labels: bool
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
    text = curve_caption(spec, found, numbers, ["inner_lr=0.02"] * 5)
    with mpl.rc_context(RC):
        figure = make_figure(spec, numbers, looks(found.experiments), text)
        assert_readable(figure)
        for axes in figure.axes:
            assert axes.get_window_extent().height / figure.dpi > 1.5
            low, high = axes.get_ylim()
            assert sum(low <= tick <= high for tick in axes.get_yticks()) >= 2
        assert all(
            float(item.get_fontsize()) >= SMALL_POINTS
            for item in figure.findobj(Text)
            if isinstance(item, Text) and item.get_text()
        )


def drawn(spec: CurveFigure, numbers: Curves, found: Results) -> list[dict[str, list[float]]]:
    """For each panel the y values of the curve with each text of the legend."""
    of = value_looks(found.experiments) if spec.panels else looks(found.experiments)
    with mpl.rc_context(RC):
        figure = make_figure(spec, numbers, of, "")
        FigureCanvasAgg(figure).draw()
    panels = []
    for axes, legend in zip(figure.axes, figure.legends, strict=True):
        by_look = {
            (line.get_color(), line.get_marker()): np.asarray(line.get_ydata()).tolist()
            for line in axes.get_lines()
        }
        panels.append(
            {
                text.get_text(): by_look[handle.get_color(), handle.get_marker()]
                for text, handle in zip(legend.get_texts(), legend.get_lines(), strict=True)
            }
        )
    return panels


def test_figure_6_draws_the_records_of_each_unroll_length_and_of_each_window_size(
    results: "Maker",
) -> None:
    for config in results.configs("unroll_and_window", 2):
        level = config.unroll_length + config.window_size / 100  # one that tells each run
        results.run(config, accuracy=lambda c, step, v=level: (v + c.seed + step / 1000) / 100)
    spec = CURVES[6]
    found = found_for(spec, stored_runs(results.root))
    left, right = drawn(spec, curves(spec, found), found)
    steps = range(0, 41, 10)

    def mean(unroll: int, window: int) -> list[float]:
        return [unroll + window / 100 + 0.5 + step / 1000 for step in steps]

    assert list(left) == [f"unroll length {n}" for n in (20, 30, 50, 75)]
    assert list(right) == [f"window size {n}" for n in (10, 15, 25)]
    for unroll in (20, 30, 50, 75):
        assert left[f"unroll length {unroll}"] == pytest.approx(mean(unroll, 10))
    for window in (10, 15, 25):
        assert right[f"window size {window}"] == pytest.approx(mean(50, window))


def test_figure_8_calls_stabilised_bptt_what_the_paper_does_and_tells_the_settings(
    results: "Maker",
) -> None:
    for config in results.configs("stabilization", 2):
        level = config.clip_ratio + len(config.clipping) + config.unroll_length
        results.run(config, accuracy=lambda c, step, v=level: (v + len(c.method)) / 100)
    spec = CURVES[8]
    found = found_for(spec, stored_runs(results.root))
    numbers = curves(spec, found)
    (panel,) = drawn(spec, numbers, found)
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
    text = curve_caption(spec, found, numbers, [])
    assert "clip_ratio=2.0, with BPTT-Gradient Clipping 1.05" in text
    assert "unroll_length=30, with BPTT-Increasing Windows 45" in text
