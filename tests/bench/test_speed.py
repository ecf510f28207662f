"""`bench.speed` and the memory budget that it compares."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from bench.config import Place
from bench.errors import UserError
from bench.ingredients import activation_budget
from bench.speed import ENGINES, Measurement, Work, table, variations

CPU = torch.device("cpu")


def test_the_budget_is_what_was_stated_in_gib() -> None:
    assert activation_budget(Place(activation_memory="1.5"), CPU) == 3 << 29
    assert activation_budget(Place(activation_memory="0"), CPU) == 0


@pytest.mark.parametrize("stated", ["much", "-1", "nan", "inf"])
def test_another_budget_is_refused(stated: str) -> None:
    with pytest.raises(UserError, match="activation_memory"):
        activation_budget(Place(activation_memory=stated), CPU)


def test_the_automatic_budget_is_the_share_of_the_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = []
    for cores in (1, 4):
        monkeypatch.setattr("bench.ingredients.cpu_cores", lambda cores=cores: cores)
        monkeypatch.setattr("torch.get_num_threads", lambda: 1)
        whole.append(activation_budget(Place(), CPU))
    assert whole[0] > 0
    assert whole[1] == pytest.approx(whole[0] / 4, rel=0.2)


def test_ratios_are_to_higher_on_the_same_work() -> None:
    work = Work()
    wide = replace(work, width=128)
    text = table(
        [
            Measurement("higher", work, 9.0, [4.0, 2.0, 3.0], 100 << 20, 1e-3),
            Measurement("exact, auto", work, 2.0, [1.0, 1.0, 2.0], 10 << 20, 1e-3),
            Measurement("exact, auto", wide, 2.0, [1.0, 1.0, 2.0], 10 << 20, 1e-3),
        ]
    ).splitlines()
    assert "1.00x" in text[1]
    assert "3.00x" in text[2]
    assert "0.100" in text[2]
    assert "x" not in text[3].replace("exact", "")


def test_each_variation_differs_in_one_thing() -> None:
    first, *others = variations(Work())
    for other in others:
        changed = [key for key, value in vars(other).items() if value != vars(first)[key]]
        assert len(changed) == 1


def test_all_engines_are_measured_and_written(tmp_path: Path) -> None:
    small = ["quick=true", "width=4", "images=10", "window=3", "target_batch=10", "repeats=2"]
    done = subprocess.run(
        [sys.executable, "-m", "bench.speed", *small, f"results_root={tmp_path}"],
        capture_output=True,
        text=True,
        check=True,
    )
    content = json.loads((tmp_path / "speed" / "speed.json").read_text())
    assert [m["engine"] for m in content["measurements"]] == list(ENGINES)
    assert {"cpu", "device"} <= set(content["hardware"])
    for measured in content["measurements"]:
        assert measured["engine"] in done.stdout
        assert len(measured["seconds"]) == 2
        assert measured["peak_bytes"] > 0
        assert 0 < measured["error"] < 0.2
