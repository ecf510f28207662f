"""`methods/README.md`: its code runs as it stands there, its table agrees with the classes."""

import json
import random
import re
import shlex
import sys
from pathlib import Path

import pytest

from methods import METHODS, Window, make_method, method_label
from tests.conftest import REPOSITORY, Command

TEXT = (REPOSITORY / "methods" / "README.md").read_text()
(CODE,) = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
(LINE,) = re.findall(r"```sh\n(.*?)```", TEXT, re.DOTALL)


def test_the_method_in_ten_lines_runs_by_the_command_below_it(
    command: Command, tiny: list[str], tmp_path: Path
) -> None:
    (tmp_path / "my_module.py").write_text(CODE)
    python, minus_m, module, *settings = shlex.split(LINE)
    assert (python, minus_m) == ("python", "-m")
    done = command(module, *settings, *tiny)
    assert done.returncode == 0, done.stderr
    (run,) = (tmp_path / "results" / "runs").iterdir()
    windows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    # part=0.3 of the 2 steps that a window of 2 can be later in a trajectory of 4: none.
    assert [(each["window_start"], each["window_stop"]) for each in windows] == [(0, 2)] * 6
    assert json.loads((run / "config.json").read_text())["method_options"] == {"part": 0.3}


def test_the_method_in_ten_lines_places_its_windows_early(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my_module.py").write_text(CODE)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "my_module", raising=False)
    method = make_method("my_module:MyMethod", 12, 2, {"part": 0.3})
    windows = {method.next_window(step, random.Random(step)) for step in range(200)}
    assert windows == {Window(start, start + 2) for start in range(4)}
    without = make_method("my_module:MyMethod", 12, 2, {"part": 0.3, "first": 1})
    windows = {without.next_window(step, random.Random(step)) for step in range(200)}
    assert windows == {Window(start, start + 2) for start in range(1, 4)}
    assert method_label("my_module:MyMethod") == "Early windows"


def test_every_row_of_the_table_names_a_method_and_its_label() -> None:
    rows = re.findall(r"^\| `(\w+)` \| ([^|]+) \|", TEXT, re.MULTILINE)
    assert len(rows) >= 8
    assert rows == [(name, method_label(name)) for name, _ in rows if name in METHODS]
