"""The optimizer of evaluations: its settings, what is refused, and whose runs keep their names."""

import re
from dataclasses import asdict

import pytest

from bench.config.evaluation_optimizer import as_inner, optimizer_text, refuse_unused
from bench.config.grid import expand, load_grid, merge
from bench.config.identity import identity
from bench.config.resolve import on_network, resolve
from bench.system.errors import UserError

SGD = {
    "inner_optimizer": "sgd",
    "inner_lr": 0.01,
    "inner_momentum": 0.9,
    "inner_weight_decay": 0.0005,
    "inner_decay_steps": [120, 200],
}
ADAM = {"evaluation_optimizer": "adam", "evaluation_lr": 0.001}


def test_adam_in_an_evaluation_has_nothing_of_the_inner_sgd() -> None:
    config = resolve({**SGD, **ADAM})
    evaluated = as_inner(config)
    expected = as_inner(resolve({"inner_lr": 0.001}))
    keys = ("optimizer", "lr", "momentum", "weight_decay", "decay_steps", "eps", "eps_form")
    for key in keys:
        name = f"inner_{key}"
        assert getattr(evaluated, name) == getattr(expected, name), key
    assert config.inner_momentum == 0.9  # of the inner training
    assert on_network(config, "vgg11").evaluation_optimizer == "adam"


def test_without_the_setting_the_inner_optimizer_evaluates_at_its_own_or_another_rate() -> None:
    config = resolve(SGD)
    assert as_inner(config) == config
    slower = as_inner(resolve({**SGD, "evaluation_lr": 0.002}))
    assert (slower.inner_lr, slower.inner_momentum) == (0.002, 0.9)
    assert slower.inner_decay_steps == [120, 200]


@pytest.mark.parametrize(
    ("inner", "same"),
    [
        ({}, {"evaluation_optimizer": "adam"}),
        ({}, {"evaluation_optimizer": "adam", "evaluation_lr": 0.001}),
        ({}, {"evaluation_lr": 0.001}),
        (SGD, {"evaluation_lr": 0.01}),
    ],
)
def test_what_says_the_same_evaluation_in_other_words_is_the_same_run(
    inner: dict[str, object], same: dict[str, object]
) -> None:
    assert identity(resolve({**inner, **same})) == identity(resolve(inner))
    assert resolve({**inner, **same}).evaluation_optimizer == "inner"


@pytest.mark.parametrize(
    "other",
    [
        {"evaluation_lr": 0.002},
        {"evaluation_optimizer": "sgd", "evaluation_lr": 0.01},
        {**SGD, "evaluation_optimizer": "sgd"},  # without momentum
        {**SGD, **ADAM},
    ],
)
def test_another_evaluation_is_another_run(other: dict[str, object]) -> None:
    without = {key: value for key, value in other.items() if key in SGD}
    config = resolve(other)
    assert identity(config) != identity(resolve(without))
    assert resolve(asdict(config)) == config  # as it is read back from a run's folder


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {**SGD, "evaluation_optimizer": "adam"},
            "evaluation_optimizer=adam needs evaluation_lr=...: inner_lr=0.01 is the learning rate"
            " of sgd",
        ),
        ({"evaluation_optimizer": "sgd"}, "evaluation_optimizer=sgd needs evaluation_lr=..."),
        ({"evaluation_optimizer": "adm"}, "did you mean adam?"),
        ({"evaluation_lr": -1}, "evaluation_lr=-1 must be at least 0"),
    ],
)
def test_an_evaluation_at_the_rate_of_another_optimizer_is_refused(
    settings: dict[str, object], message: str
) -> None:
    with pytest.raises(UserError, match=re.escape(message)):
        resolve(settings)


@pytest.mark.parametrize("key", ["inner_lr", "inner_momentum", "inner_decay_steps"])
def test_a_setting_that_one_evaluation_would_not_use_is_refused(key: str) -> None:
    config = resolve({**SGD, **ADAM})
    with pytest.raises(UserError, match=f"{key}=.* has no effect.*evaluation_optimizer=adam"):
        refuse_unused(config, {key: SGD[key]})
    refuse_unused(config, ADAM)
    refuse_unused(resolve(SGD), {key: SGD[key]})
    with pytest.raises(UserError, match=r"inner_lr=0\.01 has no effect"):
        refuse_unused(resolve({"evaluation_lr": 0.002}), {"inner_lr": 0.01})


def test_a_layer_that_names_another_optimizer_drops_the_rate_of_the_one_before() -> None:
    run = {**SGD, **ADAM}
    assert resolve(merge(run, {"evaluation_optimizer": "inner"})) == resolve(SGD)
    assert resolve(merge(run, {"evaluation_lr": 0.003})).evaluation_lr == 0.003
    plain = {"evaluation_optimizer": "sgd", "evaluation_lr": 0.1}
    assert resolve(merge(run, plain)).evaluation_lr == 0.1


@pytest.mark.parametrize("scale", ["quick", "cpu", "paper"])
def test_both_sets_of_c_7_are_evaluated_alike(scale: str) -> None:
    adam, sgd = expand(load_grid("inner_optimizer"), scale, {}, seeds=1)
    assert adam.evaluation_optimizer == "inner"
    names = [f"inner_{key}" for key in ("optimizer", "lr", "weight_decay", "decay_steps", "eps")]
    one, other = as_inner(adam), as_inner(sgd)
    assert [getattr(one, name) for name in names] == [getattr(other, name) for name in names]
    assert optimizer_text(adam) == optimizer_text(sgd) == f"adam, lr {adam.inner_lr:g}"


def test_an_optimizer_is_described_with_all_that_it_has() -> None:
    text = "sgd, lr 0.01, momentum 0.9, weight decay 0.0005, times 0.2 at steps 120, 200"
    assert optimizer_text(resolve(SGD)) == text
    assert optimizer_text(resolve({**SGD, **ADAM})) == "adam, lr 0.001"
