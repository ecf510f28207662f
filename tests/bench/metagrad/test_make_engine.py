"""Engines by name, and what importing them costs."""

import subprocess
import sys

import pytest

from bench.metagrad import ENGINES, ExactEngine, make_engine


def test_each_name_makes_its_engine() -> None:
    assert isinstance(make_engine("exact"), ExactEngine)
    assert type(make_engine("higher")).__name__ == "HigherEngine"


def test_an_unknown_engine_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match="'exactt'; known: " + ", ".join(ENGINES)):
        make_engine("exactt")


def test_higher_is_imported_only_when_it_is_asked_for() -> None:
    code = (
        "import sys; from bench.metagrad import make_engine; make_engine('exact');"
        "print('higher' in sys.modules); make_engine('higher'); print('higher' in sys.modules)"
    )
    lines = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    assert lines == ["False", "True"]
