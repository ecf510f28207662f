"""Plot time and memory of each engine as one size of the work grows."""

import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.speed.engines import AUTO, AUTOGRAD, COMPILED, HIGHER, RECOMPUTING, TORCHOPT
from bench.speed.measure import Measurement
from bench.speed.memory_prediction import differs_in
from bench.speed.report import Report
from bench.speed.work import Work
from bench.system.files import atomic_write

AXES = {
    "window": "window, inner steps",
    "warm_up": "warm-up, inner steps",
    "width": "width, channels",
    "target_batch": "target batch, images",
}
# Okabe and Ito's colours; dashes and markers say the same without colour.
LOOKS = {
    HIGHER: ("#D55E00", "-", "o"),
    TORCHOPT: ("#CC79A7", "--", "D"),
    AUTOGRAD: ("#E69F00", ":", "P"),
    RECOMPUTING: ("#56B4E9", "--", "^"),
    AUTO: ("#000000", "-", "s"),
    COMPILED: ("#009E73", "-.", "v"),
}
RC: Any = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 8.0,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.5,
    "lines.linewidth": 1.15,
    "lines.markersize": 4.0,
    "pdf.fonttype": 42,  # TrueType: journals refuse Type 3
}
COLUMN_INCHES, ROW_INCHES, CAPTION_INCHES = 2.1, 1.8, 1.15
CHARACTERS_AN_INCH = 18  # of the caption


@dataclass(frozen=True)
class Line:
    """One engine in one column.

    Attributes:
        points: (size, measurement), by size.
        absent: (size, bytes that would be needed) where it did not fit.
    """

    engine: str
    points: list[tuple[int, Measurement]]
    absent: list[tuple[int, int]]


def draw(report: Report, folder: Path) -> list[Path]:
    """speed.png and speed.pdf; none where nothing was measured."""
    if not report.measurements:
        return []
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    base = report.base
    columns = [key for key in AXES if len(column_works(report, base, key)) > 1] or ["window"]
    with plt.rc_context(RC):
        figure, axes = plt.subplots(
            2,
            len(columns),
            squeeze=False,
            sharex="col",
            sharey="row",
            figsize=(max(5.0, COLUMN_INCHES * len(columns)), 2 * ROW_INCHES + CAPTION_INCHES),
            layout="constrained",
        )
        for key, (above, below) in zip(columns, axes.T, strict=True):
            draw_column(report, base, key, above, below)
        axes[0, 0].set_ylabel("outer step, s")
        axes[1, 0].set_ylabel("peak memory, GiB")
        handles = {
            label: handle
            for axis in axes[::-1].flat  # below first: its handles have no error bars
            for handle, label in zip(*axis.get_legend_handles_labels(), strict=True)
        }
        figure.legend(
            handles.values(),
            handles.keys(),
            loc="outside upper left",
            ncols=3 + len(columns) // 2,
            frameon=False,
        )
        text = "\n".join(
            textwrap.fill(line, int(CHARACTERS_AN_INCH * figure.get_figwidth()))
            for line in caption(report, base)
        )
        figure.supxlabel(text, fontsize=6.5, x=0.01, ha="left")
        written = []
        for kind in ("png", "pdf"):
            with atomic_write(folder / f"speed.{kind}") as temporary:
                figure.savefig(temporary, dpi=200, format=kind)
            written.append(folder / f"speed.{kind}")
        plt.close(figure)
    return written


def draw_column(report: Report, base: Work, key: str, above: Any, below: Any) -> None:
    """Time above, memory below."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    lines = lines_of(report, base, key)
    for k, line in enumerate(lines):
        color, dash, marker = LOOKS[line.engine]
        sizes = [size for size, _ in line.points]
        medians = [m.median for _, m in line.points]
        ranges = [
            [m.median - min(m.seconds) for _, m in line.points],
            [max(m.seconds) - m.median for _, m in line.points],
        ]
        above.errorbar(
            sizes, medians, yerr=ranges, color=color, linestyle=dash, marker=marker, capsize=2
        )
        gib = [m.peak_bytes / 2**30 for _, m in line.points]
        below.plot(sizes, gib, color=color, linestyle=dash, marker=marker, label=line.engine)
        if line.absent:
            below.plot(
                [size for size, _ in line.absent],
                [needed / 2**30 for _, needed in line.absent],
                color=color,
                linestyle=":",
                marker="x",
                markersize=6,
                label="does not fit",
            )
            above.plot(
                [size for size, _ in line.absent],
                [0.96 - 0.08 * k] * len(line.absent),  # of the height: they have no time
                color=color,
                linestyle="none",
                marker="x",
                markersize=6,
                transform=above.get_xaxis_transform(),
            )
    works = column_works(report, base, key)
    floors = [(getattr(work, key), report.floor_seconds(work)) for work in works]
    above.plot(
        [size for size, floor in floors if floor],
        [floor for _, floor in floors if floor],
        color="#999999",
        label="floor",
    )
    below.axhline(report.free_bytes / 2**30, color="#999999", linestyle=":", label="free memory")
    for axis in (above, below):
        axis.set_yscale("log")
        axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axis.yaxis.set_minor_formatter(NullFormatter())
    below.set_xlabel(AXES[key])
    sizes = [getattr(work, key) for work in works]
    if min(sizes) > 0:
        below.set_xscale("log")
    below.set_xticks(sizes, [str(size) for size in sizes])
    below.minorticks_off()


def lines_of(report: Report, base: Work, key: str) -> list[Line]:
    """The engines, each with its points along `key`."""
    lines = []
    for engine in LOOKS:
        points = [
            (getattr(m.work, key), m)
            for m in report.measurements
            if m.engine == engine and differs_in(key, m.work, base)
        ]
        absent = [
            (getattr(m.work, key), m.needed_bytes)
            for m in report.missing
            if m.engine == engine and m.needed_bytes and differs_in(key, m.work, base)
        ]
        if points or absent:
            points.sort(key=lambda point: point[0])
            lines.append(Line(engine, points, sorted(absent)))
    return lines


def column_works(report: Report, base: Work, key: str) -> list[Work]:
    """The pieces of work along `key`, from small to large."""
    works = [work for work in report.works() if differs_in(key, work, base)]
    return sorted(works, key=lambda work: getattr(work, key))


def caption(report: Report, base: Work) -> list[str]:
    """What was measured where."""
    hardware = report.machine["hardware"]
    threads = report.machine["threads"]
    device = hardware.get("gpu") or f"{hardware['cpu']}, threads: {threads}"
    medians = f"Median and range of n = {report.repeats} outer steps."
    return [
        f"Unless an axis says otherwise: {base}.",
        f"{device}, torch {report.machine['versions']['torch']}. {medians}",
        "Floor: operations or bytes of the exact engine at the rates measured in the same run;"
        " does not fit: memory as predicted.",
    ]
