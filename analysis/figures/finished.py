"""The finished runs that a figure shows, and what is said of those that are not there."""

from collections.abc import Sequence

from analysis.arguments import Request
from analysis.figures.specs import FigureSpec, ImageFigure
from analysis.load import Results, StoredRun, load_results, settings_of_others
from bench.config.command_line import words
from bench.config.grid import SCALES, Grid, load_grid
from bench.system.errors import UserError


def results_of(spec: FigureSpec, request: Request, stored: Sequence[StoredRun]) -> Results:
    """What a figure is drawn from.

    Raises:
        UserError: nothing is finished that the figure could show.
    """
    grid = load_grid(request.grid or spec.grid)
    results = _load(spec, request, stored, grid, request.scale)
    if not results.runs:
        raise UserError(_nothing(spec, request, stored, grid, results))
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
        told=spec.told,
    )
    if isinstance(spec, ImageFigure):
        results = results.restricted(spec.shows)
        if not results.experiments:
            raise UserError(f"figure {spec.number}: grid {grid.name} has no run {spec.what}")
    return results


def lacking_text(spec: FigureSpec, request: Request, results: Results) -> str:
    """What a figure lacks, and the command that makes it."""
    told = ", ".join(f"{run.label} seed {run.seed} ({run.state})" for run in results.missing)
    total = len(results.missing) + len(results.runs)
    return (
        f"figure {spec.number} lacks {len(results.missing)} of {total} runs: {told};"
        f" make them with: {request.sweep(results.grid)}"
    )


def _nothing(
    spec: FigureSpec,
    request: Request,
    stored: Sequence[StoredRun],
    grid: Grid,
    results: Results,
) -> str:
    """Why there is nothing to draw, and what can be done about it."""
    lines = [f"figure {spec.number}: no finished run of grid {grid.name} at scale={results.scale}"]
    begun = [run for run in results.missing if run.state != "not started"]
    if begun:
        lines.append(f"({', '.join(f'{run.label} seed {run.seed}: {run.state}' for run in begun)})")
    lines.append(f"; make them with: {request.sweep(grid.name)}")
    others = [path.stem for path in sorted(SCALES.glob("*.yaml")) if path.stem != results.scale]
    with_results = [s for s in others if _has_results(spec, request, stored, grid, s)]
    if with_results:
        lines.append(f"; there are results at scale={' and scale='.join(with_results)}")
    if apart := settings_of_others(stored, results):
        told = " ".join(f"{key}={value}" for key, value in apart.items())
        lines.append(f"; there are results of runs with other settings: {told}")
    return " ".join(lines).replace(" ;", ";")


def _has_results(
    spec: FigureSpec, request: Request, stored: Sequence[StoredRun], grid: Grid, scale: str
) -> bool:
    try:
        return bool(_load(spec, request, stored, grid, scale).runs)
    except UserError:  # the settings given do not go with that scale
        return False
