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

from bench.config.run_config import Environment
from bench.metagrad import Adam, MetaGradient, Problem, make_derivatives, make_engine
from bench.speed import process, rates
from bench.speed.engines import AUTO, COMPILED, HIGHER, RECOMPUTING, TORCHOPT, can, engines
from bench.speed.imitated import ImitatedBf16
from bench.speed.measure import Measurement, Missing, measure
from bench.speed.memory_prediction import predicted_bytes, smaller_did_not_fit
from bench.speed.picture import draw
from bench.speed.precision_errors import errors_table, measure_errors
from bench.speed.process import Failed, OutOfMemory, call
from bench.speed.rates import Rates, is_imitated, measure_rates
from bench.speed.report import Report, read, table, write
from bench.speed.roofline import Cost, cost, cost_of_an_image, layers
from bench.speed.work import GROWTH, PRECISIONS, Work, make_network, make_work, variations
from bench.system.errors import UserError
from bench.system.machine import free_memory
from methods import Window
from tests.waiting import has_ended, wait_until

CPU = torch.device("cpu")
SMALL = Work(width=4, images=4, window=2, target_batch=4)
GIB = 1 << 30


def measured(engine: str, work: Work, peak_bytes: int) -> Measurement:
    return Measurement(engine, work, 2.0, [1.0, 1.2], peak_bytes, 1e-3)


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
    from bench.speed.torchopt_engine import TorchOptEngine

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
        linearization.hvp(theta.unsqueeze(0))
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


# --- what the machine can do


class Clock:
    """Stands for a machine: time goes on by what the work says that it takes."""

    def __init__(self) -> None:
        self.now = 0.0

    def perf_counter(self) -> float:
        return self.now

    def work(self, seconds: Callable[[int], float]) -> Callable[[int], Callable[[], object]]:
        """Makes work of a size."""

        def make(size: int) -> Callable[[], None]:
            def do() -> None:
                self.now += seconds(size)

            return do

        return make


@pytest.mark.parametrize("rate", [1e7, 1e9, 1e11, 1e13, 1e15])
def test_rates_are_measured_within_seconds_on_a_machine_of_any_speed(
    rate: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    monkeypatch.setattr(rates, "time", clock)
    work = clock.work(lambda size: 1e-6 + 2 * size**3 / rate)
    # Faster than 1e6 repetitions of what takes 1e-6 s would be slow to pretend.
    monkeypatch.setattr(rates, "ENOUGH_SECONDS", 0.01)
    found = rates.doubled(work, *rates.MATRIX_SIZES["cpu"], CPU)
    assert clock.now < 5
    sizes = [size for size, _ in found]
    assert sizes == [128 * 2**k for k in range(len(sizes))]
    assert sizes[-1] == 2048 or found[-1][1] >= rates.LONG_ENOUGH_SECONDS
    assert [2 * size**3 / seconds for size, seconds in found] == pytest.approx(
        [2 * size**3 / (1e-6 + 2 * size**3 / rate) for size in sizes]
    )


def test_a_copy_is_no_larger_than_what_fits_beside_other_things(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    copied: list[int] = []

    def copy_rates(device: object, size: int, largest: int) -> list[float]:
        copied.append(largest)
        return [1.0]

    monkeypatch.setattr(rates, "copy_rates", copy_rates)
    monkeypatch.setattr(rates, "product_rates", lambda *arguments: [1.0])
    for free in (100 * GIB, 1 * GIB):
        monkeypatch.setattr(rates, "free_memory", lambda free=free: free)
        measure_rates("float32", Environment(device="cpu", threads=1))
    assert copied == [256 << 20, 128 << 20]


def test_the_rates_of_this_machine_are_those_of_a_machine() -> None:
    found = measure_rates("float32", Environment(device="cpu", threads=1))
    assert 0 < found.operations < 1e15  # of one core
    assert 0 < found.bytes < 1e13


def test_a_precision_twice_as_slow_as_float32_is_imitated() -> None:
    single = Rates(100e9, 1e9)
    assert is_imitated(Rates(1.5e9, 1e9), single)  # an AVX2 processor
    assert not is_imitated(Rates(90e9, 1e9), single)
    assert not is_imitated(Rates(1000e9, 1e9), single)
    assert not is_imitated(single, single)


class Pretended:
    """Answers `bench.speed`'s calls at once, as a machine would.

    Attributes:
        measured: the works that were measured, in their order.
    """

    def __init__(self, **operations: float) -> None:
        self.operations = operations
        self.measured: list[Work] = []

    def __call__(self, function: object, *arguments: Any, **options: Any) -> object:
        if function is measure_rates:
            if not self.operations:
                raise Failed("no such thing")
            return Rates(self.operations[arguments[0]], 1e9)
        assert function is measure
        engine, work, *_ = arguments
        self.measured.append(work)
        return measured(engine, work, work.window * GIB)


def pretend(machine: Pretended, monkeypatch: pytest.MonkeyPatch) -> Any:
    from bench.speed import __main__ as program

    monkeypatch.setattr(program, "call", machine)
    monkeypatch.setattr(program, "engines", lambda device, compiled: [AUTO])
    monkeypatch.setattr(program, "GROWTH", {"window": (10, 20)})
    return program


@pytest.mark.parametrize(("bf16", "there"), [(2e9, False), (300e9, True)])
def test_a_precision_without_units_is_left_out_and_said_to_be(
    bf16: float,
    there: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    machine = Pretended(float32=100e9, bf16=bf16)
    program = pretend(machine, monkeypatch)
    assert program.main([f"results_root={tmp_path}", "device=cpu"]) == 0
    assert ("bf16" in {work.precision for work in machine.measured}) == there
    note = "bf16 is left out: this machine has no units for it and imitates it (2.0 GFLOP/s in"
    assert capsys.readouterr().out.count(note) == (0 if there else 2)  # at once, and at the end
    found = read(tmp_path / "speed")
    assert any(text.startswith(note) for text in found.notes) != there
    assert set(found.rates) == ({"float32", "bf16"} if there else {"float32"})


def test_a_precision_without_units_is_refused_where_it_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = Pretended(float32=100e9, bf16=2e9)
    program = pretend(machine, monkeypatch)
    with pytest.raises(UserError, match=r"precision=bf16 is not measured: .*imitates it \(2\.0 GF"):
        program.main([f"results_root={tmp_path}", "device=cpu", "precision=bf16"])
    assert machine.measured == []


def test_without_rates_everything_is_measured_but_the_floor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = Pretended()
    program = pretend(machine, monkeypatch)
    assert program.main([f"results_root={tmp_path}", "device=cpu"]) == 0
    assert {work.precision for work in machine.measured} == {"float32", "bf16"}
    assert read(tmp_path / "speed").rates == {}


# --- what does not fit


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
    machine = Pretended(float32=1e9, bf16=1e9)
    program = pretend(machine, monkeypatch)
    monkeypatch.setattr(program, "engines", lambda device, compiled: [HIGHER])
    monkeypatch.setattr(program, "free_bytes", lambda device: 25 * GIB)
    monkeypatch.setattr(program, "GROWTH", {"window": (10, 20, 40)})
    assert program.main([f"results_root={tmp_path}", "device=cpu"]) == 0
    assert [work.window for work in machine.measured] == [10, 20]
    content = json.loads((tmp_path / "speed" / "speed.json").read_text())
    assert [m["text"] for m in content["missing"]] == ["does not fit (about 40 GiB)"]
    assert "does not fit (about 40 GiB)" in (tmp_path / "speed" / "speed.txt").read_text()
    assert (tmp_path / "speed" / "speed.png").stat().st_size > 10_000


def test_a_call_that_takes_too_much_memory_is_ended() -> None:
    free = free_memory()
    with pytest.raises(OutOfMemory):
        # Whatever is free is less than all there is.
        call(time.sleep, 60, reserve=2.0)
    assert free_memory() > free / 2


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
    assert content["rates"]["float32"]["operations"] > 0
    for entry in content["measurements"]:
        assert entry["engine"] in done.stdout
        assert len(entry["seconds"]) == 2
        assert entry["peak_bytes"] > 0
        assert 0 < entry["error"] < 0.2
        assert min(entry["seconds"]) > 0
    assert content["floors"][0]["seconds"] > 0
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
    measuring = start("bench.speed", *TINY)
    path = tmp_path / "results" / "speed" / "speed.json"
    wait_until(path.exists, "the first measurement", measuring)
    children = psutil.Process(measuring.pid).children(recursive=True)
    measuring.send_signal(signal.SIGINT)
    _, told = measuring.communicate()
    assert measuring.returncode == 130
    assert told.splitlines() == ["interrupted"]
    assert json.loads(path.read_text())["measurements"][0]["engine"] == HIGHER
    wait_until(lambda: all(map(has_ended, children)), "what it started to end")


@pytest.mark.parametrize("asked", ["quick=true", "errors=true"])
def test_something_is_said_before_anything_is_measured_or_torch_is_imported(
    asked: str, command: Callable[..., Any], tmp_path: Path
) -> None:
    (tmp_path / "torch.py").write_text("raise ImportError('not yet')\n")  # found before torch
    done = command("bench.speed", asked)
    assert done.returncode != 0
    assert "not yet" in done.stderr
    assert done.stdout.splitlines()[0] == "looking at this machine ..."


def test_a_long_measurement_says_that_it_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "BEAT_SECONDS", 0.01)
    told: list[float] = []
    call(time.sleep, 1, waiting=told.append)
    assert len(told) >= 2
    assert told == pytest.approx([0.01 * (k + 1) for k in range(len(told))])


def test_a_precision_that_a_cpu_only_imitates_is_refused(command: Callable[..., Any]) -> None:
    done = command("bench.speed", "precision=tf32", "device=cpu", *TINY)
    assert done.returncode == 2
    assert "NVIDIA" in done.stderr
    assert len(done.stderr.splitlines()) == 1


# --- what each precision costs in exactness


def test_the_errors_of_the_precisions_grow_from_one_to_the_next(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("bench.speed.precision_errors.WINDOWS", ((0, 4), (6, 10)))
    found = measure_errors(Environment(device="cpu", threads=1), SMALL, seeds=2)
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


def test_imitated_bf16_is_bf16_with_sums_in_float32() -> None:
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator).bfloat16()

    x, w, gy = draw(4, 8, 16, 16), draw(8, 8, 3, 3), draw(4, 8, 16, 16)
    a, b = draw(32, 300), draw(300, 16)
    geometry = ([1, 1], [1, 1], [1, 1])

    def compute(*tensors: torch.Tensor) -> list[torch.Tensor]:
        x, w, gy, a, b = tensors
        backward = torch.ops.aten.convolution_backward
        gx, gw, _ = backward(gy, x, w, None, *geometry, False, [0, 0], 1, [True, True, False])
        return [torch.conv2d(x, w, None, *geometry), gx, gw, a @ b, torch.stack([a, a]) @ b]

    tensors = (x, w, gy, a, b)
    exact = compute(*(tensor.double() for tensor in tensors))
    with ImitatedBf16():
        imitated = compute(*tensors)
    for found, expected in zip(imitated, exact, strict=True):
        assert found.dtype == torch.bfloat16
        # Half of the last of 8 bits, and what sums in float32 lose.
        assert ((found.double() - expected).abs() <= 2**-8 * expected.abs() + 1e-4).all()


def test_imitated_bf16_leaves_other_numbers_alone() -> None:
    a = torch.randn(8, 8, dtype=torch.float64)
    with ImitatedBf16():
        assert torch.equal(a @ a, a.clone() @ a)
        assert (a @ a).dtype == torch.float64
        assert (a.bfloat16() + a.bfloat16()).dtype == torch.bfloat16
