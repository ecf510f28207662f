"""Whether a configuration has the settings that were typed."""

from typing import Any

import pytest

from bench.config.grid import single_run
from bench.config.resolve import has_settings
from bench.config.run_config import RunConfig

FIRST = {"method": "bptt", "method_options": {"first": "1"}}
MTT = {"objective": "mtt", "objective_options": {"student_lr": "0.02"}}


def made(**settings: Any) -> RunConfig:
    return single_run("quick", settings)


@pytest.mark.parametrize(
    ("config", "given"),
    [
        ({}, {}),
        ({}, {"scale": "auto"}),
        ({"width": 8}, {"width": 8, "method": "rat_bptt"}),
        (FIRST, {"method_options": {"first": "1"}}),
        ({"method": "bptt"}, {"method_options": {"first": "0"}}),  # not written in a configuration
        (MTT, MTT),
        (MTT, {"objective": "mtt"}),
        ({"seed": 3}, {"seed": 3}),
    ],
)
def test_a_configuration_has_its_own_settings(config: dict[str, Any], given: dict) -> None:
    assert has_settings(made(**config), given)


@pytest.mark.parametrize(
    ("config", "given"),
    [
        ({}, {"width": 8}),
        (FIRST, {"method_options": {"first": "0"}}),
        ({"method": "bptt"}, {"method_options": {"first": "1"}}),
        ({"method": "bptt"}, {"method": "rat_bptt"}),
        ({}, {"method_options": {"patience": "3"}}),  # of another method
        ({}, MTT),
        (MTT, {**MTT, "objective_options": {"student_lr": "0.03"}}),
        ({"seed": 3}, {"seed": 4}),
    ],
)
def test_a_configuration_has_no_other_settings(config: dict[str, Any], given: dict) -> None:
    assert not has_settings(made(**config), given)
