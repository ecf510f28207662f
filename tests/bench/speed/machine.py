"""A fake machine for the tests of `bench.speed`."""

from typing import Any

import pytest

from bench.speed.engines import AUTO
from bench.speed.measure import Measurement, measure
from bench.speed.rates import Rates, measure_rates
from bench.speed.work import Work
from bench.system.process_call import Failed

GIB = 1 << 30


def measurement(engine: str, work: Work, peak_bytes: int) -> Measurement:
    return Measurement(engine, work, 2.0, [1.0, 1.2], peak_bytes, 1e-3)


class FakeMachine:
    """Answers the calls of `bench.speed` at once, with made-up measurements.

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
        return measurement(engine, work, work.window * GIB)


def program_on(machine: FakeMachine, monkeypatch: pytest.MonkeyPatch) -> Any:
    from bench.speed import __main__ as program

    monkeypatch.setattr(program, "call", machine)
    monkeypatch.setattr(program, "engines", lambda device, compiled: [AUTO])
    monkeypatch.setattr(program, "GROWTH", {"window": (10, 20)})
    return program
