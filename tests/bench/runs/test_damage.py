"""A flipped bit or a missing part is found, named, and costs no more than the work since the
checkpoint before the last."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from bench.runs.records import (
    CHECKPOINT,
    CHECKPOINT_BEFORE,
    Recorder,
    load_checkpoint,
    save_checkpoint,
)
from bench.runs.run_folder import RunFolder
from bench.system.errors import Damaged, UserError

Command = Callable[..., subprocess.CompletedProcess[str]]


def flip(path: Path, position: int) -> None:
    content = bytearray(path.read_bytes())
    content[position] ^= 1
    path.write_bytes(content)


def begun(folder: Path) -> None:
    """Three steps, with a checkpoint after each of the first two."""
    with Recorder(folder, {}) as recorder:
        for step in range(3):
            recorder.append("metrics", {"step": step, "loss": 0.5})
            if step < 2:
                save_checkpoint(folder, {"step": step + 1, "x": torch.ones(9), **recorder.extent()})


@pytest.mark.parametrize("how", ["bit", "cut", "empty", "gone"])
def test_a_damaged_checkpoint_is_replaced_by_the_one_before_it(
    tmp_path: Path, how: str, capsys
) -> None:
    begun(tmp_path)
    path = tmp_path / CHECKPOINT
    content = path.read_bytes()
    match how:
        case "bit":
            flip(path, content.find(torch.ones(9).numpy().tobytes()))
        case "cut":
            path.write_bytes(content[:-50])
        case "empty":
            path.write_bytes(b"")
        case "gone":
            path.unlink()
    loaded = load_checkpoint(tmp_path)
    assert loaded is not None
    assert loaded["step"] == 1
    warning = capsys.readouterr().err
    assert warning.count("\n") == (how != "gone")
    # It is the last one now: the next checkpoint must not replace it by the damaged one.
    assert not (tmp_path / CHECKPOINT_BEFORE).exists()
    again = load_checkpoint(tmp_path)
    assert again is not None
    assert again["step"] == 1
    capsys.readouterr()
    if how != "gone":
        assert warning.startswith(f"warning: the checkpoint {path} is damaged")
    with Recorder(tmp_path, loaded["record_sizes"]) as recorder:
        recorder.append("metrics", {"step": 1})
    assert [one["step"] for one in RunFolder(tmp_path).records("metrics")] == [0, 1]


def test_records_that_changed_after_the_last_checkpoint_but_one_cost_one_checkpoint(
    tmp_path: Path, capsys
) -> None:
    begun(tmp_path)
    first_line = len((tmp_path / "metrics.jsonl").read_bytes()) // 3
    flip(tmp_path / "metrics.jsonl", first_line + 5)
    loaded = load_checkpoint(tmp_path)
    assert loaded is not None
    assert loaded["step"] == 1
    assert "metrics.jsonl was changed or damaged since" in capsys.readouterr().err
    flip(tmp_path / "metrics.jsonl", 5)
    with pytest.raises(UserError, match=r"metrics\.jsonl was changed or damaged .*force=true"):
        load_checkpoint(tmp_path)


def test_what_no_checkpoint_covers_may_be_damaged(tmp_path: Path) -> None:
    begun(tmp_path)
    flip(tmp_path / "metrics.jsonl", len((tmp_path / "metrics.jsonl").read_bytes()) - 5)
    loaded = load_checkpoint(tmp_path)
    assert loaded is not None
    assert loaded["step"] == 2


def test_a_checkpoint_of_before_there_were_checksums_is_loaded(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"step": 0}\n')
    save_checkpoint(tmp_path, {"step": 1, "record_sizes": {"metrics.jsonl": 12}})
    loaded = load_checkpoint(tmp_path)
    assert loaded is not None
    assert loaded["step"] == 1


def test_records_that_are_missing_are_named_but_a_set_may_be_removed(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    evaluation = {"test_accuracy_mean": 0.5, "selection": "validation", "n": 1}
    data = {"source": "made up", "fingerprint": "0"}
    sums = {"metrics.jsonl": 0, "distilled.safetensors": 5}
    run.write("result", {"evaluation": evaluation, "data": data, "checksums": sums})
    (tmp_path / "metrics.jsonl").touch()
    run.compare()
    (tmp_path / "metrics.jsonl").unlink()
    with pytest.raises(Damaged, match=r"metrics\.jsonl is missing"):
        run.compare()


def test_flipped_bits_of_a_finished_run_are_found(
    command: Command, tiny: list[str], tmp_path: Path
) -> None:
    assert command("bench.run", *tiny, "seed=5").returncode == 0
    (folder,) = (tmp_path / "results" / "runs").iterdir()
    run = RunFolder(folder)
    assert not (folder / CHECKPOINT_BEFORE).exists()
    for name in ("metrics.jsonl", "measurements.jsonl", "distilled.safetensors"):
        run.compare(name)
        for position in (3, len((folder / name).read_bytes()) // 2):
            flip(folder / name, position)
            with pytest.raises(Damaged, match="was changed or damaged after the run had finished"):
                run.compare(name)
            flip(folder / name, position)
    result = (folder / "result.json").read_text()
    accuracy = json.loads(result)["evaluation"]["test_accuracy_mean"]
    changed = result.replace(str(accuracy), str(accuracy / 2), 1)
    (folder / "result.json").write_text(changed)
    with pytest.raises(Damaged, match=r"result\.json is damaged \(its checksum is another\)"):
        run.read("result")
    told = command("bench.status").stdout
    assert "its checksum is another" in told
    (folder / "result.json").write_text(result.replace('"checksum":', '"chmcksum":'))
    with pytest.raises(Damaged, match=r"result\.json is damaged \(its checksum has another name\)"):
        run.read("result")
    (folder / "result.json").unlink()  # as it says; the checkpoint has all that is needed
    assert command("bench.run", *tiny, "seed=5").returncode == 0
    again = json.loads((folder / "result.json").read_text())
    assert again["evaluation"] == json.loads(result)["evaluation"]


def test_a_damaged_set_or_record_is_not_used(
    command: Command, tiny: list[str], tmp_path: Path
) -> None:
    assert command("bench.run", *tiny, "seed=6").returncode == 0
    (folder,) = (tmp_path / "results" / "runs").iterdir()
    command("bench.run", *tiny, "seed=7")
    (other,) = set((tmp_path / "results" / "runs").iterdir()) - {folder}
    flip(other / "measurements.jsonl", 5)
    settings = [one for one in tiny if one != "scale=quick"]
    done = command(
        "analysis.table", "table=norms", "grid=window_ablation", "scale=quick", *settings
    )
    assert "measurements.jsonl was changed or damaged" in done.stderr
    assert done.returncode == 0, done.stderr
    assert "(damaged)" not in done.stdout
    flip(folder / "distilled.safetensors", len((folder / "distilled.safetensors").read_bytes()) - 9)
    for path in (folder, folder / "distilled.safetensors"):
        done = command("bench.evaluate", f"distilled={path}", "evaluation_networks=1")
        assert done.returncode == 2
        assert "distilled.safetensors was changed or damaged" in done.stderr
