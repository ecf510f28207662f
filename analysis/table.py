"""`python -m analysis.table table=1`: our numbers beside the paper's, or the scores, as Markdown,
LaTeX and CSV."""

from dataclasses import dataclass
from pathlib import Path

from analysis.arguments import Request
from bench.config.command_line import command, only, parse, setting, typed
from bench.config.grid import choose_scale
from bench.config.run_config import Environment, RunConfig
from bench.system.errors import UserError
from bench.system.files import make_folder

NAMES = ("1", "2", "parameterization", "inner_optimizer", "efficiency")
SCORES = "scores"  # not in the paper
KNOWN = ", ".join((*NAMES, SCORES))
USAGE = f"""
python -m analysis.table table=NAME [key=value ...]     our numbers beside the paper's: {KNOWN}
  scores: distilled sets beside random real images and the full training set; not in the paper
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
    output: str = setting("", "folder of the tables; by default tables in results_root")


def main(argv: list[str]) -> int:
    """The command; returns its exit status."""
    given = parse(argv, TableOptions, RunConfig, Environment)
    options = typed(TableOptions, only(given, TableOptions))
    environment = typed(Environment, only(given, Environment))
    if options.table != "all" and options.table not in (*NAMES, SCORES):
        raise UserError(f"table={options.table} is not a table; there are {KNOWN}, and all")
    scale, why = choose_scale(options.scale)
    print(f"scale={scale} ({why})")

    from analysis.load import stored_runs  # imports pandas: only once the command is checked
    from analysis.tables.beside_paper import beside_paper
    from analysis.tables.cells import TABLES
    from analysis.tables.scores import score_table

    request = Request(argv, only(given, RunConfig), scale, options.seeds)
    root = Path(environment.results_root)
    stored = stored_runs(root)
    folder = Path(options.output) if options.output else root / "tables"
    make_folder(folder, "folder of the tables")
    for name in (*NAMES, SCORES) if options.table == "all" else [options.table]:
        if name == SCORES:
            table = score_table(request, stored, root)
        else:
            table = beside_paper(TABLES[name], request, stored, root)
        print(f"\n{table.markdown()}")
        stem = request.stem(f"table{name}" if name.isdecimal() else f"table_{name}")
        for path in table.write(folder / stem):
            print(path)
    return 0


if __name__ == "__main__":
    command(main, USAGE, TableOptions, RunConfig, Environment)
