"""`python -m analysis.plot figure=5`: a figure as PNG, PDF and the CSV behind it."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from analysis.arguments import PublishedOptions, Request
from analysis.figures.specs import FIGURES, FigureSpec, WindowFigure
from bench.config.command_line import command, only, parse, setting, typed
from bench.config.run_config import Environment, RunConfig
from bench.config.values import shown
from bench.system.errors import UserError
from bench.system.files import make_folder

if TYPE_CHECKING:
    from analysis.load import StoredRun

ANATOMY = "anatomy"
KNOWN = ", ".join([*map(str, FIGURES), ANATOMY])
USAGE = f"""
python -m analysis.plot figure=N [key=value ...]     a figure from finished runs: {KNOWN}
  numbers are the paper's; give the same settings as to the sweep; every finished seed is drawn;
  figure 1 needs no runs; figure=anatomy draws what bench.anatomy measured, all only one seed of it
"""


@dataclass(frozen=True)
class PlotOptions:
    """Options of this command."""

    figure: str = setting(
        "all", f"number of the paper's figure, or name of one of ours ({KNOWN}), or all"
    )
    scale: str = setting("auto", "auto, quick, cpu or paper: the scale of the runs")
    grid: str = setting("", "another grid to draw in this way: a name or your own .yaml")
    seeds: int = setting(
        0, "seeds that there should be; 0: as many as the grid states", minimum=0, maximum=10_000
    )
    only: str = setting("", "only these methods, comma-separated")
    unfinished: bool = setting(
        False, "draw also runs that are not finished, as far as they have come: curves only"
    )
    output: str = setting("", "folder of the figures; by default figures in results_root")
    caption: bool = setting(
        True, "draw the caption beneath the figure; false: write it to a .txt file beside it"
    )


def main(argv: list[str]) -> int:
    """The command; returns its exit status."""
    given = parse(argv, PlotOptions, PublishedOptions, RunConfig, Environment)
    options = typed(PlotOptions, only(given, PlotOptions))
    specs = chosen(options.figure)

    from analysis.published import opened  # imports pandas: only once the command is checked

    runs = opened(argv, given, options.scale, options.seeds, options.grid, options.only)
    request, root = replace(runs.request, unfinished=options.unfinished), runs.root
    folder = Path(options.output) if options.output else root / "figures"
    errors: list[UserError] = []
    anatomies: list[Path] = []
    if options.figure in (ANATOMY, "all"):
        anatomies = plot_anatomies(options, request, root, folder)
    for path in anatomies:
        print(path)
    for spec in specs:
        try:
            for path in plot(spec, request, runs.stored, folder, options.caption):
                print(path)
        except UserError as error:
            errors.append(error)
    needing_runs = [spec for spec in specs if not isinstance(spec, WindowFigure)]
    no_figure = errors and not anatomies and len(errors) >= len(needing_runs)
    lines = list(dict.fromkeys(map(str, errors)))  # all may have the same cause
    for line in lines[1:] if no_figure else lines:
        print(f"note: {line}", file=sys.stderr)
    if no_figure:
        raise errors[0]
    return 0


def chosen(figure: str) -> list[FigureSpec]:
    """The figures that `figure=` names.

    Raises:
        UserError: there is no such figure.
    """
    if figure == "all":
        return list(FIGURES.values())
    if figure == ANATOMY:
        return []
    known = {str(key): spec for key, spec in FIGURES.items()}
    if figure not in known:
        raise UserError(f"figure={shown(figure)} is not a figure; there are {KNOWN}, and all")
    return [known[figure]]


def plot(
    spec: FigureSpec,
    request: Request,
    stored: "Sequence[StoredRun]",
    folder: Path,
    with_caption: bool,
) -> list[Path]:
    """Draw one figure from its finished runs and note the missing ones; returns the paths written.

    Raises:
        UserError: no run of the figure is finished, or `folder` cannot be written.
    """
    if isinstance(spec, WindowFigure):
        from analysis.figures.pictures import picture_of_windows

        picture = picture_of_windows(spec, request)
    else:
        from analysis.figures.finished import lacking_text, results_of

        results = results_of(spec, request, stored)
        from analysis.figures.pictures import picture_of

        picture = picture_of(spec, results, request)
        if results.missing:
            print(f"note: {lacking_text(spec, request, results)}", file=sys.stderr)

    from analysis.figures.page import save

    make_folder(folder, "folder of the figures")
    return save(picture, folder / request.stem(spec.stem), with_caption)


def plot_anatomies(options: PlotOptions, request: Request, root: Path, folder: Path) -> list[Path]:
    """Draw every finished anatomy that has the settings of the request, or with `figure=all` one
    of each that differ in the seed only; returns the paths.

    Raises:
        UserError: figure=anatomy was given and there is none, or `folder` cannot be written.
    """
    from analysis.figures.anatomy import anatomies_of, nothing_text, one_of_each, others_text

    anatomies = anatomies_of(root, request)
    if options.figure == ANATOMY:
        if not anatomies:
            raise UserError(nothing_text(root, request))
    else:
        every, anatomies = len(anatomies), one_of_each(anatomies)
        if text := others_text(every - len(anatomies), request):
            print(f"note: {text}", file=sys.stderr)
    from analysis.figures.page import save
    from analysis.figures.pictures import picture_of_anatomy

    make_folder(folder, "folder of the figures")
    return [
        path
        for anatomy in anatomies
        for path in save(
            picture_of_anatomy(anatomy),
            folder / request.stem(f"anatomy_{anatomy.folder.name}"),
            options.caption,
        )
    ]


if __name__ == "__main__":
    command(main, USAGE, PlotOptions, PublishedOptions, RunConfig, Environment)
