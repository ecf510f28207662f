"""That every setting at `scale=paper` has one source, and has the value that its source says."""

from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from analysis.arguments import Request
from analysis.captions import caption
from analysis.labels import flat_settings
from analysis.setting_sources import (
    MAIN_OURS,
    WITHOUT_SOURCE,
    Rules,
    Sourced,
    ours_text,
    rules,
    rules_of,
    sourced,
    sourced_settings,
)
from analysis.table import main
from analysis.tables.settings import settings_table
from bench.config.grid import expand, grid_names, load_grid
from bench.config.run_config import RunConfig
from bench.system.errors import UserError


def everything(among: Rules) -> list[Sourced]:
    return [one for grid in grid_names() for one in sourced(grid, among)]


def test_every_setting_of_every_run_has_the_value_that_its_source_says() -> None:
    found = everything(rules())
    wrong = [(one.grid, one.setting, one.value) for one in found if not one.agrees]
    assert wrong == []
    settings = {key for grid in grid_names() for c in _configs(grid) for key in flat_settings(c)}
    assert {one.setting for one in found} == settings - set(WITHOUT_SOURCE)
    assert len(found) == sum(
        len(flat_settings(config)) - len(WITHOUT_SOURCE)
        for grid in grid_names()
        for config in _configs(grid)
    )


def _configs(grid: str) -> list[RunConfig]:
    return expand(load_grid(grid), "paper", {}, seeds=1)


def test_no_source_is_left_over() -> None:
    used = {id(one.rule) for one in everything(rules())}
    left = [(key, rule) for key, each in rules().items() for rule in each if id(rule) not in used]
    assert left == []
    assert all(rule.text.strip() for each in rules().values() for rule in each)


def test_a_setting_that_changes_or_has_no_source_is_found() -> None:
    without = {key: each for key, each in rules().items() if key != "outer_lr"}
    assert {one.setting for one in everything(without) if not one.agrees} == {"outer_lr"}
    changed = {**rules(), "zca": [replace(rules()["zca"][0], value=False)]}
    assert {one.setting for one in everything(changed) if not one.agrees} == {"zca"}
    config = replace(_configs("window_ablation")[0], target_batch=123)
    found = sourced_settings(config, "window_ablation", rules())
    assert [one.setting for one in found if not one.agrees] == ["target_batch"]


@pytest.mark.parametrize(
    "rule",
    [
        {"value": 1, "stated": "C.1", "ours": "both"},
        {"value": 1},
        {"stated": "C.1"},
        {"value": 1, "stated": "C.1", "where": "x"},
    ],
)
def test_a_rule_has_one_value_and_one_source(rule: dict) -> None:
    with pytest.raises(UserError, match="ipc: a rule has value"):
        rules_of({"ipc": [rule]})


# What the paper states, copied from its text: the file cannot turn it into something else.
STATED = [
    ("standard_benchmarks", {"dataset": "cifar10", "ipc": 10}, "window_size", 80, "C.3"),
    ("standard_benchmarks", {"dataset": "cub200", "ipc": 1}, "unroll_length", 200, "C.3"),
    ("standard_benchmarks", {"dataset": "cub200", "ipc": 10}, "target_batch", 3000, "C.1"),
    ("standard_benchmarks", {"dataset": "cifar10", "ipc": 50}, "learn_labels", True, "C.1"),
    ("standard_benchmarks", {"dataset": "tiny_imagenet", "ipc": 1}, "depth", 4, "section 3"),
    ("window_ablation", {}, "unroll_length", 120, "Figure 5"),
    ("methods_comparison", {"method": "rat_bptt"}, "window_resample_every", 25, "Figure 2"),
    ("inner_optimizer", {"inner_optimizer": "sgd"}, "inner_lr", 0.01, "C.7"),
    ("boosting", {}, "evaluation_networks", 10, "section 3"),
]


@pytest.mark.parametrize(("grid", "which", "setting", "value", "place"), STATED)
def test_what_the_paper_states_is_labeled_so(
    grid: str, which: dict, setting: str, value: object, place: str
) -> None:
    configs = [c for c in _configs(grid) if which.items() <= flat_settings(c).items()]
    assert configs
    for config in configs:
        (one,) = [one for one in sourced_settings(config, grid, rules()) if one.setting == setting]
        assert one.rule is not None
        assert (one.value, one.rule.label) == (value, "stated")
        assert place in one.rule.text


def test_what_neither_paper_nor_code_states_is_labeled_ours() -> None:
    ours = {*MAIN_OURS, "accuracy_networks", "accuracy_steps", "accuracy_every"}
    labels = {(one.setting, one.rule.label) for one in everything(rules()) if one.rule}
    assert {label for setting, label in labels if setting in ours} - {"unused", "rival"} == {"ours"}
    assert {label for setting, label in labels if setting == "augment_inner"} == {"code"}


def test_longer_runs_where_the_evidence_asks_for_them() -> None:
    steps = {(c.dataset, c.ipc): c.outer_steps for c in _configs("standard_benchmarks")}
    assert {cell for cell, n in steps.items() if n == 20_000} == {("cifar10", 1), ("cifar10", 10)}
    assert set(steps.values()) == {20_000, 60_000}


def test_the_table_shows_each_rule_with_effect_once() -> None:
    table = settings_table()
    tidy = table.tidy
    assert len(tidy) == sum(map(len, rules().values()))
    assert set(tidy["source"]) == {"stated", "code", "rival", "ours", "unused"}
    (shown,) = [frame for frame, _ in table.frames]
    assert len(shown) == (tidy["source"] != "unused").sum()
    experiments = tidy.groupby("setting")["experiments"].sum()
    total = sum(len(_configs(grid)) for grid in grid_names())
    assert set(experiments[~experiments.index.str.contains("_options.", regex=False)]) == {total}
    row = tidy[(tidy["setting"] == "outer_steps") & (tidy["value"] == "60000")].iloc[0]
    assert (row["source"], row["grids"], row["experiments"]) == ("ours", "standard_benchmarks", 8)


def test_one_grid_and_a_grid_of_ones_own(tmp_path: Path, capsys) -> None:
    own = tmp_path / "own.yaml"
    own.write_text("runs:\n- {method: rat_bptt, inner_lr: 0.02}\n")
    words = ["table=settings", "scale=quick", f"results_root={tmp_path}"]
    assert main([*words, "grid=window_ablation"]) == 0
    assert main([*words, f"grid={own}"]) == 0
    assert "of grid window_ablation without" in capsys.readouterr().out
    (path,) = (tmp_path / "tables").glob("table_settings_paper_own-*.csv")
    table = pd.read_csv(path).set_index("setting")
    assert table.loc["inner_lr", "source"] == "none"
    assert table.loc["outer_lr", "source"] == "stated"
    with pytest.raises(UserError, match="is for table=settings, norms, accuracies, summary only"):
        main(["table=1", "scale=quick", "grid=window_ablation"])


def test_captions_at_the_papers_scale_say_which_settings_are_ours() -> None:
    assert ours_text() in caption(["x"], Request([], {}, "paper"), [])
    assert "outer_steps, validation_fraction" in ours_text()
    assert ours_text() not in caption(["x"], Request([], {}, "quick"), [])
