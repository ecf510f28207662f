"""The command `python -m analysis.plot`: its files, its numbers, its refusals."""

import json
import math
import re
import statistics
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING
from unittest.mock import patch

import pandas as pd
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from analysis.arguments import Request
from analysis.figures.page import Picture
from analysis.figures.specs import FIGURES, CurveFigure
from analysis.plot import main
from bench.config.grid import expand, grid_names, load_grid
from bench.runs.run_folder import RunFolder
from bench.system.errors import UserError

if TYPE_CHECKING:
    from tests.analysis.conftest import Maker

SOURCE = Path(__file__).resolve().parents[2]


def save_undrawn(picture: Picture, stem: Path, with_caption: bool) -> list[Path]:
    """In place of `page.save`, which takes two seconds: numbers and caption alone."""
    csv, png = stem.with_suffix(".csv"), stem.with_suffix(".png")
    picture.table.to_csv(csv, index=False)
    metadata = PngInfo()
    metadata.add_text("Description", picture.caption.replace("\n", " "))
    Image.new("L", (1, 1)).save(png, pnginfo=metadata)
    return [csv, png]


def plotted(results: "Maker", *arguments: str) -> pd.DataFrame:
    """The CSV behind a figure that was just drawn."""
    before = set(results.root.glob("figures/*.csv"))
    with patch("analysis.figures.page.save", save_undrawn):
        assert main([*arguments, "scale=quick", f"results_root={results.root}"]) == 0
    (made,) = set(results.root.glob("figures/*.csv")) - before
    return pd.read_csv(made)


def test_mean_spread_and_n_are_those_of_the_runs(results: "Maker") -> None:
    results.grid("window_ablation", seeds=3)
    table = plotted(results, "figure=5")
    assert len(table) == 4 * 5
    row = table[(table["label"] == "Backward moving") & (table["step"] == 20)].iloc[0]
    seeds = [c for c in results.configs("window_ablation", 3) if c.method == "backward_window"]
    values = [100 * results.accuracy(config, 20) for config in seeds]
    mean, spread = statistics.mean(values), statistics.stdev(values)
    assert row["mean"] == pytest.approx(mean)
    assert row["low"] == pytest.approx(mean - spread)
    assert row["high"] == pytest.approx(mean + spread)
    assert row["n"] == 3


def test_uniform_windows_that_are_redrawn_every_10_steps_have_a_curve_and_a_name_of_their_own(
    results: "Maker",
) -> None:
    for config in results.configs("window_ablation", 1):
        level = 0.1 + 0.01 * config.window_resample_every
        results.run(config, accuracy=lambda c, step, v=level: v)
    table = plotted(results, "figure=5")
    means = table.groupby("label", sort=False)["mean"].max().round(6).to_dict()
    assert means == {
        "Random uniform (RaT-BPTT)": 11.0,
        "Forward moving": 11.0,
        "Backward moving": 11.0,
        "Random uniform, redrawn every 10 steps": 20.0,
    }
    assert "window_resample_every=1, with Random uniform, redrawn every 10" in caption_of(results)


@pytest.mark.parametrize(("figure", "step"), [(2, 7), (7, 20)])
def test_means_and_spreads_on_logarithmic_axes_are_geometric(
    results: "Maker", figure: int, step: int
) -> None:
    results.grid("methods_comparison", seeds=3)
    table = plotted(results, f"figure={figure}")
    row = table[(table["label"] == "R-BPTT") & (table["step"] == step)].iloc[0]
    seeds = [c for c in results.configs("methods_comparison", 3) if c.method == "r_bptt"]
    logs = [math.log(results.norm(config, step)) for config in seeds]
    mean, spread = statistics.mean(logs), statistics.stdev(logs)
    assert row["mean"] == pytest.approx(math.exp(mean))
    assert row["low"] == pytest.approx(math.exp(mean - spread))
    assert row["high"] == pytest.approx(math.exp(mean + spread))


def test_figure_2_has_the_numbers_of_every_seed(results: "Maker") -> None:
    results.grid("methods_comparison", seeds=2)
    table = plotted(results, "figure=2")
    config = results.configs("methods_comparison", 2)[1]
    rows = table[(table["label"] == "BPTT") & (table["seed"] == 1)]
    assert list(rows["value"]) == pytest.approx([results.norm(config, k) for k in range(40)])


def test_figure_2_shows_the_first_outer_steps_only(
    results: "Maker", monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = FIGURES[2]
    assert isinstance(spec, CurveFigure)
    assert spec.first_steps == 500
    monkeypatch.setitem(FIGURES, 2, replace(spec, first_steps=10))
    results.grid("methods_comparison", seeds=1)
    assert plotted(results, "figure=2")["step"].max() == 9


def make_former(folder: RunFolder) -> None:
    """Turn the variances of a run into those of runs that recorded one number, by its own mean."""
    lines = folder.records("measurements")
    path = folder.path / "measurements.jsonl"
    former = [
        {"step": line["step"], "normalized_variance": 1.0} if "samples" in line else line
        for line in lines
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in former))


def test_figure_7_shows_the_first_outer_steps_as_figure_2_does(
    results: "Maker", monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = FIGURES[7]
    assert isinstance(spec, CurveFigure)
    assert spec.first_steps == 500
    monkeypatch.setitem(FIGURES, 7, replace(spec, first_steps=20))
    results.grid("methods_comparison", seeds=1)
    assert set(plotted(results, "figure=7")["step"]) == {0, 10}


def test_variances_of_the_former_definition_are_not_drawn_and_the_caption_says_so(
    results: "Maker",
) -> None:
    for folder in results.grid("methods_comparison", seeds=2):
        if folder.config().method in ("bptt", "t_bptt"):
            make_former(folder)
        if folder.config().method == "bptt" and folder.config().seed == 1:
            results.run(folder.config())
    table = plotted(results, "figure=7")
    counts = table.groupby("label")["n"].unique().map(list).to_dict()
    assert counts == {"BPTT": [1], "R-BPTT": [2], "RaT-BPTT": [2]}
    text = caption_of(results)
    assert "(1 of BPTT, 2 of T-BPTT)" in text
    assert "left out" not in text
    assert "divided by the squared norm of the whole batch's gradient" in text


def test_figure_7_of_former_variances_alone_is_refused_and_says_why(results: "Maker") -> None:
    for folder in results.grid("methods_comparison", seeds=1):
        make_former(folder)
    with pytest.raises(UserError, match="force=true makes them again"):
        plotted(results, "figure=7")


def test_a_single_seed_has_no_band(results: "Maker") -> None:
    results.grid("window_ablation", seeds=1)
    table = plotted(results, "figure=5")
    assert set(table["n"]) == {1}
    assert table["low"].isna().all()
    assert table["high"].isna().all()


def test_values_not_finite_are_left_out_and_counted(results: "Maker") -> None:
    for config in results.configs("methods_comparison"):
        broken = config.method == "bptt" and config.seed == 1
        results.run(config, norm=lambda _, step, b=broken: math.nan if b and step == 9 else 2.0)
    table = plotted(results, "figure=2")
    row = table[(table["label"] == "BPTT") & (table["step"] == 9)].iloc[0]
    assert (row["n"], row["mean"]) == (1, pytest.approx(2.0))
    assert "left out because they are not finite or not positive (1 of BPTT)" in caption_of(results)


def caption_of(results: "Maker") -> str:
    """The caption of the only figure drawn."""
    (png,) = results.root.glob("figures/*.png")
    with Image.open(png) as image:
        return image.info["Description"]


def test_all_draws_what_has_runs_and_names_the_command_for_the_rest(
    results: "Maker", capsys
) -> None:
    results.grid("window_ablation", seeds=1)
    assert main(["seeds=1", "scale=quick", f"results_root={results.root}"]) == 0
    printed, noted = (stream.splitlines() for stream in capsys.readouterr())
    whole = (1, 5)
    # RaT-BPTT is a run of these grids too.
    partly = [name for name in FIGURES if str(name).startswith(("first_steps", "adaptive"))]
    made = [
        results.root / "figures" / f"{FIGURES[key].stem}_quick.{e}"
        for key in (*whole, *partly)
        for e in ("png", "pdf", "csv")
    ]
    assert printed[1:] == [str(path) for path in made]
    assert all(path.stat().st_size > 300 for path in made)
    with Image.open(made[3]) as image:
        assert image.info["dpi"] == pytest.approx((300, 300), abs=1)
        assert image.width == pytest.approx(3.5 * 300, abs=1)
    assert not list(results.root.glob("figures/.*"))
    rest = [key for key in FIGURES if key not in (*whole, *partly)]
    for key, line in zip([*partly, *rest], noted, strict=True):
        grid = FIGURES[key].grid
        lacking = " lacks" if key in partly else f": no finished run of grid {grid}"
        assert f"figure {key}{lacking}" in line
        assert f"python -m bench.sweep grid={grid} scale=quick seeds=1 results_root=" in line


def test_without_its_caption_a_figure_is_lower_and_the_caption_is_in_a_file(
    results: "Maker", capsys
) -> None:
    results.grid("window_ablation", seeds=1)
    heights = {}
    for caption in ("true", "false"):
        folder = results.root / caption
        words = ["figure=5", f"caption={caption}", f"output={folder}"]
        assert main([*words, "scale=quick", f"results_root={results.root}"]) == 0
        with Image.open(folder / "figure5_quick.png") as image:
            heights[caption] = image.height
            description = image.info["Description"]
    assert heights["false"] < heights["true"] - 300 * 0.5
    text = (results.root / "false" / "figure5_quick.txt").read_text()
    assert text.startswith("Test accuracy during distillation, by where the window lies (paper:")
    assert text.replace("\n", " ").strip() == description
    assert "figure5_quick.txt" in capsys.readouterr().out
    assert not (results.root / "true" / "figure5_quick.txt").exists()


def test_all_without_any_run_draws_figure_1_and_is_refused(tmp_path: Path, capsys) -> None:
    with patch("analysis.figures.page.save", save_undrawn):
        message = refusal("figure=all", "scale=quick", f"results_root={tmp_path}")
    assert message.startswith("figure 2: no finished run")
    printed, noted = (stream.splitlines() for stream in capsys.readouterr())
    assert [Path(line).name for line in printed[1:]] == ["figure1_quick.csv", "figure1_quick.png"]
    assert len(noted) == len(FIGURES) - 2


def test_a_grid_that_names_its_figures_is_the_one_they_are_drawn_from() -> None:
    stated = {n: name for name in grid_names() for n in load_grid(name).figures}
    assert stated
    assert {n: FIGURES[n].grid for n in stated} == stated


def test_the_caption_states_scale_data_selection_seeds_and_networks(results: "Maker") -> None:
    results.grid("window_ablation", selection="test")
    plotted(results, "figure=5", "selection=test")
    caption = caption_of(results)
    for part in (
        "grid=window_ablation, scale=quick, selection=test",
        "made up, fingerprint 0123456789abcdef",
        "selection=test (as in one published version of the paper's code, not a fair number;",
        "n = 2",
        "mean of 5 fresh networks after 30 steps",
        "one standard deviation",
    ):
        assert part in caption


def test_the_caption_names_each_copy_of_the_data(results: "Maker") -> None:
    first, second, *_ = results.configs("window_ablation")
    results.run(first)
    results.run(second, fingerprint="fedcba9876543210")
    plotted(results, "figure=5")
    assert "0123456789abcdef and made up, fingerprint fedcba9876543210" in caption_of(results)


def test_what_is_finished_is_drawn_and_what_is_missing_is_named(results: "Maker", capsys) -> None:
    for config in results.configs("window_ablation", seeds=2)[:3]:
        results.run(config)
    table = plotted(results, "figure=5", "seeds=2")
    assert table.groupby("label")["n"].max().to_dict() == {
        "Forward moving": 1,
        "Random uniform (RaT-BPTT)": 2,
    }
    note = capsys.readouterr().err
    assert "lacks 5 of 8 runs" in note
    assert "Forward moving seed 1 (not started)" in note
    assert "python -m bench.sweep grid=window_ablation scale=quick seeds=2 results_root=" in note


def test_the_caption_names_the_curves_that_have_more_seeds_than_most(results: "Maker") -> None:
    configs = results.configs("window_ablation", seeds=2)
    for config in configs:
        if config.seed == 0 or config.method == "backward_window":
            results.run(config)
    plotted(results, "figure=5", "seeds=2")
    assert "over seeds (n = 1 (Backward moving: 2)); band:" in caption_of(results)


def test_what_is_not_finished_is_drawn_on_request_and_named(results: "Maker") -> None:
    first, second, *_ = results.configs("window_ablation", seeds=1)
    results.run(first)
    run = results.run(second, finished=False)
    drawn = set(plotted(results, "figure=5", "seeds=1")["label"])
    assert len(drawn) == 1
    for path in results.root.glob("figures/*"):
        path.unlink()
    table = plotted(results, "figure=5", "seeds=1", "unfinished=true")
    assert (results.root / "figures" / "figure5_quick_unfinished-true.csv").exists()
    (label,) = set(table["label"]) - drawn
    own = table[table["label"] == label]
    assert own["mean"].tolist() == pytest.approx(
        [100 * results.accuracy(second, step) for step in own["step"]]
    )
    assert own["step"].max() == 40
    note = f"Not finished, and shown as far as they have come: {label} seed 0 (40 of 300"
    assert note in caption_of(results)
    assert "unknown" not in caption_of(results)
    assert not list(run.path.glob("*.cache"))  # it will record more


def test_a_figure_of_other_settings_takes_no_ones_place(results: "Maker") -> None:
    results.grid("window_ablation")
    results.grid("window_ablation", inner_lr=0.02)
    plotted(results, "figure=5")
    plotted(results, "figure=5", "inner_lr=0.02")
    names = sorted(path.name for path in results.root.glob("figures/*.csv"))
    assert names == ["figure5_quick.csv", "figure5_quick_inner-lr-0-02.csv"]
    written = [["inner_lr=1e+3"], ["inner_lr=1e-3"], ["inner_lr=1e3"]]
    stems = {Request(words, {}, "quick").stem("figure5") for words in written}
    stems |= {Request([], {}, "quick", grid=f"{of}/mine.yaml").stem("figure5") for of in "ab"}
    assert len(stems) == 5
    assert all(
        re.fullmatch(r"figure5_quick_mine-[0-9a-f]{4}", one) for one in stems if "mine" in one
    )
    assert Request([], {}, "quick", grid="mine.yaml").stem("figure5") == "figure5_quick_mine"


def test_a_users_own_grid_and_method_are_drawn(results: "Maker", tmp_path: Path) -> None:
    own = tmp_path / "mine.yaml"
    own.write_text(
        "runs:\n- {method: rat_bptt}\n- {method: rat_bptt, window_size: 5}\n"
        "- {method: 'methods.truncated:TruncatedBPTT'}\n"
    )
    for config in expand(load_grid(str(own)), "quick", {}):
        results.run(config)
    table = plotted(results, "figure=3", f"grid={own}")
    assert list(dict.fromkeys(table["label"])) == [
        "RaT-BPTT, window_size=10",
        "RaT-BPTT, window_size=5",
        "T-BPTT, window_size=10",
    ]


def test_curves_of_several_methods_in_figure_6_have_different_names(
    results: "Maker", tmp_path: Path
) -> None:
    own = tmp_path / "mine.yaml"
    own.write_text("runs: [{method: t_bptt}, {method: r_bptt}, {method: rat_bptt}]\n")
    for config in expand(load_grid(str(own)), "quick", {}):
        results.run(config)
    table = plotted(results, "figure=6", f"grid={own}")
    assert set(table["label"]) == {"R-BPTT", "RaT-BPTT", "T-BPTT"}


def test_a_grid_without_a_run_for_any_panel_is_refused(results: "Maker", tmp_path: Path) -> None:
    own = tmp_path / "mine.yaml"
    own.write_text("runs: [{method: t_bptt}]\n")
    for config in expand(load_grid(str(own)), "quick", {}):
        results.run(config)
    where = [f"grid={own}", "scale=quick", f"results_root={results.root}"]
    assert "belongs to a panel of it" in refusal("figure=first_steps", *where)


def refusal(*arguments: str) -> str:
    with pytest.raises(UserError) as refused:
        main(list(arguments))
    return str(refused.value)


def test_an_unknown_figure_is_refused_with_those_there_are() -> None:
    ours = "first_steps_norms, first_steps, first_steps_seconds"
    adaptive = "adaptive_windows, adaptive_windows_seconds, efficiency"
    known = f"1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, {ours}, {adaptive}, anatomy, and all"
    assert refusal("figure=12", "scale=quick") == f"figure=12 is not a figure; there are {known}"


def test_impossible_arguments_are_refused(tmp_path: Path) -> None:
    root = f"results_root={tmp_path}"
    assert refusal("figure=5", "scale=quick", "seed=x", root).startswith("seed=x")
    assert refusal("figure=5", "seeds=-1", root) == "seeds=-1 must lie in [0, 10000]"
    assert "the methods of this grid are" in refusal("figure=5", "scale=quick", "only=bptt", root)
    assert "did you mean figure" in refusal("figur=5")
    without = refusal("figure=1", "scale=quick", "objective=dm", root)
    assert without == "figure=1 shows windows, and objective=dm has none"


def test_without_results_the_command_that_makes_them_is_named(tmp_path: Path) -> None:
    words = ["figure=5", "scale=quick", "inner_lr=0.02", "only=forward_window"]
    command = [sys.executable, "-m", "analysis.plot", *words, f"results_root={tmp_path}"]
    done = subprocess.run(command, cwd=SOURCE, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert (
        "python -m bench.sweep grid=window_ablation scale=quick inner_lr=0.02"
        f" only=forward_window results_root={tmp_path}"
    ) in done.stderr


def test_results_at_another_scale_and_with_other_settings_are_pointed_out(
    results: "Maker",
) -> None:
    results.grid("window_ablation", outer_steps=60)
    root = f"results_root={results.root}"
    assert "with other settings: outer_steps=60" in refusal("figure=5", "scale=quick", root)
    other = refusal("figure=5", "scale=cpu", "outer_steps=60", root)
    assert "there are results at scale=quick" in other


def test_runs_without_the_measurement_are_refused_plainly(results: "Maker") -> None:
    for folder in results.grid("methods_comparison", accuracy_every=0):
        (folder.path / "measurements.jsonl").write_text("")
    message = refusal("figure=3", "scale=quick", "accuracy_every=0", f"results_root={results.root}")
    assert "recorded no test_accuracy_mean" in message


def test_neither_the_command_nor_its_help_needs_torch_or_matplotlib() -> None:
    code = (
        "import sys, analysis.plot, analysis.load;"
        "assert not {'torch', 'matplotlib', 'seaborn'} & set(sys.modules), 'imported'"
    )
    subprocess.run([sys.executable, "-c", code], cwd=SOURCE, check=True)
