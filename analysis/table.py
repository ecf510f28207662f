"""`python -m analysis.table table=1`: a table beside the paper's, or the scores, as Markdown, LaTeX
and CSV."""

from dataclasses import dataclass
from pathlib import Path

from analysis.arguments import Request
from bench.config.command_line import command, only, parse, setting, typed
from bench.config.grid import choose_scale
from bench.config.run_config import Environment, RunConfig
from bench.system.errors import UserError
from bench.system.files import make_folder

NAMES = ("1", "2", "parameterization", "inner_optimizer", "efficiency")
SCORES = "scores"  # beside random and all real images; the paper has no such table
KNOWN = ", ".join((*NAMES, SCORES))
USAGE = f"""
python -m analysis.table table=NAME [key=value ...]     our numbers beside the paper's: {KNOWN}
  scores: distilled sets beside random real images and the full training set; not in the paper
  give the settings that the sweep was given; every finished seed counts
"""


@dataclass(frozen=True)
class TableOptions:
    """What this command is asked to do."""

    table: str = setting("all", f"which table ({KNOWN}), or all")
    scale: str = setting("auto", "auto, quick, cpu or paper: the scale of the runs")
    seeds: int = setting(
        0, "seeds that should be there; 0: as many as the grid states", minimum=0, maximum=10_000
    )
    output: str = setting("", "folder of the tables; by default tables in results_root")


def main(argv: list[str]) -> int:
    """The command; returns its exit status."""
    given = parse(argv, TableOptions, RunConfig, Environment)
    options = typed(TableOptions, only(given, TableOptions))
    environment = typed(Environment, only(given, Environment))
    if options.table != "all" and options.table not in (*NAMES, SCORES):
        raise UserError(f"table={options.table} cannot be made; there are {KNOWN}, and all")
    scale, why = choose_scale(options.scale)
    print(f"scale={scale} ({why})")

    from analysis.load import stored_runs  # imports pandas: only once the command is checked
    from analysis.tables.cells import TABLES, table
    from analysis.tables.render import markdown, write
    from analysis.tables.scores import score_markdown, score_table, write_scores

    request = Request(argv, only(given, RunConfig), scale, options.seeds)
    root = Path(environment.results_root)
    stored = stored_runs(root)
    folder = Path(options.output) if options.output else root / "tables"
    make_folder(folder, "folder of the tables")
    for name in (*NAMES, SCORES) if options.table == "all" else [options.table]:
        stem = folder / request.stem(f"table{name}" if name.isdecimal() else f"table_{name}")
        if name == SCORES:
            scores = score_table(request, stored, root)
            print(f"\n{score_markdown(scores)}")
            paths = write_scores(scores, stem)
        else:
            made = table(TABLES[name], request, stored, root)
            print(f"\n{markdown(made, scale, request.settings())}")
            paths = write(made, scale, request.settings(), stem)
        for path in paths:
            print(path)
    return 0


if __name__ == "__main__":
    command(main, USAGE, TableOptions, RunConfig, Environment)
