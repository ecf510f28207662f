"""The speeds in the documents are those of the published measurements."""

from pathlib import Path

import pytest

from bench.speed.engines import AUTO, AUTOGRAD, COMPILED, HIGHER, RECOMPUTING, TORCHOPT
from bench.speed.measure import Measurement
from bench.speed.report import read
from tests.conftest import REPOSITORY

PUBLISHED = REPOSITORY / "results" / "published"
ENGINES = (REPOSITORY / "bench" / "metagrad" / "README.md").read_text()
# By engine: words of its name in the table that no other name there has.
SAID = {
    HIGHER: "| `higher` |",
    TORCHOPT: "TorchOpt",
    AUTOGRAD: "autograd's derivatives",
    RECOMPUTING: "recomputing activations",
    AUTO: "storing activations",
    COMPILED: "`exact`, compiled",
}
README = " ".join((REPOSITORY / "README.md").read_text().split())


def measured(name: str, folder: Path) -> tuple[list[Measurement], list[str]]:
    """What a file holds about its first piece of work, and what the rows of a table say of each:
    all behind the engine's name."""
    (folder / "speed.json").write_text((PUBLISHED / name).read_text())
    report = read(folder)
    here = [one for one in report.measurements if one.work == report.base]
    (base,) = [one for one in here if one.engine == HIGHER]
    floor = report.floor_seconds(report.base)
    assert floor
    digits = 1 if base.median > 2 else 2
    rows = []
    for one in here:
        times = (one.median, min(one.seconds), max(one.seconds))
        median, least, most = (f"{each:.{digits}f}" for each in times)
        is_base = one is base
        rows.append(
            f"{median} s ({least} to {most})"
            f" | {'1' if is_base else f'{base.median / one.median:.2f}x'}"
            f" | {one.median / floor:.1f} | {one.first_seconds:.1f} s"
            f" | {one.peak_bytes / 2**20:.0f} MiB"
            f" | {'1' if is_base else f'{one.peak_bytes / base.peak_bytes:.2f}'} |"
        )
    return here, rows


@pytest.mark.parametrize("name", ["speed_h100.json", "speed_cpu_width64.json"])
def test_the_table_of_engines_is_that_of_the_measurements(name: str, tmp_path: Path) -> None:
    here, rows = measured(name, tmp_path)
    assert len(rows) >= 3
    lines = [line for line in ENGINES.splitlines() if line.startswith("|")]
    for one, row in zip(here, rows, strict=True):
        (line,) = [line for line in lines if line.endswith(row)]
        assert SAID[one.engine] in line


def test_the_readme_has_the_factors_of_these_measurements(tmp_path: Path) -> None:
    for name, text in (
        ("speed_h100.json", "takes {exact, compiled} s instead of {higher} s with `higher`"),
        ("speed_cpu_width64.json", "it is {exact, auto} times as fast with as much memory"),
        ("speed_cpu_width64.json", "or {exact, recomputing} times with a twentieth of it"),
    ):
        here, _ = measured(name, tmp_path)
        seconds = {one.engine: one.median for one in here}
        factor = {engine: seconds[HIGHER] / each for engine, each in seconds.items()}
        shown = seconds if "instead" in text else factor
        for engine, value in shown.items():
            text = text.replace(f"{{{engine}}}", f"{value:.2f}")
        assert text in README
