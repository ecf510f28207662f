"""A grid, a scale, a profile or a method in a file of a user's own is used, or refused in one line
with exit status 2."""

import json
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.config.grid import SCALES
from tests.reliability.conftest import Try
from tests.reliability.files_of_settings import TEXTS, method_files, yaml_files

GRID = "grid=window_ablation"
MINE = "method=my_methods:Mine"
# By kind: the file, and the commands that read it.
READ_BY: dict[str, tuple[str, list[list[str]]]] = {
    "grid": (
        "mine.yaml",
        [
            ["bench.sweep", "dry_run=true", "grid=mine.yaml"],
            ["bench.status", "grid=mine.yaml"],
            ["bench.publish", "grid=mine.yaml"],
            ["analysis.plot", "figure=5", "grid=mine.yaml"],
            ["analysis.table", "table=settings", "grid=mine.yaml"],
        ],
    ),
    "profile": (
        "site.yaml",
        [
            ["bench.sweep", "dry_run=true", GRID, "profile=site.yaml"],
            ["bench.sweep", "scripts_only=true", GRID, "profile=site.yaml"],
        ],
    ),
    "scale": (
        "scales/quick.yaml",
        [["bench.run"], ["bench.sweep", "dry_run=true", GRID], ["bench.status", GRID]],
    ),
    "method": (
        "my_methods.py",
        [
            ["bench.run", MINE],
            ["bench.run", MINE, "method_options.patience=3"],
            ["bench.sweep", "dry_run=true", GRID, MINE],
        ],
    ),
}


def put(place: Path, content: bytes | str) -> None:
    if place.parent.name == "scales":
        shutil.copytree(SCALES, place.parent)
    if isinstance(content, bytes):
        place.write_bytes(content)
    else:
        place.write_text(content)


@pytest.mark.parametrize("kind", READ_BY)
def test_a_file_of_settings_is_used_or_refused_in_one_line(
    kind: str, attempt: Try, figure: Callable[[str, object], None]
) -> None:
    file, read_by = READ_BY[kind]
    ended: Counter[int] = Counter()

    @attempt.settings(some=20, all_of_them=500)
    @given(method_files() if kind == "method" else yaml_files(kind), st.sampled_from(read_by))
    def every_case(content: bytes | str, typed: list[str]) -> None:
        outcome = attempt.run(*typed, "scale=quick", prepare=lambda here: put(here / file, content))
        ended[outcome.status] += 1

    every_case()
    figure(f"bad files of a {kind}", f"{ended[0]} used, {ended[2]} refused in one line")


@pytest.mark.parametrize("text", TEXTS, ids=range(len(TEXTS)))
def test_no_text_is_a_grid_that_cannot_be_read(text: str, attempt: Try) -> None:
    sweep = ["bench.sweep", "dry_run=true", "grid=mine.yaml", "scale=quick"]
    outcome = attempt.run(*sweep, prepare=lambda here: put(here / "mine.yaml", text.encode()))
    assert outcome.status == 2


@pytest.mark.parametrize(
    ("kind", "content", "message"),
    [
        ("grid", "seeds: {quick: 1000000000}\nruns: [{method: bptt}]", "seeds.quick=1000000000"),
        ("scale", "depth: []", "quick.yaml: depth=[] is not a whole number"),
    ],
)
def test_a_setting_of_a_file_is_refused_with_its_name(
    kind: str, content: str, message: str, attempt: Try
) -> None:
    file, ((module, *typed), *_) = READ_BY[kind]
    outcome = attempt.run(
        module, *typed, "scale=quick", prepare=lambda here: put(here / file, content)
    )
    assert outcome.status == 2
    assert message in outcome.err


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda one: (
        st.lists(one, max_size=3)
        | st.dictionaries(st.sampled_from(["method", "seed", "width", "x"]), one, max_size=3)
    ),
    max_leaves=5,
)


def test_what_is_no_list_of_configurations_is_not_estimated(attempt: Try) -> None:
    @attempt.settings(some=10, all_of_them=200)
    @given(JSON.map(json.dumps).map(str.encode) | st.binary(max_size=20))
    def every_case(content: bytes) -> None:
        attempt.run("bench.estimate", stdin=content)

    every_case()
