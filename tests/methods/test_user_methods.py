"""Methods by name: the project's own, and a user's as package.module:Class."""

import random
from pathlib import Path
from typing import Any

import pytest

from methods import Window, make_method, method_class, method_defaults, method_kinds

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


def test_a_constructor_that_fails_is_reported_with_the_method_s_name() -> None:
    with pytest.raises(ValueError, match=r"'user_code\.windows:Raises': KeyError: 'wrong'"):
        make_method("user_code.windows:Raises", 10, 4)


def test_the_types_of_options_are_those_of_the_constructor_or_of_its_defaults() -> None:
    assert method_kinds("user_code.windows:Typed") == {
        "count": int, "part": float, "name": str, "on": bool, "free": Any, "loose": float,
        "steps": list[int],
    }  # fmt: skip
    assert method_kinds("forward_window") == {"patience": int, "smoothing": float}


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
        ("forward_window", {"patience": 2000, "smoothing": 0.99}),
        ("backward_window", {"patience": 2000, "smoothing": 0.99}),
        ("growing_bptt", {"first_length": 0, "grow_steps": 20000}),
    ],
)
def test_the_defaults_of_each_method_are_those_of_its_constructor(
    name: str, defaults: dict[str, float]
) -> None:
    assert method_defaults(name) == defaults


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
    [("NeedsOption", "strength needs a default"), ("NoWindowSize", "must take window_size")],
)
def test_a_users_method_with_an_unfit_constructor_is_rejected(name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        method_defaults(f"user_code.windows:{name}")
