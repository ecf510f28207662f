"""The analysis of what `python -m bench.publish` published."""

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import pytest

from analysis.arguments import Request
from analysis.captions import published_text
from analysis.claims import main as claims
from analysis.figures.curves import curves
from analysis.figures.finished import results_of
from analysis.figures.specs import FIGURES, CurveFigure
from analysis.load import stored_runs
from analysis.published import opened, with_published
from analysis.records import collected
from analysis.table import rendered
from analysis.verdicts.judge import load_claims, outcomes
from analysis.verdicts.texts import record
from bench.publish import main
from bench.publishing.reading import Published, PublishedRun
from bench.runs.run_folder import Store
from bench.system.errors import UserError
from tests.analysis.publishing import GRIDS, finish, publish, records

if TYPE_CHECKING:
    from tests.analysis.conftest import Maker


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
