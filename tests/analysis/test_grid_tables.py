"""Tables of any grid: norms, accuracies and summaries are those of the records."""

import math
import statistics
from typing import TYPE_CHECKING

import pandas as pd
import pytest

from analysis.rendered_table import RenderedTable
from bench.config.grid import expand, grid_names, load_grid
from bench.system.errors import UserError
from tests.analysis.judging import made

if TYPE_CHECKING:
    from tests.analysis.conftest import Maker


def test_norms_and_accuracies_of_every_seed_are_those_of_the_records(
    results: "Maker", capsys
) -> None:
    first, second, *_ = results.configs("methods_comparison", 1)
    results.run(first)
    results.run(second, finished=False)
    table = made(results, "norms", "scale=quick")
    assert len(table) == 1
    norms = [results.norm(first, step) for step in range(40)]
    assert table["10-50"].item() == pytest.approx(statistics.median(norms[10:]))
    assert table["largest"].item() == pytest.approx(max(norms))
    assert table["steps"].item() == 40
    table = made(results, "norms", "scale=quick", "unfinished=true")
    assert table["0-10"].tolist() == pytest.approx(
        [statistics.median(results.norm(c, step) for step in range(10)) for c in (first, second)]
    )
    assert "seed 0 (40 of 300 outer steps)" in capsys.readouterr().out
    table = made(results, "accuracies", "scale=quick", "grid=methods_comparison", "seeds=1")
    assert table["mean"].tolist() == pytest.approx(
        [100 * results.accuracy(first, step) for step in (10, 20, 30, 40)]
    )
    printed = capsys.readouterr().out
    assert "50.0 (n = 10)" in printed
    assert "3 of 4 runs of grid methods_comparison are not finished" in printed
    assert "paper:" not in printed


def test_a_norm_that_is_no_number_is_seen_in_the_largest(results: "Maker", capsys) -> None:
    for config in results.configs("methods_comparison", 1):
        results.run(config, norm=lambda _, step: math.nan if step == 9 else 2.0)
    made(results, "summary", "scale=quick", "grid=methods_comparison")
    rows = [line for line in capsys.readouterr().out.splitlines() if "BPTT" in line]
    assert [" nan " in row for row in rows] == [True] * 4


def test_the_summary_of_each_experiment_is_that_of_its_seeds(results: "Maker", capsys) -> None:
    finals = {"bptt": (0.2, 0.3, 0.7), "t_bptt": (0.5,)}
    configs = results.configs("methods_comparison", 3)
    for config in configs:
        if config.seed < len(of_method := finals.get(config.method, ())):
            results.run(config, final=of_method[config.seed], seconds=0.2 + 0.1 * config.seed)
            results.add(config, peak_memory_bytes={"process": (1 + config.seed) * 2**30})
        elif (config.method, config.seed) == ("t_bptt", 1):
            failed = results.run(config, finished=False)
            failed.write("error", {"kind": "diverged", "message": "50 in a row", "traceback": ""})
    table = made(results, "summary", "scale=quick", "grid=methods_comparison", "seeds=3")
    assert table["method"].tolist() == ["BPTT", "T-BPTT", "R-BPTT", "RaT-BPTT"]
    assert table["n_seeds"].tolist() == [3, 1, 0, 0]
    lacking = ["", "1 failed (diverged), 1 not started", "3 not started", "3 not started"]
    assert table["missing"].fillna("").tolist() == lacking
    assert table["mean"].tolist()[:2] == pytest.approx([40, 50])
    assert table["std_over_seeds"].tolist()[0] == pytest.approx(statistics.stdev((20, 30, 70)))
    assert table["std_over_seeds"].isna().tolist() == [False, True, True, True]
    assert table["seconds"].tolist()[:2] == pytest.approx([0.3, 0.2])
    assert table["memory_gib"].tolist()[:2] == pytest.approx([3, 1])
    norms = [results.norm(c, step) for c in configs if c.method == "bptt" for step in range(40)]
    assert table["largest_norm"].tolist()[0] == pytest.approx(max(norms))
    of_seeds = made(results, "norms", "scale=quick", "grid=methods_comparison")
    of_bptt = of_seeds.loc[of_seeds["method"] == "BPTT", "fluctuation"]
    assert table["fluctuation"].tolist()[0] == pytest.approx(statistics.geometric_mean(of_bptt))
    assert table["fluctuation"].isna().tolist() == [False, False, True, True]
    printed = capsys.readouterr().out
    assert "| 40.0 ± 26.5 " in printed
    assert "| 0: 20.0, 1: 30.0, 2: 70.0 " in printed
    assert "8 of 12 runs of grid methods_comparison are not finished" in printed


def test_tables_of_runs_without_records_are_refused_in_one_line(results: "Maker") -> None:
    first, *_ = results.configs("methods_comparison", 1)
    run = results.run(first)
    (run.path / "measurements.jsonl").write_text("")
    with pytest.raises(UserError, match="no run of grid methods_comparison has measured one"):
        made(results, "accuracies", "scale=quick")
    (run.path / "metrics.jsonl").write_text("")
    with pytest.raises(UserError, match="BPTT seed 0: damaged"):
        made(results, "norms", "scale=quick")


@pytest.mark.parametrize(("kind", "command"), [("diverged", False), ("out of memory", True)])
def test_a_run_that_diverged_is_named_without_a_command_to_start_it_again(
    results: "Maker", kind: str, command: bool, capsys
) -> None:
    *configs, last = results.configs("methods_comparison", 2)
    for config in configs:
        results.run(config)
    results.run(last, finished=False).write("error", {"kind": kind, "message": "made up"})
    made(results, "summary", "scale=quick", "grid=methods_comparison", "seeds=2")
    assert kind in capsys.readouterr().out
    (text,) = (path.read_text() for path in results.root.glob("out0/*.md"))
    assert "1 of 8 runs of grid methods_comparison are not finished" in text
    assert ("bench.sweep" in text) == command


def test_a_summary_of_unfinished_runs_is_refused_in_one_line(results: "Maker") -> None:
    results.run(results.configs("methods_comparison", 1)[0], finished=False)
    message = "table summary: no finished run of grid methods_comparison"
    for arguments in ([], ["unfinished=true"]):
        with pytest.raises(UserError, match=message):
            made(results, "summary", "scale=quick", *arguments)


def test_the_papers_norms_stand_beneath_those_at_its_scale(results: "Maker") -> None:
    for config in expand(load_grid("methods_comparison"), "paper", {}, seeds=1):
        results.run(config)
    table = made(results, "norms", "scale=paper").set_index("method")
    assert table.loc["paper: bptt", "10-50"] == 0.53
    assert table.loc["paper: bptt", "fluctuation"] == 0.41


@pytest.mark.parametrize("grid", grid_names())
def test_each_experiment_of_a_grid_has_a_name_of_its_own_that_fits_a_table(
    grid: str, results: "Maker"
) -> None:
    first = results.configs(grid, 1)[0]
    results.run(first)
    names = made(results, "summary", "scale=quick", f"grid={grid}", "seeds=1")["method"]
    assert names.is_unique
    assert max(map(len, names)) <= 150


def test_signs_in_labels_are_commands_in_latex() -> None:
    frame = pd.DataFrame({"Method": ["Adam, ε = 1e-8", "5 ± 1 %"]})
    text = RenderedTable("t", "T", "caption", [(frame, "")], frame).latex()
    assert "Adam, $\\varepsilon$ = 1e-8" in text
    assert text.isascii()
