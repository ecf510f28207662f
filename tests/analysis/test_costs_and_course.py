"""Quantities of claims on records whose values are known."""

import json
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from bench.config.grid import expand, load_grid
from bench.config.run_config import RunConfig
from bench.runs.run_folder import RunFolder, Store
from tests.analysis.judging import judged

if TYPE_CHECKING:
    from tests.analysis.conftest import Maker


def fill(results: "Maker", grid: str, how: Callable[[RunConfig], dict[str, Any]]) -> None:
    for config in expand(load_grid(grid), "quick", {}, seeds=3):
        results.run(config, **how(config))


# --- time and memory, on one machine


def took(config: RunConfig, factor: float = 3.0) -> dict[str, Any]:
    """Seconds that differ between seeds; BPTT takes `factor` times as long with `higher`."""
    slow = factor if config.engine == "higher" else 1.5
    return {"seconds": (1 + 0.1 * config.seed) * (slow if config.method == "bptt" else 1.0)}


THREE = "bptt_takes_three_times_as_long"


def test_times_are_compared_with_the_engine_of_the_paper_and_with_ours(results: "Maker") -> None:
    fill(results, "time_and_memory", took)
    found = judged(results, THREE, f"{THREE}_with_exact", "truncation_saves_time")
    assert found[THREE]["verdict"] == "holds"
    assert found[THREE]["comparisons"][0]["effect"] == pytest.approx(3.0)
    exact = found[f"{THREE}_with_exact"]
    assert (exact["kind"], exact["verdict"]) == ("finding", "does not hold")
    assert exact["comparisons"][0]["effect"] == pytest.approx(1.5)
    assert found["truncation_saves_time"]["verdict"] == "holds"


def test_times_of_two_machines_are_not_compared(results: "Maker", capsys) -> None:
    def how(config: RunConfig) -> dict[str, Any]:
        other = config.method == "bptt" and config.seed == 1
        return took(config) | {"machine": "CPU B" if other else "CPU A"}

    fill(results, "time_and_memory", how)
    claim = judged(results, THREE)[THREE]
    assert (claim["seeds"], claim["verdict"]) == ([0, 2], "undecided")
    assert claim["missing"] == ["seed 1 not made on one machine (CPU B, 2 cores; CPU A, 2 cores)"]


def test_times_of_runs_that_moved_to_another_machine_are_not_compared(results: "Maker") -> None:
    # Both moved from A to B, which does not say that they spent the same part of it on each.
    fill(results, "time_and_memory", took)
    for run in results.root.glob("runs/*"):
        folder = RunFolder(run)
        manifest = folder.read("manifest") or {}
        (start,) = manifest["starts"]
        other = {"hardware": {**start["hardware"], "cpu": "CPU B"}}
        folder.write("manifest", {**manifest, "starts": [start, start, other]})
    claim = judged(results, THREE)[THREE]
    assert (claim["verdict"], claim["n"]) == ("not tested", 0)
    moved = "made-up CPU, 2 cores then CPU B, 2 cores"
    assert claim["missing"] == [f"seed {k} not made on one machine ({moved})" for k in range(3)]


def test_times_of_an_unknown_machine_are_not_compared(results: "Maker") -> None:
    fill(results, "time_and_memory", lambda config: took(config) | {"machine": ""})
    claim = judged(results, THREE)[THREE]
    assert (claim["verdict"], claim["n"]) == ("not tested", 0)
    assert claim["missing"] == [f"seed {k} the machine was not recorded" for k in range(3)]


@pytest.mark.parametrize(
    ("machine", "verdict"), [("Quadro RTX 8000", "holds"), ("H100", "not tested")]
)
def test_the_hours_of_the_paper_are_those_of_its_machine(
    results: "Maker", machine: str, verdict: str
) -> None:
    for config in expand(load_grid("efficiency"), "paper", {}, seeds=3):
        seconds = (2000 + config.seed) * 22 / 22.2  # 40 outer steps are recorded: 22 hours
        results.run(config, machine=machine, seconds=seconds)
    name = "cost_ranks_third_of_six"
    claim = judged(results, name, scale="paper")[name]
    assert claim["verdict"] == verdict
    if verdict == "not tested":
        assert "not made on the paper's machine, RTX 8000, but on H100" in claim["missing"][0]
    else:
        names = {one["name"] for one in claim["comparisons"]}
        assert names == {"engine=higher / IDC, 35", "MTT, 14 / engine=higher"}


def remember(results: "Maker", memory: Callable[[RunConfig], dict[str, int]]) -> None:
    for config in expand(load_grid("time_and_memory"), "quick", {}, seeds=3):
        folder = results.run(config)
        result = folder.read("result") or {}
        folder.write("result", {**result, "peak_memory_bytes": memory(config)})


IN_PROPORTION = "memory_is_proportional_to_the_window"


def test_memory_in_proportion_to_the_window_is_told_from_memory_that_is_not(
    results: "Maker",
) -> None:
    def memory(config: RunConfig) -> dict[str, int]:
        device = config.window_size * 1000 if config.engine == "higher" else 5000
        return {"process": 10**9, "device": device + config.seed}

    remember(results, memory)
    found = judged(results, IN_PROPORTION, f"{IN_PROPORTION}_with_exact")
    assert [claim["verdict"] for claim in found.values()] == ["holds", "does not hold"]


def test_the_memory_of_a_process_says_nothing_of_a_gpu_s(results: "Maker") -> None:
    remember(results, lambda config: {"process": 10**9 * (2 if config.method == "bptt" else 1)})
    found = judged(results, IN_PROPORTION, "truncation_saves_memory")
    assert found[IN_PROPORTION]["verdict"] == "not tested"
    assert "recorded no peak memory of a GPU" in found[IN_PROPORTION]["missing"][0]
    assert found["truncation_saves_memory"]["verdict"] == "holds"


def test_accuracy_is_compared_after_the_same_seconds(results: "Maker") -> None:
    # RaT-BPTT learns less per outer step, but its steps take half of the time.
    def how(config: RunConfig) -> dict[str, Any]:
        fast = config.method == "rat_bptt"
        pace = 0.008 if fast else 0.01
        return {
            "seconds": 1.0 if fast else 2.0,
            "accuracy": lambda config, step: 0.1 + 0.01 * config.seed + pace * step,
        }

    fill(results, "methods_comparison", how)
    name = "rat_bptt_leads_at_equal_time"
    claim = judged(results, name)[name]
    assert claim["verdict"] == "holds"
    # RaT-BPTT is measured after 10 to 40 s, BPTT after 20 to 80. Compared are 24 and 32 s, where
    # they have made 24 and 32 outer steps, and 12 and 16.
    assert claim["steps"]["total"] == 2
    assert claim["comparisons"][0]["effect"] == pytest.approx((19.2 - 12 + 25.6 - 16) / 2)


# --- the course of a run


def test_a_shift_that_raises_the_accuracy_is_a_gain(results: "Maker") -> None:
    name = "forward_shift_is_followed_by_a_gain"

    def how(config: RunConfig) -> dict[str, Any]:
        moving = config.method == "forward_window"
        height = (0.05 if moving else 0.02) + 0.001 * config.seed
        # Low at the measurement that triggers the shift, high at the one before it.
        noise = {20: -0.01, 10: 0.01} if moving else {}
        return {
            "start": lambda step: 10 * (moving and step >= 20),
            "accuracy": lambda config, step: 0.5 + height * (step > 20) + noise.get(step, 0.0),
        }

    fill(results, "window_ablation", how)
    claim = judged(results, name)[name]
    assert claim["verdict"] == "holds"
    # Points: five of the moving window, of which uniform windows gain two at the same step.
    assert claim["comparisons"][0]["effect"] == pytest.approx(3.0)


def test_learning_that_goes_on_is_no_gain_of_a_shift(results: "Maker") -> None:
    # All methods learn alike; the moving window shifts where its accuracy happens to be low.
    name = "forward_shift_is_followed_by_a_gain"

    def how(config: RunConfig) -> dict[str, Any]:
        moving = config.method == "forward_window"
        noise = {20: -0.01, 10: 0.01} if moving else {}
        return {
            "start": lambda step: 10 * (moving and step >= 20),
            "accuracy": lambda config, step: (
                0.5 + (0.004 + 0.001 * config.seed) * step + noise.get(step, 0.0)
            ),
        }

    fill(results, "window_ablation", how)
    claim = judged(results, name)[name]
    assert claim["verdict"] == "undecided"
    assert claim["comparisons"][0]["effect"] == pytest.approx(0.0, abs=1e-9)


def test_without_a_shift_a_gain_is_not_tested_and_after_the_last_measurement_not_recorded(
    results: "Maker",
) -> None:
    names = "backward_shift_is_followed_by_a_gain", "forward_shift_is_followed_by_a_gain"

    def how(config: RunConfig) -> dict[str, Any]:
        if config.method != "forward_window":
            return {}
        at = 30 if config.seed else 45  # 40 outer steps are recorded
        return {"start": lambda step: 10 * (step >= at)}

    fill(results, "window_ablation", how)
    backward, forward = (judged(results, name)[name] for name in names)
    assert (backward["verdict"], backward["n"]) == ("not tested", 0)
    assert "seed 0 never shifted" in backward["conditions"][0]
    assert forward["seeds"] == [1, 2]
    assert "seed 0 never shifted, seed 1 shifted at 30" in forward["conditions"][0]


@pytest.mark.parametrize(("slope", "verdict"), [(-0.05, "holds"), (0.05, "does not hold")])
def test_norms_that_fall_are_told_from_norms_that_rise(
    results: "Maker", slope: float, verdict: str
) -> None:
    name = "rat_bptt_norms_decrease"
    steps = 40  # that made-up runs record
    for config in expand(load_grid("methods_comparison"), "quick", {"outer_steps": steps}, seeds=3):
        results.run(config, norm=lambda c, step: math.exp((slope + 0.001 * c.seed) * step))
    claim = judged(results, name, settings=f"outer_steps={steps}")[name]
    assert claim["verdict"] == verdict
    # The last and the first fifth are 32 steps apart.
    assert claim["comparisons"][0]["effect"] == pytest.approx(math.exp(32 * (slope + 0.001)))


# --- distilled images


def store(results: "Maker", config: RunConfig, images: np.ndarray, classes: int) -> None:
    """Write a distilled set into the folder of a run."""
    folder = Store(results.root).run(config)
    stated = {"distilled_set": json.dumps({"classes": [str(k) for k in range(classes)]})}
    save_file({"images": images.astype(np.float32)}, folder.path / "distilled.safetensors", stated)


def test_images_that_point_elsewhere_are_more_diverse_and_brighter_ones_are_not(
    results: "Maker",
) -> None:
    rng = np.random.default_rng(0)
    for config in expand(load_grid("boosting"), "quick", {}, seeds=3):
        results.run(config)
        own = rng.standard_normal((3, 4, 1, 8, 8))  # [classes, images, C, H, W]
        shared = rng.standard_normal((3, 1, 1, 8, 8))
        if config.boost_block == 0:
            images = shared + 0.3 * own
        elif config.boost_beta == 0:
            images = shared + 2 * own  # different images
        else:
            images = 50 * (shared + 0.3 * own)  # only more contrast
        store(results, config, images.reshape(12, 1, 8, 8), classes=3)
    name = "boosted_images_are_more_diverse"
    claim = judged(results, name)[name]
    strong, weak = (
        next(one for one in claim["comparisons"] if f"boost_beta={beta}" in one["name"])
        for beta in ("0.0", "0.1")
    )
    assert strong["holds"]
    assert strong["effect"] > 5
    assert not weak["holds"]
    assert weak["effect"] == pytest.approx(1.0, abs=0.3)


def test_the_diversity_of_orthogonal_images_is_one(results: "Maker") -> None:
    from analysis.load import load_results, stored_runs
    from analysis.verdicts.diversity import image_diversity

    config = expand(load_grid("boosting"), "quick", {}, seeds=1)[0]
    results.run(config)
    found = load_results(stored_runs(results.root), load_grid("boosting"), "quick", {}).runs[0]
    assert image_diversity(found, {}) == {}  # the run has no set
    store(results, config, 7 * np.eye(4).reshape(4, 1, 2, 2), classes=2)
    assert image_diversity(found, {}) == {0: pytest.approx(0.0)}  # log 1
    store(results, config, np.eye(4).reshape(4, 1, 2, 2), classes=4)
    assert image_diversity(found, {}) == {}  # one image per class
