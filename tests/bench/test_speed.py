"""`bench.speed`: who is measured, what is not started, the floor, and the command as a whole."""

import json
import os
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from bench.config import Place
from bench.errors import UserError
from bench.metagrad import Adam, MetaGradient, Problem, make_derivatives, make_engine
from bench.speed.engines import AUTO, COMPILED, HIGHER, RECOMPUTING, TORCHOPT, can, engines
from bench.speed.errors import errors_table, measure_errors
from bench.speed.fit import free_host_bytes, predicted_bytes, smaller_did_not_fit
from bench.speed.floor import Cost, Rates, cost, cost_of_an_image, layers
from bench.speed.measure import Measurement, Missing, measure
from bench.speed.picture import draw
from bench.speed.process import Failed, OutOfMemory, call
from bench.speed.report import Report, read, table, write
from bench.speed.work import GROWTH, PRECISIONS, Work, make_network, make_work, variations
from methods import Window

CPU = torch.device("cpu")
SMALL = Work(width=4, images=4, window=2, target_batch=4)
GIB = 1 << 30


# --- who is measured, and on what


def test_compiled_steps_are_measured_on_a_gpu_or_on_request() -> None:
    assert COMPILED in engines("cuda", compiled=False)
    assert COMPILED in engines("cpu", compiled=True)
    assert COMPILED not in engines("cpu", compiled=False)


def test_peers_are_measured_where_they_are_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    for there in (True, False):
        monkeypatch.setattr("bench.speed.engines.installed", lambda package, there=there: there)
        assert (TORCHOPT in engines("cpu", compiled=False)) == there


def test_engines_that_refuse_a_precision_are_not_asked_for_it() -> None:
    problem, target = make_work(SMALL, CPU, torch.float32)
    assert not can(HIGHER, "bf16")
    with pytest.raises(ValueError, match="bf16"):
        make_engine("higher", precision="bf16")
    for precision in PRECISIONS:
        assert can(AUTO, precision)
        make_engine("exact", precision=precision).meta_gradient(problem, Window(0, 1), *target)


def test_each_variation_differs_in_one_thing() -> None:
    works = variations(Work(), {**GROWTH, "precision": ("float32", "bf16")})
    assert works.count(Work()) == 1
    assert len(set(works)) == len(works) == 12
    for other in works:
        changed = [key for key, value in vars(other).items() if value != vars(Work())[key]]
        assert len(changed) <= 1


def test_variations_go_from_small_to_large() -> None:
    works = variations(Work(window=30), {"window": (10, 20, 40)})
    assert [work.window for work in works] == [10, 20, 30, 40]


@pytest.mark.skipif(find_spec("torchopt") is None, reason="the peers are not installed")
def test_torchopt_does_the_same_work() -> None:
    from bench.speed.peers import TorchOptEngine

    torch.set_default_dtype(torch.float64)  # in which TorchOpt corrects the bias
    try:
        problem, target = make_work(SMALL, CPU, torch.float64)
        for window in (Window(0, 3), Window(2, 4)):
            expected = make_engine("exact").meta_gradient(problem, window, *target)
            assert error(TorchOptEngine("float64"), problem, window, target, expected) < 1e-10
            other = replace(problem, optimizer=Adam(1e-3, eps_form="higher"))
            expected = make_engine("exact").meta_gradient(other, window, *target)
            assert error(TorchOptEngine("float64"), problem, window, target, expected) > 1e-6
    finally:
        torch.set_default_dtype(torch.float32)


def error(
    engine: object,
    problem: Problem,
    window: Window,
    target: tuple[torch.Tensor, torch.Tensor],
    expected: MetaGradient,
) -> float:
    """Relative distance of the engine's gradient."""
    actual = engine.meta_gradient(problem, window, *target).images  # type: ignore[attr-defined]
    return ((actual - expected.images).norm() / expected.images.norm()).item()


# --- the floor


def test_convnet_3_takes_50_7_million_multiply_adds_an_image() -> None:
    forward = sum(layer.multiply_adds for layer in layers(Work(width=128)))
    by_hand = 9 * 3 * 128 * 32**2 + 9 * 128**2 * (16**2 + 8**2) + 10 * 128 * 4**2
    assert forward == by_hand == 50_745_344


@pytest.mark.parametrize("work", [Work(width=8), Work(width=3, depth=2)], ids=str)
def test_the_exact_engine_does_the_operations_of_the_floor(work: Work) -> None:
    problem, _ = make_work(replace(work, images=1), CPU, torch.float32)
    derivatives = make_derivatives(make_network(work))
    theta = derivatives.flatten(problem.parameters)
    with FlopCounterMode(display=False) as training:
        derivatives.gradient(theta, problem.images, problem.labels)
    linearization = derivatives.linearize(theta, problem.images, problem.labels)
    with FlopCounterMode(display=False) as product:
        linearization.product(theta.unsqueeze(0))
    counted = [float(counter.get_total_flops()) for counter in (training, product)]
    assert counted == [part.operations for part in cost_of_an_image(work)]


def test_a_whole_outer_step_does_the_operations_of_the_floor() -> None:
    work = replace(SMALL, warm_up=1)
    problem, target = make_work(work, CPU, torch.float32)
    engine = make_engine("exact", activation_budget=GIB)
    engine.meta_gradient(problem, Window(0, 1), *target)  # it measures its activations once
    with FlopCounterMode(display=False) as counter:
        engine.meta_gradient(problem, Window(work.warm_up, work.inner_steps), *target)
    assert counter.get_total_flops() == cost(work).operations


def test_each_pass_over_a_map_is_counted_once() -> None:
    work = Work(width=1, depth=1)
    image, maps, pooled = 3 * 32**2, 32**2, 16**2
    training, product = cost_of_an_image(work)
    # convolution: x -> y; gy, x -> nothing. norm: x -> y; gy, x -> gx. pool: x -> y; gy -> gx.
    # linear: x -> y; gy, x -> gx.
    by_hand = 2 * (image + maps) + 5 * maps + 2 * (maps + pooled) + 3 * pooled + 2 * 10
    assert training.bytes == 4 * by_hand
    # tangents. convolution: x -> ẏ; x, gy, ġy -> ġx. norm: x, ẋ -> ẏ; x, ẋ, gy, ġy -> ġx.
    # pool: ẋ -> ẏ; ġy -> ġx. linear: x, ẋ -> ẏ; x, ẋ, gy, ġy -> ġx.
    by_hand = (2 * image + maps) + (image + 2 * maps) + 8 * maps
    by_hand += 2 * (maps + pooled) + 5 * pooled + 3 * 10
    assert product.bytes == 4 * by_hand


def test_the_floor_is_the_longer_of_computing_and_moving() -> None:
    assert Cost(20, 30).seconds(Rates(10, 10)) == 3
    assert Cost(20, 30).seconds(Rates(10, 30)) == 2


# --- what does not fit


def measured(engine: str, work: Work, peak_bytes: int) -> Measurement:
    return Measurement(engine, work, 2.0, [1.0, 1.2], peak_bytes, 1e-3)


def test_memory_of_a_graph_is_predicted_from_two_smaller_windows() -> None:
    done = [measured(HIGHER, Work(window=w), GIB + w * 100) for w in (10, 20)]
    done.append(measured(HIGHER, Work(window=40, width=32), 7 * GIB))  # differs in two things
    done.append(measured(AUTO, Work(window=40), 9 * GIB))
    assert predicted_bytes(HIGHER, Work(window=160), done) == GIB + 160 * 100
    assert predicted_bytes(HIGHER, Work(window=20), done) is None
    assert predicted_bytes(AUTO, Work(window=160), done) is None


def test_what_is_larger_than_what_did_not_fit_does_not_fit() -> None:
    missing = [Missing(HIGHER, Work(width=64), GIB, True, "tried")]
    assert smaller_did_not_fit(HIGHER, Work(width=128), missing)
    assert not smaller_did_not_fit(HIGHER, Work(width=32), missing)
    assert not smaller_did_not_fit(TORCHOPT, Work(width=128), missing)


def test_what_is_predicted_not_to_fit_is_not_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bench.speed import __main__ as program

    started: list[int] = []

    def pretended(function: object, *arguments: object) -> object:
        if function is not measure:
            return Rates(1e9, 1e9)
        engine, work, *_ = arguments
        assert isinstance(engine, str)
        assert isinstance(work, Work)
        started.append(work.window)
        return measured(engine, work, work.window * GIB)

    monkeypatch.setattr(program, "call", pretended)
    monkeypatch.setattr(program, "engines", lambda device, compiled: [HIGHER])
    monkeypatch.setattr(program, "free_bytes", lambda device: 25 * GIB)
    monkeypatch.setattr(program, "GROWTH", {"window": (10, 20, 40)})
    assert program.main([f"results_root={tmp_path}", "device=cpu"]) == 0
    assert started == [10, 20]
    content = json.loads((tmp_path / "speed" / "speed.json").read_text())
    assert [m["text"] for m in content["missing"]] == ["does not fit (about 40 GiB)"]
    assert "does not fit (about 40 GiB)" in (tmp_path / "speed" / "speed.txt").read_text()
    assert (tmp_path / "speed" / "speed.png").stat().st_size > 10_000


def test_a_call_that_takes_too_much_memory_is_ended() -> None:
    free = free_host_bytes()
    with pytest.raises(OutOfMemory):
        # Whatever is free is less than all there is.
        call(time.sleep, 60, reserve=2.0)
    assert free_host_bytes() > free / 2


def test_a_process_killed_by_the_system_did_not_fit() -> None:
    with pytest.raises(OutOfMemory):
        call(signal.raise_signal, signal.SIGKILL)


def test_memory_that_is_refused_did_not_fit() -> None:
    with pytest.raises(OutOfMemory):
        call(bytearray, 1 << 60)
    with pytest.raises(OutOfMemory):
        call(torch.zeros, 1 << 55)


def test_a_failure_ends_the_call_and_nothing_else(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(Failed, match="invalid literal"):
        call(int, "seven")
    assert "Traceback" in capfd.readouterr().err
    with pytest.raises(Failed, match="exit status 3"):
        call(os._exit, 3)
    assert call(int, "7") == 7


# --- the report


@pytest.fixture
def report() -> Report:
    work, wide = Work(), Work(width=128)
    return Report(
        {"hardware": {"cpu": "some CPU"}, "threads": 2, "versions": {"torch": "2.15"}},
        work,
        3,
        16 * GIB,
        {"float32": Rates(cost(work).operations / 0.5, 1e12)},
        [
            Measurement(HIGHER, work, 9.0, [4.0, 2.0, 3.0], 100 << 20, 1e-3),
            Measurement(AUTO, work, 2.0, [1.0, 1.0, 2.0], 10 << 20, 1e-3),
            Measurement(AUTO, wide, 2.0, [1.0, 1.0, 2.0], 10 << 20, 1e-3),
        ],
        [
            Missing(HIGHER, wide, 30 * GIB, False, "predicted"),
            Missing(RECOMPUTING, wide, 20 * GIB, True, "killed"),
            Missing(TORCHOPT, wide, None, False, "failed: a reason"),
        ],
        ["a note"],
    )


def test_ratios_are_to_higher_and_to_the_floor_of_the_same_work(report: Report) -> None:
    lines = table(report).splitlines()
    higher, auto = (next(line for line in lines if name in line) for name in (f"  {HIGHER}", AUTO))
    wide = next(line for line in reversed(lines) if AUTO in line)
    assert higher.split()[1:7] == ["3000", "(2000-4000)", "75.0", "(50.0-100.0)", "1.00x", "6.0x"]
    assert auto.split()[2:8] == ["1000", "(1000-2000)", "25.0", "(25.0-50.0)", "3.00x", "2.0x"]
    assert "0.100" in auto
    assert "x" not in wide[60:68]  # higher has no time for it
    assert "does not fit (about 30 GiB)" in lines[-3]
    assert "does not fit (more than 20 GiB)" in lines[-2]
    assert "failed: a reason" in lines[-1]


def test_a_report_is_read_as_it_was_written(report: Report, tmp_path: Path) -> None:
    write(tmp_path, report)
    assert read(tmp_path) == report
    assert (tmp_path / "speed.txt").read_text() == table(report) + "\n"


def test_a_file_of_another_form_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is not there"):
        read(tmp_path)
    (tmp_path / "speed.json").write_text('{"measurements": []}')
    with pytest.raises(UserError, match="another form"):
        read(tmp_path)


def test_nothing_measured_gives_no_picture(report: Report, tmp_path: Path) -> None:
    assert draw(replace(report, measurements=[]), tmp_path) == []
    assert list(tmp_path.iterdir()) == []


# --- the command

TINY = ["width=4", "images=10", "window=3", "target_batch=10", "repeats=2", "threads=1"]


def test_all_engines_are_measured_and_written(command: Callable[..., Any], tmp_path: Path) -> None:
    done = command("bench.speed", "quick=true", "growth=false", *TINY)
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "results" / "speed"
    content = json.loads((folder / "speed.json").read_text())
    assert [m["engine"] for m in content["measurements"]] == engines("cpu", compiled=False)
    assert {"cpu", "device"} <= set(content["hardware"])
    assert content["rates"]["float32"]["operations"] > 1e8
    for entry in content["measurements"]:
        assert entry["engine"] in done.stdout
        assert len(entry["seconds"]) == 2
        assert entry["peak_bytes"] > 0
        assert 0 < entry["error"] < 0.2
        # With a tenth of a millisecond of work, overheads are all there is.
        assert min(entry["seconds"]) > content["floors"][0]["seconds"] > 0
    pictures = {folder / "speed.png", folder / "speed.pdf"}
    assert pictures <= set(folder.iterdir())
    for path in pictures:
        path.unlink()
    again = command("bench.speed", "redraw=true")
    assert again.returncode == 0, again.stderr
    assert pictures <= set(folder.iterdir())
    assert read(folder).measurements == [
        Measurement(**{**m, "work": Work(**m["work"])}) for m in content["measurements"]
    ]


def test_an_interrupted_command_keeps_what_it_measured(
    start: Callable[..., Any], tmp_path: Path
) -> None:
    process = start("bench.speed", *TINY)
    path = tmp_path / "results" / "speed" / "speed.json"
    deadline = time.monotonic() + 120
    while not path.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    children = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=60)
    assert process.returncode == 130
    assert told.splitlines() == ["interrupted"]
    assert json.loads(path.read_text())["measurements"][0]["engine"] == HIGHER
    _, alive = psutil.wait_procs(children, timeout=20)
    assert [child for child in alive if child.status() != psutil.STATUS_ZOMBIE] == []


def test_a_precision_that_a_cpu_only_imitates_is_refused(command: Callable[..., Any]) -> None:
    done = command("bench.speed", "precision=tf32", "device=cpu", *TINY)
    assert done.returncode == 2
    assert "NVIDIA" in done.stderr
    assert len(done.stderr.splitlines()) == 1


# --- what each precision costs in exactness


def test_the_errors_of_the_precisions_grow_from_one_to_the_next() -> None:
    found = measure_errors(Place(device="cpu", threads=1), SMALL, seeds=2)
    by_precision = {
        precision: [
            max(each.distances)
            for each in found
            if each.precision == precision and each.optimizer.startswith("SGD")
        ]
        for precision in PRECISIONS
    }
    for single, tf32, bf16 in zip(*by_precision.values(), strict=True):
        assert 0 < 10 * single < tf32 < bf16 < 1
    text = errors_table(found)
    assert "n = 2 seeds" in text
    assert len(text.splitlines()) == 4 + 8
