"""A run with any valid settings ends with a result or with one line, and is then done or failed."""

from collections import Counter
from collections.abc import Callable
from dataclasses import Field, fields
from typing import Any, get_args, get_origin

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from bench.config.run_config import RunConfig
from methods import METHODS
from tests.conftest import TINY
from tests.reliability.conftest import Try
from tests.small_objectives import completed

# What takes a run from seconds to hours, at any value but small ones, or needs other data.
LARGEST = {"depth": 3, "image_size": 16, "replicas": 2, "ipc": 3}
FIXED = ("scale", "dataset", "method_options", "objective_options")


def small_values(item: Field[Any]) -> SearchStrategy[str]:
    """Valid values of a setting that a run of a second can have."""
    kind, choices, allowed = item.type, item.metadata["choices"], item.metadata["range"]
    if item.name == "method":
        return st.sampled_from(sorted(METHODS))
    if get_origin(kind) is list:
        member = st.sampled_from(choices) if choices else st.integers(1, 6).map(str)
        return st.lists(member, max_size=3, unique=True).map(lambda m: f"[{','.join(m)}]")
    if choices:
        return st.sampled_from(choices)
    if kind is bool:
        return st.sampled_from(["true", "false"])
    if kind is int:
        return st.integers(allowed.minimum or 0, LARGEST.get(item.name, 8)).map(str)
    assert kind is float, get_args(kind)
    return st.sampled_from(["0", "1e-30", "0.001", "0.3", "0.999", "1", "7.5", "1e30"])


def small_settings() -> SearchStrategy[list[str]]:
    items = [item for item in fields(RunConfig) if item.name not in FIXED]
    one = st.sampled_from(items).flatmap(
        lambda item: small_values(item).map(f"{item.name}={{}}".format)
    )
    return st.lists(one, max_size=5, unique_by=lambda text: text.partition("=")[0])


@pytest.mark.slow
def test_a_run_of_any_valid_settings_ends_with_a_result_or_one_line(
    attempt: Try, figure: Callable[[str, object], None]
) -> None:
    ended: Counter[int] = Counter()

    @attempt.settings(some=8, all_of_them=400)
    @given(small_settings())
    def every_case(chosen: list[str]) -> None:
        typed = completed([*TINY, *chosen])
        outcome = attempt.run("bench.run", *typed, computes=True, allowed=(0, 1, 2))
        ended[outcome.status] += 1

    every_case()
    ends = f"{ended[0]} done, {ended[1]} failed and {ended[2]} refused with one line"
    figure("runs of any valid settings", ends)
