"""Grids and scales."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bench.config.grid import (
    choose_scale,
    expand,
    grid_names,
    grid_overview,
    load_grid,
    merge,
    requested,
    single_run,
    where_instead,
)
from bench.config.identity import identity, images_per_class
from bench.system.errors import UserError

SCALES = ("quick", "cpu", "paper")


def test_the_overview_has_a_line_for_each_grid_with_what_it_is_about() -> None:
    lines = [line.split(maxsplit=1) for line in grid_overview().splitlines()]
    assert lines == [[name, load_grid(name).about] for name in grid_names()]
    assert all(about for _, about in lines)


@pytest.mark.parametrize("name", grid_names())
@pytest.mark.parametrize("scale", SCALES)
def test_every_grid_expands_at_every_scale_to_distinct_runs(name: str, scale: str) -> None:
    configs = expand(load_grid(name), scale, {})
    assert configs
    assert len({identity(config) for config in configs}) == len(configs)
    assert {config.scale for config in configs} == {scale}


@pytest.mark.parametrize("name", sorted({*grid_names()} - {"first_steps", "rounding"}))
def test_adam_s_epsilon_has_the_published_form_at_the_paper_scale_and_torch_s_at_the_others(
    name: str,
) -> None:
    forms = {
        scale: {config.inner_eps_form for config in expand(load_grid(name), scale, {})}
        for scale in SCALES
    }
    assert forms.pop("paper") == {"published"}
    assert set().union(*forms.values()) == {"torch"}


def test_figure_5_at_the_paper_scale_has_the_paper_s_numbers() -> None:
    configs = expand(load_grid("window_ablation"), "paper", {}, seeds=1)
    assert [(config.method, config.window_resample_every) for config in configs] == [
        ("rat_bptt", 1),
        ("forward_window", 1),
        ("backward_window", 1),
        ("rat_bptt", 10),  # an epoch of 50,000 images
    ]
    for config in configs:
        assert (config.dataset, config.ipc) == ("cifar10", 10)
        assert (config.unroll_length, config.window_size) == (120, 40)
        assert (config.width, config.depth, config.target_batch) == (128, 3, 5000)
        assert (config.inner_optimizer, config.inner_lr, config.outer_lr) == ("adam", 1e-3, 1e-3)
        assert config.method_options.get("patience", 2000) == 2000


def test_figures_2_3_and_7_at_the_paper_scale_have_the_paper_s_numbers() -> None:
    configs = expand(load_grid("methods_comparison"), "paper", {}, seeds=1)
    assert [config.method for config in configs] == ["bptt", "t_bptt", "r_bptt", "rat_bptt"]
    for config in configs:
        assert (config.unroll_length, config.window_size, config.window_resample_every) == (
            120,
            40,
            25,
        )
        assert config.window_resample_every * config.target_batch == 50_000  # an epoch (Figure 2)
        assert config.variance_samples == 100


def test_figure_4_at_the_paper_scale_compares_equal_storage_with_the_paper_s_numbers() -> None:
    configs = expand(load_grid("parameterization"), "paper", {}, seeds=1)
    resolved = [(config.parameterization, config.ipc) for config in configs]
    assert resolved == [("pixels", 1), ("linear", 1), ("pixels", 10), ("linear", 10)]
    lengths = {1: (60, 200), 10: (80, 250)}  # C.3
    for config in configs:
        assert (config.dataset, config.learn_labels) == ("cifar10", False)
        assert (config.window_size, config.unroll_length) == lengths[config.ipc]
        assert 10 * (config.inner_ipc or images_per_class(config)) <= 100
    published = (2, 115)  # of [9] at IPC 1; test_parameterization.py counts the bases
    for config in configs[1::2]:
        assert (config.basis_downsample, images_per_class(config)) == published


def test_figures_9_to_11_at_the_paper_scale_differ_in_boosting_alone() -> None:
    standard, strong, weak = expand(load_grid("boosting"), "paper", {}, seeds=1)
    assert (standard.dataset, standard.ipc, standard.boost_block) == ("cifar10", 10, 0)
    assert (standard.window_size, standard.unroll_length) == (80, 250)  # C.3
    assert strong == replace(standard, boost_block=5, boost_beta=0.0)
    assert weak == replace(strong, boost_beta=0.1)


def test_figure_6_at_the_paper_scale_has_the_paper_s_numbers() -> None:
    configs = expand(load_grid("unroll_and_window"), "paper", {}, seeds=1)
    shapes = {(config.unroll_length, config.window_size) for config in configs}
    left = {(80, 40), (120, 40), (200, 40), (300, 40)}
    assert shapes == left | {(200, 40), (200, 60), (200, 100)}
    assert {(c.method, c.dataset, c.ipc) for c in configs} == {("rat_bptt", "cifar10", 10)}


def test_figure_8_at_the_paper_scale_has_the_paper_s_numbers() -> None:
    configs = expand(load_grid("stabilization"), "paper", {}, seeds=1)
    _, clipped, unit, growing, *_ = configs
    assert [config.method for config in configs] == [
        *("bptt", "bptt", "bptt", "growing_bptt", "r_bptt", "rat_bptt")
    ]
    assert (clipped.clipping, clipped.clip_ratio, clipped.clip_decay) == ("ema", 1.05, 0.9)
    assert unit.clipping == "unit_norm"
    assert (growing.method_options["first_length"], growing.unroll_length) == (10, 180)
    assert growing.method_options["grow_steps"] == growing.outer_steps
    for config in configs:
        assert config is growing or (config.unroll_length, config.window_size) == (120, 40)
        assert config.window_resample_every * config.target_batch == 50_000


def test_what_two_grids_share_is_run_once() -> None:
    def runs(name: str) -> set[str]:
        return {identity(config) for config in expand(load_grid(name), "paper", {}, seeds=1)}

    # BPTT, R-BPTT and RaT-BPTT of Figure 3 are those of Figure 8.
    assert len(runs("stabilization") & runs("methods_comparison")) == 3
    assert len(runs("early_windows") & runs("window_ablation")) == 1
    ours = runs("standard_benchmarks")
    for name in ("inner_optimizer", "initialization", "architectures", "efficiency"):
        assert len(runs(name) & ours) == 1, name  # CIFAR-10, IPC 10


@pytest.mark.parametrize("scale", SCALES)
def test_every_run_tests_its_set_on_the_networks_that_tables_1_and_2_show(scale: str) -> None:
    for config in expand(load_grid("standard_benchmarks"), scale, {}, seeds=1):
        assert "wide_convnet" in config.transfer_to
        assert config.scores
    narrow, *direct = expand(load_grid("architectures"), scale, {}, seeds=1)
    assert {config.arch for config in direct} <= set(narrow.transfer_to)
    assert all(config.transfer_to == [] for config in direct)


def test_the_inner_optimizers_at_the_paper_scale_have_the_paper_s_numbers() -> None:
    adam, sgd = expand(load_grid("inner_optimizer"), "paper", {}, seeds=1)
    assert (adam.inner_optimizer, adam.inner_lr) == ("adam", 0.001)
    assert (sgd.inner_optimizer, sgd.inner_lr) == ("sgd", 0.01)
    assert (sgd.inner_momentum, sgd.inner_weight_decay) == (0.9, 0.0005)  # the published code
    assert (sgd.inner_decay_steps, sgd.inner_decay_factor) == ([120, 200], 0.2)


def test_the_layers_win_in_their_order(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(
        "common: {ipc: 2, outer_lr: 0.5}\n"
        "scales: {quick: {ipc: 3, width: 6}}\n"
        "runs:\n"
        "  - {method: rat_bptt, ipc: 4}\n"
        "  - {method: t_bptt, scales: {quick: {ipc: 5}}}\n"
    )
    first, second = expand(load_grid(str(path)), "quick", {"width": 7})
    assert (first.ipc, first.width, first.outer_lr, first.dataset) == (4, 7, 0.5, "digits")
    assert (second.ipc, second.width) == (5, 7)


def test_seeds_are_counted_from_the_first() -> None:
    grid = load_grid("window_ablation")
    configs = expand(grid, "quick", {"seed": 5}, seeds=3)
    assert [config.seed for config in configs] == [5, 6, 7] * len(grid.runs)


@pytest.mark.parametrize(
    ("grid", "where", "runs"),
    [
        ("standard_benchmarks", {"dataset": "cifar10", "ipc": "[1, 10]"}, 2),
        ("standard_benchmarks", {"dataset": ["cifar10", "cub200"]}, 5),
        ("standard_benchmarks", {"ipc": "[1, 10]", "learn_labels": "false"}, 2),
        ("architectures", {"transfer_to": "[vgg11, alexnet_avgpool, alexnet, resnet18]"}, 1),
        ("architectures", {"transfer_to": "[]"}, 4),
        ("first_steps", {"inner_eps": "1e-4"}, 3),
        ("first_steps", {"method": "bptt", "method_options": {"first": "1"}}, 5),
        ("methods_ipc10", {"method": "bptt", "method_options": {"first": "0"}}, 1),
        ("rivals", {"objective": "[mtt, ftd]", "objective_options": {"lr_lr": "1.0e-5"}}, 3),
        ("rivals", {"objective_options": {"mirror": "yes"}}, 4),
    ],
)
def test_where_selects_runs_by_their_settings(grid: str, where: dict[str, Any], runs: int) -> None:
    everything = requested(load_grid(grid), "cpu", {}, seeds=2)
    chosen = requested(load_grid(grid), "cpu", {}, seeds=2, where=where)
    assert len(chosen) == 2 * runs < len(everything)
    assert [config for config in everything if config in chosen] == chosen


@pytest.mark.parametrize(
    ("where", "words"),
    [
        ({"ipc": "7"}, "where.ipc=7: no run has it; the runs have 1, 10, 50"),
        ({"ipc": "[1, 7]"}, "where.ipc=7: no run has it; the runs have 1, 10, 50"),
        ({"ipc": ""}, "where: ipc= is not a whole number"),
        ({"ipc": "ten"}, "where: ipc=ten is not a whole number"),
        ({"datset": "cifar10"}, "where: unknown key 'datset'; did you mean dataset?"),
        ({"dataset": "cifar"}, "where: dataset=cifar is not one of digits, cifar10"),
        ({"method_options": "1"}, "where: method_options=1 is not a mapping"),
        ({"method_options": {"frist": "1"}}, "where.method_options={'frist': '1'}: no run has it"),
    ],
)
def test_where_refuses_what_no_run_has(where: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=re.escape(words)):
        requested(load_grid("standard_benchmarks"), "cpu", {}, where=where)


def test_a_setting_that_does_not_fit_all_runs_names_the_way_to_select_some() -> None:
    grid = load_grid("standard_benchmarks")
    given = {"scale": "cpu", "dataset": "cifar10"}
    with pytest.raises(UserError, match="inner_classes=20 is more than the 10 classes"):
        expand(grid, "cpu", given)
    hint = " (dataset is set for all runs of the grid; where.dataset=... selects some)"
    assert where_instead(grid, "cpu", given) == hint
    assert where_instead(grid, "cpu", {"unroll_length": 5, "window_size": 6, "ipc": 1}) == ""
    assert where_instead(grid, "cpu", {"dataset": "digits"}) == ""  # no run has it
    assert where_instead(grid, "cpu", {"scores": True}) == ""  # it fits; the error is of another


def test_options_of_one_method_do_not_reach_another() -> None:
    layers = {"method": "forward_window", "method_options": {"patience": 3}}, {"method": "bptt"}
    assert not merge(*layers).get("method_options")
    same_method = merge(layers[0], {"method_options": {"smoothing": 0.5}})
    assert same_method["method_options"] == {"patience": 3, "smoothing": 0.5}


def test_an_unknown_grid_or_scale_names_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="window_ablation"):
        load_grid("window_ablaton")
    with pytest.raises(UserError, match="quick"):
        single_run("quik", {})
    with pytest.raises(UserError, match="quick"):
        choose_scale("quik")


@pytest.mark.parametrize("text", ["runs: [", "- 1", "run: [{method: bptt}]", "runs: []", ""])
def test_a_broken_grid_file_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(UserError, match=r"mine\.yaml"):
        load_grid(str(tmp_path / "mine.yaml"))


def test_at_the_paper_s_scale_no_training_is_run_twice_for_the_sake_of_its_end() -> None:
    ends = {
        "transfer_to": [],
        "scores": False,
        "full_train_batch_size": 256,
        "full_train_steps": [],
    }
    runs: dict[str, set[str]] = {}
    for name in grid_names():
        for config in expand(load_grid(name), "paper", {}, seeds=1):
            runs.setdefault(identity(replace(config, **ends)), set()).add(identity(config))
    assert [sorted(same) for same in runs.values() if len(same) > 1] == []
