"""What several tests of `bench` start from."""

from pathlib import Path

import pytest

from bench.data import TargetSet, load_target_set


@pytest.fixture(scope="module")
def digits(cache_root: Path) -> TargetSet:
    return load_target_set("digits", data_root=cache_root, cache_root=cache_root)
