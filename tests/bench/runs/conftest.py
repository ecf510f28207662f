"""Shared by the tests of runs."""

from pathlib import Path

import pytest

from bench.config.grid import single_run
from bench.runs.run_folder import RunFolder, Store


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    """Of a run that was created and not started."""
    config = single_run("quick", {"outer_steps": 100})
    run = Store(tmp_path).run(config)
    run.create(config)
    return run
