"""`python -m bench.publish`: which runs, and what of them."""

import getpass
import json
import shutil
import socket
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import pytest

from analysis.arguments import Request
from analysis.captions import published_text
from analysis.figures.finished import results_of
from analysis.figures.specs import FIGURES
from analysis.load import stored_runs
from bench.anatomies.folder import AnatomyFolder
from bench.publish import main
from bench.publishing.catalog import Problems, check, read_sums
from bench.publishing.records import progress_record
from bench.runs.run_folder import Store
from bench.system.errors import Damaged, UserError
from bench.system.files import checksum
from tests.analysis.publishing import add_set, finish, publish, records

if TYPE_CHECKING:
    from tests.analysis.conftest import Maker


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


def test_more_than_may_be_published_is_refused_with_what_to_leave_out(
    made: "Maker", monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = publish(made, "grid=window_ablation")
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    monkeypatch.setattr("bench.publishing.size.MOST_MIB", 0.1)
    with pytest.raises(UserError, match=r"distilled sets 0\.\d MiB.*boosting.*sets=none"):
        publish(made, "sets=all")
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


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
