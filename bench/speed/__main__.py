"""The command `python -m bench.speed`."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bench.config.command_line import command, only, parse, setting, typed
from bench.config.run_config import Environment
from bench.speed.engines import TORCHOPT, can, engines, installed, precisions
from bench.speed.measure import Measurement, Missing, measure
from bench.speed.memory_prediction import USABLE, free_bytes, predicted_bytes, smaller_did_not_fit
from bench.speed.precision_errors import WORK, errors_table, measure_errors
from bench.speed.rates import is_emulated, measure_rates
from bench.speed.report import Report, describe_machine, needs, read, table, write
from bench.speed.work import GROWTH, QUICK_GROWTH, Work, variations
from bench.system.errors import UserError
from bench.system.files import make_folder, write_json
from bench.system.process_call import Failed, OutOfMemory, call

USAGE = """
python -m bench.speed [quick=true] [key=value ...]    time and memory of each engine
python -m bench.speed errors=true                     what each precision costs in exactness
"""

QUICK = {"width": 32, "images": 20, "window": 10, "repeats": 3}


@dataclass(frozen=True)
class SpeedOptions:
    """Options of this command."""

    quick: bool = setting(False, "a smaller network, fewer steps: under two minutes on two cores")
    growth: bool = setting(
        True, "also vary window, warm-up, width, target batch and precision (quick: window only)"
    )
    repeats: int = setting(5, "outer steps timed, after one to warm up", minimum=2)
    compiled: bool = setting(False, "also measure compiled steps on a CPU (a GPU always does)")
    errors: bool = setting(
        False, "measure no speed, but the error of each precision against float64 (ten minutes)"
    )
    redraw: bool = setting(False, "measure nothing: table and picture of what is in speed.json")


def main(argv: list[str]) -> int:
    """The command; returns its exit status."""
    arguments = parse(argv, SpeedOptions, Work, Environment)
    quick = QUICK if typed(SpeedOptions, only(arguments, SpeedOptions)).quick else {}
    settings = {**quick, **arguments}
    options = typed(SpeedOptions, only(settings, SpeedOptions))
    work = typed(Work, only(settings, Work))
    environment = typed(Environment, only(settings, Environment))
    folder = make_folder(Path(environment.results_root) / "speed", "results folder")
    # Before torch is imported, which takes some seconds.
    if not options.redraw:
        print("looking at this machine ...", flush=True)
    if options.errors:
        return report_errors(work_of_errors(arguments), environment, folder)
    report = read(folder) if options.redraw else measure_all(options, work, environment, folder)
    print(table(report))
    # On demand: matplotlib takes a second to import.
    from bench.speed.picture import draw

    for path in [folder / "speed.json", folder / "speed.txt", *draw(report, folder)]:
        print(f"written: {path}")
    return 0


def work_of_errors(arguments: dict[str, Any]) -> Work:
    """The work of `errors=true`, with the sizes that the user gave.

    Raises:
        UserError: a setting that `errors=true` varies itself.
    """
    given = only(arguments, Work)
    for key in ("window", "warm_up", "precision", "conv_bias"):
        if key in given:
            raise UserError(
                f"{key}={given[key]}: errors=true measures windows of its own, and each precision"
                " with and without biases"
            )
    return typed(Work, {**asdict(WORK), **given})


def report_errors(work: Work, environment: Environment, folder: Path) -> int:
    """Print and write the errors of the precisions; return the exit status."""
    print("the error of each precision against float64 ...", flush=True)
    try:
        errors = call(measure_errors, environment, work)
    except (OutOfMemory, Failed) as error:
        reason = "memory ran out" if isinstance(error, OutOfMemory) else error
        raise UserError(f"the errors of {work} cannot be measured: {reason}") from error
    print(errors_table(errors, work))
    content = {
        **describe_machine(environment),
        "work": asdict(work),
        "errors": [asdict(error) for error in errors],
    }
    write_json(folder / "errors.json", content)
    print(f"written: {folder / 'errors.json'}")
    return 0


def measure_all(
    options: SpeedOptions, work: Work, environment: Environment, folder: Path
) -> Report:
    """Every engine on every piece of work; written to the folder after each."""
    from bench.speed.work import make_network
    from bench.training.setup import choose_device

    device = choose_device(environment.device)
    if work.precision not in precisions(device.type):
        raise UserError(f"precision={work.precision} is measured on NVIDIA GPUs only")
    make_network(work)  # refuses what is impossible before anything is measured
    report = Report(describe_machine(environment), work, options.repeats, free_bytes(device.type))
    if not installed(TORCHOPT):
        report.notes.append("torchopt is not installed and not measured: pip install -e '.[peers]'")
        print(report.notes[-1])
    growth = QUICK_GROWTH if options.quick else {**GROWTH, "precision": precisions(device.type)}
    works = variations(work, growth) if options.growth else [work]
    works = without_emulated(report, works, environment)
    tasks = [
        (engine, piece)
        for piece in works
        for engine in engines(device.type, options.compiled)
        if can(engine, piece.precision)
    ]
    for k, (engine, piece) in enumerate(tasks):
        print(f"[{k + 1}/{len(tasks)}] {engine}: {piece} ...", end=" ", flush=True)
        outcome = attempt(engine, piece, options.repeats, environment, report, device.type)
        if isinstance(outcome, Measurement):
            report.measurements.append(outcome)
            print(f"{outcome.median:.2f} s, {outcome.peak_bytes / 2**20:.0f} MiB", flush=True)
        else:
            report.missing.append(outcome)
            print(needs(outcome), flush=True)
        write(folder, report)
    # Again: a machine that was busy with something else at the start would give too high a floor.
    for precision in list(report.rates):
        update_rates(report, precision, environment)
    write(folder, report)
    return report


def without_emulated(report: Report, works: list[Work], environment: Environment) -> list[Work]:
    """Measure the machine's rates in each precision; return the works in those it has units for.
    Adds a note for each precision skipped.

    Raises:
        UserError: the machine only emulates the precision of `report.base`.
    """
    skipped = []
    for precision in dict.fromkeys(["float32", *(piece.precision for piece in works)]):
        update_rates(report, precision, environment)
        rates, single = (report.rates.get(name) for name in (precision, "float32"))
        if not (rates and single and is_emulated(rates, single)):
            continue
        speed, usual = rates.operations / 1e9, single.operations / 1e9
        why = (
            f"this machine only emulates it ({speed:.1f} GFLOP/s in matrix products, in float32"
            f" {usual:.1f})"
        )
        if precision == report.base.precision:
            raise UserError(f"precision={precision} is not measured: {why}")
        report.notes.append(f"{precision} is skipped: {why}")
        print(report.notes[-1], flush=True)
        skipped.append(precision)
        del report.rates[precision]
    return [piece for piece in works if piece.precision not in skipped]


def update_rates(report: Report, precision: str, environment: Environment) -> None:
    """Measure the machine's rates; `report` keeps the best so far."""
    print(f"rates of this machine, {precision} ...", end=" ", flush=True)
    try:
        rates = call(measure_rates, precision, environment, waiting=print_seconds)
    except (OutOfMemory, Failed) as error:  # then there is no floor to compare with
        print(f"not measured: {error or 'out of memory'}", flush=True)
        return
    report.rates[precision] = rates.best(report.rates.get(precision, rates))
    print(f"{rates.operations / 1e9:.1f} GFLOP/s, {rates.bytes / 1e9:.1f} GB/s", flush=True)


def print_seconds(seconds: float) -> None:
    """Show that a measurement is still running."""
    print(f"{seconds:.0f} s ...", end=" ", flush=True)


def attempt(
    engine: str,
    work: Work,
    repeats: int,
    environment: Environment,
    report: Report,
    device_type: str,
) -> Measurement | Missing:
    """Measure in a fresh process, unless it is predicted not to fit."""
    free = free_bytes(device_type)
    smaller = smaller_did_not_fit(engine, work, report.missing)
    needed = predicted_bytes(engine, work, report.measurements)
    if needed is not None and needed > USABLE * free:
        return Missing(engine, work, needed, False, "predicted from smaller work; not started")
    if needed is None and smaller and smaller.needed_bytes is not None:
        return Missing(engine, work, smaller.needed_bytes, True, "less did not fit; not started")
    try:
        return call(measure, engine, work, repeats, environment, waiting=print_seconds)
    except OutOfMemory:
        return Missing(engine, work, free, True, "ran out of memory")
    except Failed as failure:
        return Missing(engine, work, None, False, f"failed: {failure}")


if __name__ == "__main__":
    command(main, USAGE, SpeedOptions, Work, Environment)
