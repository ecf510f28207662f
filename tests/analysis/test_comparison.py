"""Figure 4: that means, spreads and n are those of the results, and when the paper's are drawn."""

from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest

from analysis.arguments import Request
from analysis.figures.comparison import (
    comparison_caption,
    comparison_table,
    draw_comparison,
    paper_number,
)
from analysis.figures.specs import FIGURES, ComparisonFigure
from analysis.figures.style import PARAMETERIZATION_LOOKS, RC
from analysis.load import Results, load_results, stored_runs
from bench.config.grid import expand, load_grid
from tests.analysis.reading import assert_readable

if TYPE_CHECKING:
    from pathlib import Path

    from tests.analysis.conftest import Maker

SPEC = FIGURES[4]


@pytest.fixture
def found(results: "Maker", tmp_path: "Path") -> Results:
    """Two budgets: two seeds at IPC 1, one at IPC 10."""
    own = tmp_path / "own.yaml"
    own.write_text("runs:\n- {method: rat_bptt, ipc: 1}\n- {method: rat_bptt, ipc: 10}\n")
    grid = load_grid(str(own))
    for config in expand(grid, "quick", {}, 2):
        if config.ipc == 1 or config.seed == 0:
            results.run(config, final=0.5 + config.ipc / 100 + config.seed / 10)
    return load_results(stored_runs(results.root), grid, "quick", {})


def test_mean_spread_and_n_are_those_of_the_seeds(found: Results) -> None:
    first, second = comparison_table(found).to_dict("records")
    assert first["text"] == "IPC 1, pixels"
    assert first["mean"] == pytest.approx(56)
    assert first["std"] == pytest.approx(10 / 2**0.5)
    assert (first["n"], second["n"]) == (2, 1)
    assert second["mean"] == pytest.approx(60)
    assert second["std"] != second["std"]
    assert [float(value) for value in first["seeds"].split()] == pytest.approx([51, 61])


def test_the_papers_numbers_are_beside_its_own_experiments_only() -> None:
    def numbers(grid: str, scale: str, **settings: Any) -> set[str]:
        configs = expand(load_grid(grid), scale, settings, 1)
        return {str(found) for config in configs if (found := paper_number(config))}

    own = {"53.2 ± 0.7", "69.4 ± 0.4", "68.2 ± 0.4", "72.8 ± 0.4"}
    assert numbers("parameterization", "paper") == own
    assert numbers("parameterization", "paper", selection="test", validation_fraction=0) == own
    assert numbers("parameterization", "paper", width=32) == set()
    assert numbers("parameterization", "cpu") == set()
    assert len(numbers("standard_benchmarks", "paper")) == 10
    for other in ("rivals_ipc10", "methods_comparison", "unroll_and_window"):
        assert numbers(other, "paper") == set()


def papers(found: Results) -> pd.DataFrame:
    """As if they were the paper's experiments."""
    table = comparison_table(found)
    return table.assign(paper_mean=[53.2, 69.4], paper_std=[0.7, 0.4])


@pytest.mark.parametrize("with_paper", [False, True])
def test_points_are_the_numbers_of_the_table(found: Results, with_paper: bool) -> None:
    assert isinstance(SPEC, ComparisonFigure)
    table = papers(found) if with_paper else comparison_table(found)
    text = comparison_caption(SPEC, found, table, Request([], {}, "quick"))
    assert ("Gray: the paper's" in text) == with_paper
    with mpl.rc_context(RC):
        figure = draw_comparison(table, PARAMETERIZATION_LOOKS, text)
        assert_readable(figure)
    (axes,) = figure.axes
    lines = [np.asarray(line.get_xydata()) for line in axes.get_lines()]
    lines += [np.asarray(dots.get_offsets()) for dots in axes.collections]
    points = {(round(x, 6), round(y, 2)) for line in lines for x, y in line.tolist()}
    ours = {(56.0, 0.0), (60.0, 1.0)}
    gray = {(53.2, -0.28), (69.4, 0.72)}
    seeds = {(51.0, 0.28), (61.0, 0.28), (60.0, 1.28)}
    ends = {(round(56 - 10 / 2**0.5, 6), 0.0), (round(56 + 10 / 2**0.5, 6), 0.0)}
    assert ours | seeds | ends <= points
    assert (points & gray) == (gray if with_paper else set())
    texts = [label.get_text() for label in axes.child_axes[0].get_yticklabels()]
    assert texts == ["56.0 ± 7.1 (n = 2)", "60.0 (n = 1)"]


def test_selection_changes_no_setting_of_the_paper(found: Results) -> None:
    for words in ([], ["selection=test"], ["selection=train", "validation_fraction=0"]):
        assert Request(words, {}, "paper").has_paper_settings()
    for words in (["width=32"], ["selection=train", "validation_fraction=0.2"]):
        assert not Request(words, {}, "paper").has_paper_settings()
    assert not Request([], {}, "quick").has_paper_settings()
    assert isinstance(SPEC, ComparisonFigure)
    text = comparison_caption(SPEC, found, comparison_table(found), Request([], {}, "quick"))
    assert "the paper's, ±" not in text
    assert "8x8 digits stand in for the paper's data" in text


def test_figure_4_tells_pixels_from_linear(results: "Maker") -> None:
    results.grid("parameterization")
    found = load_results(stored_runs(results.root), load_grid("parameterization"), "quick", {})
    table = comparison_table(found)
    what = [(1, "pixels"), (1, "linear"), (3, "pixels"), (3, "linear")]
    assert list(table["text"]) == [f"IPC {ipc}, {name}" for ipc, name in what]
