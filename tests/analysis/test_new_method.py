"""A method that is added or brought along appears in figures without another edit: its label in the
legend, in a color that no other method of the figure has."""

from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib as mpl
import numpy as np
import pytest

from analysis.figures.curves import curves
from analysis.figures.draw import make_figure
from analysis.figures.pictures import curve_looks
from analysis.figures.specs import FIGURES, CurveFigure
from analysis.figures.style import RC, looks
from analysis.labels import distinct_labels
from analysis.load import load_results, stored_runs
from analysis.report_page.interactive import SYMBOLS
from bench.config.grid import expand, load_grid, single_run
from methods import METHODS, Look, StatelessMethod, Window, method_look
from methods.look import MARKERS
from tests.analysis.color_vision import VISIONS, lab

if TYPE_CHECKING:
    from tests.analysis.conftest import Maker

SOURCE = """
from methods import Look, StatelessMethod, Window

class Early(StatelessMethod):
    label = "Early windows"

    def next_window(self, step, rng):
        return Window(0, self.window_size)

class Plain(Early):
    pass

class Styled(Early):
    look = Look("#123456", marker="h")
"""


@pytest.fixture(autouse=True)
def user_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`new_windows` can be imported."""
    (tmp_path / "new_windows.py").write_text(SOURCE)
    monkeypatch.syspath_prepend(str(tmp_path))


@pytest.mark.parametrize("figure", [3, 7])  # Figure 2 has a panel for each method
def test_a_users_method_has_its_label_and_a_color_of_its_own_in_the_legend(
    results: "Maker", tmp_path: Path, figure: int
) -> None:
    names = ["bptt", "t_bptt", "r_bptt", "rat_bptt", "new_windows:Early"]
    (tmp_path / "own.yaml").write_text(f"runs: [{', '.join(f'{{method: {n!r}}}' for n in names)}]")
    grid = load_grid(str(tmp_path / "own.yaml"))
    for config in expand(grid, "quick", {}):
        results.run(config)
    spec = FIGURES[figure]
    assert isinstance(spec, CurveFigure)
    loaded = load_results(stored_runs(results.root), grid, "quick", {})
    with mpl.rc_context(RC):
        picture = make_figure(spec, curves(spec, loaded), curve_looks(spec, loaded), "")
    (legend,) = picture.legends
    texts = [text.get_text() for text in legend.get_texts()]
    assert texts == ["BPTT", "T-BPTT", "R-BPTT", "RaT-BPTT", "Early windows"]
    colors = [str(line.get_color()) for line in legend.get_lines()]
    for vision in VISIONS:
        for one, other in combinations(colors, 2):
            assert np.linalg.norm(lab(one, vision) - lab(other, vision)) > 20


def test_a_class_without_label_goes_by_its_name_and_a_stated_look_is_used() -> None:
    configs = [
        single_run("quick", {"method": f"new_windows:{name}"})
        for name in ("Early", "Plain", "Styled")
    ]
    labels = distinct_labels(configs)
    assert labels == ["Early windows", "Plain", "Styled"]
    chosen = looks(dict(zip(labels, configs, strict=True)))
    assert chosen["Styled"] == Look("#123456", marker="h")
    assert len({look.color for look in chosen.values()}) == 3


def test_one_line_in_the_registry_adds_a_method(monkeypatch: pytest.MonkeyPatch) -> None:
    class Added(StatelessMethod):
        label = "Added method"

        def next_window(self, step: int, rng: object) -> Window:
            return Window(step, step + 1)

    monkeypatch.setitem(METHODS, "added", Added)
    configs = [single_run("quick", {"method": name}) for name in METHODS]
    labels = distinct_labels(configs)
    assert labels[-1] == "Added method"
    chosen = looks(dict(zip(labels, configs, strict=True)))
    assert len(set(chosen.values())) == len(METHODS)


def test_methods_of_one_color_differ_in_dash_and_marker() -> None:
    stated = [look for look in map(method_look, METHODS) if look is not None]
    for one, other in combinations(stated, 2):
        assert one.color != other.color or (one.dash != other.dash and one.marker != other.marker)


def test_the_report_can_draw_every_marker() -> None:
    assert set(SYMBOLS) == set(MARKERS)
