"""Figures 9 to 11: that the images drawn are those of the distilled set, class by class."""

import json
import struct
import zlib
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, cast
from unittest.mock import patch

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.numpy import save_file

from analysis.arguments import Request
from analysis.figures.gallery import (
    Gallery,
    composed,
    draw_gallery,
    gallery,
    gallery_caption,
    tiles,
)
from analysis.figures.page import Picture
from analysis.figures.specs import FIGURES, ImageFigure
from analysis.figures.style import RC
from analysis.load import Results, load_results, stored_runs
from analysis.plot import main
from bench.config.grid import expand, load_grid, single_run
from bench.data.whitening import Whitening
from bench.publish import main as publish
from bench.runs import image_grid
from bench.system.choices import PICTURE_COLUMNS
from bench.system.errors import UserError
from tests.analysis.reading import assert_readable

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bench.runs.run_folder import RunFolder
    from tests.analysis.conftest import Maker

SIDE = 8
QUICK = Request([], {}, "quick")


def leave_images(folder: "RunFolder", per_class: int, channels: int = 1) -> "NDArray[np.uint8]":
    """The two files of a distilled set of ten classes; returns its pixels, [n, H, W] or
    [n, H, W, 3], as bytes, of which no two images are alike."""
    count = 10 * per_class
    shape = (count, channels, SIDE, SIDE)
    pixels = torch.from_numpy(np.random.default_rng(0).integers(0, 256, shape).astype("float32"))
    whitening = cast(Whitening, SimpleNamespace(to_pixels=lambda images: images / 255))
    columns = per_class if per_class > 1 else PICTURE_COLUMNS
    image_grid.save_picture(folder.path / "distilled.png", pixels, whitening, columns)
    labels = np.repeat(np.eye(10, dtype=np.float32), per_class, axis=0)
    stated = {"distilled_set": json.dumps({"classes": [f"class {k}" for k in range(10)]})}
    path = folder.path / "distilled.safetensors"
    save_file({"images": pixels.numpy(), "labels": labels}, path, metadata=stated)
    images = pixels.numpy().astype(np.uint8).transpose(0, 2, 3, 1)
    return images if channels == 3 else images[..., 0]


def found_of(results: "Maker", **settings) -> tuple[Results, "RunFolder"]:
    own = results.root.parent / "own.yaml"
    own.write_text(f"runs: [{json.dumps({'method': 'rat_bptt', **settings})}]")
    grid = load_grid(str(own))
    (config,) = expand(grid, "quick", {}, 1)
    folder = results.run(config)
    return load_results(stored_runs(results.root), grid, "quick", {}), folder


def spec(number: int) -> ImageFigure:
    found = FIGURES[number]
    assert isinstance(found, ImageFigure)
    return found


@pytest.mark.parametrize(("per_class", "channels"), [(1, 1), (3, 1), (4, 3)])
def test_tiles_are_the_distilled_images_class_by_class(
    results: "Maker", per_class: int, channels: int
) -> None:
    found, folder = found_of(results, ipc=per_class)
    images = leave_images(folder, per_class, channels)
    shown = gallery(spec(9), found, QUICK)
    zoom = shown.tiles.shape[2] // SIDE
    assert zoom == image_grid.SMALLEST_SIDE // SIDE
    assert shown.tiles.shape[:2] == (10, per_class)
    for c in range(10):
        for k in range(per_class):
            np.testing.assert_array_equal(
                shown.tiles[c, k][::zoom, ::zoom], images[c * per_class + k]
            )
            assert shown.labels[c, k] == c
    assert shown.classes[3] == "class 3"


def test_a_picture_of_another_layout_is_refused() -> None:
    with pytest.raises(UserError, match="does not hold 2x3 images"):
        tiles(np.zeros((20, 21), np.uint8), 6, 3)


def test_what_is_drawn_is_each_class_in_its_row_and_each_block_apart(results: "Maker") -> None:
    found, folder = found_of(results, ipc=4)
    leave_images(folder, 4)
    shown = replace(gallery(spec(9), found, QUICK), block=2)
    sheet, rows, blocks = composed(shown.tiles, shown.block)
    side = shown.tiles.shape[2]
    middle = int(rows[7])
    for k in range(4):
        left = (0, side + 4, 2 * (side + 4) + 16, 3 * (side + 4) + 16)[k]
        strip = sheet[middle, left : left + side]
        np.testing.assert_array_equal(strip, shown.tiles[7, k][(side - 1) // 2])
    assert blocks == [side + 1.5, 3 * side + 25.5]
    with mpl.rc_context(RC):
        figure = draw_gallery(shown, gallery_caption(spec(10), found, shown, QUICK))
        assert_readable(figure)
    (axes,) = figure.axes
    np.testing.assert_array_equal(axes.images[0].get_array(), sheet)
    assert [t.get_text() for t in axes.get_yticklabels()] == [f"class {k}" for k in range(10)]
    assert [t.get_text() for t in axes.get_xticklabels()] == ["block 1", "block 2"]


def test_a_figure_shows_the_runs_that_the_paper_shows_in_it() -> None:
    plain = single_run("quick", {"ipc": 4})
    strong = single_run("quick", {"ipc": 4, "boost_block": 2})
    weak = single_run("quick", {"ipc": 4, "boost_block": 2, "boost_beta": 0.1})
    shown = {n: [spec(n).shows(s) for s in (plain, strong, weak)] for n in (9, 10, 11)}
    assert shown == {
        9: [True, False, False],
        10: [False, True, False],
        11: [False, False, True],
    }


def test_the_caption_names_the_set_its_accuracy_and_what_was_chosen(results: "Maker") -> None:
    found, folder = found_of(results, ipc=2)
    leave_images(folder, 2)
    text = gallery_caption(spec(9), found, gallery(spec(9), found, QUICK), QUICK)
    for part in (
        "seed 0 (1 finished)",
        "50.0 %",
        "n = 10",
        "values outside",
        "digits stand in for",
    ):
        assert part in text
    run = found.runs[0]
    prefixes = [{"ipc": k, "test_accuracy_mean": k / 10, "test_accuracy_std": 0.01} for k in (1, 2)]
    boosted = replace(run, result={**run.result, "prefixes": prefixes})
    shown: Gallery = replace(gallery(spec(9), found, QUICK), run=boosted, block=1)
    assert "10.0 ± 1.0 % with 1 per class" in gallery_caption(spec(10), found, shown, QUICK)


def test_a_seed_can_be_asked_for_and_damage_is_named(results: "Maker") -> None:
    found, folder = found_of(results, ipc=1)
    with pytest.raises(UserError, match=r"distilled\.safetensors cannot be read"):
        gallery(spec(9), found, QUICK)
    leave_images(folder, 1)
    with pytest.raises(UserError, match="no finished run without boosting has seed=5"):
        gallery(spec(9), found, replace(QUICK, overrides={"seed": 5}))
    picture = folder.path / "distilled.png"
    whole = picture.read_bytes()
    data = whole.index(b"IDAT")
    flipped = whole[: data + 4] + bytes([whole[data + 4] ^ 255]) + whole[data + 5 :]
    # No picture, one cut short, one with damaged data, one with a gamma of one byte before them.
    gamma = struct.pack(">I5sI", 1, b"gAMA1", zlib.crc32(b"gAMA1"))
    for content in (b"x", whole[: data + 40], flipped, whole[:33] + gamma + whole[33:]):
        picture.write_bytes(content)
        with pytest.raises(UserError, match=r"distilled\.png cannot be read"):
            gallery(spec(9), found, QUICK)


def test_sets_that_were_not_published_are_named_and_one_that_was_is_shown(
    results: "Maker",
) -> None:
    records = results.root.parent / "published"
    where = ["scale=quick", f"published={records}"]
    own = f"results_root={results.root}"
    grid = ["figure=9", "grid=window_ablation", *where, f"results_root={results.root}-none"]
    for config in results.configs("window_ablation", 2):
        if config.method == "rat_bptt":
            run = results.run(config)
            if config.seed == 1:
                leave_images(run, config.ipc)
    assert publish([*where, own, "grid=window_ablation", "sets=none"]) == 0
    with pytest.raises(UserError, match="are not published; make one: python -m bench"):
        main(grid)
    assert publish([*where, own, "grid=window_ablation", "sets=all"]) == 0
    assert main(grid) == 0  # seed 1, though 0 has none


def test_a_grid_without_such_a_run_is_refused(results: "Maker") -> None:
    with pytest.raises(UserError, match="figure 10: grid window_ablation has no run with strong"):
        main(["figure=10", "grid=window_ablation", "scale=quick", f"results_root={results.root}"])


def test_each_of_the_three_figures_is_drawn_from_its_runs(results: "Maker") -> None:
    made: list[pd.DataFrame] = []

    def keep(picture: Picture, stem: Path, with_caption: bool) -> list[Path]:
        made.append(picture.table)
        return []

    for folder in results.grid("boosting", seeds=1):
        leave_images(folder, 4)
    with patch("analysis.figures.page.save", keep):
        for number in (9, 10, 11):
            assert main([f"figure={number}", "scale=quick", f"results_root={results.root}"]) == 0
    assert [len(table) for table in made] == [40, 40, 40]
    assert [table["block"].max() for table in made] == [0, 1, 1]
