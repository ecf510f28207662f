"""What a run will take: from few measured steps to the whole run."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch

from bench.config.command_line import parse
from bench.config.grid import single_run
from bench.config.resolve import resolve
from bench.config.run_config import Environment, RunConfig
from bench.run import Console
from bench.runs.execute import execute
from bench.runs.run_folder import Store
from bench.sweeps import cost_estimate as estimation
from bench.sweeps import cost_measurement as measuring
from bench.sweeps import estimator as estimating
from bench.sweeps import meter
from bench.sweeps.cost_estimate import Size, measured_parts, sample_windows
from bench.sweeps.cost_model import Estimate, Failure, Linear, Parts, Steps, Trained, fit
from bench.sweeps.estimator import Estimator
from bench.sweeps.placeholder_data import random_target_set, sizes
from bench.system.machine import free_memory, total_memory

GIB = 2**30
SMALL = Steps(0, 1), Steps(4, 1), Steps(0, 5)
ENOUGH = 60.0  # seconds, of which these small runs take none to speak of


def settings_of(tiny: list[str], **settings: Any) -> dict[str, Any]:
    return {**parse(tiny, type(resolve({}))), **settings}


def whole_estimate(config: RunConfig, here: Environment, seconds: float = ENOUGH) -> Estimate:
    """Measured in this process."""
    parts = measured_parts(config, here, seconds)
    return estimation.estimate(config, sample_windows(config), parts, here)


def ask(config: RunConfig, here: Environment) -> Estimate | Failure:
    """Measured in a process of its own."""
    return Estimator([config], here, lambda doing: None).estimate(config)


def test_a_linear_cost_is_found_from_short_windows() -> None:
    truth = Linear(3.0, 0.25, 2.0)
    found = fit({steps: truth.at(steps) for steps in SMALL})
    assert found.at(Steps(40, 80)) == pytest.approx(truth.at(Steps(40, 80)))


def test_noise_makes_no_step_cheaper_than_its_copies_or_than_nothing() -> None:
    noisy = dict(zip(SMALL, (100.0, 97.0, 90.0), strict=True))
    found = fit(noisy, least=4.0)
    assert found.at(Steps(1000, 1)) == 100.0
    assert found.at(Steps(0, 101)) == 500.0


class ScriptedMeter:
    """Says of an outer step what a script says, instead of measuring it."""

    sees_memory = True

    def __init__(self, *arguments: Any) -> None:
        pass

    def measure(self, work: Callable[[], object]) -> tuple[float, int]:
        owner = getattr(work, "__self__", None)
        if not isinstance(owner, measuring.Distillation):
            return 0.0, 0  # the evaluation
        window = owner.method.next_window(0, None)  # pyright: ignore[reportArgumentType]
        kept = window.size if owner.engine.activation_budget else 0  # pyright: ignore
        images = owner.config.target_batch
        seconds = 0.5 + 0.001 * images + 0.01 * window.start + 0.1 * window.size - 0.02 * kept
        return seconds, GIB + images * 1000 + window.size * 2**20 + kept * 2**25


def scripted(tiny: list[str], monkeypatch: pytest.MonkeyPatch, memory: str) -> Estimate:
    monkeypatch.setattr(measuring, "Meter", ScriptedMeter)
    given = settings_of(
        tiny, method="t_bptt", window_size=50, unroll_length=70, outer_steps=10, variance_every=0
    )
    return whole_estimate(
        single_run("quick", given), Environment(activation_memory=memory, threads=1)
    )


def test_an_outer_step_is_extrapolated_to_the_windows_of_the_run(
    tiny: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = scripted(tiny, monkeypatch, "0")
    # t_bptt's window is the last: 20 steps of warm-up.
    assert found.seconds == pytest.approx(10 * (0.5 + 0.001 * 32 + 0.01 * 20 + 0.1 * 50))
    # The random images lie in this process; a run's own are mapped, and told apart.
    random = random_target_set(single_run("quick", settings_of(tiny)), torch.device("cpu"))
    parts = (random.train, random.validation, random.test)
    needed = GIB + 32 * 1000 + 50 * 2**20 - sum(part.images.nbytes for part in parts)
    assert found.peak_bytes == pytest.approx(needed, abs=2)
    assert found.spare_bytes == 0


def test_activations_that_are_kept_take_memory_and_save_time(
    tiny: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    without, kept = (scripted(tiny, monkeypatch, memory) for memory in ("0", "8"))
    assert without.seconds - kept.seconds == pytest.approx(10 * 50 * 0.02)
    assert without.peak_bytes is not None
    assert kept.peak_bytes == pytest.approx(without.peak_bytes + 50 * 2**25, rel=1e-9)


def test_activations_kept_where_memory_is_free_are_not_counted_as_needed(
    tiny: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    without, free = (scripted(tiny, monkeypatch, memory) for memory in ("0", "auto"))
    assert free.peak_bytes == without.peak_bytes
    assert free.spare_bytes > 0


class MeterOfImages:
    """Says that each image takes so long; knows how many there were at most."""

    sees_memory = True
    most_images: int

    def __init__(self, *arguments: Any) -> None:
        pass

    def measure(self, work: Callable[[], object]) -> tuple[float, int]:
        owner = getattr(work, "__self__", None)
        if not isinstance(owner, measuring.Distillation):
            return 0.4, 0  # four images, once through
        config, window = owner.config, owner.method.next_window(0, None)  # pyright: ignore
        images = (config.inner_classes or 10) * (config.inner_ipc or config.ipc)
        MeterOfImages.most_images = max(MeterOfImages.most_images, images)
        in_window = images * (0.4 * window.size + 0.1 * window.start)
        return 0.1 * config.target_batch + in_window, GIB + window.size * 2**23


def test_what_takes_too_long_is_measured_with_fewer_images_and_scaled_to_their_number(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(measuring, "Meter", MeterOfImages)
    given = {"method": "t_bptt", "ipc": 30, "window_size": 20, "unroll_length": 50}
    config = single_run("quick", {**given, "accuracy_every": 0, "variance_every": 0})
    steps, images = [], []
    for seconds in (1e9, 200.0, 1.0):
        MeterOfImages.most_images = 0
        parts = measured_parts(config, Environment(threads=1), seconds)
        assert parts.scaled == (seconds < 1e9)
        steps.append(parts.step.at(Steps(30, 20)))
        images.append(MeterOfImages.most_images)
    assert images[0] == 300
    assert images[1] < 300
    assert images[2] == 1
    assert steps == pytest.approx([0.1 * 256 + 300 * (0.4 * 20 + 0.1 * 30)] * 3)


@pytest.fixture
def spawns(monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests whose measurements must succeed: another test may have started autograd's threads
    in this process, as compiled steps do, and then no fork of it can compute a gradient."""
    monkeypatch.setattr(estimating, "START_METHOD", "spawn")


@pytest.mark.slow
@pytest.mark.usefixtures("spawns")
def test_runs_that_differ_in_their_windows_alone_are_measured_once(
    tiny: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    configs = [
        single_run("quick", settings_of(tiny, **own))
        for own in ({"method": "bptt"}, {"method": "t_bptt"}, {"seed": 3}, {"width": 5})
    ]
    said: list[str] = []
    for name in ("SECONDS", "LAST_SECONDS"):  # however slow the machine
        monkeypatch.setattr(estimating, name, 1e5)
    estimator = Estimator(configs, Environment(threads=1), said.append)
    found = [estimator.estimate(config) for config in configs]
    assert all(isinstance(each, Estimate) for each in found)
    assert sum(line.startswith("measuring outer steps") for line in said) == 2


def test_memory_is_counted_without_the_biases_that_are_left_out(tiny: list[str]) -> None:
    with_biases, without = (
        Size.of(single_run("quick", settings_of(tiny, conv_bias=bias))) for bias in (True, False)
    )
    assert with_biases.theta_bytes - without.theta_bytes == 4 * 4  # four channels, in float32
    assert with_biases.operations == without.operations


@pytest.mark.usefixtures("spawns")
def test_what_has_no_turn_is_predicted_from_what_was_measured(
    tiny: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(estimating, "LAST_SECONDS", 1e5)  # however slow the machine
    small = single_run("quick", settings_of(tiny))
    large = single_run("quick", settings_of(tiny, width=64, depth=2, transfer_to=["alexnet"]))
    other_engine = single_run("quick", settings_of(tiny, engine="higher"))
    huge = single_run("quick", settings_of(tiny, width=8, window_size=10**9, unroll_length=10**9))
    estimator = Estimator(
        [small, large, other_engine, huge], Environment(threads=1), lambda doing: None
    )
    first = estimator.estimate(small)
    monkeypatch.setattr(estimating, "SECONDS", 0.0)  # time is over
    found = [estimator.estimate(config) for config in (large, other_engine, huge)]
    assert isinstance(first, Estimate)
    assert all(isinstance(each, Estimate) and each.scaled for each in (found[0], found[2]))
    assert [config.engine for config, _ in estimator.measured] == ["exact", "higher"]
    assert found[0].seconds > 3 * first.seconds  # pyright: ignore[reportAttributeAccessIssue]
    # What cannot fit is still seen: a billion copies of the parameters.
    assert found[2].peak_bytes > 10**12  # pyright: ignore


def test_the_windows_are_those_that_the_method_draws() -> None:
    quick = {"outer_steps": 300, "unroll_length": 30, "window_size": 10}
    whole = sample_windows(single_run("quick", {**quick, "method": "bptt"}))
    assert {(w.start, w.stop) for w in whole} == {(0, 30)}
    random = sample_windows(single_run("quick", {**quick, "method": "rat_bptt"}))
    assert {w.size for w in random} == {10}
    assert {w.start for w in random} == set(range(21))
    # Where it moves depends on the loss: both a run that stays and one that moves are looked at.
    moving = {**quick, "method": "backward_window", "method_options": {"patience": 50}}
    starts = [w.start for w in sample_windows(single_run("quick", moving))]
    assert starts[: len(starts) // 2] == [0] * (len(starts) // 2)
    assert {0, 10, 20} == set(starts)
    moving["method_options"] = {"patience": 50, "rule": "evaluation_loss"}
    assert {w.start for w in sample_windows(single_run("quick", moving))} == {0, 10, 20}


def test_measuring_on_the_training_part_is_counted_where_it_is_done() -> None:
    trained = Trained(step=0.0, measuring=6.0)
    line = Linear()
    parts = Parts(line, line, None, None, {"convnet": trained}, None, 0.0, 0, 0, True, False)
    settings = {"outer_steps": 4, "accuracy_every": 2, "accuracy_networks": 1}
    seconds = []
    for method in ({}, {"method_options": {"rule": "evaluation_loss"}}):
        config = single_run("quick", {"method": "backward_window", **settings, **method})
        seconds.append(estimation.run_seconds(config, sample_windows(config), parts))
    whole = sizes(config)
    factor = sum(whole.values()) / (whole["validation"] + whole["test"])
    assert seconds[1] - seconds[0] == pytest.approx(3 * 6.0 * (factor - 1))


def test_variances_are_counted_as_often_as_a_run_measures_them() -> None:
    parts = Parts(
        step=Linear(1.0),
        step_bytes=Linear(),
        variance=Linear(100.0),
        variance_bytes=Linear(),
        trained={"convnet": Trained(0.0, 0.0)},
        full=None,
        evaluation_bytes=0.0,
        affordable=0,
        data_bytes=0,
        sees_memory=True,
        scaled=False,
    )

    def seconds(**given: Any) -> float:
        config = single_run("quick", {"outer_steps": 60, "variance_every": 25, **given})
        return estimation.run_seconds(config, sample_windows(config), parts)

    assert seconds() == pytest.approx(60 + 3 * 100)
    assert seconds(variance_until=50) == pytest.approx(60 + 2 * 100)
    assert seconds(variance_until=500) == pytest.approx(60 + 3 * 100)


@pytest.mark.slow
def test_the_estimate_of_a_real_run_is_near_its_cost(tmp_path: Path) -> None:
    # Processor time of this thread: the machine may be busy with other things.
    settings = {"method": "rat_bptt", "outer_steps": 12, "unroll_length": 20, "target_batch": 64}
    rare = {"variance_every": 6, "accuracy_every": 6, "accuracy_networks": 2}
    config = single_run("quick", {**settings, **rare, "evaluation_networks": 2})
    here = Environment(threads=1, cache_root=str(tmp_path / "cache"), activation_memory="0")
    folder = Store(tmp_path).run(config)
    folder.create(config)
    whole_estimate(config, here)  # makes the cache, imports, warms up

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(meter.time, "perf_counter", time.process_time)
        estimated = whole_estimate(config, here)
    started = time.process_time()
    execute(folder, here, Console(config))
    took = time.process_time() - started
    assert took / 3 < estimated.seconds < took * 3
    resident = psutil.Process().memory_info().rss
    measured = meter.is_measurable(torch.device("cpu"))
    assert (estimated.peak_bytes is not None) == measured
    assert resident / 3 < (estimated.peak_bytes or resident) < resident * 3


def test_an_experiment_that_dies_says_so_and_blames_memory_only_while_it_takes_some(
    tiny: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = single_run("quick", settings_of(tiny))

    def dies(*arguments: object) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def refuses(*arguments: object) -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried 1 TiB")

    def breaks(*arguments: object) -> None:
        raise RuntimeError("three is too much")

    found = {}
    for name, where, how in (
        ("killed while measuring", "Measurement", dies),
        ("killed by its method", "sample_windows", dies),
        ("refused", "Measurement", refuses),
        ("broken", "Measurement", breaks),
    ):
        with monkeypatch.context() as patched:
            patched.setattr(estimation if where == "Measurement" else estimating, where, how)
            found[name] = ask(config, Environment(threads=1))
    assert all(isinstance(each, Failure) for each in found.values())
    memory = {name for name, each in found.items() if getattr(each, "out_of_memory", False)}
    assert memory == {"killed while measuring", "refused"}
    assert "three is too much" in str(found["broken"])


def test_free_memory_is_some_of_this_machine() -> None:
    assert 0 < free_memory() <= total_memory()


@pytest.mark.slow
def test_the_command_answers_a_line_an_experiment(
    tiny: list[str], environment: dict[str, str]
) -> None:
    configs = [single_run("quick", settings_of(tiny, method=name)) for name in ("bptt", "t_bptt")]
    done = subprocess.run(
        [sys.executable, "-m", "bench.estimate", "threads=1"],
        input=json.dumps([asdict(config) for config in configs]),
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    found = [Estimate(**line) for line in lines if "doing" not in line]
    assert {"doing"} == set(lines[0])  # what goes on is told in between
    assert len(found) == 2
    assert all(each.seconds > 0 for each in found)


@pytest.mark.slow
def test_an_estimate_does_not_import_the_compiler(
    tiny: list[str], environment: dict[str, str]
) -> None:
    # It would take seconds. A module that is None cannot be imported.
    code = (
        "import runpy, sys\n"
        "sys.modules.update(dict.fromkeys(['torch._dynamo', 'torch._inductor']))\n"
        "sys.argv[1:] = ['threads=1']\n"
        "runpy.run_module('bench.estimate', run_name='__main__')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        input=json.dumps([asdict(single_run("quick", settings_of(tiny)))]),
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    answer = json.loads(done.stdout.splitlines()[-1])
    assert Estimate(**answer).seconds > 0, done.stderr


def test_a_probe_takes_an_inner_training_of_full_length() -> None:
    settings = {"outer_steps": 25, "unroll_length": 30, "window_size": 10, "variance_every": 0}
    trained = {"convnet": Trained(0.0, 0.0)}
    line = Linear(warm_up=0.5)
    parts = Parts(line, Linear(), None, None, trained, None, 0.0, 0, 0, True, False)
    for method, probes in (("rat_bptt", 0), ("at_bptt", 3), ("at_bptt_plus", 25)):
        config = single_run("quick", {"method": method, **settings})
        sample = sample_windows(config)
        steps = 25 * 0.5 * sum(window.start for window in sample) / len(sample)
        seconds = estimation.run_seconds(config, sample, parts)
        assert seconds - steps == pytest.approx(probes * 30 * 0.5)
