"""The table, the file and the picture."""

from dataclasses import replace
from pathlib import Path

import pytest

from bench.speed.engines import AUTO, HIGHER, RECOMPUTING, TORCHOPT
from bench.speed.measure import Measurement, Missing
from bench.speed.picture import draw
from bench.speed.rates import Rates
from bench.speed.report import Report, read, table, write
from bench.speed.roofline import cost
from bench.speed.work import Work
from bench.system.errors import UserError
from tests.bench.speed.machine import GIB


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
    assert "x" not in wide[69:77]  # higher has no time for it
    assert "does not fit (about 30 GiB)" in lines[-3]
    assert "does not fit (more than 20 GiB)" in lines[-2]
    assert "failed: a reason" in lines[-1]


def test_a_report_is_read_as_it_was_written(report: Report, tmp_path: Path) -> None:
    write(tmp_path, report)
    assert read(tmp_path) == report
    assert (tmp_path / "speed.txt").read_text() == table(report) + "\n"


def test_a_file_of_another_form_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not exist"):
        read(tmp_path)
    (tmp_path / "speed.json").write_text('{"measurements": []}')
    with pytest.raises(UserError, match="unknown format"):
        read(tmp_path)


def test_nothing_measured_gives_no_picture(report: Report, tmp_path: Path) -> None:
    assert draw(replace(report, measurements=[]), tmp_path) == []
    assert list(tmp_path.iterdir()) == []
