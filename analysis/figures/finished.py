"""The finished runs that a figure shows, and messages about those that are missing."""

from collections.abc import Sequence

from analysis.arguments import Request
from analysis.figures.specs import CurveFigure, FigureSpec, ImageFigure
from analysis.load import Results, StoredRun, load_results, settings_of_others
from bench.config.command_line import words
from bench.config.grid import SCALES, Grid, load_grid
from bench.system.errors import UserError


def results_of(
    spec: FigureSpec, request: Request, stored: Sequence[StoredRun], shown_in: str = ""
) -> Results:
    """The runs that a figure shows, or a table that names experiments as this figure does.

    Args:
        shown_in: what errors name instead of the figure.

    Raises:
        UserError: none of them is finished.
    """
    grid = load_grid(request.grid or spec.grid)
    results = _load(spec, request, stored, grid, request.scale)
    if not results.runs:
        nothing = _nothing(spec, request, stored, grid, results)
        raise UserError(f"{shown_in or f'figure {spec.key}'}: {nothing}")
    return results


def _load(
    spec: FigureSpec, request: Request, stored: Sequence[StoredRun], grid: Grid, scale: str
) -> Results:
    results = load_results(
        stored,
        grid,
        scale,
        request.overrides,
        seeds=request.seeds or None,
        methods=words(request.only),
        variants=spec.variants,
        unlabeled=spec.unlabeled,
        unfinished=request.unfinished and isinstance(spec, CurveFigure),
    )
    if isinstance(spec, ImageFigure):
        results = results.restricted(spec.shows)
        if not results.experiments:
            raise UserError(f"figure {spec.key}: grid {grid.name} has no run {spec.what}")
    return results


def lacking_text(spec: FigureSpec, request: Request, results: Results) -> str:
    """The runs that a figure lacks, and the command that makes those that can be made."""
    runs = ", ".join(
        f"{run.experiment.label} seed {run.seed} ({run.state})" for run in results.missing
    )
    total = len(results.missing) + sum(bool(run.result) for run in results.runs)
    command = f"; make them with: {request.sweep(results.grid)}" if results.can_be_made() else ""
    return f"figure {spec.key} lacks {len(results.missing)} of {total} runs: {runs}{command}"


def _nothing(
    spec: FigureSpec,
    request: Request,
    stored: Sequence[StoredRun],
    grid: Grid,
    results: Results,
) -> str:
    """Why there is nothing to draw, and what to do about it."""
    lines = [f"no finished run of grid {grid.name} at scale={results.scale}"]
    started = [
        f"{run.experiment.label} seed {run.seed}: {run.state}"
        for run in results.missing
        if run.state != "not started"
    ]
    if started:
        lines.append(f"({', '.join(started)})")
    lines.append(f"; make them with: {request.sweep(grid.name)}")
    others = [path.stem for path in sorted(SCALES.glob("*.yaml")) if path.stem != results.scale]
    with_results = [s for s in others if _has_results(spec, request, stored, grid, s)]
    if with_results:
        lines.append(f"; there are results at scale={' and scale='.join(with_results)}")
    if others_settings := settings_of_others(stored, results):
        text = " ".join(f"{key}={value}" for key, value in others_settings.items())
        lines.append(f"; there are results of runs with other settings: {text}")
    return " ".join(lines).replace(" ;", ";")


def _has_results(
    spec: FigureSpec, request: Request, stored: Sequence[StoredRun], grid: Grid, scale: str
) -> bool:
    try:
        return bool(_load(spec, request, stored, grid, scale).runs)
    except UserError:  # the settings given do not go with that scale
        return False
