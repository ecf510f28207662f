"""Shared by the tests of the outer loop."""

import pytest

from bench.config.command_line import parse
from bench.config.grid import single_run
from bench.config.run_config import RunConfig


@pytest.fixture
def config(tiny: list[str]) -> RunConfig:
    given = parse(tiny, RunConfig)
    return single_run("quick", given)
