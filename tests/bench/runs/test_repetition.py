"""`bench.run from=`: a run made again from its manifest, and what it says of the first time."""

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from safetensors.numpy import save_file

from bench.config.grid import single_run
from bench.config.identity import identity
from bench.config.run_config import Environment
from bench.runs.configuration import as_written
from bench.runs.repetition import FirstRun, report
from bench.runs.run_folder import RunFolder, Store
from bench.system.errors import Damaged, UserError

Command = Callable[..., subprocess.CompletedProcess[str]]

CONFIG = single_run("quick", {"seed": 4})
START = {
    "versions": {"python": "3.12.3", "torch": "2.11.0"},
    "hardware": {"cpu": "one CPU", "cpu_capability": "AVX512", "memory_bytes": 1},
    "world_size": 1,
    "commit": "0123abc",
    "uncommitted_changes": False,
}
EVALUATION = {
    **{"test_accuracy_mean": 0.5, "test_accuracy_std": 0.01, "selection": "validation"},
    **{"n": 2, "all_test": [[0.5], [0.51]]},
}


def made(
    root: Path, losses: list[float], *starts: dict[str, Any], accuracy: float = 0.5
) -> RunFolder:
    """A finished run with these losses; its norms are ten times as large."""
    run = Store(root).run(CONFIG)
    run.create(CONFIG)
    manifest = {"config": as_written(CONFIG), "identity": identity(CONFIG), "threads": 1}
    data = {"source": "digits", "fingerprint": "f00d"}
    run.write("manifest", {**manifest, "compiled": False, "data": data, "starts": list(starts)})
    lines = [
        {"step": step, "outer_loss": loss, "gradient_norm": 10 * loss, "seconds": len(str(root))}
        for step, loss in enumerate(losses)
    ]
    (run.path / "metrics.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    result = {"evaluation": {**EVALUATION, "test_accuracy_mean": accuracy}, "data": data}
    run.write("result", result)
    save_file({"images": np.full(3, accuracy)}, run.path / "distilled.safetensors")
    return run


def test_equal_runs_are_said_to_be_equal(tmp_path: Path) -> None:
    one, other = (made(tmp_path / name, [2.0, 1.0], START) for name in ("one", "the other"))
    assert report(FirstRun.read(one.path), other) == [
        f"compared with {one.path}:",
        "  versions, hardware, threads and commit: the same",
        "  2 outer steps: equal bit for bit",
        "  final accuracy: 50.0 ± 1.0 (n=2), equal bit for bit",
        "  distilled set: equal bit for bit",
    ]


def test_what_differs_is_said_from_what_made_it_to_what_came_of_it(tmp_path: Path) -> None:
    resumed = {**START, "versions": {"python": "3.12.3", "torch": "2.12.0"}}
    one = made(tmp_path / "one", [2.0, 1.0, 1.0, 1.0], START, resumed)
    later = {**START, "hardware": {"cpu": "another CPU"}, "uncommitted_changes": True}
    other = made(tmp_path / "other", [2.0, 1.25, 1.0], later, accuracy=0.6)
    assert report(FirstRun.read(one.path), other)[1:] == [
        "  torch: 2.11.0 and 2.12.0, now 2.11.0",
        "  cpu: one CPU, now another CPU",
        "  cpu_capability: AVX512, now not recorded",
        "  commit: 0123abc, now 0123abc with uncommitted changes",
        "  outer steps: 4 recorded, now 3; 3 are compared",
        "  outer steps: the first that differs is 1, of 3 outer steps",
        "    outer_loss 1.0, now 1.25 (relative difference 2.0e-01)",
        "    gradient_norm 10.0, now 12.5 (relative difference 2.0e-01)",
        "  gradient_norm: relative differences up to 2.0e-01, median 0.0e+00",
        "  final accuracy: 50.0 ± 1.0 (n=2), now 60.0 ± 1.0 (n=2)",
        "  distilled set: differs",
    ]


def test_a_manifest_alone_is_enough(tmp_path: Path) -> None:
    run = made(tmp_path, [1.0], START)
    (tmp_path / "alone").mkdir()
    copy = shutil.copy(run.path / "manifest.json", tmp_path / "alone" / "copy.json")
    first = FirstRun.read(Path(copy))
    assert first.config == CONFIG
    told = report(first, run)
    assert "  outer steps: the first run has no records to compare" in told
    assert "  final accuracy: the first run has no result" in told
    content = json.loads(Path(copy).read_text())
    content["config"]["seed"] = 5
    del content["checksum"]  # else that says it first
    Path(copy).write_text(json.dumps(content))
    with pytest.raises(Damaged, match=r"copy\.json was changed"):
        FirstRun.read(Path(copy))


def test_manifests_of_before_take_the_configuration_beside_them(tmp_path: Path) -> None:
    run = made(tmp_path, [1.0], START)
    manifest = run.read("manifest") or {}
    del manifest["config"]
    run.write("manifest", manifest)
    assert FirstRun.read(run.path).config == CONFIG
    run.remove("config.json")
    with pytest.raises(UserError, match=r"no config\.json"):
        FirstRun.read(run.path)
    run.remove("manifest.json")
    with pytest.raises(UserError, match=r"it has no manifest\.json"):
        FirstRun.read(run.path)


def test_a_first_run_that_was_changed_is_not_compared(tmp_path: Path) -> None:
    run = made(tmp_path, [1.0], START)
    run.write("result", {**(run.read("result") or {}), "checksums": {"metrics.jsonl": 1}})
    with pytest.raises(Damaged, match=r"metrics\.jsonl was changed"):
        FirstRun.read(run.path)


def test_published_records_are_compared(tmp_path: Path) -> None:
    one, other = (made(tmp_path / name, [2.0, 1.0], START) for name in ("one", "other"))
    rows = [{k: v for k, v in line.items() if k != "outer_loss"} for line in one.records("metrics")]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), one.path / "metrics.parquet")
    one.remove("metrics.jsonl")
    save_file({"images": np.full(3, 0.5, "float16")}, one.path / "distilled.safetensors")
    told = report(FirstRun.read(one.path), other)
    assert "  2 outer steps: equal bit for bit" in told
    assert not any("distilled set" in line for line in told)  # it is rounded


def test_threads_and_compiling_are_those_of_the_first_run_unless_given(tmp_path: Path) -> None:
    first = FirstRun.read(made(tmp_path, [1.0], START).path)
    environment = first.environment(Environment(threads=7), {})
    assert (environment.threads, environment.compile) == (1, "never")
    assert first.environment(Environment(threads=7), {"threads": 7}).threads == 7


def test_the_first_run_is_never_made_again_in_its_own_folder(tmp_path: Path) -> None:
    run = made(tmp_path / "repeats", [1.0], START)
    with pytest.raises(UserError, match="give the folder of the first run, or another"):
        FirstRun.read(run.path).second(Environment(results_root=str(tmp_path)))


def test_a_run_that_diverged_is_repeated_and_compared_too(
    command: Command, tiny: list[str], tmp_path: Path
) -> None:
    broken = ["inner_optimizer=sgd", "inner_lr=1e9", "not_finite=stop"]
    assert command("bench.run", *tiny, *broken).returncode == 1
    (run,) = (tmp_path / "results" / "runs").iterdir()
    done = command("bench.run", f"from={run / 'manifest.json'}")
    assert done.returncode == 1
    assert done.stderr.startswith("diverged: ")
    assert "  final accuracy: the first run has no result" in done.stdout
    refused = command("bench.run", f"from={run}", "seed=7")
    assert refused.returncode == 2
    assert "from=... has its own configuration" in refused.stderr


def test_other_data_are_refused_before_anything_is_computed(
    command: Command, tiny: list[str], tmp_path: Path
) -> None:
    run = made(tmp_path / "results", [1.0], START)
    done = command("bench.run", f"from={run.path}")
    assert done.returncode == 2
    assert "started with other data (fingerprint f00d, now 032a71133c751e08)" in done.stderr
    (again,) = (tmp_path / "results" / "repeats" / "runs").iterdir()
    assert not (again / "metrics.jsonl").exists()
