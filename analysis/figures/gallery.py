"""The images of a distilled set by class, cut out of the picture that its run wrote."""

import json
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from PIL import Image

from analysis.arguments import Request
from analysis.captions import caption
from analysis.figures.captions import headline
from analysis.figures.specs import ImageFigure
from analysis.load import FinishedRun, Results
from bench.publishing.reading import PublishedRun
from bench.runs.run_folder import PICTURE, SET_FILE
from bench.system.choices import PICTURE_COLUMNS, PICTURE_GAP
from bench.system.errors import UserError
from bench.system.text import count, percent

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

MAX_CLASSES = 20  # on a page
ROW_INCHES = 0.32  # at most
WHITE = 255


@dataclass(frozen=True)
class Gallery:
    """Distilled images in pixel space.

    Attributes:
        run: the run that distilled them.
        classes: names of the classes.
        tiles: [classes, images per class, H, W] or [..., 3], bytes, enlarged as in distilled.png.
        block: images per class in each block of a boosted set; all of them if it is not boosted.
        labels: [classes, images per class]: the class with the largest weight in each label.
    """

    run: FinishedRun
    classes: list[str]
    tiles: "NDArray[np.uint8]"
    block: int
    labels: "NDArray[np.int64]"


def gallery(spec: ImageFigure, results: Results, request: Request) -> Gallery:
    """The images of the first finished run that has a picture; of a requested seed, if any.

    Raises:
        UserError: there is no such run, or its files are missing or damaged.
    """
    runs, overrides = results.runs, request.overrides
    if "seed" in overrides:
        runs = [run for run in runs if run.config.seed == int(overrides["seed"])]
    if not runs:
        raise UserError(
            f"figure {spec.number}: no finished run {spec.what} has seed={overrides['seed']}"
        )
    with_set = [run for run in runs if (run.folder.with_result.path / PICTURE).is_file()]
    if not with_set and isinstance(runs[0].folder, PublishedRun):
        raise UserError(
            f"figure {spec.number}: the distilled sets of these runs are not published; make one:"
            f" {request.sweep(results.grid)}"
        )
    return gallery_of([*with_set, *runs][0])


def gallery_of(run: FinishedRun) -> Gallery:
    """The images of one run.

    Raises:
        UserError: its files are missing or damaged.
    """
    labels, classes = _labels(run)
    count = len(labels) // len(classes)  # images per class; they are ordered by class
    images = tiles(_sheet(run), len(labels), count if count > 1 else PICTURE_COLUMNS)
    return Gallery(
        run,
        classes,
        images.reshape(len(classes), count, *images.shape[1:]),
        run.config.boost_block or count,
        labels.argmax(axis=1).reshape(len(classes), count),
    )


def tiles(sheet: "NDArray[np.uint8]", count: int, columns: int) -> "NDArray[np.uint8]":
    """The images of a sheet with `columns` images per row, [count, H, W] or [count, H, W, 3].

    Raises:
        UserError: the sheet has another layout.
    """
    rows = -(-count // columns)
    (height, height_over), (width, width_over) = (
        divmod(size - PICTURE_GAP, number)
        for size, number in zip(sheet.shape[:2], (rows, columns), strict=True)
    )
    if height_over or width_over or min(height, width) <= PICTURE_GAP:
        raise UserError(
            f"a picture of {sheet.shape[:2]} pixels does not hold {rows}x{columns} images"
        )
    return np.stack(
        [
            sheet[top : top + height - PICTURE_GAP, left : left + width - PICTURE_GAP]
            for top, left in (
                (PICTURE_GAP + k // columns * height, PICTURE_GAP + k % columns * width)
                for k in range(count)
            )
        ]
    )


def _sheet(run: FinishedRun) -> "NDArray[np.uint8]":
    path = run.folder.with_result.path / PICTURE
    try:
        with Image.open(path) as image:
            return np.asarray(image)
    except (OSError, SyntaxError, ValueError, zlib.error, Image.DecompressionBombError) as error:
        raise UserError(f"{path} cannot be read: {error}") from error


def _labels(run: FinishedRun) -> "tuple[NDArray[np.float32], list[str]]":
    """(labels [images, classes], names of the classes) of a run's distilled set."""
    from safetensors import SafetensorError, safe_open

    path = run.folder.with_result.path / SET_FILE
    try:
        with safe_open(path, framework="np") as file:
            stated = json.loads((file.metadata() or {})["distilled_set"])
            return file.get_tensor("labels"), list(stated["classes"])
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise UserError(f"{path} cannot be read: {error}") from error


def gallery_table(shown: Gallery) -> pd.DataFrame:
    """One row per image: class, image, block, label (the class with the largest weight),
    mean_pixel and share_clipped (the fraction of values that are 0 or 255)."""
    return pd.DataFrame(
        [
            (
                name,
                image,
                image // shown.block,
                shown.classes[shown.labels[c, image]],
                tile.mean(),
                np.isin(tile, (0, WHITE)).mean(),
            )
            for c, name in enumerate(shown.classes)
            for image, tile in enumerate(shown.tiles[c])
        ],
        columns=["class", "image", "block", "label", "mean_pixel", "share_clipped"],
    )


def gallery_caption(spec: ImageFigure, results: Results, shown: Gallery, request: Request) -> str:
    """The caption: rows, blocks, accuracy of the set, source."""
    run, classes = shown.run, len(shown.classes)
    evaluation = run.result["evaluation"]
    part = f", the first {MAX_CLASSES} of {classes} classes" if classes > MAX_CLASSES else ""
    reading = [
        headline(spec),
        f"Each row is a class{part}, with {count(shown.tiles.shape[1], 'image')} in pixel space:"
        " whitening is inverted, and values outside the range of pixels are clipped.",
        _boosting_text(run, shown) if shown.block < shown.tiles.shape[1] else "",
        f"The distilled set of seed {run.config.seed} ({len(results.runs)} finished). Fresh"
        f" networks trained on it reach {accuracy_of(evaluation)} test accuracy (mean ± standard"
        f" deviation over n = {count(evaluation['n'], 'network')}).",
    ]
    selected = (
        f": it chose the checkpoint (outer step {run.result.get('distilled_step')})"
        " and the number of training steps"
    )
    return caption(reading, request, results.runs, grid=results.grid, selected=selected)


def _boosting_text(run: FinishedRun, shown: Gallery) -> str:
    prefixes = run.result.get("prefixes") or []
    accuracies = [f"{accuracy_of(p)} with {p['ipc']} per class" for p in prefixes[:-1]]
    return (
        f"Blocks of {count(shown.block, 'image')} per class, from left to right in the order in"
        f" which they were added; boost_beta={run.config.boost_beta}"
        + (f". Test accuracy {', '.join(accuracies)}." if accuracies else ".")
    )


def accuracy_of(evaluation: dict[str, Any]) -> str:
    """Mean and standard deviation of an evaluation, in percent."""
    accuracy = percent(evaluation["test_accuracy_mean"], evaluation.get("test_accuracy_std"))
    return f"{accuracy} %"


def draw_gallery(shown: Gallery, caption: str) -> "Figure":
    """The figure as matplotlib's object; to be called under `RC`."""
    from analysis.figures.page import finish_page, new_page
    from analysis.figures.style import WIDTH_INCHES

    names = shown.classes[:MAX_CLASSES]
    sheet, rows, blocks = composed(shown.tiles[: len(names)], shown.block)
    axes_width = WIDTH_INCHES - 0.85  # beside the names of the classes
    height = min(axes_width * sheet.shape[0] / sheet.shape[1], ROW_INCHES * len(names))
    figure = new_page(height + (0.25 if len(blocks) > 1 else 0.1))
    axes = figure.add_subplot()
    axes.imshow(sheet, cmap="gray", vmin=0, vmax=WHITE, interpolation="nearest")
    axes.set_yticks(rows, names)
    axes.set_xticks(blocks, [f"block {k + 1}" for k in range(len(blocks))])
    if len(blocks) == 1:
        axes.set_xticks([])
    axes.xaxis.tick_top()
    axes.tick_params(length=0)
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    return finish_page(figure, caption)


def composed(
    tiles: "NDArray[np.uint8]", block: int
) -> "tuple[NDArray[np.uint8], list[float], list[float]]":
    """(sheet, vertical centers of the classes, horizontal centers of the blocks), in pixels: a row
    per class, with wider gaps between blocks."""
    classes, count, height, width, *colors = tiles.shape
    gap = max(1, height // 16)
    lefts = [k * (width + gap) + k // block * 4 * gap for k in range(count)]
    size = (classes * (height + gap) - gap, lefts[-1] + width, *colors)
    sheet = np.full(size, WHITE, dtype=np.uint8)
    for c in range(classes):
        for k, left in enumerate(lefts):
            top = c * (height + gap)
            sheet[top : top + height, left : left + width] = tiles[c, k]
    rows = [c * (height + gap) + (height - 1) / 2 for c in range(classes)]
    last = [min(first + block, count) - 1 for first in range(0, count, block)]
    blocks = [
        (lefts[first] + lefts[end] + width - 1) / 2
        for first, end in zip(range(0, count, block), last, strict=True)
    ]
    return sheet, rows, blocks
