"""A distilled set made elsewhere is read, or refused in one line with exit status 2."""

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import fields
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.evaluation.interpretation import SubjectOptions
from tests.reliability.conftest import Try
from tests.reliability.distilled_sets import Write, as_safetensors, files
from tests.reliability.strategies import assigned

OURS = {"config": {}, "space": "preprocessed", "zca": True, "zca_lambda": 0.1, "fingerprint": "x"}
READING = [item for item in fields(SubjectOptions) if item.name not in ("distilled", "scale")]


@pytest.mark.parametrize("command", ["bench.evaluate", "bench.scores", "bench.anatomy"])
def test_a_distilled_set_is_read_or_refused_in_one_line(
    command: str, attempt: Try, figure: Callable[[str, object], None]
) -> None:
    ended: Counter[int] = Counter()
    typed = st.lists(st.sampled_from(READING).flatmap(assigned), max_size=2)

    @attempt.settings(some=20, all_of_them=400)
    @given(files(), st.just([]) | typed)
    def every_case(file: tuple[str, Write], settings: list[str]) -> None:
        name, write = file
        arguments = [f"distilled={name}", "scale=quick", *settings]
        outcome = attempt.run(command, *arguments, prepare=write)
        ended[outcome.status] += 1

    every_case()
    figure(f"bad sets for `{command}`", f"{ended[0]} read, {ended[2]} refused in one line")


@pytest.mark.parametrize(
    ("stated", "message"),
    [
        (None, "its description is not a mapping"),
        ([1], "its description is not a mapping"),
        ({**OURS, "config": "x"}, "it states config=x"),
        ({**OURS, "config": {"width": "broad"}}, "width=broad is not a whole number"),
        ({**OURS, "config": {"method_options": 3}}, "method_options=3 is not a mapping"),
        ({**OURS, "space": "elsewhere"}, "it states space=elsewhere"),
        ({**OURS, "space": 3}, "it states space=3"),
        ({**OURS, "zca_lambda": "0.1"}, "it states zca_lambda=0.1"),
        ({**OURS, "fingerprint": [1]}, "it states fingerprint=[1]"),
    ],
)
def test_what_a_file_states_is_refused_where_it_is_of_another_kind(
    stated: Any, message: str, attempt: Try
) -> None:
    named = {"images": np.zeros((10, 1, 8, 8), "f4"), "labels": np.arange(10)}
    content = as_safetensors(named, {"distilled_set": json.dumps(stated)})
    outcome = attempt.run(
        "bench.evaluate",
        "distilled=set.safetensors",
        prepare=lambda here: (here / "set.safetensors").write_bytes(content),
    )
    assert outcome.status == 2
    assert message in outcome.err


@pytest.mark.parametrize("shape", [(0, 1, 8, 8), (10, 0), (0, 64)])
def test_a_set_of_no_images_is_refused(shape: tuple[int, ...], attempt: Try) -> None:
    outcome = attempt.run(
        "bench.evaluate",
        "distilled=set.npy",
        "scale=quick",
        prepare=lambda here: np.save(here / "set.npy", np.zeros(shape)),
    )
    assert outcome.status == 2
    assert "holds no images" in outcome.err
