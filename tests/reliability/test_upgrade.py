"""Results of earlier and later versions are read, or refused with what to do; a setting that is
added later orphans no result.

`old_results/` holds run folders that earlier versions of this program made, without names of
machines: of schema 1, and of the first and a later version of schema 2.
"""

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY
from tests.reliability.conftest import FULL

Command = Callable[..., subprocess.CompletedProcess[str]]

OLD = Path(__file__).with_name("old_results")
SCHEMA_2 = ["schema_2_first", "schema_2_before_checksums"]
PACKAGES = ("bench", "methods", "analysis")
# In front of the last setting of `RunConfig`, as someone would add it.
PLACE = "    full_train_batch_size: int = setting("
ADDED = '    added_noise: float = setting(0.5, "a setting of a later version", minimum=0{before})\n'


def files(folder: Path) -> dict[str, bytes]:
    """What a folder holds, apart from locks."""
    paths = [path for path in folder.rglob("*") if path.is_file() and path.name != "lock"]
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def refused(done: subprocess.CompletedProcess[str], *words: str) -> None:
    assert done.returncode == 2, (done.stdout, done.stderr)
    assert done.stderr.count("\n") == 1, done.stderr
    for word in words:
        assert word in done.stderr


def accepted(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 0, done.stderr
    return done.stdout


def old_runs(version: str, folder: Path) -> list[Path]:
    """A results folder with the runs of a version: the finished one, then an interrupted one."""
    shutil.copytree(OLD / version, folder / "results")
    runs = list((folder / "results" / "runs").iterdir())
    return sorted(runs, key=lambda run: not (run / "result.json").exists())


def test_runs_of_an_older_schema_are_refused_with_what_to_do(
    command: Command, tiny: list[str], tiny_evaluation: list[str], tmp_path: Path
) -> None:
    (run,) = old_runs("schema_1", tmp_path)
    before = files(run)
    refusal = "was written by an earlier version (schema 1, now 2): the same settings make the run"
    refused(command("bench.run", f"folder={run}"), refusal, "CHANGELOG.md")
    refused(command("bench.run", f"from={run}"), refusal)
    refused(command("bench.evaluate", f"distilled={run}"), refusal)
    assert refusal in " ".join(accepted(command("bench.status")).split())
    drawn = command("analysis.table", "table=norms", "grid=window_ablation", *tiny)
    assert "1 run of another version" in drawn.stderr
    assert files(run) == before
    # As the changelog says: the set itself can be used.
    shutil.copy(run / "distilled.safetensors", tmp_path / "copy.safetensors")
    accepted(command("bench.evaluate", "distilled=copy.safetensors", *tiny_evaluation))
    (record,) = (tmp_path / "results" / "evaluations").iterdir()
    then, now = (
        json.loads(path.read_text())["evaluation"]["test_accuracy_mean"]
        for path in (run / "result.json", record)
    )
    assert now == pytest.approx(then, abs=0.02)


@pytest.mark.parametrize("version", SCHEMA_2 if FULL else SCHEMA_2[:1])
def test_runs_of_earlier_versions_of_this_schema_are_read_and_finished(
    command: Command, tiny: list[str], tmp_path: Path, version: str
) -> None:
    finished, interrupted = old_runs(version, tmp_path)
    before = files(finished)
    again = accepted(command("bench.run", f"folder={finished}"))
    assert "test accuracy" in again
    assert files(finished) == before  # not made a second time
    recorded = (interrupted / "metrics.jsonl").read_text().splitlines()
    step = json.loads((interrupted / "progress.json").read_text())["step"]
    assert f"resuming at outer step {step}" in accepted(
        command("bench.run", f"folder={interrupted}")
    )
    lines = (interrupted / "metrics.jsonl").read_text().splitlines()
    assert lines[:step] == recorded[:step]
    assert [json.loads(line)["step"] for line in lines] == list(range(40))
    status = accepted(command("bench.status"))
    assert status.count(" done ") == 2, status
    accepted(command("bench.evaluate", f"distilled={finished}", "evaluation_networks=1"))
    compared = accepted(command("bench.run", f"from={finished}"))
    assert "  cpu_capability: not recorded, now " in compared
    assert "\n  final accuracy: " in compared


def later_version(folder: Path, *, before: str = "") -> Path:
    """A copy of the program with one more setting of a run."""
    for package in PACKAGES:
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(REPOSITORY / package, folder / package, ignore=ignored)
    path = folder / "bench" / "config" / "run_config.py"
    source = path.read_text()
    assert source.count(PLACE) == 1
    path.write_text(source.replace(PLACE, ADDED.format(before=before) + PLACE))
    return folder


@pytest.mark.slow
def test_a_setting_added_later_orphans_no_result(
    command: Command, environment: dict[str, str], tiny: list[str], tmp_path: Path
) -> None:
    grid = ["grid=mine.yaml", *tiny]
    (tmp_path / "mine.yaml").write_text("runs: [{method: rat_bptt}]")
    later = str(later_version(tmp_path / "later", before=", before=0.0"))
    careless = str(later_version(tmp_path / "careless"))
    accepted(command("bench.run", *tiny))
    (made,) = (tmp_path / "results" / "runs").iterdir()
    before = files(made)

    environment["PYTHONPATH"] = later
    accepted(command("bench.run", *tiny, "added_noise=0"))
    assert "1 done" in accepted(command("bench.status", *grid, "added_noise=0"))
    compared = accepted(command("bench.run", f"from={made}"))
    assert "\n  6 outer steps: equal bit for bit\n" in compared
    table = command("analysis.table", "table=norms", *grid, "added_noise=0")
    assert "another version" not in table.stderr
    after = files(made)
    after.pop("metrics.cache", None)  # what the table keeps for the next reader
    assert after == before
    assert list((tmp_path / "results" / "runs").iterdir()) == [made]
    accepted(command("bench.run", *tiny))  # with the default of the later version
    (other,) = set((tmp_path / "results" / "runs").iterdir()) - {made}

    # The careless one would begin the same run anew.
    environment["PYTHONPATH"] = careless
    told = accepted(command("bench.run", *tiny, "added_noise=0", "dry_run=true"))
    assert made.name not in told

    # And back: a run that the setting does not change is read, another one is not.
    environment["PYTHONPATH"] = str(REPOSITORY)
    repeated = tmp_path / "results" / "repeats" / "runs" / made.name
    assert "added_noise" in (repeated / "config.json").read_text()
    accepted(command("bench.run", f"folder={repeated}"))
    refused(
        command("bench.run", f"folder={other}"),
        "settings that this version does not know (added_noise): a later version wrote it; update",
    )
    (other / "config.json").write_text(
        (other / "config.json").read_text().replace('"schema": 2', '"schema": 3')
    )
    refused(
        command("bench.run", f"folder={other}"), "by a later version (schema 3, here 2); update"
    )
