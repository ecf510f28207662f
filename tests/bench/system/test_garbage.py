"""Imports are kept from the search for garbage, and only they."""

import gc
import subprocess
import sys
from pathlib import Path

import pytest

from bench.system import garbage


@pytest.mark.parametrize("enabled", [True, False])
def test_what_is_imported_is_not_searched_and_the_search_is_as_before_afterwards(
    enabled: bool,
) -> None:
    was_enabled = gc.isenabled()
    (gc.enable if enabled else gc.disable)()
    try:
        with garbage.imports():
            during = gc.isenabled()
            stays: list[list[int]] = [[]]
        assert not during
        assert gc.isenabled() == enabled
        assert not any(one is stays for one in gc.get_objects())
        later: list[list[int]] = [[]]
        assert any(one is later for one in gc.get_objects())
    finally:
        gc.unfreeze()
        (gc.enable if was_enabled else gc.disable)()


def test_a_run_searches_none_of_the_modules_of_torch(
    environment: dict[str, str], tiny: list[str], tmp_path: Path
) -> None:
    code = (
        "import gc, sys, bench.run\n"
        "assert bench.run.main(sys.argv[1:]) == 0\n"
        "assert gc.isenabled()\n"
        "print(sum(type(one).__name__ == 'OpOverload' for one in gc.get_objects()))\n"
        "gc.unfreeze()\n"
        "print(sum(type(one).__name__ == 'OpOverload' for one in gc.get_objects()))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *tiny],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    searched, imported = map(int, done.stdout.splitlines()[-2:])
    assert searched < imported / 2
