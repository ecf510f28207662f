"""The grids `first_steps` and `rounding`: what differs between their runs, and that nothing else
does."""

from collections import Counter

import pytest

from bench.config.grid import expand, load_grid
from bench.config.run_config import RunConfig

ADAM = [("adam", 1e-8, form) for form in ("torch", "higher", "published")]
OTHERS = [("adam", 1e-4, "torch"), ("sgd", 1e-8, "")]
METHODS = {
    "torch": [("bptt", k) for k in (0, 1, 2, 5)] + [("rat_bptt", 0), ("rat_bptt", 1)],
    "higher": [("bptt", 0), ("bptt", 1), ("rat_bptt", 0)],
    "published": [("bptt", 0), ("bptt", 1), ("rat_bptt", 0), ("rat_bptt", 1)],
    "": [("bptt", 0), ("bptt", 1), ("rat_bptt", 0)],
}


def optimizer(config: RunConfig) -> tuple[str, float, str]:
    form = config.inner_eps_form if config.inner_optimizer == "adam" else ""
    return config.inner_optimizer, config.inner_eps, form


def window(config: RunConfig) -> tuple[str, int]:
    return config.method, config.method_options.get("first", 0)


def configs(name: str, scale: str, seeds: int | None = None) -> list[RunConfig]:
    return expand(load_grid(name), scale, {}, seeds)


@pytest.mark.parametrize("scale", ["quick", "cpu", "paper"])
def test_each_inner_optimizer_has_its_windows_and_five_seeds(scale: str) -> None:
    runs = configs("first_steps", scale)
    assert len(runs) == 95
    assert Counter(config.seed for config in runs) == dict.fromkeys(range(5), 19)
    first_seed = [(optimizer(config), window(config)) for config in runs if config.seed == 0]
    expected = [(one, each) for one in ADAM for each in METHODS[one[2]]] + [
        (one, each) for one in OTHERS for each in METHODS[""]
    ]
    assert first_seed == expected


@pytest.mark.parametrize("scale", ["quick", "cpu", "paper"])
def test_nothing_differs_but_window_and_inner_optimizer(scale: str) -> None:
    of_optimizer = ("inner_optimizer", "inner_lr", "inner_momentum", "inner_eps", "inner_eps_form")
    differing = {"method", "method_options", *of_optimizer, "inner_weight_decay"}
    differing |= {"evaluation_optimizer", "evaluation_lr"}
    shared = [
        {key: value for key, value in vars(config).items() if key not in differing}
        for config in configs("first_steps", scale, seeds=1)
    ]
    assert all(one == shared[0] for one in shared)
    for config in configs("first_steps", scale, seeds=1):
        sgd = config.inner_optimizer == "sgd"
        assert (config.inner_momentum == 0.9) == sgd
        adam_lr = config.evaluation_lr if sgd else config.inner_lr
        assert adam_lr == {"quick": 0.01, "cpu": 0.003, "paper": 0.001}[scale]


def test_at_the_papers_scale_it_shares_the_runs_of_figure_2_and_at_quick_those_of_figure_5() -> (
    None
):
    for scale, other, shared in (
        ("paper", "methods_comparison", {("bptt", 0), ("rat_bptt", 0)}),
        ("quick", "window_ablation", {("rat_bptt", 0)}),
    ):
        runs = configs("first_steps", scale, seeds=1)
        both = [config for config in runs if config in configs(other, scale, seeds=1)]
        assert {window(config) for config in both} == shared
        assert {config.inner_eps_form for config in both} == {
            "paper": {"published"},
            "quick": {"torch"},
        }[scale]


@pytest.mark.parametrize("scale", ["quick", "cpu", "paper"])
def test_the_runs_to_make_twice_are_runs_of_first_steps(scale: str) -> None:
    twice = configs("rounding", scale)
    assert len(twice) == 15
    assert all(config in configs("first_steps", scale) for config in twice)
    assert {window(config) for config in twice} == {("bptt", 0), ("bptt", 1), ("rat_bptt", 0)}
