"""What a report holds: every figure and table, the verdicts, and where their numbers come from.

Imports matplotlib and plotly, so it is imported only once there is a page to make.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from analysis.arguments import Request, sweeps_first
from analysis.figures.specs import FIGURES
from analysis.grid_entries import grid_runs
from analysis.load import Results, StoredRun, load_results
from analysis.provenance import Origin, common_settings, machines, origin_of, own_settings
from analysis.report_page.parts import (
    FigurePart,
    ImagePart,
    TablePart,
    figure_part,
    image_parts,
    score_part,
    table_part,
)
from analysis.report_page.scorecard import Line, counts, lines
from analysis.tables.cells import TABLES, table
from analysis.tables.scores import score_table
from analysis.verdicts.judge import load_claims, outcomes
from analysis.verdicts.texts import RULES
from analysis.verdicts.texts import caption as claims_caption
from bench.config.grid import grid_names, load_grid

SHOWN_GRIDS = ("methods_comparison", "parameterization", "standard_benchmarks")


@dataclass(frozen=True)
class Report:
    """All of it, in the order of the page; texts are plain, not HTML, except charts and frames."""

    scale: str
    settings: list[str]
    counts: dict[str, str]
    claims: list[Line]
    claims_caption: str
    rules: str
    figures: list[FigurePart]
    tables: list[TablePart]
    images: list[ImagePart]
    origins: list[Origin]
    machines: dict[str, dict[str, int]]
    common: dict[str, str]
    own: list[tuple[str, list[tuple[str, str]]]]
    commands: list[str]


def report(request: Request, stored: Sequence[StoredRun], root: Path) -> Report:
    """Everything that the runs under `root` have to say at one scale.

    Raises:
        UserError: a setting that no run has.
    """
    grids = [_results(name, request, stored) for name in grid_names()]
    found = outcomes(load_claims(), request, stored, root)
    made = [table(spec, request, stored, root) for spec in TABLES.values()]
    commands = [line for outcome in found for line in outcome.commands]
    commands += [line for one in made for cell in one.cells for line in cell.commands]
    scores = score_table(request, stored, root)
    commands += scores.missing[1:]
    commands += [request.sweep(results.grid) for results in grids if results.missing]
    with_runs = [results for results in grids if results.runs]
    common = common_settings(with_runs)
    return Report(
        scale=request.scale,
        settings=request.settings(),
        counts=counts(found),
        claims=lines(found),
        claims_caption=claims_caption(found, request),
        rules=RULES.strip(),
        figures=[figure_part(spec, request, stored) for spec in FIGURES.values()],
        tables=[*(table_part(one, request) for one in made), score_part(scores)],
        images=[
            part
            for name in SHOWN_GRIDS
            for part in image_parts(grid_runs(name, request, stored, root))
        ],
        origins=[origin_of(results, load_grid(results.grid).about) for results in grids],
        machines=machines({run.folder.name: run for g in grids for run in g.runs}.values()),
        common=common,
        own=[(results.grid, own_settings(results, common)) for results in with_runs],
        commands=sweeps_first(commands),
    )


def _results(name: str, request: Request, stored: Sequence[StoredRun]) -> Results:
    return load_results(
        stored, load_grid(name), request.scale, request.overrides, seeds=request.seeds or None
    )
