"""That figures can be read: in grey, by colour-blind readers, and with nothing cut or covered."""

from itertools import combinations
from typing import TYPE_CHECKING

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.text import Text

from analysis.captions import caption
from analysis.draw import make_figure
from analysis.figures import FIGURES, curves
from analysis.load import load_results, stored_runs
from analysis.style import METHOD_LOOKS, RC, SMALL_POINTS, looks
from bench.grids import load_grid, single_run

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tests.analysis.conftest import Maker

TOGETHER = [
    ["bptt", "t_bptt", "r_bptt", "rat_bptt"],
    ["rat_bptt", "forward_window", "backward_window"],
]
# Machado, Oliveira and Fernandes (2009), severity 1, on linear RGB.
VISIONS = {
    "normal": np.eye(3),
    "protanopia": np.array(
        [
            [0.152286, 1.052583, -0.204868],
            [0.114503, 0.786281, 0.099216],
            [-0.003882, -0.048116, 1.051998],
        ]
    ),
    "deuteranopia": np.array(
        [
            [0.367322, 0.860646, -0.227968],
            [0.280085, 0.672501, 0.047413],
            [-0.011820, 0.042940, 0.968881],
        ]
    ),
    "tritanopia": np.array(
        [
            [1.255528, -0.076749, -0.178779],
            [-0.078411, 0.930809, 0.147602],
            [0.004733, 0.691367, 0.303900],
        ]
    ),
}
TO_XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])


def lab(colour: str, vision: str) -> "NDArray[np.float64]":
    """CIE L*a*b* of a colour as seen with a vision."""
    rgb = np.array(to_rgb(colour))
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    xyz = TO_XYZ @ np.clip(VISIONS[vision] @ linear, 0, 1) / np.array([0.9505, 1.0, 1.089])
    f = np.where(xyz > (6 / 29) ** 3, np.cbrt(xyz), xyz / (3 * (6 / 29) ** 2) + 4 / 29)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


@pytest.mark.parametrize("vision", VISIONS)
@pytest.mark.parametrize("methods", TOGETHER, ids=["figures 2, 3, 7", "figure 5"])
def test_methods_of_a_figure_differ_in_colour_for_every_vision(
    methods: list[str], vision: str
) -> None:
    for one, other in combinations(methods, 2):
        distance = np.linalg.norm(
            lab(METHOD_LOOKS[one].colour, vision) - lab(METHOD_LOOKS[other].colour, vision)
        )
        assert distance > 20, (one, other, distance)  # 2 can just be seen side by side


@pytest.mark.parametrize("methods", TOGETHER, ids=["figures 2, 3, 7", "figure 5"])
def test_methods_of_a_figure_differ_in_lightness(methods: list[str]) -> None:
    for one, other in combinations(methods, 2):
        lightness = [lab(METHOD_LOOKS[name].colour, "normal")[0] for name in (one, other)]
        assert abs(lightness[0] - lightness[1]) > 8, (one, other, lightness)


def test_no_two_methods_of_a_figure_share_dash_or_marker() -> None:
    for methods in TOGETHER:
        for part in ("colour", "dash", "marker"):
            assert len({getattr(METHOD_LOOKS[name], part) for name in methods}) == len(methods)


def test_a_method_keeps_its_look_and_others_get_looks_of_their_own() -> None:
    experiments = {
        "a": single_run("quick", {"method": "methods.truncated:TruncatedBPTT"}),
        "b": single_run("quick", {"method": "rat_bptt"}),
        "c": single_run("quick", {"method": "rat_bptt", "window_size": 5}),
        "d": single_run("quick", {"method": "t_bptt"}),
    }
    found = looks(experiments)
    assert list(found) == ["a", "b", "c", "d"]
    assert found["b"] == METHOD_LOOKS["rat_bptt"]
    assert found["d"] == METHOD_LOOKS["t_bptt"]
    assert len({look.colour for look in found.values()}) == 4


@pytest.mark.parametrize("number", FIGURES)
@pytest.mark.parametrize("long_labels", [False, True])
def test_no_text_is_cut_or_covered_or_too_small(
    results: "Maker", tmp_path, number: int, long_labels: bool
) -> None:
    spec = FIGURES[number]
    grid = load_grid("window_ablation" if number == 5 else "methods_comparison")
    if long_labels:
        own = tmp_path / "own.yaml"
        own.write_text(
            "runs:\n- {method: rat_bptt, inner_weight_decay: 0.0005, inner_momentum: 0.9}\n"
            "- {method: bptt, inner_decay_steps: [10, 20], outer_lr: 0.00012345}\n"
        )
        grid = load_grid(str(own))
        for method in grid.runs:
            results.run(single_run("quick", method))
    else:
        results.grid(grid.name)
    found = load_results(stored_runs(results.root), grid, "quick", {}, names=spec.names)
    numbers = curves(spec, found)
    text = caption(spec, found, numbers, ["inner_lr=0.02"] * 5)
    with mpl.rc_context(RC):
        figure = make_figure(spec, numbers, looks(found.experiments), text)
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
        (axes,), (legend,), (caption_text,) = figure.axes, figure.legends, figure.texts
        renderer = canvas.get_renderer()
        whole = figure.bbox
        shown = [t for t in figure.findobj(Text) if isinstance(t, Text) and t.get_text()]
        for item in shown:
            box = item.get_window_extent(renderer)
            if item in axes.get_xticklabels() + axes.get_yticklabels():
                low, high = sorted(axes.get_ylim())
                x, y = item.get_position()
                if not (low <= y <= high or item in axes.get_xticklabels()):
                    continue  # a tick outside of the axes is not drawn
                if item in axes.get_xticklabels() and not (
                    axes.get_xlim()[0] <= x <= axes.get_xlim()[1]
                ):
                    continue
            assert box.x0 >= whole.x0 - 0.5, item
            assert box.x1 <= whole.x1 + 0.5, item
            assert box.y0 >= whole.y0 - 0.5, item
            assert box.y1 <= whole.y1 + 0.5, item
            assert float(item.get_fontsize()) >= SMALL_POINTS
        around = axes.get_tightbbox(renderer)
        assert around is not None
        assert not around.overlaps(legend.get_window_extent(renderer))
        assert not around.overlaps(caption_text.get_window_extent(renderer))
        assert axes.get_window_extent(renderer).height / figure.dpi > 1.5
        low, high = axes.get_ylim()
        assert sum(low <= tick <= high for tick in axes.get_yticks()) >= 2
