"""`figure=anatomy` and the report's section, from an anatomy that was measured here."""

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from matplotlib.collections import QuadMesh
from PIL import Image

from analysis.arguments import Request
from analysis.figures.anatomy import Anatomy, anatomies_of, anatomy_caption, draw_anatomy, spread
from analysis.figures.page import Picture
from analysis.figures.style import RC
from analysis.plot import main
from analysis.report import main as report
from bench.anatomies.folder import AnatomyFolder, finished_anatomies
from bench.anatomy import main as measure
from bench.publish import main as publish
from bench.publishing.reading import Published
from bench.system.errors import UserError
from tests.analysis.conftest import configs_of, write_run
from tests.analysis.reading import assert_readable

STOPS = [2, 4, 6]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory, cache_root: Path) -> Path:
    """A results folder with the anatomy of random real images."""
    root = tmp_path_factory.mktemp("results")
    settings = ["scale=quick", "width=4", "depth=1", "unroll_length=6", "window_size=2"]
    more = ["stops=3", "networks=3", "target_batch=32", "variance_samples=4"]
    where = [f"results_root={root}", f"cache_root={cache_root}"]
    assert measure(["distilled=real_images", *settings, *more, *where]) == 0
    return root


def request(*arguments: str, scale: str = "quick", **overrides: object) -> Request:
    return Request(arguments, overrides, scale)


def only(root: Path) -> Anatomy:
    (anatomy,) = anatomies_of(root, request())
    return anatomy


def test_a_published_anatomy_is_drawn_as_it_was_measured(root: Path, tmp_path: Path) -> None:
    shutil.copytree(root, tmp_path / "results")
    write_run(tmp_path / "results", configs_of("window_ablation", 1)[0])
    folder = tmp_path / "published"
    assert (
        publish([f"results_root={tmp_path / 'results'}", f"published={folder}", "scale=quick"]) == 0
    )
    of_records = replace(request(), published=Published(folder))
    (published,) = anatomies_of(tmp_path / "none", of_records)
    own = only(root)
    pd.testing.assert_frame_equal(published.table, own.table)
    pd.testing.assert_frame_equal(published.growth(), own.growth(), check_dtype=False)
    text = anatomy_caption(published)
    assert text.startswith(anatomy_caption(own))
    assert "Source: published records of 20" in text


def test_each_cell_has_the_number_of_its_window(root: Path) -> None:
    anatomy = only(root)
    with mpl.rc_context(RC):
        figure = draw_anatomy(anatomy, "caption")
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    for title, column in (
        ("Norm", "gradient_norm_mean"),
        ("Cosine to [0, stop)", "cosine_to_stop_mean"),
        ("Cosine to [0, N)", "cosine_to_full_mean"),
        ("Signal-to-noise ratio", "snr"),
        ("Normalized variance", "normalized_variance_mean"),
    ):
        (mesh,) = figure.axes[titles.index(title)].collections
        assert isinstance(mesh, QuadMesh)
        values = np.ma.filled(np.ma.asarray(mesh.get_array()), np.nan).reshape(3, 6)
        for row, stop in enumerate(reversed(STOPS)):
            for start in range(6):
                if start >= stop:
                    assert math.isnan(values[row, start])
                    continue
                table = anatomy.table.set_index(["stop", "start"])
                assert values[row, start] == pytest.approx(table.loc[(stop, start), column])


def test_the_growth_is_that_of_the_records_and_is_1_at_the_stop(root: Path) -> None:
    anatomy = only(root)
    growth = anatomy.growth().set_index(["network", "stop", "step"])["growth"]
    for record in anatomy.folder.records():
        k, stop = record["network"], record["stop"]
        expected = record["cotangent"] / record["outer_gradient_norm"]
        assert growth[k, stop, record["start"]] == pytest.approx(expected)
        assert growth[k, stop, stop] == 1
    assert len(growth) == 3 * (3 + 5 + 7)


def test_the_figure_can_be_read(root: Path) -> None:
    with mpl.rc_context(RC):
        assert_readable(draw_anatomy(only(root), anatomy_caption(only(root))))


def test_the_caption_states_n_the_set_and_the_settings(root: Path) -> None:
    caption = anatomy_caption(only(root))
    for text in (
        "n = 3 fresh networks",
        "0.33: pure noise",
        "over 4 single target images",
        "(n = 2)",
        "1 random real image per class, distilled=real_images; scale=quick, arch=convnet, width=4",
        "unroll_length=6, inner_optimizer=adam, inner_lr=0.01, inner_eps=1e-08",
        "precision=float32",
        "fingerprint",
        "8x8 digits stand in",
    ):
        assert text in caption


def test_the_command_writes_picture_and_numbers(root: Path, tmp_path: Path, capsys) -> None:
    words = ["figure=anatomy", "scale=quick", f"results_root={root}", f"output={tmp_path}"]
    assert main(words) == 0
    (name,) = (one.name for one in finished_anatomies(root))
    paths = [tmp_path / f"anatomy_{name}_quick.{end}" for end in ("png", "pdf", "csv")]
    assert capsys.readouterr().out.splitlines()[1:] == [str(path) for path in paths]
    with Image.open(paths[0]) as image:
        assert "fresh networks" in image.info["Description"]
        assert image.width == pytest.approx(7 * 300, abs=1)
    table = pd.read_csv(paths[2])
    assert list(zip(table["start"], table["stop"], strict=True)) == [
        (start, stop) for stop in STOPS for start in range(stop)
    ]
    assert {"snr", "growth_mean", "growth_m_mean", "growth_v_std", "seconds"} <= set(table)


def test_only_anatomies_of_the_scale_and_the_settings_are_drawn(root: Path) -> None:
    assert len(anatomies_of(root, request(unroll_length=6, width=4))) == 1
    assert anatomies_of(root, request(unroll_length=7)) == []
    assert len(anatomies_of(root, request(scale="quick"))) == 1  # as typed
    assert len(anatomies_of(root, request(method_options={"first": "0"}))) == 1
    assert anatomies_of(root, request(method_options={"first": "1"})) == []
    assert anatomies_of(root, request(scale="cpu")) == []
    words = ["figure=anatomy", "scale=quick", "width=8", f"results_root={root}"]
    with pytest.raises(UserError, match="no finished anatomy at scale=quick width=8 in "):
        main(words)


def test_all_figures_contain_the_anatomies(root: Path, tmp_path: Path) -> None:
    stems: list[str] = []

    def save(picture: Picture, stem: Path, with_caption: bool) -> list[Path]:
        stems.append(stem.name)
        return [stem]

    words = ["figure=all", "scale=quick", f"results_root={root}", f"output={tmp_path}"]
    with patch("analysis.figures.page.save", save):
        assert main(words) == 0
    assert [stem.partition("_")[0] for stem in stems] == ["anatomy", "figure1"]


def test_a_damaged_anatomy_hides_no_other(root: Path, tmp_path: Path, capsys) -> None:
    shutil.copytree(root / "anatomy", tmp_path / "anatomy")
    (folder,) = finished_anatomies(tmp_path)
    broken = AnatomyFolder(folder.path.with_name("a-broken"))
    shutil.copytree(folder.path, broken.path)
    (broken.path / "settings.json").write_text("{")
    assert [one.folder.name for one in anatomies_of(tmp_path, request())] == [folder.name]
    noted = capsys.readouterr().err
    assert "settings.json is damaged" in noted
    assert "force=true measures it again" in noted


def test_without_a_variance_there_is_no_such_panel(root: Path, tmp_path: Path) -> None:
    shutil.copytree(root / "anatomy", tmp_path / "anatomy")
    (folder,) = finished_anatomies(tmp_path)
    result = json.loads((folder.path / "result.json").read_text())
    for window in result["windows"]:
        window["normalized_variance_mean"] = math.nan
    folder.write("result", {**result, "variance_networks": 0})
    (anatomy,) = anatomies_of(tmp_path, request())
    with mpl.rc_context(RC):
        figure = draw_anatomy(anatomy, "caption")
    assert "Normalized variance" not in [axes.get_title(loc="left") for axes in figure.axes]
    assert "Normalized variance" not in anatomy_caption(anatomy)


@pytest.mark.slow
def test_the_report_has_a_section_only_where_there_are_anatomies(
    root: Path, tmp_path: Path
) -> None:
    for results, expected in ((root, True), (tmp_path, False)):
        words = ["scale=quick", f"results_root={results}", f"output={tmp_path}"]
        assert report(words) == 0
        (path,) = tmp_path.glob("report_quick*.html")
        page = path.read_text()
        assert ("Anatomy of the meta-gradient" in page) == expected
        assert ('<figure id="anatomy1">' in page) == expected
        assert ("n = 3 fresh networks, each with a target batch of 32" in page) == expected


def test_the_stops_whose_cotangents_are_drawn_end_with_the_last() -> None:
    assert spread([2, 5, 8, 10, 12, 15, 18, 20, 22, 25, 28, 30], 4) == [8, 15, 22, 30]
    assert spread([3, 6], 4) == [3, 6]
