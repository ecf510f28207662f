"""Rates of a machine, and the precisions that it only emulates."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from bench.config.run_config import Environment
from bench.speed import rates
from bench.speed.rates import Rates, is_emulated, measure_rates
from bench.speed.report import read
from bench.system.errors import UserError
from tests.bench.speed.machine import GIB, FakeMachine, program_on

CPU = torch.device("cpu")


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
    times = rates.doubled(work, *rates.MATRIX_SIZES["cpu"], CPU)
    assert clock.now < 5
    sizes = [size for size, _ in times]
    assert sizes == [128 * 2**k for k in range(len(sizes))]
    assert sizes[-1] == 2048 or times[-1][1] >= rates.LONG_ENOUGH_SECONDS
    assert [2 * size**3 / seconds for size, seconds in times] == pytest.approx(
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
    measured = measure_rates("float32", Environment(device="cpu", threads=1))
    assert 0 < measured.operations < 1e15  # of one core
    assert 0 < measured.bytes < 1e13


def test_a_precision_twice_as_slow_as_float32_is_emulated() -> None:
    single = Rates(100e9, 1e9)
    assert is_emulated(Rates(1.5e9, 1e9), single)  # an AVX2 processor
    assert not is_emulated(Rates(90e9, 1e9), single)
    assert not is_emulated(Rates(1000e9, 1e9), single)
    assert not is_emulated(single, single)


@pytest.mark.parametrize(("bf16", "there"), [(2e9, False), (300e9, True)])
def test_a_precision_without_units_is_left_out_and_said_to_be(
    bf16: float,
    there: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    machine = FakeMachine(float32=100e9, bf16=bf16)
    program = program_on(machine, monkeypatch)
    assert program.main([f"results_root={tmp_path}", "device=cpu"]) == 0
    assert ("bf16" in {work.precision for work in machine.measured}) == there
    note = "bf16 is skipped: this machine only emulates it (2.0 GFLOP/s in"
    assert capsys.readouterr().out.count(note) == (0 if there else 2)  # at once, and at the end
    written = read(tmp_path / "speed")
    assert any(text.startswith(note) for text in written.notes) != there
    assert set(written.rates) == ({"float32", "bf16"} if there else {"float32"})


def test_a_precision_without_units_is_refused_where_it_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = FakeMachine(float32=100e9, bf16=2e9)
    program = program_on(machine, monkeypatch)
    with pytest.raises(UserError, match=r"precision=bf16 is not measured: .*emulates it \(2\.0 GF"):
        program.main([f"results_root={tmp_path}", "device=cpu", "precision=bf16"])
    assert machine.measured == []


def test_without_rates_everything_is_measured_but_the_floor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = FakeMachine()
    program = program_on(machine, monkeypatch)
    assert program.main([f"results_root={tmp_path}", "device=cpu"]) == 0
    assert {work.precision for work in machine.measured} == {"float32", "bf16"}
    assert read(tmp_path / "speed").rates == {}
