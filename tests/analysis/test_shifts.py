"""When windows shifted, from records whose shifts are known."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import numpy as np
import pytest

from analysis.arguments import Request
from analysis.figures.captions import curve_caption
from analysis.figures.curves import curves
from analysis.figures.draw import make_figure
from analysis.figures.pictures import curve_looks
from analysis.figures.specs import FIGURES, CurveFigure
from analysis.figures.style import RC
from analysis.load import FinishedRun, load_results, stored_runs
from analysis.report_page.interactive import charts
from analysis.shifts import shift_steps
from bench.config.grid import load_grid, single_run
from methods import METHODS

if TYPE_CHECKING:
    from tests.analysis.conftest import Maker


def runs_of(results: "Maker") -> dict[str, FinishedRun]:
    """The finished runs of the grid of moving windows with seed 0, by method."""
    found = load_results(stored_runs(results.root), load_grid("window_ablation"), "quick", {})
    return {run.config.method: run for run in found.runs if run.config.seed == 0}


def moved_at(*steps: int) -> dict[str, Any]:
    """Windows that lie 10 inner steps later from each of these outer steps on."""
    return {"start": lambda step: 10 * sum(step >= shift for shift in steps)}


def test_shifts_are_the_steps_at_which_a_moving_window_lies_elsewhere(results: "Maker") -> None:
    for config in results.configs("window_ablation", seeds=1):
        shifts = {"forward_window": (7, 30), "rat_bptt": (3,)}.get(config.method, ())
        results.run(config, **moved_at(*shifts))
    found = runs_of(results)
    assert shift_steps(found["forward_window"]) == [7, 30]
    assert shift_steps(found["backward_window"]) == []
    assert shift_steps(found["rat_bptt"]) == []  # random windows do not shift, they are drawn


OWN = """
from methods import MovingWindow

class Middle(MovingWindow):
    def first_start(self):
        return self.unroll_length // 2

    def shifted_start(self):
        return 0
"""


def test_a_user_s_subclass_of_a_moving_window_shifts_too(
    results: "Maker", tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own_windows.py").write_text(OWN)
    monkeypatch.syspath_prepend(str(tmp_path))
    config = single_run("quick", {"method": "own_windows:Middle"})
    folder = results.run(config, **moved_at(5))
    run = FinishedRun(folder, config, None, {}, {})  # type: ignore[arg-type]
    assert shift_steps(run) == [5]
    monkeypatch.undo()
    monkeypatch.delitem(__import__("sys").modules, "own_windows")
    assert shift_steps(run) == []  # its module is gone, so it is not known what it was


def test_figure_5_shows_when_each_window_shifted(results: "Maker") -> None:
    shifts = {("forward_window", 0): (20, 30), ("backward_window", 1): (10,)}
    for config in results.configs("window_ablation"):
        results.run(config, **moved_at(*shifts.get((config.method, config.seed), ())))
    spec = FIGURES[5]
    assert isinstance(spec, CurveFigure)
    found = load_results(
        *(stored_runs(results.root), load_grid(spec.grid), "quick", {}),
        variants=spec.variants,
        unlabeled=spec.unlabeled,
    )
    numbers, looks = curves(spec, found), curve_looks(spec, found)
    assert (
        "outer steps at which a window shifted (Forward moving seed 0: 20 and 30, seed 1: never;"
        " Backward moving seed 0: never, seed 1: 10)."
        in curve_caption(spec, found, numbers, Request([], {}, "quick"))
    )
    with mpl.rc_context(RC):
        (axes,) = make_figure(spec, numbers, looks, "").axes
    bars = [line for line in axes.get_lines() if line.get_marker() == "|"]
    assert [list(np.asarray(bar.get_xdata())) for bar in bars] == [[20, 30], [10]]
    assert [bar.get_color() for bar in bars] == [
        METHODS[name].look.color for name in ("forward_window", "backward_window")
    ]
    (chart,) = charts(spec, numbers, looks)
    assert [note["hovertext"] for note in chart.to_dict()["layout"]["annotations"]] == [
        "Forward moving, seed 0: the window shifted at 20",
        "Forward moving, seed 0: the window shifted at 30",
        "Backward moving, seed 1: the window shifted at 10",
    ]


def test_a_figure_without_moving_windows_says_nothing_of_shifts(results: "Maker") -> None:
    results.grid("methods_comparison")
    spec = FIGURES[3]
    assert isinstance(spec, CurveFigure)
    found = load_results(stored_runs(results.root), load_grid(spec.grid), "quick", {})
    numbers = curves(spec, found)
    assert numbers.shifts == {}
    assert "shifted" not in curve_caption(spec, found, numbers, Request([], {}, "quick"))
