"""Figures 1 and 9 against a real run, of a few steps: its windows, and the picture that it left."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from analysis.arguments import Request
from analysis.figures.gallery import gallery
from analysis.figures.specs import FIGURES, ImageFigure
from analysis.figures.windows import windows_of
from analysis.load import load_results, stored_runs
from bench.config.grid import load_grid
from bench.run import main as run

if TYPE_CHECKING:
    from analysis.load import Results

SETTINGS = {
    **{"method": "rat_bptt", "seed": 3, "window_resample_every": 2, "outer_steps": 5},
    **{"unroll_length": 6, "window_size": 2, "width": 4, "target_batch": 16},
    **{"accuracy_every": 0, "variance_every": 0},
    **{"evaluation_networks": 1, "evaluation_steps": [1]},
}


@pytest.fixture(scope="module", params=[1, 2], ids=["one a class", "two a class"])
def found(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> "Results":
    root: Path = tmp_path_factory.mktemp("run")
    settings = {**SETTINGS, "ipc": request.param}
    given = [f"{key}={value}" for key, value in settings.items()]
    assert run(["scale=quick", *given, f"results_root={root}", f"cache_root={root}"]) == 0
    own = root / "own.yaml"
    own.write_text(f"runs: [{json.dumps({k: v for k, v in settings.items() if k != 'seed'})}]")
    return load_results(stored_runs(root), load_grid(str(own)), "quick", {"seed": 3}, seeds=1)


def test_windows_are_those_that_a_run_met(found: "Results") -> None:
    met = found.metrics()
    chosen = windows_of(found.runs[0].config, 5)
    assert [(w.start, w.stop) for w in chosen] == list(
        zip(met["window_start"], met["window_stop"], strict=True)
    )
    assert len(set(chosen)) > 1


def test_each_image_of_a_run_is_found_in_its_picture(found: "Results") -> None:
    spec = FIGURES[9]
    assert isinstance(spec, ImageFigure)
    shown = gallery(spec, found, Request([], {}, "quick"))
    per_class = found.runs[0].config.ipc
    assert shown.classes == [str(digit) for digit in range(10)]
    assert shown.tiles.shape == (10, per_class, 64, 64)
    np.testing.assert_array_equal(shown.labels, np.arange(10).repeat(per_class).reshape(10, -1))
    pixels = shown.tiles[:, :, ::8, ::8].repeat(8, axis=2).repeat(8, axis=3)
    np.testing.assert_array_equal(shown.tiles, pixels)  # no tile has a gap in it
