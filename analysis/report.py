"""`python -m analysis.report`: one HTML page with all verdicts, figures, tables and images."""

from dataclasses import dataclass
from pathlib import Path

from analysis.arguments import PublishedOptions
from bench.config.command_line import command, only, parse, setting, typed
from bench.config.run_config import Environment, RunConfig
from bench.system.files import atomic_write, make_folder
from bench.system.text import count

USAGE = """
python -m analysis.report [key=value ...]     verdicts, figures, tables, images on one page, to keep
  give the same settings as to the sweeps; every finished seed counts; the page is self-contained
"""


@dataclass(frozen=True)
class ReportOptions:
    """Options of this command."""

    scale: str = setting("auto", "auto, quick, cpu or paper: the scale of the runs")
    seeds: int = setting(
        0, "seeds that there should be; 0: as many as a grid states", minimum=0, maximum=10_000
    )
    output: str = setting("", "folder of the page; by default results_root")


def main(argv: list[str]) -> int:
    """The command; returns its exit status."""
    given = parse(argv, ReportOptions, PublishedOptions, RunConfig, Environment)
    options = typed(ReportOptions, only(given, ReportOptions))

    from analysis.published import opened  # imports pandas: only once the command is checked

    runs = opened(argv, given, options.scale, options.seeds)
    request, root = runs.request, runs.root

    from analysis.report_page.contents import report
    from analysis.report_page.html import html

    folder = make_folder(Path(options.output) if options.output else root, "folder of the page")
    page = report(request, runs.stored, root)
    print(f"claims: {', '.join(page.counts.values())}")
    figures = sum(bool(part.still) for part in page.figures)
    print(f"{figures} of {count(len(page.figures), 'figure')}, {count(len(page.tables), 'table')}")
    if page.commands:
        print("make what is missing with:")
        print("\n".join(f"    {line}" for line in page.commands))
    path = folder / f"{request.stem('report')}.html"
    with atomic_write(path) as temporary:
        temporary.write_text(html(page), encoding="utf-8")
    print(path)
    return 0


if __name__ == "__main__":
    command(main, USAGE, ReportOptions, PublishedOptions, RunConfig, Environment)
