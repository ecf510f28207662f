"""The contents of a report: every figure and table, the verdicts, and the source of the numbers.

Imports matplotlib and plotly, so it is imported only once there is a page to make.
"""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from analysis.arguments import Request, sweeps_first
from analysis.figures.anatomy import anatomies_of, one_of_each, others_text
from analysis.figures.specs import FIGURES
from analysis.grid_entries import grid_runs
from analysis.load import Results, StoredRun, load_results
from analysis.provenance import Origin, common_settings, machines, origin_of, special_settings
from analysis.report_page.parts import (
    FigurePart,
    ImagePart,
    TablePart,
    anatomy_part,
    figure_part,
    image_parts,
    table_part,
)
from analysis.report_page.scorecard import Line, counts, lines
from analysis.tables.beside_paper import beside_paper
from analysis.tables.cells import TABLES
from analysis.tables.evaluations import evaluation_table
from analysis.tables.rivals import RIVALS, rival_table
from analysis.tables.scores import score_table
from analysis.tables.settings import settings_table
from analysis.verdicts.judge import load_claims, outcomes
from analysis.verdicts.power_table import power_table
from analysis.verdicts.table_cells import cell_claims
from analysis.verdicts.texts import RULES, claims_caption
from bench.config.grid import grid_names, load_grid
from bench.system.errors import UserError

SHOWN_GRIDS = ("methods_comparison", "parameterization", "standard_benchmarks")


@dataclass(frozen=True)
class Report:
    """The contents in the order of the page; texts are plain, except charts and frames (HTML)."""

    scale: str
    settings: list[str]
    counts: dict[str, str]
    claims: list[Line]
    finding_counts: dict[str, str]
    findings: list[Line]
    claims_caption: str
    rules: str
    figures: list[FigurePart]
    anatomies: list[FigurePart]
    anatomies_note: str
    tables: list[TablePart]
    images: list[ImagePart]
    origins: list[Origin]
    machines: dict[str, dict[str, int]]
    common: dict[str, str]
    special: list[tuple[str, list[tuple[str, str]]]]
    commands: list[str]


def report(request: Request, stored: Sequence[StoredRun], root: Path) -> Report:
    """The report on the runs under `root` at one scale.

    Raises:
        UserError: an unknown setting.
    """
    grids = [_results(name, request, stored) for name in grid_names()]
    verdicts = outcomes([*load_claims(), *cell_claims()], request, stored, root)
    findings = [one for one in verdicts if one.claim.kind == "finding"]
    of_paper = [one for one in verdicts if one.claim.kind != "finding"]
    tables = [beside_paper(spec, request, stored, root) for spec in TABLES.values()]
    tables += [rival_table(name, request, stored, root) for name in RIVALS]
    tables.append(score_table(request, stored, root))
    with suppress(UserError):  # there are none
        tables.append(evaluation_table(request, root))
    tables += [power_table(request.seeds), settings_table()]
    commands = [line for one in (*verdicts, *tables) for line in one.commands]
    commands += [request.sweep(results.grid) for results in grids if results.can_be_made()]
    with_runs = [results for results in grids if results.runs]
    common = common_settings(with_runs)
    anatomies = anatomies_of(root, request)
    shown = one_of_each(anatomies)
    return Report(
        scale=request.scale,
        settings=request.settings(),
        counts=counts(of_paper),
        claims=lines(of_paper),
        finding_counts=counts(findings),
        findings=lines(findings),
        claims_caption=claims_caption(verdicts, request),
        rules=RULES.strip(),
        figures=[figure_part(spec, request, stored) for spec in FIGURES.values()],
        anatomies=[anatomy_part(anatomy) for anatomy in shown],
        anatomies_note=others_text(len(anatomies) - len(shown), request),
        tables=[table_part(table) for table in tables],
        images=[
            part
            for name in SHOWN_GRIDS
            for part in image_parts(grid_runs(name, request, stored, root))
        ],
        origins=[origin_of(results, load_grid(results.grid).about) for results in grids],
        machines=machines({run.folder.name: run for g in grids for run in g.runs}.values()),
        common=common,
        special=[(results.grid, special_settings(results, common)) for results in with_runs],
        commands=sweeps_first(commands),
    )


def _results(name: str, request: Request, stored: Sequence[StoredRun]) -> Results:
    return load_results(
        stored, load_grid(name), request.scale, request.overrides, seeds=request.seeds or None
    )
