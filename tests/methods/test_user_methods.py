"""Methods by name: the project's own, and a user's as package.module:Class."""

import random
from pathlib import Path

import pytest

from methods import METHODS, Window, make_method, method_class, method_defaults

SOURCE = """
from methods import StatelessMethod, Window


class FirstSteps(StatelessMethod):
    def __init__(self, unroll_length, window_size, shift=1):
        super().__init__(unroll_length, window_size)
        self.shift = shift

    def next_window(self, step, rng):
        return Window(self.shift, self.shift + self.window_size)


class NeedsOption(StatelessMethod):
    def __init__(self, unroll_length, window_size, strength):
        super().__init__(unroll_length, window_size)


class NoWindowSize:
    def __init__(self, unroll_length):
        pass
"""


@pytest.fixture(autouse=True)
def user_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`user_code.windows` can be imported."""
    (tmp_path / "user_code").mkdir()
    (tmp_path / "user_code" / "__init__.py").touch()
    (tmp_path / "user_code" / "windows.py").write_text(SOURCE)
    monkeypatch.syspath_prepend(str(tmp_path))


def test_a_users_method_is_made_from_its_module_and_class() -> None:
    method = make_method("user_code.windows:FirstSteps", 10, 4)
    assert method.next_window(0, random.Random(0)) == Window(1, 5)


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


def test_every_method_in_the_list_has_its_defaults_tested_above() -> None:
    assert set(METHODS) == {
        "bptt", "t_bptt", "r_bptt", "rat_bptt", "early_rat_bptt",
        "forward_window", "backward_window", "growing_bptt",
    }  # fmt: skip


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
def test_a_method_that_does_not_exist_is_refused_in_the_users_words(
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
def test_a_users_method_with_an_unfit_constructor_is_refused(name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        method_defaults(f"user_code.windows:{name}")
