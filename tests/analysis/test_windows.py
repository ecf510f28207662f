"""Figure 1: that what is drawn is what the methods answer and what runs do."""

from pathlib import Path
from unittest.mock import patch

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from matplotlib.collections import QuadMesh
from matplotlib.colors import to_hex

from analysis.arguments import Request
from analysis.figures.specs import FIGURES, WindowFigure
from analysis.figures.style import RC
from analysis.figures.windows import (
    COLORS,
    configurations,
    draw_windows,
    states,
    window_caption,
    window_table,
    windows_of,
)
from analysis.plot import main
from bench.system.errors import UserError
from bench.training.randomness import python_random
from tests.analysis.reading import assert_readable

SPEC = FIGURES[1]
assert isinstance(SPEC, WindowFigure)


def configs(**overrides):
    assert isinstance(SPEC, WindowFigure)
    only = overrides.pop("only", "")
    return configurations(SPEC, Request([], overrides, "quick", only=only))


def test_the_table_has_each_methods_window_at_each_outer_step() -> None:
    table = window_table(configs(), 12).set_index(["method", "step"])
    for step in range(12):
        row = {m: (table.loc[(m, step), "start"], table.loc[(m, step), "stop"]) for m in METHODS}
        rng = python_random(0, "window", step)
        start = rng.randint(0, 20)
        length = python_random(0, "window", step).randint(10, 30)
        assert row == {
            "bptt": (0, 30),
            "t_bptt": (20, 30),
            "r_bptt": (0, length),
            "rat_bptt": (start, start + 10),
            # Patience 3: the loss never falls, so every fourth outer step is a new place.
            "forward_window": (20 - step // 4 * 10, 30 - step // 4 * 10),
            "backward_window": (step // 4 * 10, 10 + step // 4 * 10),
        }


METHODS = ("bptt", "t_bptt", "r_bptt", "rat_bptt", "forward_window", "backward_window")


def test_each_cell_has_the_color_of_what_is_done_with_its_inner_step() -> None:
    table = window_table(configs(), 5)
    with mpl.rc_context(RC):
        figure = draw_windows(table, "caption")
        assert_readable(figure)
    assert [axes.get_title(loc="left") for axes in figure.axes] == list(dict.fromkeys(table.label))
    for panel, axes in enumerate(figure.axes):
        (mesh,) = [artist for artist in axes.collections if isinstance(artist, QuadMesh)]
        colors = [
            to_hex(tuple(color)) for color in np.reshape(mesh.get_facecolor(), (-1, 4)).tolist()
        ]
        windows = table[table["panel"] == panel]
        expected = [
            COLORS["warm-up"]
            if inner < start
            else COLORS["window"]
            if inner < stop
            else COLORS["not run"]
            for start, stop in zip(windows["start"], windows["stop"], strict=True)
            for inner in range(30)
        ]
        assert colors == [color.lower() for color in expected]


def test_the_state_of_an_inner_step() -> None:
    windows = pd.DataFrame({"start": [0, 2], "stop": [1, 4]})
    assert states(windows, 5).tolist() == [[2, 0, 0, 0, 0], [1, 1, 2, 2, 0]]


def test_settings_seed_and_methods_can_be_asked_for() -> None:
    shown = configs(unroll_length=25, window_size=5, seed=4, only="rat_bptt,growing_bptt")
    shown = dict(shown)
    assert [(c.unroll_length, c.window_size, c.seed) for c in shown.values()] == [(25, 5, 4)] * 2
    assert windows_of(shown["RaT-BPTT"], 1)[0].start == python_random(4, "window", 0).randint(0, 20)
    growing = windows_of(shown["BPTT-Increasing Windows"], 12)
    assert (growing[0].stop, growing[11].stop) == (5, 25)
    ((_, config),) = configs(method="methods.truncated:TruncatedBPTT")
    assert windows_of(config, 1)[0].start == 20
    with pytest.raises(UserError, match="unknown method"):
        configs(only="rat")
    with pytest.raises(UserError, match=r"no method shown has method_options\.power"):
        configs(method_options={"power": 2})


def test_the_caption_states_that_nothing_was_measured_and_the_loss() -> None:
    assert isinstance(SPEC, WindowFigure)
    text = window_caption(SPEC, configs(), Request([], {}, "quick"))
    for part in (
        "Nothing was measured",
        "never falls (patience=3",
        "unroll_length=30",
        "scale=quick",
        "n = 1",
    ):
        assert part in text
    alone = window_caption(SPEC, configs(only="bptt"), Request(["ipc=2"], {}, "quick"))
    assert "never falls" not in alone
    assert "scale=quick, ipc=2" in alone


def test_figure_1_needs_no_runs(tmp_path: Path) -> None:
    made: list[pd.DataFrame] = []
    with patch("analysis.figures.page.save", lambda picture, *_: made.append(picture.table) or []):
        assert main(["figure=1", "scale=quick", f"results_root={tmp_path}"]) == 0
    (table,) = made
    assert list(table["label"].unique())[:3] == ["BPTT", "T-BPTT", "R-BPTT"]
    assert len(table) == 6 * 12
