"""Figure 1: that what is drawn is what the methods answer and what runs do."""

from pathlib import Path
from unittest.mock import patch

import matplotlib as mpl
import pandas as pd
import pytest
from matplotlib.colors import to_hex
from matplotlib.patches import Rectangle

from analysis.figures.specs import FIGURES, WindowFigure
from analysis.figures.style import RC
from analysis.figures.windows import (
    WARM_UP_COLOR,
    WINDOW_COLOR,
    configurations,
    draw_windows,
    window_caption,
    window_table,
    windows_of,
)
from analysis.plot import main
from bench.config.grid import load_grid
from bench.system.errors import UserError
from bench.training.randomness import python_random
from tests.analysis.reading import assert_readable

SPEC = FIGURES[1]
assert isinstance(SPEC, WindowFigure)


def configs(**overrides):
    assert isinstance(SPEC, WindowFigure)
    only = overrides.pop("only", ())
    return configurations(SPEC, load_grid(SPEC.like), "quick", overrides, only)


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


def test_bars_are_the_windows_of_the_table() -> None:
    table = window_table(configs(), 5)
    with mpl.rc_context(RC):
        figure = draw_windows(table, "caption")
        assert_readable(figure)
    assert [axes.get_title(loc="left") for axes in figure.axes] == list(dict.fromkeys(table.label))
    for axes in figure.axes:
        own = table[table["label"] == axes.get_title(loc="left")]
        spans: dict[str, list[tuple[float, float]]] = {}
        for bar in axes.patches:
            assert isinstance(bar, Rectangle)
            color = to_hex(bar.get_facecolor())
            spans.setdefault(color, []).append((bar.get_x(), bar.get_x() + bar.get_width()))
        starts = [(0, start) for start in own["start"]]
        assert spans[WARM_UP_COLOR.lower()] == starts
        windows = list(zip(own["start"], own["stop"], strict=True))
        assert spans[WINDOW_COLOR.lower()] == windows


def test_settings_seed_and_methods_can_be_asked_for() -> None:
    shown = configs(unroll_length=25, window_size=5, seed=4, only=["rat_bptt", "growing_bptt"])
    assert [(c.unroll_length, c.window_size, c.seed) for c in shown.values()] == [(25, 5, 4)] * 2
    assert windows_of(shown["RaT-BPTT"], 1)[0].start == python_random(4, "window", 0).randint(0, 20)
    growing = windows_of(shown["BPTT-Increasing Windows"], 12)
    assert (growing[0].stop, growing[11].stop) == (5, 25)
    (own,) = configs(method="methods.truncated:TruncatedBPTT").values()
    assert windows_of(own, 1)[0].start == 20
    with pytest.raises(UserError, match="unknown method"):
        configs(only=["rat"])
    with pytest.raises(UserError, match=r"no method shown has method_options\.power"):
        configs(method_options={"power": 2})


def test_the_caption_tells_that_nothing_was_measured_and_what_was_told() -> None:
    assert isinstance(SPEC, WindowFigure)
    text = window_caption(SPEC, configs(), "quick", [])
    for part in (
        "Not measured",
        "never falls (patience=3",
        "unroll_length=30",
        "scale=quick",
        "n = 1",
    ):
        assert part in text
    alone = window_caption(SPEC, configs(only=["bptt"]), "quick", ["ipc=2"])
    assert "never falls" not in alone
    assert "scale=quick, ipc=2" in alone


def test_figure_1_needs_no_runs(tmp_path: Path) -> None:
    made: list[pd.DataFrame] = []
    with patch(
        "analysis.figures.page.save", lambda picture, stem: made.append(picture.table) or []
    ):
        assert main(["figure=1", "scale=quick", f"results_root={tmp_path}"]) == 0
    (table,) = made
    assert list(table["label"].unique())[:3] == ["BPTT", "T-BPTT", "R-BPTT"]
    assert len(table) == 6 * 12
