"""The table of what `bench.evaluate` and `bench.scores` recorded."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from bench.publish import main as publish
from bench.publishing.catalog import read_sums
from bench.runs.json_files import with_checksum
from bench.runs.run_folder import name_of
from bench.system.choices import FULL, HARD, OWN, RANDOM, RANDOM_HARD
from bench.system.errors import UserError
from tests.analysis.judging import made

if TYPE_CHECKING:
    from tests.analysis.conftest import Maker


def test_each_record_of_the_scale_with_the_given_settings_is_a_row(
    results: "Maker", capsys
) -> None:
    config = results.configs("window_ablation", 1)[0]
    results.transfer(config, 0.4, arch="vgg11", width=0, depth=0)
    results.transfer(config, 0.5, evaluation_optimizer="sgd", evaluation_lr=0.01)
    results.transfer(config, 0.6, scale="paper")
    table = made(results, "evaluations", "scale=quick")
    assert table["mean"].tolist() == pytest.approx([40, 50])
    assert table["n_networks"].tolist() == [10, 10]
    assert table["Network"].tolist() == ["vgg11", "convnet (width 32, depth 2)"]
    assert table["Training"].tolist()[1] == "sgd, lr 0.01, augmentation none"
    assert "data: made up, fingerprint 0123456789abcdef." in capsys.readouterr().out
    assert made(results, "evaluations", "scale=quick", "arch=vgg11")["mean"].item() == 40
    with pytest.raises(UserError, match=r"distilled=PATH scale=quick arch=alexnet$"):
        made(results, "evaluations", "scale=quick", "arch=alexnet", "outer_steps=7")
    with pytest.raises(UserError, match="nothing is recorded at scale=cpu; make a record with"):
        made(results, "evaluations", "scale=cpu")


def test_scores_have_a_table_of_their_own(results: "Maker", capsys) -> None:
    config = results.configs("window_ablation", 1)[0]
    results.transfer(config, 0.4)
    (path,) = results.root.glob("evaluations/*.json")
    accuracies = zip((FULL, OWN, HARD, RANDOM, RANDOM_HARD), range(5), strict=True)
    record = json.loads(path.read_text()) | {
        "evaluations": {name: results.evaluation(value / 10) for name, value in accuracies},
        "hard_label_recovery": {"mean": 0.25, "n": 7},
        "improvement_over_random": {"mean": 0.125},
        "dd_ranking_score": {"score": 0.75},
    }
    del record["evaluation"]
    (path.parent / "scores.json").write_text(json.dumps(record))
    table = made(results, "evaluations", "scale=quick")
    assert "Beside as many random real images" in capsys.readouterr().out
    row = table[table["hlr"].notna()].iloc[0]
    assert (row["hlr"], row["ior"], row["score"]) == pytest.approx((25, 12.5, 0.75))
    assert (row["full"], row["random_hard"], row["n_networks"]) == pytest.approx((0, 40, 7))


def test_records_are_published_without_any_run_and_read_from_there(
    results: "Maker", tmp_path: Path
) -> None:
    results.transfer(results.configs("window_ablation", 1)[0], 0.4)
    folder = tmp_path / "published"
    own = f"results_root={results.root}"
    assert publish(["scale=quick", own, f"published={folder}"]) == 0
    for path in results.root.glob("evaluations/*.json"):
        path.unlink()
    table = made(results, "evaluations", "scale=quick", f"published={folder}")
    assert table["mean"].item() == pytest.approx(40)
    before = read_sums(folder)
    for arguments in ("drop_others=true", "width=999", "grid=boosting"):
        results.transfer(results.configs("window_ablation", 1)[0], 0.5)
        with pytest.raises(UserError, match="no finished run"):
            publish(["scale=quick", own, f"published={folder}", arguments])
    assert read_sums(folder) == before


def test_records_of_one_set_say_in_which_settings_they_differ(results: "Maker") -> None:
    config = results.configs("window_ablation", 1)[0]
    for steps in (30, 60):
        results.transfer(config, 0.4, evaluation_steps=[steps])
    table = made(results, "evaluations", "scale=quick")
    assert table["Settings"].tolist() == ["evaluation_steps=[30]", "evaluation_steps=[60]"]


def test_a_damaged_record_of_ones_own_leaves_the_published_one(
    results: "Maker", tmp_path: Path, capsys
) -> None:
    results.transfer(results.configs("window_ablation", 1)[0], 0.4)
    folder = tmp_path / "published"
    assert publish(["scale=quick", f"results_root={results.root}", f"published={folder}"]) == 0
    (path,) = results.root.glob("evaluations/*.json")
    path.write_text(json.dumps(with_checksum(json.loads(path.read_text()))).replace("0.4", "0.9"))
    table = made(results, "evaluations", "scale=quick", f"published={folder}")
    assert table["mean"].item() == pytest.approx(40)
    assert "Published records are of" not in capsys.readouterr().out  # no run is published


def test_a_published_record_names_its_set_without_a_path(results: "Maker", tmp_path: Path) -> None:
    results.transfer(results.configs("window_ablation", 1)[0], 0.4)
    (path,) = results.root.glob("evaluations/*.json")
    typed = "/data/sets/mine.h5"
    stated = {"read_as": {"distilled": typed, "labels": ""}, "notes": [f"{typed} holds no labels"]}
    path.write_text(json.dumps(json.loads(path.read_text()) | {"distilled": typed} | stated))
    folder = tmp_path / "published"
    assert publish(["scale=quick", f"results_root={results.root}", f"published={folder}"]) == 0
    (copy,) = folder.glob("evaluations/*.json")
    record = json.loads(copy.read_text())
    assert record["distilled"] == record["read_as"]["distilled"] == "mine.h5"
    assert record["notes"] == ["mine.h5 holds no labels"]


def test_a_record_of_a_version_with_other_settings_is_published(
    results: "Maker", tmp_path: Path
) -> None:
    results.transfer(results.configs("window_ablation", 1)[0], 0.4)
    (path,) = results.root.glob("evaluations/*.json")
    record = json.loads(path.read_text())
    path.write_text(json.dumps(record | {"config": record["config"] | {"former_setting": 1}}))
    folder = tmp_path / "published"
    assert publish(["scale=quick", f"results_root={results.root}", f"published={folder}"]) == 0
    assert len(list(folder.glob("evaluations/*.json"))) == 1
    path.unlink()
    table = made(results, "evaluations", "scale=quick", f"published={folder}")
    assert table["mean"].item() == pytest.approx(40)  # and shown


@pytest.mark.parametrize(
    ("typed", "name"),
    [("", ""), (".", "."), ("sets/a.npz", "a.npz"), ("runs/b-0/distilled.safetensors", "b-0")],
)
def test_the_name_of_a_set_is_that_of_its_run_or_file(typed: str, name: str) -> None:
    assert name_of(typed) == name
