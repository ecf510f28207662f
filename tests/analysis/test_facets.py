"""The figures of the grid `first_steps`: a panel for each inner optimizer, with the same curves."""

from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from analysis.arguments import Request
from analysis.figures.captions import curve_caption
from analysis.figures.curves import Curves, curves
from analysis.figures.facets import FIRST_STEPS
from analysis.figures.pictures import curve_looks
from analysis.figures.specs import FIGURES, CurveFigure
from analysis.load import Results, load_results, stored_runs
from analysis.records import seconds_before
from analysis.report_page.interactive import charts
from bench.config.grid import load_grid
from bench.config.run_config import RunConfig
from tests.analysis.color_vision import VISIONS, lab

if TYPE_CHECKING:
    from tests.analysis.conftest import Maker

FEW = ["BPTT", "BPTT from step 1", "RaT-BPTT"]
MORE = [*FEW, "RaT-BPTT from step 1"]
ALL = [curve.name for curve in FIRST_STEPS.curves]
PANELS = {
    "Adam, ε = 1e-8 (torch)": ALL,
    "Adam, ε = 1e-8 (higher)": FEW,
    "Adam, ε = 1e-8 (published)": MORE,
    "Adam, ε = 1e-4 (torch)": FEW,
    "SGD with momentum": FEW,
}


def figure(name: str) -> CurveFigure:
    spec = FIGURES[name]
    assert isinstance(spec, CurveFigure)
    return spec


def shown(results: "Maker", name: str, scale: str = "quick") -> tuple[Results, Curves]:
    spec = figure(name)
    stored = stored_runs(results.root)
    how: dict[str, Any] = {"variants": spec.variants, "unlabeled": spec.unlabeled}
    found = load_results(stored, load_grid(spec.grid), scale, {}, **how)
    return found, curves(spec, found)


@pytest.mark.parametrize("scale", ["quick", "cpu", "paper"])
def test_every_run_has_a_name_of_its_own_and_a_place_in_a_panel(
    results: "Maker", scale: str
) -> None:
    results.root.mkdir()
    found = load_results(
        *([], load_grid("first_steps"), scale, {}),
        variants=figure("first_steps").variants,
        unlabeled=figure("first_steps").unlabeled,
    )
    names = [f"{curve} ({panel})" for panel, own in PANELS.items() for curve in own]
    assert sorted(one.label for one in found.experiments) == sorted(names)
    for one in found.experiments:
        panel, curve = FIRST_STEPS.panel_of(one.config), FIRST_STEPS.curve_of(one.config)
        assert panel is not None
        assert curve is not None
        assert one.label == f"{curve.name} ({panel.name})"


def level(config: RunConfig) -> float:
    """A number that tells each experiment."""
    of_method = 10 * config.method_options.get("first", 0) + (config.method == "bptt")
    forms = {"torch": 1, "higher": 2, "published": 3}
    adam = forms[config.inner_eps_form] + 1e4 * config.inner_eps
    return of_method / 100 + (adam if config.inner_optimizer == "adam" else 9) / 10


def test_each_panel_draws_the_records_of_its_inner_optimizer(results: "Maker") -> None:
    for config in results.configs("first_steps", 1):
        results.run(config, accuracy=lambda c, step: level(c))
    found, numbers = shown(results, "first_steps")
    assert {panel.title: list(panel.texts.values()) for panel in numbers.panels} == PANELS
    means = numbers.table.groupby("experiment")["mean"].max()
    configs = {one.identity: one.config for one in found.experiments}
    for panel in numbers.panels:
        for identity in panel.texts:
            assert means[identity] == pytest.approx(100 * level(configs[identity]))
    looks = curve_looks(figure("first_steps"), found)
    for panel in numbers.panels:
        for identity, text in panel.texts.items():
            (curve,) = [one for one in FIRST_STEPS.curves if one.name == text]
            assert looks[identity] == curve.look


def test_the_time_is_that_of_the_outer_steps_before_a_measurement(results: "Maker") -> None:
    for config in results.configs("first_steps", 2):
        slow = 0.2 if config.method == "bptt" else 0.1
        results.run(config, seconds=slow * (1 + config.seed))
    found, numbers = shown(results, "first_steps_seconds")
    for method, of_a_step in (("bptt", 0.3), ("rat_bptt", 0.15)):
        rows = numbers.table[numbers.table["method"] == method]
        assert list(rows["seconds"]) == pytest.approx([of_a_step * step for step in rows["step"]])
        assert set(rows["n"]) == {2}
    spec = figure("first_steps_seconds")
    text = curve_caption(spec, found, numbers, Request([], {}, "quick"))
    assert "(not in the paper)" in text
    assert "without measurements, mean over seeds (on made-up CPU;" in text
    assert "inner_lr=0.01, with SGD with momentum 0.1; inner_momentum=0.0, with SGD" in text
    assert "no panel" not in text
    for chart in charts(spec, numbers, curve_looks(spec, found)):
        layout: Any = chart.layout
        traces: Any = chart.data
        assert layout.xaxis.title.text == "Seconds of outer steps"
        drawn = [max(trace.x) for trace in traces if trace.name == "BPTT"]
        assert drawn == [pytest.approx(0.3 * 40)]


def test_seconds_before_a_step_leave_it_out_and_need_no_order() -> None:
    import pandas as pd

    metrics = pd.DataFrame({"step": [2, 0, 1], "seconds": [4.0, 1.0, 2.0]})
    assert seconds_before(metrics, [0, 1, 2, 3]).tolist() == [0, 1, 3, 7]


def test_norms_are_those_of_every_seed(results: "Maker") -> None:
    for config in results.configs("first_steps", 2):
        results.run(config, norm=lambda c, step: 500.0 if step == 10 + c.seed else 1.0)
    found, numbers = shown(results, "first_steps_norms")
    spikes = numbers.values[numbers.values["value"] == 500.0]
    assert len(spikes) == 2 * len(found.experiments)
    assert set(spikes["step"]) == {10, 11}
    assert len(numbers.panels) == len(PANELS)
    assert numbers.paper == {}


@pytest.mark.parametrize("vision", VISIONS)
def test_curves_of_a_panel_differ_in_color_for_every_vision(vision: str) -> None:
    colors = [curve.look.color for curve in FIRST_STEPS.curves]
    for one, other in combinations(colors, 2):
        assert np.linalg.norm(lab(one, vision) - lab(other, vision)) > 15
