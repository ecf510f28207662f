"""Which runs belong to a grid, and that their numbers arrive as they were written."""

import os
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import pandas as pd
import pytest

from analysis import load
from analysis.labels import distinct_labels
from bench.config.grid import expand, load_grid, single_run
from bench.runs.records import Recorder
from bench.runs.rerun import remove_previous, start_rerun
from bench.runs.run_folder import RunFolder
from bench.system.errors import Damaged, UserError

if TYPE_CHECKING:
    from tests.analysis.conftest import Maker


def loaded(results: "Maker", grid: str = "window_ablation", **how: Any) -> load.Results:
    overrides = how.pop("overrides", {})
    stored = load.stored_runs(results.root)
    return load.load_results(stored, load_grid(grid), "quick", overrides, **how)


def test_finished_seeds_beyond_the_grids_count_are_used(results: "Maker") -> None:
    results.grid("window_ablation", seeds=4)
    found = loaded(results)
    assert [run.config.seed for run in found.runs] == [0, 1, 2, 3] * 4
    assert found.missing == []


def test_unfinished_runs_are_left_out_and_named(results: "Maker") -> None:
    first, second, *_ = results.configs("window_ablation")
    results.run(first)
    folder = results.run(second, finished=False)
    folder.write("error", {"kind": "diverged", "message": "50 in a row", "traceback": ""})
    found = loaded(results)
    assert [(run.config.method, run.config.seed) for run in found.runs] == [("rat_bptt", 0)]
    states = {(run.experiment.label, run.seed): run.state for run in found.missing}
    assert states[("RaT-BPTT, window_resample_every=1", 1)] == "failed (diverged)"
    assert states[("Forward moving, window_resample_every=1", 0)] == "not started"
    asked = len(expand(load_grid("window_ablation"), "quick", {}))
    assert len(states) == asked - 1
    assert set(found.metrics()["seed"]) == {0}


def test_a_run_that_is_made_anew_is_shown_as_it_was_until_it_has_another_result(
    results: "Maker",
) -> None:
    (config, *_) = results.configs("window_ablation")
    folder = results.run(config)
    before = loaded(results)
    folder.request_rerun()
    start_rerun(folder)
    with Recorder(folder.path, {}) as recorder:
        recorder.append("metrics", {"step": 0})
    now = loaded(results)
    assert [run.result for run in now.runs] == [run.result for run in before.runs]
    assert [run.folder.name for run in now.runs] == [folder.name]
    assert len(now.metrics()) == 40
    assert now.runs[0].folder.with_result.path == folder.path / "previous"
    # Tables that are loaded already do not mind that the new result comes meanwhile.
    folder.write("result", {"evaluation": {}})
    remove_previous(folder)
    assert len(now.metrics()) == 1


def test_runs_with_other_settings_are_not_mixed_in(results: "Maker") -> None:
    results.grid("window_ablation", seeds=1)
    results.grid("window_ablation", seeds=3, inner_lr=0.02)
    assert {run.config.inner_lr for run in loaded(results).runs} == {0.01}
    other = loaded(results, overrides={"inner_lr": 0.02})
    assert {run.config.inner_lr for run in other.runs} == {0.02}
    assert len(other.runs) == 12


def test_experiments_of_the_same_label_are_not_mixed_up(results: "Maker") -> None:
    results.grid("window_ablation", seeds=2)
    with patch("analysis.load.distinct_labels", lambda configs, *_: ["same"] * len(configs)):
        found = loaded(results, seeds=3)
    assert len({one.identity for one in found.experiments}) == 4
    for one in found.experiments:
        assert one.label == "same"
        runs = [(run.config.method, run.config.seed) for run in found.runs_of(one)]
        assert runs == [(one.config.method, 0), (one.config.method, 1)]
        assert [run.seed for run in found.missing_of(one)] == [2]
    means = found.metrics().groupby("experiment")["image_gradient_norm"].mean()
    assert means.nunique() == 4


def test_a_run_outside_the_grid_counts_where_only_the_seed_differs(results: "Maker") -> None:
    results.run(replace(single_run("quick", {"method": "rat_bptt"}), seed=17))
    assert [run.config.seed for run in loaded(results).runs] == [17]


def test_damaged_and_foreign_folders_do_not_stand_in_the_way(results: "Maker") -> None:
    results.grid("window_ablation")
    for name, content in (("a", "{"), ("b", '{"schema": 99}'), ("c", '{"schema": 2, "x": 2}')):
        (results.root / "runs" / name).mkdir()
        (results.root / "runs" / name / "config.json").write_text(content)
    assert len(loaded(results).runs) == 8


def test_metrics_and_measurements_are_what_was_recorded(results: "Maker") -> None:
    results.grid("window_ablation")
    metrics, measurements = loaded(results).metrics(), loaded(results).measurements()
    assert len(metrics) == 8 * 40
    first = ["run", "experiment", "label", "method", "seed", "step"]
    assert list(metrics.columns[:6]) == first
    config = results.configs("window_ablation")[3]
    own = metrics[(metrics["method"] == config.method) & (metrics["seed"] == config.seed)]
    assert list(own["image_gradient_norm"]) == [results.norm(config, k) for k in range(40)]
    assert measurements.groupby("kind").size().to_dict() == {"accuracy": 40, "variance": 32}
    assert not any(str(column).startswith("all_") for column in measurements)
    shown = measurements[measurements["kind"] == "variance"]
    assert set(shown["step"]) == {0, 10, 20, 30}


@pytest.mark.parametrize("reads", [1, 2], ids=["from JSON lines", "from Parquet"])
def test_not_finite_numbers_survive(results: "Maker", reads: int) -> None:
    values = {3: float("nan"), 5: float("inf"), 6: float("-inf")}
    config = results.configs("window_ablation")[0]
    results.run(config, norm=lambda config, step: values.get(step, 1.0))
    column = [loaded(results).metrics()["image_gradient_norm"] for _ in range(reads)][-1]
    assert pd.isna(column[3])
    assert column[5] == float("inf")
    assert column[6] == float("-inf")
    assert column.drop([3, 5, 6]).eq(1.0).all()


def test_records_are_collected_once_and_anew_when_they_change(
    results: "Maker", monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = results.run(results.configs("window_ablation")[0])
    first = load.collected(folder, "metrics")
    with monkeypatch.context() as blocked:
        blocked.setattr(RunFolder, "records", lambda *_: pytest.fail("the cache was not read"))
        pd.testing.assert_frame_equal(load.collected(folder, "metrics"), first)
    lines = folder.path / "metrics.jsonl"
    lines.write_bytes(lines.read_bytes().splitlines(keepends=True)[0])
    os.utime(lines, ns=(0, 0))  # a clock that was set: times say nothing
    assert len(load.collected(folder, "metrics")) == 1


def test_a_run_is_read_once_however_many_show_it(
    results: "Maker", monkeypatch: pytest.MonkeyPatch
) -> None:
    results.grid("window_ablation")
    stored = load.stored_runs(results.root)

    def table() -> pd.DataFrame:
        return load.load_results(stored, load_grid("window_ablation"), "quick", {}).metrics()

    first = table()  # from JSON lines
    table().insert(0, "of_a_reader", 1)  # from the caches
    monkeypatch.setattr(RunFolder, "read", lambda *_: pytest.fail("a file was read again"))
    monkeypatch.setattr(pd, "read_parquet", lambda *_: pytest.fail("a cache was parsed again"))
    pd.testing.assert_frame_equal(table(), first)


def test_the_records_of_a_run_that_ends_while_they_are_read_are_not_kept(
    results: "Maker", monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = results.run(results.configs("window_ablation")[0])
    result = folder.path / "result.json"
    content = result.read_text()
    result.unlink()
    read = RunFolder.records

    def records(self: RunFolder, name: str) -> list[dict[str, Any]]:
        some = read(self, name)[:-1]
        result.write_text(content)
        return some

    with monkeypatch.context() as patched:
        patched.setattr(RunFolder, "records", records)
        assert len(load.collected(folder, "metrics")) == 39
    assert len(load.collected(folder, "metrics")) == 40


def test_a_damaged_cache_is_replaced(results: "Maker") -> None:
    folder = results.run(results.configs("window_ablation")[0])
    first = load.collected(folder, "metrics")
    cache = folder.path / "metrics.cache"
    whole = cache.read_bytes()
    flipped = [
        whole[:k] + bytes([whole[k] ^ 1]) + whole[k + 1 :] for k in range(0, len(whole), 101)
    ]
    for damaged in (b"", b"PAR1 cut short", whole[:-1], whole[8:], *flipped):
        cache.write_bytes(damaged)
        pd.testing.assert_frame_equal(load.collected(folder, "metrics"), first)
        assert cache.read_bytes() == whole


def test_a_cache_without_its_records_is_not_used(results: "Maker") -> None:
    folder = results.run(results.configs("window_ablation")[0])
    load.collected(folder, "metrics")
    (folder.path / "metrics.jsonl").unlink()
    with pytest.raises(UserError, match=r"metrics\.jsonl is missing"):
        load.collected(folder, "metrics")


def test_a_folder_that_cannot_be_written_is_read_from_its_json_lines(results: "Maker") -> None:
    folder = results.run(results.configs("window_ablation")[0])
    (folder.path / "metrics.cache").mkdir()  # holds for root too, whom no mode bits stop
    assert len(load.collected(folder, "metrics")) == 40


def test_damaged_records_are_refused_by_name(results: "Maker") -> None:
    folder = results.run(results.configs("window_ablation")[0])
    for text in ('{"step": 0\n', "3\n", "[]\n", "\xff\n"):
        (folder.path / "metrics.jsonl").write_text(text, encoding="latin-1")
        with pytest.raises(Damaged, match=r"metrics\.jsonl is damaged"):
            load.collected(folder, "metrics")


def test_values_of_two_types_are_refused_by_name(results: "Maker") -> None:
    # As of before there were checksums.
    folder = results.run(results.configs("window_ablation")[0])
    lines = (folder.path / "metrics.jsonl").read_text().splitlines()
    changed = lines[0].replace('"image_gradient_norm": ', '"image_gradient_norm": "x", "was": ')
    (folder.path / "metrics.jsonl").write_text("\n".join([changed, *lines[1:]]) + "\n")
    with pytest.raises(Damaged, match="image_gradient_norm is now of type float now str"):
        load.collected(folder, "metrics")


@pytest.mark.parametrize("unfinished", [False, True])
def test_a_run_with_damaged_records_hides_no_other(
    unfinished: bool, results: "Maker", capsys: pytest.CaptureFixture[str]
) -> None:
    # As of before there were checksums; those of a run that is not finished have none either.
    folders = results.grid("window_ablation", seeds=1)
    (folders[0].path / "metrics.jsonl").write_text('{"step": 0\n')
    (folders[1].path / "measurements.jsonl").write_text("[1]\n")
    if unfinished:
        folders[0].remove("result.json")
    found = loaded(results, seeds=1, unfinished=unfinished)
    assert len(found.metrics()) == 2 * 40
    assert [one.state for one in found.missing] == [
        "waiting" if unfinished else "damaged",
        "damaged",
    ]
    error = capsys.readouterr().err
    assert "metrics.jsonl is damaged" in error
    assert "measurements.jsonl is damaged" in error


@pytest.mark.parametrize("unfinished", [False, True])
def test_a_run_without_a_whole_line_or_with_a_folder_in_its_place_hides_no_other(
    unfinished: bool, results: "Maker", capsys: pytest.CaptureFixture[str]
) -> None:
    folders = results.grid("window_ablation", seeds=1)
    for folder, content in zip(folders[:2], ('{"step": 0', None), strict=True):
        (folder.path / "metrics.jsonl").unlink()
        if content is None:
            (folder.path / "metrics.jsonl").mkdir()
        else:
            (folder.path / "metrics.jsonl").write_text(content)
        if unfinished:
            folder.remove("result.json")
    found = loaded(results, seeds=1, unfinished=unfinished)
    assert len(found.metrics()) == 2 * 40
    assert len(found.missing) == 2
    assert ("no outer step" in capsys.readouterr().err) is not unfinished


def test_a_finished_run_without_its_records_is_damaged_and_hides_no_other(
    results: "Maker", capsys: pytest.CaptureFixture[str]
) -> None:
    folders = results.grid("window_ablation", seeds=1)
    (folders[0].path / "metrics.jsonl").unlink()
    (folders[1].path / "measurements.jsonl").unlink()
    found = loaded(results, seeds=1)
    assert len(found.metrics()) == 2 * 40
    assert [one.state for one in found.missing] == ["damaged"] * 2
    assert "metrics.jsonl is missing; restore it" in capsys.readouterr().err


def test_labels_name_the_settings_in_which_runs_differ() -> None:
    def config(**settings: Any) -> Any:
        return single_run("quick", settings)

    def labels(*configs: Any) -> list[str]:
        return distinct_labels(configs)

    assert labels(config(method="bptt"), config(method="rat_bptt")) == ["BPTT", "RaT-BPTT"]
    assert labels(config(method="rat_bptt"), config(method="rat_bptt", window_size=20)) == [
        "RaT-BPTT, window_size=10",
        "RaT-BPTT, window_size=20",
    ]
    assert labels(config(method="bptt", inner_lr=0.1), config(method="rat_bptt")) == [
        "BPTT, inner_lr=0.1",
        "RaT-BPTT, inner_lr=0.01",
    ]
    assert labels(config(method="bptt", variance_every=5), config(method="rat_bptt")) == [
        "BPTT",
        "RaT-BPTT",
    ]
    assert labels(config(method="bptt", variance_every=5), config(method="bptt")) == [
        "BPTT, variance_every=5",
        "BPTT, variance_every=50",
    ]
    assert labels(
        config(method="forward_window", method_options={"patience": 5}),
        config(method="forward_window", method_options={"patience": 6}),
        config(method="backward_window", method_options={"patience": 7}),
    ) == ["Forward moving, patience=5", "Forward moving, patience=6", "Backward moving"]
    assert labels(config(method="methods.truncated:TruncatedBPTT")) == ["T-BPTT"]
    assert labels(config(method="methods.bptt:BPTT"), config(method="bptt")) == [
        "BPTT, method=methods.bptt:BPTT",
        "BPTT, method=bptt",
    ]


def test_results_can_be_restricted_to_some_experiments(results: "Maker") -> None:
    results.grid("window_ablation", seeds=1)
    found = loaded(results, seeds=2)
    moving = found.restricted(lambda config: config.method != "rat_bptt")
    methods = ["forward_window", "backward_window"]
    for part in (moving.runs, moving.missing):
        assert [run.experiment.config.method for run in part] == methods
    assert [one.config.method for one in moving.experiments] == methods
    assert len(found.runs) == 4


def test_a_run_that_differs_in_many_settings_is_no_hint_at_forgotten_ones(
    results: "Maker",
) -> None:
    for config in results.configs("window_ablation", 1, inner_lr=0.02, outer_lr=0.02, ipc=2):
        results.run(config)
    stored = load.stored_runs(results.root)
    assert load.settings_of_others(stored, loaded(results)) == {}
    results.grid("window_ablation", seeds=1, inner_lr=0.02, outer_lr=0.02)
    stored = load.stored_runs(results.root)
    settings = load.settings_of_others(stored, loaded(results))
    assert settings == {"inner_lr": 0.02, "outer_lr": 0.02}
