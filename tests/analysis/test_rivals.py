"""The grid `rivals`: its table, its figure, its place beside Table 1."""

import statistics
from typing import TYPE_CHECKING

import pandas as pd
import pytest

from analysis.figures.facets import RIVALS
from analysis.table import main
from bench.config.grid import expand, load_grid
from bench.config.identity import experiment_identity
from bench.config.objectives import OBJECTIVES
from bench.config.run_config import RunConfig

if TYPE_CHECKING:
    from tests.analysis.conftest import Maker


def final(config: RunConfig) -> float:
    name = (
        sum(map(ord, config.method)) % 7
        + 3 * len(config.parameterization)
        + 20 * config.learn_labels
    )
    return 0.3 + 0.01 * name + 0.02 * config.seed**2


@pytest.fixture(params=["rivals", "rivals_ipc10"])
def grid(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def configs(results: "Maker", grid: str) -> list[RunConfig]:
    made = expand(load_grid(grid), "quick", {}, seeds=3)
    for config in made:
        results.run(config, final=final(config))
    return made


def written(results: "Maker", name: str) -> str:
    output = results.root / "out"
    words = [f"table={name}", f"output={output}", "scale=quick", f"results_root={results.root}"]
    assert main(words) == 0
    (path,) = output.glob("*.md")
    return path.read_text()


def test_the_table_has_the_numbers_of_the_runs(
    results: "Maker", grid: str, configs: list[RunConfig]
) -> None:
    written(results, grid)
    table = pd.read_csv(results.root / "out" / f"table_{grid}_quick.csv")
    assert len(table) == len(load_grid(grid).runs)
    for line, config in zip(table.itertuples(), configs[::3], strict=True):
        one = experiment_identity(config)
        seeds = [100 * final(c) for c in configs if experiment_identity(c) == one]
        assert line.n_seeds == 3
        assert line.ours_mean == pytest.approx(statistics.fmean(seeds))
        assert line.labels == ("learned" if config.learn_labels else "hard")
        if config.objective != "unrolled":
            assert str(line.method).startswith(OBJECTIVES[config.objective].label)
    quoted = dict(zip(table["method"], table["quoted"], strict=True))
    of_dm, of_dsa = {
        "rivals": ("26.0 ± 0.8", "28.8 ± 0.7"),
        "rivals_ipc10": ("48.9 ± 0.6", "52.1 ± 0.5"),
    }[grid]
    assert quoted["DM"] == of_dm
    assert quoted["DSA"] == of_dsa


def test_hard_and_learned_labels_have_columns_of_their_own(
    results: "Maker", grid: str, configs: list[RunConfig]
) -> None:
    lines = [line for line in written(results, grid).splitlines() if line.startswith("|")]
    heading = [cell.strip() for cell in lines[0].split("|")]
    hard, learned = (heading.index(f"Ours, {kind} labels") for kind in ("hard", "learned"))
    cells = [[cell.strip() for cell in line.split("|")] for line in lines[2:]]
    assert len(cells) == len(load_grid(grid).runs)
    assert all(bool(line[hard]) != bool(line[learned]) for line in cells)
    assert any(line[learned] for line in cells)


def test_table_1_shows_them_once_there_are_runs(results: "Maker") -> None:
    assert "rivals" not in written(results, "1")
    for number, name in enumerate(["rivals", "rivals_ipc10"], 1):
        for config in expand(load_grid(name), "quick", {}, seeds=1):
            results.run(config, final=final(config))
        shown = written(results, "1")
        assert shown.count("The paper's rivals and RaT-BPTT at equal storage") == number
        assert f"grid={name}" in shown


def test_every_entry_has_a_curve_and_a_panel_of_its_own() -> None:
    configs = expand(load_grid("rivals"), "quick", {}, seeds=1)
    places = [(RIVALS.panel_of(config), RIVALS.curve_of(config)) for config in configs]
    assert all(panel and curve for panel, curve in places)
    names = [(panel.name, curve.name) for panel, curve in places if panel and curve]
    assert len(set(names)) == len(configs)
