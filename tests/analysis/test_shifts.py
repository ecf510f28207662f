"""When windows shifted, from records whose shifts are known."""

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from analysis.load import FinishedRun, load_results, stored_runs
from analysis.shifts import shift_steps
from bench.config.grid import load_grid, single_run

if TYPE_CHECKING:
    from tests.analysis.conftest import Maker


def runs_of(results: "Maker") -> dict[str, FinishedRun]:
    """The finished runs of the grid of moving windows with seed 0, by method."""
    found = load_results(stored_runs(results.root), load_grid("window_ablation"), "quick", {})
    return {run.config.method: run for run in found.runs if run.config.seed == 0}


def moved_at(*steps: int) -> dict[str, object]:
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
