"""Methods by name: the project's own, and a user's as package.module:Class."""

import random
from pathlib import Path
from typing import Any

import pytest

from bench.config.grid import single_run
from bench.config.identity import run_name
from bench.config.resolve import resolve
from bench.system.errors import UserError
from methods import (
    Window,
    make_method,
    method_class,
    method_defaults,
    method_kinds,
    needs_evaluations,
)

SOURCE = """
from methods import StatelessMethod, Window


class FirstSteps(StatelessMethod):
    def __init__(self, unroll_length, window_size, shift=1):
        super().__init__(unroll_length, window_size)
        self.shift = shift

    def next_window(self, step, rng):
        return Window(self.shift, self.shift + self.window_size)


class NeedsOption(FirstSteps):
    def __init__(self, unroll_length, window_size, strength):
        super().__init__(unroll_length, window_size)


class SetOption(FirstSteps):
    def __init__(self, unroll_length, window_size, steps={1, 2}):
        super().__init__(unroll_length, window_size)


class NoWindowSize(FirstSteps):
    def __init__(self, unroll_length):
        pass


class NoInterface:
    def __init__(self, unroll_length, window_size):
        pass

    def next_window(self, step, rng):
        return Window(0, 1)


class Raises(FirstSteps):
    def __init__(self, unroll_length, window_size, shift=1):
        {}["wrong"]


class Leaves(FirstSteps):
    def __init__(self, unroll_length, window_size, shift=1):
        raise SystemExit(5)


class Watches(FirstSteps):
    needs_evaluations = True

    def observe_evaluation(self, step, train_loss):
        self.shift += 1


class WatchesNothing(FirstSteps):
    needs_evaluations = True


class NoDictionary(FirstSteps):
    options_before = ["shift"]


class Grown(FirstSteps):
    options_before = {"twist": 0}

    def __init__(self, unroll_length, window_size, shift=1, twist=0):
        super().__init__(unroll_length, window_size, shift)


def no_class():
    pass


class Typed(FirstSteps):
    def __init__(
        self, unroll_length, window_size, count: int = 3, part: "float" = 0.5, name="x", on=False,
        free=None, loose=1, steps: list[int] = [],
    ):
        super().__init__(unroll_length, window_size)
"""


@pytest.fixture(autouse=True)
def user_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`user_code.windows` can be imported."""
    (tmp_path / "user_code").mkdir()
    (tmp_path / "user_code" / "__init__.py").touch()
    (tmp_path / "user_code" / "windows.py").write_text(SOURCE)
    (tmp_path / "user_code" / "broken.py").write_text("1 / 0")
    (tmp_path / "user_code" / "leaves.py").write_text("raise SystemExit(3)")
    monkeypatch.syspath_prepend(str(tmp_path))


def test_a_users_method_is_made_from_its_module_and_class() -> None:
    method = make_method("user_code.windows:FirstSteps", 10, 4)
    assert method.next_window(0, random.Random(0)) == Window(1, 5)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("random:Random", "is not a method: it lacks next_window, observe, state, load_state"),
        ("bench.config.run_config:RunConfig", "is not a method: it lacks next_window"),
        ("user_code.windows:NoInterface", "it lacks observe, state, load_state"),
        ("user_code.windows:no_class", "it is not a class"),
        ("user_code.windows:NoDictionary", "its options_before is not a dictionary"),
        ("os:system", "it is not a class"),
        ("user_code.broken:Method", "cannot be imported: ZeroDivisionError"),
        ("user_code.leaves:Method", "cannot be imported: SystemExit"),
        (":", "cannot be imported"),
        (".windows:FirstSteps", "cannot be imported"),
        (f"{'x' * 5000}:Method", "cannot be imported"),
    ],
)
def test_what_is_not_a_method_is_rejected_whatever_it_is(name: str, message: str) -> None:
    for function in (method_class, method_defaults, method_kinds):
        with pytest.raises(ValueError, match=message):
            function(name)


@pytest.mark.parametrize(
    ("name", "message"), [("Raises", "KeyError: 'wrong'"), ("Leaves", "SystemExit: 5")]
)
def test_a_constructor_that_fails_is_reported_with_the_method_s_name(
    name: str, message: str
) -> None:
    with pytest.raises(ValueError, match=rf"'user_code\.windows:{name}': {message}"):
        make_method(f"user_code.windows:{name}", 10, 4)


def test_the_types_of_options_are_those_of_the_constructor_or_of_its_defaults() -> None:
    assert method_kinds("user_code.windows:Typed") == {
        "count": int, "part": float, "name": str, "on": bool, "free": Any, "loose": float,
        "steps": list[int],
    }  # fmt: skip
    moving = {"patience": int, "smoothing": float, "rule": str, "first": int}
    assert method_kinds("forward_window") == moving


def test_a_users_method_takes_its_options() -> None:
    method = make_method("user_code.windows:FirstSteps", 10, 4, {"shift": 3})
    assert method.next_window(0, random.Random(0)) == Window(3, 7)


def test_the_defaults_of_a_users_method_are_its_options_alone() -> None:
    assert method_defaults("user_code.windows:FirstSteps") == {"shift": 1}


@pytest.mark.parametrize(
    ("name", "defaults"),
    [
        ("bptt", {}),
        ("t_bptt", {}),
        ("r_bptt", {"min_length": 0}),
        ("rat_bptt", {}),
        ("early_rat_bptt", {"power": 1.0}),
        ("forward_window", {"patience": 2000, "smoothing": 0.99, "rule": "outer_loss"}),
        ("backward_window", {"patience": 2000, "smoothing": 0.99, "rule": "outer_loss"}),
        ("growing_bptt", {"first_length": 0, "grow_steps": 20000}),
        (
            "at_bptt",
            {"tau": 1.0, "radius": -1, "threshold": 1.5, "checks": 0, "probe_every": 10},
        ),
        (
            "at_bptt_plus",
            {"tau": 1.0, "radius": -1, "kl": 1.0, "ref_rate": 0.05, "probe_every": 1},
        ),
        ("snr_bptt", {"bins": 5, "floor": 0.3, "decay": 0.9, "window_cost": 4.0}),
    ],
)
def test_the_defaults_of_each_method_are_those_of_its_constructor(
    name: str, defaults: dict[str, Any]
) -> None:
    assert method_defaults(name) == {**defaults, "first": 0}


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("rat_bppt", "known: bptt, "),
        ("user_code.windows:Missing", "Missing"),
        ("user_code.missing:FirstSteps", "user_code.missing"),
        ("missing_package.windows:FirstSteps", "missing_package"),
        ("user_code.windows:", "user_code.windows"),
    ],
)
def test_a_method_that_does_not_exist_is_rejected_in_the_users_words(
    name: str, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        method_class(name)
    with pytest.raises(ValueError, match=message):
        make_method(name, 10, 4)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("NeedsOption", "strength needs a default"),
        ("NoWindowSize", "must take window_size"),
        ("SetOption", "default of its option steps cannot be written as JSON"),
    ],
)
def test_a_users_method_with_an_unfit_constructor_is_rejected(name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        method_defaults(f"user_code.windows:{name}")


def test_a_method_observes_evaluations_only_if_it_says_so() -> None:
    assert needs_evaluations(make_method("user_code.windows:Watches", 10, 4))
    for name in ("user_code.windows:FirstSteps", "rat_bptt", "forward_window"):
        assert not needs_evaluations(make_method(name, 10, 4))
    assert needs_evaluations(make_method("forward_window", 10, 4, {"rule": "evaluation_loss"}))
    with pytest.raises(ValueError, match="needs evaluations and lacks observe_evaluation"):
        make_method("user_code.windows:WatchesNothing", 10, 4)


def test_a_method_that_needs_evaluations_is_refused_where_none_are_made() -> None:
    settings = {"method": "user_code.windows:Watches", "accuracy_every": 0}
    with pytest.raises(UserError, match=r"accuracy_every=0: .* method=user_code.windows:Watches"):
        resolve(settings)
    assert resolve({**settings, "accuracy_every": 5}).accuracy_every == 5


def test_an_option_that_was_added_later_renames_no_run() -> None:
    before = resolve({"method": "user_code.windows:FirstSteps"})
    now = resolve({"method": "user_code.windows:Grown"})
    assert now.method_options == before.method_options == {"shift": 1}
    twisted = {"method": "user_code.windows:Grown", "method_options": {"twist": 2}}
    assert resolve(twisted).method_options == {"shift": 1, "twist": 2}


@pytest.mark.parametrize(
    ("method", "name"),
    [("forward_window", "837e8854f4a3"), ("backward_window", "fbfb36df44a2")],
)
def test_moving_windows_of_before_there_was_a_rule_keep_their_name(method: str, name: str) -> None:
    for options in ({}, {"rule": "outer_loss"}):
        config = single_run("quick", {"method": method, "method_options": options})
        assert run_name(config) == f"{method}-{name}"
    other = {"rule": "evaluation_loss"}
    config = single_run("quick", {"method": method, "method_options": other})
    assert run_name(config) != f"{method}-{name}"
