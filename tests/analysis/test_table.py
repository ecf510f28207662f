"""The command `python -m analysis.table`: our numbers beside the paper's, and what is missing."""

import json
import os
import statistics
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import pytest

from analysis.paper import paper_table
from analysis.table import NAMES, main
from analysis.tables.cells import TABLES
from bench.config.grid import expand, load_grid
from bench.config.run_config import RunConfig
from bench.evaluation.dd_ranking import FULL, HARD, OWN, RANDOM, RANDOM_HARD, combined
from bench.runs.run_folder import Store
from bench.system.errors import UserError
from tests.analysis.judging import made

if TYPE_CHECKING:
    from tests.analysis.conftest import Maker

SOURCE = Path(__file__).resolve().parents[2]


def final(config: RunConfig) -> float:
    """A test accuracy that depends on the experiment and the seed."""
    return 0.3 + 0.01 * (config.ipc % 7) + 0.001 * len(config.dataset) + 0.02 * config.seed**2


def fill(results: "Maker", grid: str, scale: str, **overrides: Any) -> list[RunConfig]:
    configs = expand(load_grid(grid), scale, overrides, seeds=3)
    for config in configs:
        results.run(config, final=final(config))
    return configs


def one(table: pd.DataFrame, **where: str) -> pd.Series:
    for key, value in where.items():
        table = table[table[key] == value]
    assert len(table) == 1
    return table.iloc[0]


def test_mean_spread_n_and_difference_are_those_of_the_runs(results: "Maker") -> None:
    configs = fill(results, "standard_benchmarks", "paper")
    table = made(results, "1", "scale=paper")
    row = one(table, method="RaT-BPTT", column="cifar100/10")
    own = [c for c in configs if (c.dataset, c.ipc) == ("cifar100", 10)]
    values = [100 * final(config) for config in own]
    assert row["ours_mean"] == pytest.approx(statistics.mean(values))
    assert row["ours_std_over_seeds"] == pytest.approx(statistics.stdev(values))
    assert (row["n_seeds"], row["paper_mean"], row["paper_std"]) == (3, 47.5, 0.2)
    assert row["difference"] == pytest.approx(statistics.mean(values) - 47.5)
    assert str(row["networks_a_seed"]) in ("10", "10.0")


def test_the_average_needs_all_ten_columns(results: "Maker") -> None:
    configs = fill(results, "standard_benchmarks", "paper")
    row = one(made(results, "1", "scale=paper"), method="RaT-BPTT", column="average")
    assert row["ours_mean"] == pytest.approx(100 * statistics.mean(map(final, configs)))
    assert row["n_seeds"] == 3
    first = next(c for c in configs if (c.dataset, c.ipc, c.seed) == ("cub200", 1, 1))
    (Store(results.root).run(first).path / "result.json").unlink()
    row = one(made(results, "1", "scale=paper"), method="RaT-BPTT", column="average")
    assert row["n_seeds"] == 2


@pytest.mark.parametrize("arguments", [["scale=quick"], ["scale=paper", "outer_steps=100"]])
def test_runs_that_are_not_in_the_papers_setting_get_no_difference(
    results: "Maker", arguments: list[str], capsys
) -> None:
    overrides = {"outer_steps": 100} if len(arguments) > 1 else {}
    fill(results, "inner_optimizer", arguments[0].removeprefix("scale="), **overrides)
    table = made(results, "inner_optimizer", *arguments)
    assert table["ours_mean"].notna().all()
    assert table["difference"].isna().all()
    printed = capsys.readouterr().out
    assert printed.count("not comparable") == 2
    assert "no difference to the paper's numbers is computed" in printed
    assert ("digits stand in for the paper's data sets" in printed) == (
        arguments == ["scale=quick"]
    )


def test_selection_by_test_is_comparable_and_labelled(results: "Maker", capsys) -> None:
    fill(results, "inner_optimizer", "paper", selection="test")
    table = made(results, "inner_optimizer", "scale=paper", "selection=test")
    assert table["difference"].notna().all()
    printed = capsys.readouterr().out
    assert "as in one published version of the paper's code, not a fair number" in printed


def test_selection_on_the_whole_training_set_is_comparable_and_labelled(
    results: "Maker", capsys
) -> None:
    protocol = {"selection": "train", "validation_fraction": 0.0}
    fill(results, "inner_optimizer", "paper", **protocol)
    words = [f"{key}={value}" for key, value in protocol.items()]
    table = made(results, "inner_optimizer", "scale=paper", *words)
    assert table["difference"].notna().all()
    assert "on the whole training set, as in the version" in capsys.readouterr().out


def test_what_is_missing_is_shown_with_the_command_that_makes_it(results: "Maker", capsys) -> None:
    first, *_ = expand(load_grid("inner_optimizer"), "quick", {})
    results.run(first)
    table = made(results, "inner_optimizer", "scale=quick", "seeds=2")
    adam, sgd = (one(table, method=f"RaT-BPTT ({name})") for name in ("Adam", "SGD"))
    assert (adam["n_seeds"], adam["note"]) == (1, "seed 1 not started")
    assert pd.isna(adam["ours_std_over_seeds"])
    assert (sgd["n_seeds"], sgd["note"]) == (0, "seeds 0, 1 not started")
    printed = capsys.readouterr().out
    assert "missing" in printed
    command = "python -m bench.sweep grid=inner_optimizer scale=quick seeds=2"
    assert f"{command} results_root={results.root}\n" in printed


def test_sets_tested_on_other_networks_make_the_transfer_rows(results: "Maker", capsys) -> None:
    configs = [c for c in fill(results, "architectures", "paper") if c.arch == "convnet"]
    for config in configs[:2]:
        results.transfer(config, 0.4 + 0.1 * config.seed, arch="vgg11", width=0, depth=0)
    results.transfer(configs[2], 0.9, arch="vgg11", width=0, depth=0, inner_lr=0.1)
    results.transfer(configs[0], 0.9, arch="alexnet_avgpool", width=0, depth=0, seed=7)
    table = made(results, "2", "scale=paper", "seeds=3")
    found = one(table, method="Transfer", column="vgg11")
    assert found["ours_mean"] == pytest.approx(45.0)
    assert (found["n_seeds"], found["note"]) == (2, "seed 2 not evaluated on vgg11")
    assert one(table, method="Transfer", column="alexnet")["n_seeds"] == 0
    direct = one(table, method="Direct training", column="vgg11")
    assert direct["n_seeds"] == 3
    printed = capsys.readouterr().out
    assert f"python -m bench.evaluate distilled={results.root}/runs/rat_bptt-" in printed
    assert 'python -m bench.evaluate "distilled=$run" arch=alexnet_avgpool' in printed


def test_an_evaluation_of_another_set_size_or_data_is_no_transfer(results: "Maker") -> None:
    (config, *_) = [c for c in fill(results, "architectures", "paper") if c.arch == "convnet"]
    on_vgg = {"arch": "vgg11", "width": 0, "depth": 0}
    results.add(config, checksums={"distilled.safetensors": 1})

    def recorded(**changed: Any) -> float:
        for path in results.root.glob("evaluations/*.json"):
            path.unlink()
        results.transfer(config, 0.4, **on_vgg)
        (path,) = results.root.glob("evaluations/*.json")
        path.write_text(json.dumps({**json.loads(path.read_text()), **changed}))
        return one(made(results, "2", "scale=paper"), method="Transfer", column="vgg11")["n_seeds"]

    path = Store(results.root).run(config).path
    assert recorded() == recorded(set_checksum=1) == 1
    assert recorded(set_checksum=2) == 0  # of the set before the run was made again
    assert recorded(distilled=str(path / "rounded.safetensors")) == 0
    assert recorded(data={"source": "made up", "fingerprint": "another"}) == 0
    settings = asdict(replace(config, **on_vgg, transfer_to=[], scores=False))
    assert recorded(config=settings) == 1
    assert recorded(config={**settings, "width": 16}) == 0
    assert recorded(config={**settings, "former_setting": 1}) == 0


def test_a_network_without_biases_is_the_transfer_of_a_run_whose_other_networks_have_none(
    results: "Maker",
) -> None:
    configs = [
        c for c in fill(results, "architectures", "paper", conv_bias=False) if c.arch == "convnet"
    ]
    one_size = {"width": 0, "depth": 0}
    results.transfer(configs[0], 0.4, arch="resnet18", **one_size, conv_bias=True)
    results.transfer(configs[0], 0.9, arch="vgg11", **one_size, conv_bias=True)  # of another kind
    results.transfer(configs[1], 0.5, arch="vgg11", **one_size)
    table = made(results, "2", "scale=paper", "conv_bias=false", "seeds=2")
    assert one(table, method="Transfer", column="resnet18")["ours_mean"] == pytest.approx(40.0)
    vgg = one(table, method="Transfer", column="vgg11")
    assert (vgg["ours_mean"], vgg["n_seeds"]) == (pytest.approx(50.0), 1)


def test_what_a_run_found_of_other_networks_itself_makes_the_transfer_rows(
    results: "Maker", capsys
) -> None:
    for config in fill(results, "architectures", "paper"):
        if config.arch == "convnet":
            results.add(config, transfers={"vgg11": results.evaluation(0.4 + 0.1 * config.seed)})
    table = made(results, "2", "scale=paper", "seeds=3")
    found = one(table, method="Transfer", column="vgg11")
    assert found["ours_mean"] == pytest.approx(50.0)
    assert (found["n_seeds"], pd.isna(found["note"])) == (3, True)
    printed = capsys.readouterr().out
    assert "not evaluated on vgg11" not in printed
    assert printed.count("bench.evaluate") == 3  # both AlexNets and resnet18, which nobody tested


def test_table_2_s_alexnet_has_average_pools_and_the_one_with_max_pools_has_no_number_of_the_paper(
    results: "Maker", capsys
) -> None:
    networks = {"alexnet_avgpool": 0.6, "alexnet": 0.5, "convnet": 0.7}
    for config in expand(load_grid("architectures"), "paper", {}):
        results.run(config, final=networks.get(config.arch, 0.4))
        if config.arch == "convnet":
            tested = {
                "alexnet_avgpool": results.evaluation(0.3),
                "alexnet": results.evaluation(0.2),
            }
            results.add(config, transfers=tested)
    table = made(results, "2", "scale=paper")
    for method, ours, paper in (("Direct training", 60, 63.7), ("Transfer", 30, 60.1)):
        average = one(table, method=method, column="alexnet")
        assert (average["ours_mean"], average["paper_mean"]) == (pytest.approx(ours), paper)
        largest = one(table, method=method, column="alexnet_maxpool")
        assert largest["ours_mean"] == pytest.approx(ours - 10)
        assert largest[["paper_mean", "difference"]].isna().all()
    printed = capsys.readouterr().out
    assert "| AlexNet (average pools) " in printed
    assert "AlexNet has average pools in the paper's published code" in printed


def test_the_table_of_inner_optimizers_names_the_optimizer_of_the_evaluation(
    results: "Maker", capsys
) -> None:
    fill(results, "inner_optimizer", "paper")
    made(results, "inner_optimizer", "scale=paper")
    printed = capsys.readouterr().out
    assert "RaT-BPTT (SGD): fresh networks are trained with adam, lr 0.001." in printed
    assert "RaT-BPTT (Adam): fresh" not in printed


def test_runs_that_are_missing_need_no_command_but_the_sweep(results: "Maker", capsys) -> None:
    for name in ("1", "2"):
        made(results, name, "scale=quick")
    printed = capsys.readouterr().out
    assert printed.count("bench.sweep") == 2
    assert "to test the sets on" not in printed
    assert "bench.evaluate" not in printed


def test_the_storage_of_a_parameterised_set_stands_beside_its_budget(
    results: "Maker", capsys
) -> None:
    for config in fill(results, "parameterization", "paper"):
        results.add(config, storage_floats=30_000 + config.ipc, budget_floats=30_720)
    table = made(results, "parameterization", "scale=paper")
    row = one(table, method="Linear + RaT-BPTT", column="cifar10/10")
    assert (row["storage_floats"], row["budget_floats"]) == (30_010, 30_720)
    assert "30,010 / 30,720" in capsys.readouterr().out


# --- the scores


def scored(results: "Maker", config: RunConfig, own: float) -> None:
    """What a run records of its scores: a distilled set of accuracy `own`."""
    names = [FULL, OWN, HARD, RANDOM, RANDOM_HARD]
    accuracies = zip(names, (0.9, own, 0.4, 0.3, 0.2), strict=True)
    figures = {
        "evaluations": {name: results.evaluation(value) for name, value in accuracies},
        "hard_label_recovery": {"mean": 0.5},
        "improvement_over_random": {"mean": own - 0.3},
        "dd_ranking_score": {"score": combined(0.5, own - 0.3)},
    }
    results.add(config, scores=figures)


def test_the_scores_are_means_over_seeds_of_what_the_runs_recorded(
    results: "Maker", capsys
) -> None:
    for config in fill(results, "standard_benchmarks", "paper"):
        if config.dataset != "tiny_imagenet":
            scored(results, config, 0.5 + 0.1 * config.seed)
    table = made(results, "scores", "scale=paper", "seeds=3")
    assert len(table) == 10
    row = table[(table["dataset"] == "cifar100") & (table["ipc"] == 50)].iloc[0]
    own, spread = row["distilled_mean"], row["distilled_std_over_seeds"]
    assert (own, spread, row["n_seeds"]) == (pytest.approx(60), pytest.approx(10), 3)
    means = [row[f"{key}_mean"] for key in ("distilled_hard", "random", "random_hard", "full")]
    assert means == pytest.approx([40, 30, 20, 90])
    assert (row["hlr_mean"], row["ior_mean"]) == (pytest.approx(50), pytest.approx(30))
    scores = [combined(0.5, gain) for gain in (0.2, 0.3, 0.4)]
    assert row["score_mean"] == pytest.approx(statistics.mean(scores))
    assert pd.isna(row["note"])
    lacking = table[table["dataset"] == "tiny_imagenet"]
    assert lacking["full_mean"].isna().all()
    assert set(lacking["note"]) == {"run without scores=true"}
    printed = capsys.readouterr().out
    for text in ("60.0 ± 10.0", "| CIFAR-100 ", "2 of 10 rows lack runs", "fingerprint 0123"):
        assert text in printed
    assert "bench.sweep" not in printed  # finished runs are not made again
    assert "up to 17,600 steps of 256 images" in printed


@pytest.mark.parametrize(("kind", "command"), [("diverged", False), ("out of memory", True)])
def test_scores_of_runs_that_diverged_have_no_command_that_starts_them_again(
    kind: str, command: bool, results: "Maker", capsys
) -> None:
    *configs, last = results.configs("standard_benchmarks", 1)
    for config in configs:
        results.run(config)
        scored(results, config, 0.5)
    results.run(last, finished=False).write("error", {"kind": kind, "message": "made up"})
    made(results, "scores", "scale=quick", "seeds=1")
    printed = capsys.readouterr().out
    assert f"seed 0 failed ({kind})" in printed
    assert ("bench.sweep grid=standard_benchmarks" in printed) == command


def test_hours_are_those_of_the_outer_steps_and_never_compared(results: "Maker", capsys) -> None:
    fill(results, "efficiency", "paper")
    table = made(results, "efficiency", "scale=paper")
    measured = table[table["kind"] == "measured"]
    assert list(measured["ours_mean"]) == pytest.approx([40 * 0.1 / 3600] * 2)
    assert measured["difference"].isna().all()
    printed = capsys.readouterr().out
    assert "RTX8000" in printed
    assert "s / outer step" in printed
    assert "| 0.1 " in printed


@pytest.mark.parametrize("name", NAMES)
def test_quoted_numbers_are_the_papers_and_marked_as_quoted(
    results: "Maker", name: str, capsys
) -> None:
    table = made(results, name, "scale=quick")
    quoted = table[table["kind"] == "quoted"]
    expected = [
        value.mean
        for row in paper_table(TABLES[name].paper).rows
        if row.quoted
        for value in row.numbers.values()
    ]
    found = quoted["paper_mean"].astype(object).where(quoted["paper_mean"].notna(), None)
    assert list(found) == expected
    assert ("Method (quoted)" in capsys.readouterr().out) == bool(expected)


@pytest.mark.slow
def test_every_table_is_written_as_markdown_latex_and_csv(results: "Maker", capsys) -> None:
    fill(results, "inner_optimizer", "quick")
    assert main(["scale=quick", f"results_root={results.root}"]) == 0
    names = {path.name for path in (results.root / "tables").iterdir()}
    stems = ["table1", "table2", "table_parameterization", "table_inner_optimizer"]
    stems += ["table_efficiency", "table_rivals", "table_rivals_ipc10", "table_scores"]
    written = [f"{stem}_quick" for stem in stems] + ["table_settings_paper", "table_power_paper"]
    assert names == {f"{stem}.{end}" for stem in written for end in ("md", "tex", "csv")}
    text = (results.root / "tables" / "table_inner_optimizer_quick.tex").read_text()
    assert text.count("{") == text.count("}")
    assert "\\toprule" in text
    assert "$\\pm$" in text
    assert "inner\\_optimizer" in text
    markdown = (results.root / "tables" / "table_inner_optimizer_quick.md").read_text()
    assert markdown in capsys.readouterr().out


def test_a_table_of_other_settings_takes_no_ones_place(results: "Maker") -> None:
    for settings in ([], ["inner_lr=0.02"]):
        main(["table=inner_optimizer", "scale=quick", f"results_root={results.root}", *settings])
    names = sorted(path.name for path in results.root.glob("tables/*.csv"))
    assert names == [
        "table_inner_optimizer_quick.csv",
        "table_inner_optimizer_quick_inner-lr-0-02.csv",
    ]


def test_an_unknown_table_is_refused_with_those_there_are() -> None:
    with pytest.raises(UserError, match="there are 1, 2, parameterization"):
        main(["table=3", "scale=quick"])


@pytest.mark.parametrize("module", ["analysis.table", "analysis.claims"])
def test_neither_command_nor_its_help_needs_torch_or_scipy(module: str) -> None:
    code = (
        f"import sys, {module};"
        "assert not {'torch', 'scipy', 'pandas'} & set(sys.modules), 'imported'"
    )
    subprocess.run([sys.executable, "-c", code], cwd=SOURCE, check=True)


def test_the_names_of_tables_are_those_that_can_be_made() -> None:
    assert tuple(TABLES) == NAMES


def test_a_table_has_the_same_bytes_in_a_locale_without_utf_8(tmp_path: Path) -> None:
    ascii_only = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    made: list[dict[str, bytes]] = []
    for locale in ({}, {**ascii_only, "PYTHONIOENCODING": "utf-8"}):
        out = tmp_path / str(len(made))
        command = [sys.executable, "-m", "analysis.table", "table=1", "scale=quick"]
        done = subprocess.run(
            [*command, f"results_root={tmp_path}", f"output={out}"],
            env=os.environ | locale,
            capture_output=True,
        )
        assert done.returncode == 0, done.stderr
        made.append({path.name: path.read_bytes() for path in out.rglob("*") if path.is_file()})
    assert made[0] == made[1] != {}
