"""The measurements as a table and as JSON."""

import statistics
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from bench.config.run_config import Environment
from bench.speed.engines import HIGHER
from bench.speed.measure import ERROR_WINDOW, Measurement, Missing
from bench.speed.rates import Rates
from bench.speed.roofline import cost
from bench.speed.work import Work
from bench.system.errors import UserError
from bench.system.files import atomic_write, read_json, write_json


@dataclass
class Report:
    """All of one command's measurements.

    Attributes:
        machine: hardware, threads, versions, commit.
        base: the piece of work that the others are variations of.
        repeats: outer steps behind each time.
        free_bytes: memory that was free at the start.
        rates: by precision.
        notes: what was not measured at all, and why.
    """

    machine: dict[str, Any]
    base: Work
    repeats: int
    free_bytes: int
    rates: dict[str, Rates] = field(default_factory=dict)
    measurements: list[Measurement] = field(default_factory=list)
    missing: list[Missing] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def works(self) -> list[Work]:
        """The pieces of work, in the order of measurement."""
        return list(dict.fromkeys(m.work for m in [*self.measurements, *self.missing]))

    def floor_seconds(self, work: Work) -> float | None:
        """None where the machine was not measured at that precision."""
        rates = self.rates.get(work.precision)
        return cost(work).seconds(rates) if rates else None


def needs(missing: Missing) -> str:
    """Why there is no measurement, in a few words."""
    if missing.needed_bytes is None:
        return missing.reason
    about = "more than" if missing.at_least else "about"
    return f"does not fit ({about} {missing.needed_bytes / 2**30:.0f} GiB)"


def table(report: Report) -> str:
    """A block of lines for each piece of work, one line an engine."""
    lines = [
        f"times: median (min-max) of n = {report.repeats} outer steps, after the first; inner step:"
        " outer step / (warm-up + window)",
        "speed, of higher: time and memory against higher on the same work; x floor: time / floor,"
        " the least time that this machine could take",
        "error: relative distance of the meta-gradient to the float64 one, over a window of"
        f" {ERROR_WINDOW} steps",
    ]
    for precision, rates in report.rates.items():
        lines.append(
            f"{precision}: {rates.operations / 1e9:.0f} GFLOP/s in matrix products,"
            f" {rates.bytes / 1e9:.1f} GB/s in copies"
        )
    lines += report.notes
    for work in report.works():
        lines += ["", *work_lines(report, work)]
    return "\n".join(lines)


def work_lines(report: Report, work: Work) -> list[str]:
    """The block of one piece of work."""
    floor = report.floor_seconds(work)
    heading = str(work)
    if floor:
        counted, rates = cost(work), report.rates[work.precision]
        operations, moved = counted.operations / rates.operations, counted.bytes / rates.bytes
        heading += (
            f"; floor {1e3 * floor:.1f} ms (operations {1e3 * operations:.1f},"
            f" bytes {1e3 * moved:.1f})"
        )
    lines = [
        heading,
        f"  {'engine':28}{'outer step, ms':>26}{'inner step, ms':>24}{'speed':>8}{'x floor':>9}"
        f"{'first':>9}{'memory':>12}{'of higher':>11}{'error':>10}",
    ]
    here = [m for m in report.measurements if m.work == work]
    base = next((m for m in here if m.engine == HIGHER), None)
    for m in here:
        speed = f"{base.median / m.median:.2f}x" if base else ""
        share = f"{m.peak_bytes / base.peak_bytes:.3f}" if base and base.peak_bytes else ""
        above = f"{m.median / floor:.1f}x" if floor else ""
        lines.append(
            f"  {m.engine:28}{spread(m.seconds, 1):>26}{spread(m.seconds, work.inner_steps):>24}"
            f"{speed:>8}{above:>9}{m.first_seconds:7.2f} s"
            f"{m.peak_bytes / 2**20:8.0f} MiB{share:>11}{m.error:10.1e}"
        )
    lines += [f"  {m.engine:28}{needs(m):>26}" for m in report.missing if m.work == work]
    return lines


def spread(seconds: list[float], steps: int) -> str:
    """Median and range of milliseconds a step."""
    parts = (statistics.median(seconds), min(seconds), max(seconds))
    median, least, most = (f"{1e3 * part / steps:.{digits(part / steps)}f}" for part in parts)
    return f"{median} ({least}-{most})"


def digits(seconds: float) -> int:
    """Significant decimals of milliseconds."""
    return 0 if seconds >= 1 else 1 if seconds >= 0.01 else 2


def write(folder: Path, report: Report) -> None:
    """Write speed.json and speed.txt with the measurements so far."""
    floors = [
        {"work": asdict(work), **asdict(cost(work)), "seconds": report.floor_seconds(work)}
        for work in report.works()
    ]
    content = {
        **report.machine,
        "base": asdict(report.base),
        "repeats": report.repeats,
        "free_bytes": report.free_bytes,
        "rates": {precision: asdict(rates) for precision, rates in report.rates.items()},
        "notes": report.notes,
        "measurements": [asdict(m) for m in report.measurements],
        "missing": [{**asdict(m), "text": needs(m)} for m in report.missing],
        "floors": floors,
    }
    write_json(folder / "speed.json", content)
    with atomic_write(folder / "speed.txt") as temporary:
        temporary.write_text(table(report) + "\n", encoding="utf-8")


def read(folder: Path) -> Report:
    """Read the report in the folder.

    Raises:
        UserError: the file does not exist or has another format.
    """
    path = folder / "speed.json"
    content = read_json(path)
    if content is None:
        raise UserError(f"{path} does not exist; run: python -m bench.speed")
    try:
        fields = ("base", "repeats", "free_bytes", "rates", "notes")
        fields += ("measurements", "missing", "floors")
        return Report(
            {key: value for key, value in content.items() if key not in fields},
            Work(**content["base"]),
            content["repeats"],
            content["free_bytes"],
            {name: Rates(**rates) for name, rates in content["rates"].items()},
            [Measurement(**with_work(m)) for m in content["measurements"]],
            [Missing(**with_work(m, leave="text")) for m in content["missing"]],
            content["notes"],
        )
    except (KeyError, TypeError) as error:
        raise UserError(f"{path} has an unknown format ({error}); measure again") from error


def with_work(entry: dict[str, Any], leave: str = "") -> dict[str, Any]:
    """The fields of a measurement, without the key `leave`."""
    fields = {key: value for key, value in entry.items() if key != leave}
    return {**fields, "work": Work(**entry["work"])}


def describe_machine(environment: Environment) -> dict[str, Any]:
    """Hardware, threads, versions and commit."""
    from importlib.metadata import version

    from bench.speed.engines import TORCHOPT, installed
    from bench.system import git, versions
    from bench.system.machine import default_threads
    from bench.training.setup import choose_device

    peers = {TORCHOPT: version(TORCHOPT)} if installed(TORCHOPT) else {}
    return {
        "hardware": versions.hardware(choose_device(environment.device)),
        "threads": environment.threads or default_threads(),
        "versions": {**versions.versions(), **peers},
        **git.commit(),
    }
