"""Settings that no run reads are refused where they are typed."""

from typing import Any

import pytest

from bench.config.grid import load_grid, requested, single_run
from bench.config.without_effect import NEEDS, refuse_without_effect
from bench.system.errors import UserError


@pytest.mark.parametrize(
    ("given", "needed"),
    [
        ({"inner_momentum": 0.9}, "inner_momentum=0.9 has no effect here; it needs inner_optim"),
        ({"clipping": "none", "clip_ratio": 3.0}, "needs clipping=ema"),
        ({"zca": False, "zca_lambda": 0.5}, "needs zca=true"),
        ({"boost_beta": 0.5}, "needs boost_block of 1 or more"),
        ({"idc_factor": 3}, "needs parameterization=idc"),
        ({"full_train_steps": [3]}, "needs scores=true"),
        ({"selection": "test", "validation_fraction": 0.2}, "selection=validation or"),
        ({"inner_decay_factor": 0.5}, r"needs inner_decay_steps=\[...\]"),
        ({"inner_optimizer": "sgd", "inner_eps": 1e-3}, "needs inner_optimizer=adam or"),
        ({"inner_optimizer": "sgd", "inner_eps_form": "published"}, "needs inner_optimizer=adam"),
        ({"accuracy_every": 0, "accuracy_networks": 4}, "needs accuracy_every of 1"),
        ({"accuracy_every": 0, "accuracy_steps": 3}, "needs accuracy_every of 1"),
        ({"variance_every": 0, "variance_samples": 3}, "needs .* variance_every of 1"),
        ({"variance_every": 0, "variance_until": 3}, "needs .* variance_every of 1"),
        ({"objective": "dm", "method": "bptt"}, "method=bptt has .* needs objective=unrolled"),
        ({"objective": "dm", "method": "rat_bptt"}, "needs objective=unrolled"),  # the default
        ({"objective": "dm", "window_size": 3}, "needs objective=unrolled"),
        ({"objective": "dm", "inner_momentum": 0.9}, "needs inner_optimizer=sgd"),
        ({"objective": "dm", "engine": "higher"}, "needs objective=unrolled"),
        ({"objective": "rcig", "variance_every": 3}, "needs objective=unrolled"),
        ({"objective": "dm", "target_batch": 7}, "needs objective=unrolled or frepo or kip"),
        ({"objective": "mtt", "augment_target": "none"}, "needs objective=unrolled or frepo"),
    ],
)
def test_a_setting_without_effect_is_refused(given: dict[str, Any], needed: str) -> None:
    with pytest.raises(UserError, match=needed):
        refuse_without_effect([single_run("quick", given)], given)


@pytest.mark.parametrize(
    "given",
    [
        {"inner_optimizer": "sgd", "inner_momentum": 0.9},
        {"inner_momentum": 0.0},  # as by default
        {"selection": "train", "validation_fraction": 0.2},
        {
            "inner_optimizer": "sgd",
            "evaluation_optimizer": "adam",
            "evaluation_lr": 0.01,
            "inner_eps": 1e-3,
        },
        {"evaluation_optimizer": "sgd", "evaluation_lr": 0.01, "inner_eps": 1e-3},
        {"parameterization": "linear", "basis_downsample": 1},
        {"objective": "dm", "method": "dm", "variance_every": 0},  # as in its config.json
        {"objective": "kip", "target_batch": 7, "augment_target": "none"},
    ],
)
def test_a_setting_with_an_effect_is_not(given: dict[str, Any]) -> None:
    refuse_without_effect([single_run("quick", given)], given)


def test_one_run_of_a_sweep_that_reads_it_is_enough() -> None:
    given = {"inner_momentum": 0.5}
    mixed = requested(load_grid("first_steps"), "quick", given)
    assert {config.inner_optimizer for config in mixed} == {"adam", "sgd"}
    refuse_without_effect(mixed, given)
    with pytest.raises(UserError, match="no effect"):
        refuse_without_effect(requested(load_grid("window_ablation"), "quick", given), given)


def test_each_setting_is_read_by_some_run_and_not_by_another() -> None:
    config = single_run("cpu", {})
    sets = ({"parameterization": name, "ipc": 10} for name in ("pixels", "linear", "idc", "haba"))
    others = [
        {"objective": "dm"},
        {"inner_optimizer": "sgd", "outer_optimizer": "sgd", "clipping": "none", "zca": False},
        {"boost_block": 1, "scores": True, "selection": "test"},
        {"inner_decay_steps": [2], "accuracy_every": 0, "variance_every": 0},
        *sets,
    ]
    runs = [config, *(single_run("cpu", one) for one in others)]
    for key, (_, is_read) in NEEDS.items():
        assert {is_read(one) for one in runs} == {True, False}, key
