"""`python -m analysis.table table=1`: our numbers beside the paper's, or the scores, as Markdown,
LaTeX and CSV."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from analysis.arguments import PublishedOptions, Request
from bench.config.command_line import command, only, parse, setting, typed
from bench.config.run_config import Environment, RunConfig
from bench.system.errors import UserError
from bench.system.files import make_folder

if TYPE_CHECKING:
    from analysis.load import StoredRun
    from analysis.rendered_table import RenderedTable

NAMES = ("1", "2", "parameterization", "inner_optimizer", "efficiency")
RIVALS = ("rivals", "rivals_ipc10")  # not in the paper, as scores
SCORES = "scores"
SETTINGS = "settings"
POWER = "power"
OF_ANY_GRID = ("norms", "accuracies", "summary")
EVALUATIONS = "evaluations"
ALL = (*NAMES, *RIVALS, SCORES, *OF_ANY_GRID, EVALUATIONS, SETTINGS, POWER)
OF_WHAT_THERE_IS = (*OF_ANY_GRID, EVALUATIONS)  # refused where there is nothing
KNOWN = ", ".join(ALL)
USAGE = f"""
python -m analysis.table table=NAME [key=value ...]     our numbers beside the paper's: {KNOWN}
  rivals: the other systems of Table 1, run here: accuracy, storage, seconds and memory;
    rivals_ipc10: the same at ten images per class
  scores: distilled sets beside random real images and the full training set; not in the paper
  norms, accuracies: of every seed during distillation; grid=NAME, by default methods_comparison
  summary: every experiment of a grid over its seeds: final accuracy, norms, time and memory
  evaluations: what bench.evaluate and bench.scores recorded of single distilled sets
  settings: every setting of scale=paper with its source; needs no runs, as power
  power: how probably the seeds of scale=paper decide each claim, at the paper's own effects
  give the same settings as to the sweep; every finished seed counts
"""


@dataclass(frozen=True)
class TableOptions:
    """Options of this command."""

    table: str = setting("all", f"which table ({KNOWN}), or all")
    scale: str = setting("auto", "auto, quick, cpu or paper: the scale of the runs")
    seeds: int = setting(
        0, "seeds that there should be; 0: as many as the grid states", minimum=0, maximum=10_000
    )
    grid: str = setting(
        "",
        "settings, norms, accuracies, summary: name or path of the grid; settings: by default all",
    )
    unfinished: bool = setting(
        False, "norms, accuracies: show also runs that are not finished, as far as they have come"
    )
    output: str = setting("", "folder of the tables; by default tables in results_root")


def main(argv: list[str]) -> int:
    """The command; returns its exit status."""
    given = parse(argv, TableOptions, PublishedOptions, RunConfig, Environment)
    options = typed(TableOptions, only(given, TableOptions))
    if options.table != "all" and options.table not in ALL:
        raise UserError(f"table={options.table} is not a table; there are {KNOWN}, and all")
    if options.grid and options.table not in (SETTINGS, *OF_ANY_GRID):
        raise UserError(
            f"grid={options.grid} is for table={SETTINGS}, {', '.join(OF_ANY_GRID)} only"
        )

    from analysis.published import opened  # imports pandas: only once the command is checked

    runs = opened(argv, given, options.scale, options.seeds, options.grid)
    request, root = replace(runs.request, unfinished=options.unfinished), runs.root
    folder = Path(options.output) if options.output else root / "tables"
    make_folder(folder, "folder of the tables")
    for name in ALL if options.table == "all" else [options.table]:
        try:
            table = rendered(name, request, runs.stored, root)
        except UserError as error:
            if options.table != "all" or name not in OF_WHAT_THERE_IS:
                raise
            print(f"note: {error}", file=sys.stderr)  # the other tables are of what there is
            continue
        print(f"\n{table.markdown()}")
        about = replace(request, scale="paper") if name in (SETTINGS, POWER) else request
        stem = about.stem(f"table{name}" if name.isdecimal() else f"table_{name}")
        for path in table.write(folder / stem):
            print(path)
    return 0


def rendered(
    name: str, request: Request, stored: "Sequence[StoredRun]", root: Path
) -> "RenderedTable":
    """The table of this name.

    Raises:
        UserError: an unknown setting or grid.
    """
    from analysis.course import accuracy_table, norm_table
    from analysis.summary import summary_table
    from analysis.tables.beside_paper import beside_paper
    from analysis.tables.cells import TABLES
    from analysis.tables.evaluations import evaluation_table
    from analysis.tables.rivals import rival_frames, rival_table
    from analysis.tables.scores import score_table
    from analysis.tables.settings import settings_table
    from analysis.verdicts.power_table import power_table

    match name:
        case _ if name in RIVALS:
            return rival_table(name, request, stored, root)
        case "scores":
            return score_table(request, stored, root)
        case "norms":
            return norm_table(request, stored)
        case "accuracies":
            return accuracy_table(request, stored)
        case "summary":
            return summary_table(request, stored)
        case "evaluations":
            return evaluation_table(request, root)
        case "settings":
            return settings_table(request.grid)
        case "power":
            return power_table(request.seeds)
        case _:
            table = beside_paper(TABLES[name], request, stored, root)
            if name != "1":
                return table
            # Table 1 quotes the rivals; beside it those that were run here.
            beside = rival_frames(request, stored, root)
            return replace(table, frames=[*table.frames, *beside])


if __name__ == "__main__":
    command(main, USAGE, TableOptions, PublishedOptions, RunConfig, Environment)
