"""`python -m bench.publish`, and the analysis of what it published."""

import getpass
import json
import os
import shutil
import socket
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import save_file

from analysis.arguments import Request
from analysis.captions import published_text
from analysis.claims import main as claims
from analysis.figures.curves import curves
from analysis.figures.finished import results_of
from analysis.figures.specs import FIGURES, CurveFigure
from analysis.load import StoredRun, stored_runs
from analysis.published import opened, with_published
from analysis.records import collected
from analysis.table import rendered
from analysis.verdicts.judge import load_claims, outcomes
from analysis.verdicts.texts import record
from bench.anatomies.folder import AnatomyFolder
from bench.config.run_config import RunConfig
from bench.publish import main
from bench.publishing.catalog import Problems, check, read_sums
from bench.publishing.reading import Published, PublishedRun
from bench.publishing.records import progress_record
from bench.runs.run_folder import RunFolder, Store
from bench.system.errors import Damaged, UserError
from bench.system.files import checksum

if TYPE_CHECKING:
    from tests.analysis.conftest import Maker

GRIDS = ("methods_comparison", "window_ablation", "boosting")
FINISHED = "2026-11-26T14:51:53+00:00"


def publish(results: "Maker", *arguments: str) -> Path:
    folder = results.root.parent / "published"
    where = [f"results_root={results.root}", f"published={folder}"]
    assert main(["scale=quick", *where, *arguments]) == 0
    return folder


def records(folder: Path) -> list[StoredRun]:
    """The runs of a fresh clone: those that are published."""
    return with_published([], Published(folder))


def add_set(run: RunFolder, config: RunConfig) -> None:
    """A distilled set of digits with random images, and a picture."""
    rng = np.random.default_rng(config.seed)
    images = rng.normal(size=(10 * config.ipc, 1, 8, 8)).astype(np.float32)
    labels = np.repeat(np.eye(10, dtype=np.float32), config.ipc, axis=0)
    metadata = {"distilled_set": json.dumps({"classes": [str(k) for k in range(10)]})}
    save_file({"images": images, "labels": labels}, run.path / "distilled.safetensors", metadata)
    (run.path / "distilled.png").write_bytes(b"a picture")


def finish(run: RunFolder, at: str = FINISHED) -> None:
    run.write("result", {**(run.read("result") or {}), "finished": at})


@pytest.fixture
def made(results: "Maker") -> "Maker":
    """Runs of three grids; windows move, times have all digits, and one norm is not finite."""

    def norm(config: RunConfig, step: int) -> float:
        spiked = config.method == "r_bptt" and config.seed == 1 and step == 7
        return float("inf") if spiked else results.norm(config, step)

    for grid in GRIDS:
        for config in results.configs(grid, 2):
            run = results.run(
                config,
                norm=norm,
                start=lambda step: step // 15,
                seconds=0.1 + 1e-9 * config.seed,
                final=0.5 + 0.01 * config.seed**2 + 0.001 * config.boost_block,
            )
            finish(run)
            if config.ipc > 1:
                add_set(run, config)
    return results


def test_an_interrupted_run_is_published_on_request_until_it_is_finished(results: "Maker") -> None:
    done, stopped, *_ = results.configs("methods_comparison", 1)
    other = results.run(done)
    finish(other)
    result = other.read("result")
    run = results.run(stopped, finished=False)
    run.write("progress", progress_record(asdict(stopped), "stopped", 40))
    assert len(records(publish(results))) == 1
    folder = publish(results, "unfinished=true")
    assert Problems() == check(folder)
    request = Request(["scale=quick"], {}, "quick", unfinished=True)
    spec = FIGURES[2]
    own = results_of(spec, request, stored_runs(results.root))
    read = results_of(spec, request, records(folder))
    columns = ["label", "step", "window_start", "image_gradient_norm"]
    pd.testing.assert_frame_equal(own.metrics()[columns], read.metrics()[columns])
    assert "stopped at outer step 40" in [one.state for one in read.missing]
    assert published_text(read.runs).startswith("Source: published records of 2026-11-26")
    run.write("result", result or {})
    folder = publish(results, "unfinished=true")
    assert len(results_of(spec, request, records(folder)).runs) == 2
    assert not (folder / "runs" / run.name / "progress.json").exists()


def test_figures_tables_and_claims_of_records_are_those_of_the_runs(made: "Maker") -> None:
    folder = publish(made)
    request = Request(["scale=quick"], {}, "quick")
    both = (stored_runs(made.root), records(folder))
    assert [len(runs) for runs in both] == [len(both[0])] * 2
    for spec in FIGURES.values():
        if isinstance(spec, CurveFigure) and spec.number in (2, 3, 5, 7):
            drawn = [curves(spec, results_of(spec, request, runs)) for runs in both]
            pd.testing.assert_frame_equal(drawn[0].table, drawn[1].table, check_exact=True)
            pd.testing.assert_frame_equal(drawn[0].values, drawn[1].values, check_exact=True)
            assert drawn[0].shifts == drawn[1].shifts
            assert len(drawn[0].table) > 0
    one, other = (rendered("inner_optimizer", request, runs, made.root).tidy for runs in both)
    pd.testing.assert_frame_equal(one, other, check_exact=True)
    about = [claim for claim in load_claims() if claim.grid in GRIDS]
    judged = [
        {one.claim.id: record(one) for one in outcomes(about, request, runs, made.root)}
        for runs in both
    ]
    assert {one["quantity"] for one in judged[0].values() if one["n"]} >= {
        *("final_accuracy", "norm_fluctuation", "variance_at_each_step"),
        *("image_diversity", "accuracy_by_seconds"),
    }
    for own, published in zip(*(each.values() for each in judged), strict=True):
        numbers = [one.pop("comparisons") for one in (own, published)]
        commands = [line.replace(str(folder), str(made.root)) for line in published["commands"]]
        assert own == {**published, "commands": commands}  # each names its own folder
        for first, second in zip(*numbers, strict=True):
            if "seconds" not in own["quantity"]:
                assert first == second
                continue
            for key, value in first.items():  # of times, which are rounded
                same = pytest.approx(value, rel=1e-3) if isinstance(value, float) else value
                assert second[key] == same, key


def test_the_records_have_the_hardware_and_nothing_personal(results: "Maker") -> None:
    config = results.configs("window_ablation", 1)[0]
    run = results.run(config, machine="AMD EPYC")
    finish(run)
    personal = ["/home/somebody/data", "node17.cluster", "somebody"]
    command = f"python -m bench.sweep data_root={personal[0]}"
    run.write("config", {**(run.read("config") or {}), "command": command})
    manifest = run.read("manifest") or {}
    manifest["starts"][0] |= {
        "command": ["run.py", f"folder={personal[0]}"],
        "processes": [{"host": personal[1], "device": "cpu"}],
        "commit": "0123abc",
    }
    manifest["starts"][0]["hardware"]["platform"] = f"Linux-{personal[1]}"
    run.write("manifest", manifest)
    folder = publish(results)
    content = b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file()).decode(
        errors="replace"
    )
    assert "AMD EPYC" in content
    assert "0123abc" in content
    for text in (
        *personal,
        str(results.root),
        socket.gethostname() + '"',
        f'"{getpass.getuser()}"',
    ):
        assert text not in content
    run.write("result", {**(run.read("result") or {}), "log": "see /scratch/log.txt"})
    with pytest.raises(UserError, match=r"result\.json is not published: it holds a path: log"):
        publish(results)


def test_the_same_runs_make_the_same_bytes_in_one_publication_or_in_two(made: "Maker") -> None:
    one = publish(made).rename(made.root.parent / "one")
    publish(made, "grid=boosting")
    two = publish(made)
    contents = [
        {path.relative_to(root): path.read_bytes() for path in root.rglob("*") if path.is_file()}
        for root in (one, two)
    ]
    assert contents[0] == contents[1]


def test_sets_are_of_the_first_seed_or_of_all_and_exact_or_rounded(made: "Maker") -> None:
    def sets(folder: Path) -> dict[str, bytes]:
        found = sorted(folder.glob("runs/*/distilled.safetensors"))
        return {path.parent.name: path.read_bytes() for path in found}

    own = sets(made.root)
    seeds = {run.folder.name: run.config.seed for run in stored_runs(made.root)}
    first = sets(publish(made))
    assert first == {name: content for name, content in own.items() if seeds[name] == 0}
    assert sets(publish(made, "sets=all")) == own
    rounded = sets(publish(made, "sets=all", "set_precision=float16"))
    assert all(len(content) < 0.7 * len(own[name]) for name, content in rounded.items())
    assert sets(publish(made, "sets=none")) == {}


def test_publishing_again_adds_replaces_and_keeps(results: "Maker") -> None:
    configs = results.configs("window_ablation", 2)
    for config in configs[:3]:
        finish(results.run(config))
    folder = publish(results)
    first = {run.folder.name for run in records(folder)}
    assert len(first) == 3
    shutil.rmtree(Store(results.root).run(configs[0]).path)  # on another machine
    finish(results.run(configs[1], final=0.9))  # made again
    finish(results.run(configs[3]))
    publish(results)
    by_name = {run.folder.name: run.folder for run in records(folder)}
    assert len(by_name) == 4
    assert first < by_name.keys()
    again = by_name[Store(results.root).run(configs[1]).name].read("result") or {}
    assert again["evaluation"]["test_accuracy_mean"] == 0.9
    publish(results, "drop_others=true")
    assert len(records(folder)) == 3


def test_runs_of_a_grid_are_selected_by_their_settings(results: "Maker") -> None:
    for config in results.configs("methods_comparison", 1):
        finish(results.run(config))
    folder = publish(results, "grid=methods_comparison", "where.method=[bptt,t_bptt]")
    assert sorted(run.config.method for run in records(folder)) == ["bptt", "t_bptt"]
    with pytest.raises(UserError, match="where selects runs of a grid: name it with grid="):
        publish(results, "where.method=bptt")


def test_a_record_that_was_replaced_is_read_anew(results: "Maker") -> None:
    finish(results.run(results.configs("window_ablation")[0]))
    (run,) = records(publish(results))
    first = collected(run.folder, "metrics")
    collected(run.folder, "metrics").insert(0, "of_a_reader", 1)
    pd.testing.assert_frame_equal(collected(run.folder, "metrics"), first)
    path = run.folder.path / "metrics.parquet"
    time = path.stat().st_mtime_ns
    first.iloc[:1].to_parquet(path, index=False)
    os.utime(path, ns=(time, time))  # a clock that was set: times say nothing
    assert len(collected(run.folder, "metrics")) == 1 < len(first)


def test_more_than_may_be_published_is_refused_with_what_to_leave_out(
    made: "Maker", monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = publish(made, "grid=window_ablation")
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    monkeypatch.setattr("bench.publishing.size.MOST_MIB", 0.1)
    with pytest.raises(UserError, match=r"distilled sets 0\.\d MiB.*boosting.*sets=none"):
        publish(made, "sets=all")
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_own_runs_win_unless_the_record_is_newer_or_they_are_not_finished(
    results: "Maker",
) -> None:
    same, older, newer, begun = results.configs("methods_comparison", 1)[:4]
    for config in (same, older, newer, begun):
        finish(results.run(config))
    folder = publish(results)
    finish(results.run(older), "2026-11-25T00:00:00+00:00")
    finish(results.run(newer), "2026-11-27T00:00:00+00:00")
    (Store(results.root).run(begun).path / "result.json").unlink()
    shown = with_published(stored_runs(results.root), Published(folder))
    from_records = [run.config for run in shown if isinstance(run.folder, PublishedRun)]
    assert [config in from_records for config in (same, older, newer, begun)] == [
        *(False, True, False, True)
    ]
    assert len(shown) == 4


def test_failed_runs_are_published_as_failed(results: "Maker") -> None:
    done, failed = results.configs("window_ablation", 2)[:2]
    finish(results.run(done))
    run = results.run(failed, finished=False)
    run.write("error", {"kind": "out of memory", "message": "in /home/somebody"})
    folder = publish(results)
    request = Request(["scale=quick"], {}, "quick")
    states = [
        {
            (one.experiment.identity, one.seed): one.state
            for one in results_of(FIGURES[5], request, runs).missing
        }
        for runs in (stored_runs(results.root), records(folder))
    ]
    assert states[0] == states[1]
    assert "failed (out of memory)" in states[0].values()


def test_the_commands_say_what_they_read(
    results: "Maker", capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for config in results.configs("window_ablation", 2):
        finish(results.run(config))
    folder = publish(results)
    elsewhere = results.root.parent / "clone"
    monkeypatch.setattr("bench.config.grid.visible_gpus", lambda: ["a GPU"])  # auto: paper
    capsys.readouterr()
    words = [f"results_root={elsewhere}", f"published={folder}"]
    assert claims(words) == 0
    printed = capsys.readouterr().out
    assert "scale=quick (that of most published records" in printed
    assert f"published records of 2026-11-26 ({folder}): 8 of 8 runs" in printed
    written = json.loads((elsewhere / "claims" / "claims_quick.json").read_text())
    assert written["caption"].endswith("Source: published records of 2026-11-26.")
    given: dict[str, Any] = {"results_root": str(results.root), "published": str(folder)}
    assert opened([], {**given}, "quick", 0).stored
    assert "published records" not in capsys.readouterr().out  # its own runs are as new


def test_a_caption_says_how_many_runs_are_records(made: "Maker") -> None:
    request = Request(["scale=quick"], {}, "quick")
    own = results_of(FIGURES[5], request, stored_runs(made.root)).runs
    published = results_of(FIGURES[5], request, records(publish(made))).runs
    assert published_text(own) == ""
    mixed = [*own[:1], *published[1:3]]
    assert published_text(mixed) == "Source: published records of 2026-11-26 (2 of 3 runs)."


def test_a_damaged_record_is_found_and_its_run_not_shown(
    results: "Maker", capsys: pytest.CaptureFixture[str]
) -> None:
    for config in results.configs("window_ablation", 1):
        finish(results.run(config))
    folder = publish(results)
    assert main(["verify=true", f"published={folder}"]) == 0
    assert "20 files as published" in capsys.readouterr().out
    damaged = sorted(folder.glob("runs/*/metrics.parquet"))[0]
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"x")
    assert main(["verify=true", f"published={folder}"]) == 1
    assert f"damaged: {damaged}" in capsys.readouterr().out
    assert damaged.parent.name not in {run.folder.name for run in records(folder)}
    assert "bench.publish verify=true" in capsys.readouterr().err


def test_evaluations_on_other_networks_are_published_with_their_runs(results: "Maker") -> None:
    config = results.configs("architectures", 1)[0]
    finish(results.run(config))
    results.transfer(config, 0.4, arch="vgg11", width=0, depth=0)
    folder = publish(results)
    (run,) = records(folder)
    result = run.folder.read("result") or {}
    assert result["transfers"]["vgg11"]["test_accuracy_mean"] == 0.4
    (path,) = folder.glob("evaluations/*.json")
    assert json.loads(path.read_text())["distilled"] == run.folder.name


def test_damaged_records_of_a_run_are_not_published(results: "Maker") -> None:
    run = results.run(results.configs("window_ablation", 1)[0])
    finish(run)
    sums = {name: checksum(run.path / name) for name in ("metrics.jsonl", "measurements.jsonl")}
    run.write("result", {**(run.read("result") or {}), "checksums": sums})
    folder = publish(results)
    before = read_sums(folder)
    for name in sums:
        own = (run.path / name).read_text()
        (run.path / name).write_text(own.replace("2", "3", 1))
        with pytest.raises(Damaged, match=f"{name} was changed or damaged after the run"):
            publish(results)
        (run.path / name).write_text(own)
    assert read_sums(folder) == before


def test_a_published_run_of_another_version_does_not_prevent_publishing(results: "Maker") -> None:
    first, second = results.configs("window_ablation", 2)[:2]
    finish(results.run(first))
    folder = publish(results)
    (path,) = folder.glob("runs/*/config.json")
    path.write_text(json.dumps({**json.loads(path.read_text()), "setting_of_another_version": 1}))
    finish(results.run(second))
    publish(results)
    assert len(list(folder.glob("runs/*/result.json"))) == 2


def test_an_anatomy_of_another_version_does_not_prevent_publishing(
    results: "Maker", capsys: pytest.CaptureFixture[str]
) -> None:
    config = results.configs("window_ablation", 1)[0]
    finish(results.run(config))
    for name in ("without_settings", "of_another_version"):
        folder = AnatomyFolder(results.root / "anatomy" / name)
        folder.path.mkdir(parents=True)
        folder.write_finished([], {"networks": 1, "windows": [], "seconds": 1.0})
    about = {"distilled": "", "what": "", "starts": [], "stops": [], "state": []}
    folder.write("settings", {**about, "config": {"setting_of_another_version": 1}})
    assert len(records(publish(results))) == 1
    notes = capsys.readouterr().err
    assert "without_settings has no settings.json" in notes
    assert "of_another_version/settings.json is of another version" in notes


def test_a_folder_without_records_is_neither_verified_nor_read(
    results: "Maker", tmp_path: Path
) -> None:
    for folder in (tmp_path, tmp_path / "misspelt"):
        with pytest.raises(UserError, match="is no folder of published records: it has no SHA256"):
            main([f"published={folder}", "verify=true"])
        with pytest.raises(UserError, match="is no folder of published records: it has no SHA256"):
            claims(["scale=quick", f"results_root={results.root}", f"published={folder}"])
    assert claims(["scale=quick", f"results_root={results.root}", "published="]) == 0
    for empty, name in ((main, "grid"), (claims, "claims")):
        with pytest.raises(UserError, match=f"^{name}= names no"):
            empty([f"{name}=", "scale=quick", f"results_root={results.root}"])


def test_nothing_to_publish_is_said(results: "Maker") -> None:
    results.run(replace(results.configs("window_ablation", 1)[0]), finished=False)
    with pytest.raises(UserError, match="no finished run of window_ablation at scale=quick"):
        publish(results, "grid=window_ablation")


def test_the_report_is_published_where_no_run_is_new(results: "Maker", tmp_path: Path) -> None:
    for config in results.configs("window_ablation", 1):
        finish(results.run(config))
    folder = publish(results)
    before = read_sums(folder)
    empty = [f"published={folder}", f"results_root={tmp_path / 'empty'}", "scale=quick"]
    assert main([*empty, "report=true"]) == 0
    assert {**before, "report.html": read_sums(folder)["report.html"]} == read_sums(folder)
    assert main([f"published={folder}", "verify=true"]) == 0
    with pytest.raises(UserError, match="no finished run"):
        main([*empty, "report=true", "drop_others=true"])


def test_the_report_is_about_the_records_as_every_reader_finds_them(
    results: "Maker", monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also of a run that loses its set, and of one that is replaced."""
    seen = []

    def page(root: Path, *_: Any) -> bytes:
        seen.append({run.folder.name: run.folder.path for run in records(root)})
        return b"a page"

    monkeypatch.setattr("bench.publish.report_page", page)
    first, second = results.configs("window_ablation", 2)[:2]
    add_set(results.run(second), second)
    finish(Store(results.root).run(second))
    folder = publish(results, "report=true")
    assert read_sums(folder).keys() >= {"report.html"}
    finish(results.run(first))  # of a lower seed: the set of the second is published no more
    publish(results, "report=true")
    assert {path.parents[1] for path in seen[-1].values()} == {folder}
    assert seen[-1].keys() == {Store(results.root).run(one).name for one in (first, second)}
    assert "report.html" in read_sums(folder)
    publish(results)  # nothing is new, so the page stays
    assert (folder / "report.html").read_bytes() == b"a page"
    results.add(first, note="new")
    with monkeypatch.context() as patched:
        patched.setattr("bench.publishing.size.MOST_MIB", 0.001)
        with pytest.raises(UserError, match="nothing was published"):
            publish(results, "report=true")
    assert (folder / "report.html").read_bytes() == b"a page"
    assert check(folder) == Problems()
    publish(results)
    assert "report.html" not in read_sums(folder)
