"""What a method says of itself: its label and look, stated in its class."""

from pathlib import Path

import pytest

from bench.config.command_line import help_text
from bench.config.run_config import RunConfig
from methods import METHODS, Look, method_class, method_label, method_look
from methods.random_truncated import RandomTruncatedBPTT

SOURCE = """
from methods.random_truncated import RandomTruncatedBPTT

class Derived(RandomTruncatedBPTT):
    pass

class WrongLabel(RandomTruncatedBPTT):
    label = 7

class WrongLook(RandomTruncatedBPTT):
    look = "#123456"
"""


@pytest.fixture(autouse=True)
def user_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`derived_windows` can be imported."""
    (tmp_path / "derived_windows.py").write_text(SOURCE)
    monkeypatch.syspath_prepend(str(tmp_path))


def test_every_built_in_method_states_a_label_of_its_own() -> None:
    labels = [vars(method)["label"] for method in METHODS.values()]
    assert [method_label(name) for name in METHODS] == labels
    assert len(set(labels)) == len(METHODS)


def test_a_subclass_is_another_method_and_inherits_neither_label_nor_look() -> None:
    assert method_label("derived_windows:Derived") == "Derived"
    assert method_look("derived_windows:Derived") is None
    assert method_look("rat_bptt") == RandomTruncatedBPTT.look


def test_a_method_whose_module_is_gone_goes_by_the_name_of_its_class() -> None:
    assert method_label("no_such_module:Lost") == "Lost"
    assert method_look("no_such_module:Lost") is None


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("WrongLabel", "its label is not a string"),
        ("WrongLook", r"its look is not a methods\.Look"),
    ],
)
def test_a_label_or_look_of_the_wrong_type_is_an_error_before_anything_runs(
    name: str, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        method_class(f"derived_windows:{name}")


@pytest.mark.parametrize("look", [("red", "o"), ("#12345", "o"), ("#123456", "q"), ("#123456", "")])
def test_a_look_that_cannot_be_drawn_is_an_error(look: tuple[str, str]) -> None:
    with pytest.raises(ValueError, match="must"):
        Look(look[0], marker=look[1])


def test_the_help_text_lists_every_built_in_method() -> None:
    assert f"{', '.join(METHODS)}, or your own" in help_text("", RunConfig)
