"""`python -m bench.publish`: finished runs as small files with checksums, to be kept in git."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.anatomies.folder import finished_anatomies
from bench.config.command_line import command, only, parse, setting, typed, words
from bench.config.grid import choose_scale, grid_names
from bench.config.identity import experiment_identity, written_config
from bench.config.resolve import has_settings
from bench.config.run_config import Environment, RunConfig
from bench.publishing.catalog import REPORT, SUMS, check, in_units, read_sums, unit_of
from bench.publishing.others import anatomy_files, evaluation_files, evaluation_records
from bench.publishing.publication import Files, Publication, publication
from bench.publishing.reading import Published
from bench.publishing.records import (
    distilled_set,
    failed_run,
    progress_record,
    run_with_records,
)
from bench.publishing.selection import Selection, selected
from bench.publishing.size import MOST_MIB, bytes_by_kind, refuse_too_much, size_text
from bench.runs.run_folder import PICTURE, SET_FILE, RunFolder
from bench.system.errors import UserError
from bench.system.text import count

USAGE = """
python -m bench.publish [grid=NAME] [key=value ...]   adds finished runs to the published records
python -m bench.publish verify=true                   compares the records with their checksums
  give the same settings of runs as to the sweep; every finished seed is published, and every
  failed run; without grid= also anatomies, and what bench.evaluate and bench.scores recorded
"""


@dataclass(frozen=True)
class PublishOptions:
    """What is published."""

    grid: str = setting("all", "grids, comma-separated: names or paths of your own .yaml; or all")
    scale: str = setting("auto", "auto, quick, cpu or paper: the scale of the runs")
    only: str = setting("", "only these methods, comma-separated")
    where: dict[str, Any] = setting(
        {}, "only runs of the named grids with these settings, e.g. where.dataset=cifar10"
    )
    sets: str = setting(
        "first",
        "distilled sets and pictures that are published: of the lowest finished seed of each"
        " experiment (first), all or none",
        ("first", "all", "none"),
    )
    set_precision: str = setting(
        "float32",
        "float32: distilled sets are copied; float16: their images are rounded to half precision,"
        " which halves the files",
        ("float32", "float16"),
    )
    report: bool = setting(
        False,
        f"publish the report on the published records of this scale, as {REPORT}, also where no run"
        " is new; without it a page about other records is removed",
    )
    unfinished: bool = setting(
        False,
        "publish interrupted runs too: the outer steps and measurements that they have recorded,"
        " which `analysis.plot unfinished=true` draws",
    )
    drop_others: bool = setting(False, "remove published runs that this command does not select")
    published: str = setting("results/published", "folder of the published records")
    verify: bool = setting(False, "only compare the published records with their checksums")


def main(argv: list[str]) -> int:
    """The command; returns its exit status."""
    given = parse(argv, PublishOptions, RunConfig, Environment)
    options = typed(PublishOptions, only(given, PublishOptions))
    if not options.published:
        raise UserError("published= names no folder")
    root = Path(options.published)
    if options.verify:
        return verify(root)
    results_root = Path(typed(Environment, only(given, Environment)).results_root)
    scale, why = choose_scale(options.scale)
    print(f"scale={scale} ({why})", flush=True)
    overrides = only(given, RunConfig)
    grids = grid_names() if options.grid == "all" else words(options.grid)
    if not grids:
        raise UserError("grid= names no grid")
    if options.where and options.grid == "all":
        raise UserError("where selects runs of a grid: name it with grid=...")
    methods = words(options.only)
    runs = selected(results_root, grids, scale, overrides, methods, options.where)
    if not options.unfinished:
        runs.others.update(progress.state for _, progress in runs.unfinished)
        runs.unfinished.clear()
    only_report = options.report and not options.drop_others and bool(read_sums(root))
    # No grid has these. Without a run they must not be all that drop_others leaves.
    besides = others(results_root, scale, overrides) if options.grid == "all" else []
    only_others = bool(besides) and not options.drop_others
    if not (runs.finished or runs.failed or runs.unfinished or only_report or only_others):
        raise UserError(
            f"no finished run of {', '.join(grids)} at scale={scale} with these settings in"
            f" {results_root}"
        )
    with publication(root) as records:
        stage_runs(records, runs, options, results_root)
        for files in besides:
            records.stage(files)
        are_new = records.sums != records.former  # then the published page is not about them
        if are_new and not options.report:
            records.leave_out(REPORT)
        refuse_too_much(records, runs.grids)  # a new page takes about as much as the former one
        if are_new:
            records.leave_out(REPORT)
        records.publish()
        if options.report:  # drawn once the records are in their places, as every reader sees them
            print("drawing the report", flush=True)
            records.stage({REPORT: report_page(root, argv, overrides, scale)})
            refuse_too_much(records, runs.grids, "the records were published, the report was not")
            records.publish()
        print_summary(records, runs)
    return 0


def stage_runs(
    records: Publication, runs: Selection, options: PublishOptions, results_root: Path
) -> None:
    """Stage what is published of each run.

    Raises:
        UserError: the files of a run are damaged, or hold what must not be published.
    """
    from analysis.grid_entries import transfers_of

    published = Published(records.root).runs()
    if options.drop_others:
        for unit in in_units(records.former):
            if unit.startswith("runs/"):
                records.leave_out(unit)
        published = []
    first = runs.first_seeds(published)
    of_runs = {run.name: (config, run.read("result") or {}) for run, config in runs.finished}
    transfers = transfers_of(of_runs, results_root)
    for run, config in runs.finished:
        is_first = first[experiment_identity(config)] == config.seed
        with_set = options.sets == "all" or (options.sets == "first" and is_first)
        on_others = {network: e for (name, network), e in transfers.items() if name == run.name}
        precision = options.set_precision if with_set else ""
        records.stage(files_of(run, on_others, precision))
    finished = {unit_of(path) for path in records.sums if path.endswith("/result.json")}
    for run, progress in runs.failed:
        if f"runs/{run.name}" not in finished:
            config = run.read("config") or {}
            records.stage(failed_run(run.name, config, progress.kind, progress.step))
    for run, progress in runs.unfinished:
        if f"runs/{run.name}" not in finished:
            config, manifest = (run.read(name) or {} for name in ("config", "manifest"))
            end = {"progress": progress_record(config, "stopped", progress.step)}
            records.stage(run_with_records(run.name, config, manifest, end, tables_of(run), {}))


def others(results_root: Path, scale: str, overrides: dict[str, Any]) -> list[Files]:
    """The anatomies and evaluations of a scale with these settings, as they are published. An
    anatomy without a configuration of this version is skipped with a note.

    Raises:
        UserError: one is damaged, or holds what must not be published.
    """
    anatomies = []
    for folder in finished_anatomies(results_root):
        try:
            config = folder.config()
        except UserError as error:
            print(f"note: skipped: {error}", file=sys.stderr)
            continue
        if config.scale == scale and has_settings(config, overrides):
            anatomies.append(anatomy_files(folder))
    evaluations = evaluation_records(results_root, scale)
    return anatomies + [
        evaluation_files(name, record)
        for name, record in evaluations.items()
        if has_settings(written_config(record["config"]), overrides)
    ]


def files_of(run: RunFolder, transfers: dict[str, Any], precision: str) -> Files:
    """What is published of a finished run.

    Args:
        transfers: evaluations on other networks that `bench.evaluate` recorded, by network.
        precision: of the distilled set; empty: it is left out.
    """
    from analysis.verdicts.diversity import mean_distance

    config, manifest, result = (run.read(name) or {} for name in ("config", "manifest", "result"))
    run.compare()
    result.pop("checksums", None)  # of files that are not published as they are
    if transfers:
        result["transfers"] = {**transfers, **(result.get("transfers") or {})}
    if distance := mean_distance(run):
        result["image_distance"] = distance
    distilled = {
        name: (run.path / name).read_bytes()
        for name in (SET_FILE, PICTURE)
        if precision and (run.path / name).is_file()
    }
    if SET_FILE in distilled:
        content = distilled[SET_FILE]
        distilled[SET_FILE] = distilled_set(content, precision)
    end = {"result": result}
    return run_with_records(run.name, config, manifest, end, tables_of(run), distilled)


def tables_of(run: RunFolder) -> dict[str, Any]:
    """The records of a run as tables."""
    from analysis.records import collected

    return {name: collected(run, name) for name in ("metrics", "measurements")}


def report_page(root: Path, argv: list[str], overrides: dict[str, Any], scale: str) -> bytes:
    """The report on the published records of a scale."""
    from analysis.arguments import Request
    from analysis.published import with_published
    from analysis.report_page.contents import report
    from analysis.report_page.html import html

    published = Published(root)
    settings = Request(argv, overrides, scale).settings()
    request = Request([f"scale={scale}", *settings], overrides, scale, published=published)
    nothing = root / "no runs of our own"
    return html(report(request, with_published([], published), nothing)).encode()


def print_summary(records: Publication, runs: Selection) -> None:
    """What was published, and what was not."""
    former, now = in_units(records.former), in_units(records.sums)
    added = len(now.keys() - former.keys())
    replaced = sum(former[unit] != now[unit] for unit in now.keys() & former.keys())
    number = count(len(runs.finished), "finished run")
    failed = f" and {len(runs.failed)} that failed" if runs.failed else ""
    failed += f" and {len(runs.unfinished)} not finished" if runs.unfinished else ""
    print(
        f"{number}{failed}: {added} of {count(len(now), 'record')} added, {replaced} replaced,"
        f" {len(former.keys() - now.keys())} removed"
    )
    if runs.others:
        states = ", ".join(f"{number} {state}" for state, number in sorted(runs.others.items()))
        print(f"not published, because they are not finished: {states}")
    total = bytes_by_kind(records).total()
    print(f"{records.root}: {size_text(total)} of at most {MOST_MIB} MiB")


def verify(root: Path) -> int:
    """Compare every record with its checksum and print what is wrong; returns the exit status.

    Raises:
        UserError: there are no records.
    """
    if not (root / SUMS).is_file():
        raise UserError(f"{root} is no folder of published records: it has no {SUMS}")
    problems = check(root)
    for what, paths in vars(problems).items():
        for path in paths:
            print(f"{what}: {root / path}")
    number = count(len(read_sums(root)), "file")
    if problems:
        print(
            f"{root}: of {number}, {len(problems.damaged)} damaged and {len(problems.missing)}"
            f" missing; {len(problems.surplus)} surplus. Restore them from git, or publish again"
        )
        return 1
    print(f"{root}: {number} as published")
    return 0


if __name__ == "__main__":
    command(main, USAGE, PublishOptions, RunConfig, Environment)
