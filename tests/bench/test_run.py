"""One run through its command: records, results, kills and resumptions, refusals."""

import json
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
from PIL import Image

from bench.runs.run_folder import RunFolder
from tests.waiting import wait_until

Command = Callable[..., subprocess.CompletedProcess[str]]
Start = Callable[..., subprocess.Popen[str]]


def only_run(folder: Path) -> Path:
    (run,) = (folder / "results" / "runs").iterdir()
    return run


def recorded(folder: Path) -> int:
    """Bytes of the outer steps that a run has recorded so far."""
    return sum(p.stat().st_size for p in (folder / "results").glob("runs/*/metrics.jsonl"))


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_run_leaves_everything_it_should(
    command: Command, tiny: list[str], tmp_path: Path
) -> None:
    done = command("bench.run", "seed=3", *tiny)
    assert done.returncode == 0, done.stderr
    assert "(mean ± standard deviation over n=2 fresh networks" in done.stdout
    run = only_run(tmp_path)
    metrics = lines(run / "metrics.jsonl")
    assert [line["step"] for line in metrics] == list(range(6))
    assert set(metrics[0]) == {
        "step",
        "outer_loss",
        "window_start",
        "window_stop",
        "gradient_norm",
        "image_gradient_norm",
        "clipped_norm",
        "clip_factor",
        "updated",
        "seconds",
        "probe_seconds",
    }
    measurements = lines(run / "measurements.jsonl")
    variances = [line["step"] for line in measurements if "variance" in line]
    accuracies = [line["step"] for line in measurements if "test_accuracy_mean" in line]
    assert (variances, accuracies) == ([0, 3], [0, 2, 4, 6])
    result = json.loads((run / "result.json").read_text())
    assert result["evaluation"]["n"] == 2
    assert result["evaluation"]["selection"] == "validation"
    assert result["peak_memory_bytes"]["process"] > 50e6
    manifest = json.loads((run / "manifest.json").read_text())
    assert manifest["seed"] == 3
    assert manifest["data"]["source"] == "scikit-learn digits, resplit"
    assert manifest["data"]["fingerprint"] == result["data"]["fingerprint"]
    assert {"torch", "python"} <= set(manifest["starts"][0]["versions"])
    assert manifest["starts"][0]["hardware"]["cpu"]
    with safetensors.safe_open(run / "distilled.safetensors", "pt") as file:
        metadata = json.loads(file.metadata()["distilled_set"])
        assert file.get_tensor("images").shape == (10, 1, 8, 8)
        assert file.get_tensor("labels").shape == (10, 10)
    assert (metadata["zca"], metadata["zca_lambda"]) == (True, 0.1)
    assert metadata["fingerprint"] == manifest["data"]["fingerprint"]
    with Image.open(run / "distilled.png") as picture:
        assert picture.size[0] > picture.size[1] > 50
    assert not list(run.glob(".*"))

    again = command("bench.run", "seed=3", *tiny)
    assert again.returncode == 0
    assert lines(run / "metrics.jsonl") == metrics  # not run a second time


@pytest.mark.parametrize("signal_number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupted_run_writes_its_checkpoint_and_says_so(
    start: Start, tiny: list[str], tmp_path: Path, signal_number: int
) -> None:
    arguments = [*tiny, "outer_steps=100000"]
    process = start("bench.run", *arguments)
    wait_until(lambda: recorded(tmp_path) > 0, "the first step", process)
    process.send_signal(signal_number)
    _, told = process.communicate()
    assert process.returncode == 130
    assert "the same command resumes the run" in told
    assert "Traceback" not in told
    run = only_run(tmp_path)
    assert (run / "checkpoint.pt").exists()
    assert json.loads((run / "progress.json").read_text())["state"] == "stopped"


@pytest.mark.parametrize("lines_read", [0, 3])
def test_a_run_goes_on_when_the_reader_of_its_output_has_gone(
    start: Start, tiny: list[str], tmp_path: Path, lines_read: int
) -> None:
    process = start("bench.run", *tiny)
    assert process.stdout is not None
    for _ in range(lines_read):  # the third one says that the data are loaded
        assert process.stdout.readline()
    process.stdout.close()
    assert process.stderr is not None
    assert process.stderr.read() == ""
    assert process.wait() == 0
    assert (only_run(tmp_path) / "result.json").exists()


def test_an_output_that_is_closed_or_lacks_characters_ends_no_run(
    environment: dict[str, str], tiny: list[str], tmp_path: Path
) -> None:
    again = f"{shlex.quote(sys.executable)} -m bench.run {shlex.join(tiny)}"
    where: Any = {"cwd": tmp_path, "capture_output": True, "text": True}
    environment["PYTHONIOENCODING"] = "ascii"
    done = subprocess.run(["sh", "-c", again], env=environment, **where)
    assert (done.returncode, done.stderr) == (0, "")
    assert "(mean ? standard deviation" in done.stdout
    closed = subprocess.run(["sh", "-c", f"{again} seed=1 >&-"], env=environment, **where)
    assert (closed.returncode, closed.stderr) == (0, "")
    assert len(list((tmp_path / "results/runs").glob("*/result.json"))) == 2


def test_a_run_that_diverges_says_so_in_one_line(
    command: Command, tiny: list[str], tmp_path: Path
) -> None:
    done = command("bench.run", *tiny, "outer_steps=60", "inner_optimizer=sgd", "inner_lr=1e9")
    assert done.returncode == 1
    assert done.stderr.startswith("diverged: ")
    assert done.stderr.count("\n") == 1
    error = json.loads((only_run(tmp_path) / "error.json").read_text())
    assert error["kind"] == "diverged"


def test_accuracies_of_networks_that_are_not_finite_are_no_result(
    command: Command, tiny: list[str], tiny_evaluation: list[str], tmp_path: Path
) -> None:
    settings = ["inner_optimizer=sgd", "inner_lr=1e9", "evaluation_steps=[60]"]
    done = command("bench.run", *tiny, "outer_steps=2", *settings)
    assert done.returncode == 1
    assert done.stderr == "diverged: none of 2 networks trained on the final set is finite\n"
    assert not (only_run(tmp_path) / "result.json").exists()
    done = command("bench.evaluate", "distilled=real_images", *tiny_evaluation, *settings)
    assert done.returncode == 0
    assert "2 of 2 networks not finite" in done.stdout


def refused(done: subprocess.CompletedProcess[str], *told: str) -> None:
    """Exit status 2 and one clear line."""
    assert done.returncode == 2, (done.stdout, done.stderr)
    assert done.stderr.count("\n") == 1, done.stderr
    for words in told:
        assert words in done.stderr


def test_bad_settings_are_refused_in_one_line(command: Command, tmp_path: Path) -> None:
    refused(command("bench.run", "windw_size=3"), "window_size")
    refused(command("bench.run", "scale=quick", "window_size=99"), "unroll_length=30")
    refused(command("bench.run", "scale=quick", "depth=5"), "depth=5")
    refused(command("bench.run", "scale=quick", "device=cuda:99"), "cuda:99")
    refused(command("bench.evaluate", "distilled=none.npz"), "none.npz")


def test_missing_data_say_what_to_do(command: Command, tmp_path: Path) -> None:
    done = command("bench.run", "scale=cpu", "data_root=nowhere")
    refused(done, "nowhere", "bench.prepare dataset=cifar10")


def test_a_corrupt_zip_is_named(command: Command, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "cifar10.zip").write_bytes(b"PK\x03\x04 this is no zip")
    refused(command("bench.run", "scale=cpu", "data_root=data"), "cifar10.zip")


def test_an_unwritable_results_folder_is_named(command: Command, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for module, grid in (("bench.run", []), ("bench.sweep", ["grid=window_ablation"])):
        done = command(module, *grid, "scale=quick", "results_root=file/results")
        refused(done, "file/results", "cannot be written")


def test_a_damaged_checkpoint_is_refused_and_kept(
    command: Command, tiny: list[str], tmp_path: Path
) -> None:
    command("bench.run", *tiny)
    run = only_run(tmp_path)
    os.remove(run / "result.json")
    content = (run / "checkpoint.pt").read_bytes()
    (run / "checkpoint.pt").write_bytes(content[: len(content) // 2])
    metrics = (run / "metrics.jsonl").read_bytes()
    refused(command("bench.run", *tiny), "checkpoint", "damaged", "force=true")
    assert (run / "metrics.jsonl").read_bytes() == metrics
    assert command("bench.run", "force=true", *tiny).returncode == 0


def test_other_data_under_a_begun_run_are_refused(
    command: Command, tiny: list[str], tmp_path: Path
) -> None:
    command("bench.run", *tiny)
    run = only_run(tmp_path)
    os.remove(run / "result.json")
    manifest = RunFolder(run).read("manifest") or {}
    manifest["data"]["fingerprint"] = "of other data"
    RunFolder(run).write("manifest", manifest)
    refused(command("bench.run", *tiny), "started with other data")


def test_selection_by_test_is_labelled_wherever_its_number_stands(
    command: Command, tiny: list[str]
) -> None:
    done = command("bench.run", "selection=test", *tiny)
    assert done.returncode == 0, done.stderr
    assert "selected by test" in done.stdout
    assert "0 validation" in done.stdout
    assert "selected by TEST" in command("bench.status").stdout


@pytest.mark.parametrize(("fraction", "held_out"), [("0", 0), ("0.2", 259)])
def test_the_training_set_selects_with_and_without_a_part_held_out(
    command: Command, tiny: list[str], tmp_path: Path, fraction: str, held_out: int
) -> None:
    protocol = ["selection=train", f"validation_fraction={fraction}"]
    done = command("bench.run", *protocol, *tiny)
    assert done.returncode == 0, done.stderr
    assert "selected by train" in done.stdout
    assert f"{held_out} validation" in done.stdout
    run = only_run(tmp_path)
    measured = [one for one in lines(run / "measurements.jsonl") if "train_accuracy_mean" in one]
    assert [one["step"] for one in measured] == [0, 2, 4, 6]
    result = json.loads((run / "result.json").read_text())
    best = max(measured, key=lambda one: one["train_accuracy_mean"])  # the first among equals
    assert result["distilled_step"] == best["step"]
    evaluation = result["evaluation"]
    means = [sum(column) for column in zip(*evaluation["all_train"], strict=True)]
    assert evaluation["steps"] == evaluation["all_steps"][means.index(max(means))]
    assert "selected by train" in command("bench.status").stdout
    of_a_killed_process = tmp_path / "results/evaluations/.other.json.abcdefgh.json"
    of_a_killed_process.parent.mkdir()
    of_a_killed_process.touch()
    os.utime(of_a_killed_process, (0, 0))
    again = command("bench.evaluate", f"distilled={run}")
    assert again.returncode == 0, again.stderr
    assert "<- selected by train" in again.stdout
    (record,) = (tmp_path / "results/evaluations").iterdir()
    assert json.loads(record.read_text())["evaluation"] == evaluation


def test_a_root_that_begins_with_a_tilde_is_in_the_home_folder_for_every_command(
    command: Command, environment: dict[str, str], tiny: list[str], tmp_path: Path
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    environment["HOME"] = str(home)
    root = "results_root=~/results"
    done = command("bench.run", root, *tiny)
    assert done.returncode == 0, done.stderr
    (run,) = (home / "results/runs").iterdir()
    assert "1 done" in command("bench.status", root).stdout
    tilde = f"~/results/runs/{run.name}"
    assert command("bench.evaluate", f"distilled={tilde}", root).returncode == 0
    assert command("bench.run", f"folder={tilde}").returncode == 0
    done = command("bench.run", f"from={tilde}/manifest.json", root)
    assert done.returncode == 0, done.stderr
    (home / "mine.yaml").write_text("about: mine\nruns: [{}]\n")
    done = command("bench.sweep", "grid=~/mine.yaml", "scale=quick", "dry_run=true", root)
    assert "grid mine: mine" in done.stdout, done.stderr
    records = ["published=~/records", "scale=quick"]
    done = command("bench.publish", root, *records, "grid=rivals", "only=dm", "verify=true")
    assert f"{home}/records" in done.stdout + done.stderr
    drawn = [root, "scale=quick", "table=evaluations", "output=~/tables"]
    done = command("analysis.table", *drawn)
    assert done.returncode == 0, done.stderr
    assert list((home / "tables").iterdir())
    assert [path.name for path in tmp_path.iterdir()] == ["home"]


def test_a_number_of_evaluation_steps_that_is_given_twice_is_measured_once(
    command: Command, tiny: list[str], tmp_path: Path
) -> None:
    assert command("bench.run", *tiny, "evaluation_steps=[2,4,2]").returncode == 0
    run = only_run(tmp_path)
    evaluation = json.loads((run / "result.json").read_text())["evaluation"]
    assert evaluation["all_steps"] == [2, 4]
    done = command("bench.evaluate", f"distilled={run}")
    assert done.returncode == 0, done.stderr
    (record,) = (tmp_path / "results/evaluations").iterdir()
    assert json.loads(record.read_text())["evaluation"] == evaluation


def test_a_distilled_set_is_evaluated_in_every_form(
    command: Command, tiny: list[str], tiny_evaluation: list[str], tmp_path: Path
) -> None:
    import numpy as np

    command("bench.run", *tiny)
    run = only_run(tmp_path)
    expected = json.loads((run / "result.json").read_text())["evaluation"]["all_test"]
    ours = command("bench.evaluate", f"distilled={run}")
    assert ours.returncode == 0, ours.stderr
    tensors = safetensors.torch.load_file(run / "distilled.safetensors")
    arrays = {name: tensor.numpy() for name, tensor in tensors.items()}
    backwards = np.arange(10)[::-1]
    np.savez(
        tmp_path / "theirs.npz",
        x=arrays["images"][backwards].transpose(0, 2, 3, 1),
        y=arrays["labels"].argmax(1)[backwards],
    )
    theirs = command("bench.evaluate", "distilled=theirs.npz", *tiny_evaluation)
    assert theirs.returncode == 0, theirs.stderr
    records = [
        json.loads(path.read_text()) for path in (tmp_path / "results/evaluations").iterdir()
    ]
    assert [record["evaluation"]["all_test"] for record in records] == [expected, expected]

    other = command("bench.evaluate", f"distilled={run}", "arch=alexnet", "evaluation_networks=1")
    assert other.stdout.startswith("alexnet tested on"), other.stderr
    large = command("bench.evaluate", f"distilled={run}", "arch=alexnet", "image_size=32")
    refused(large, "[10, 1, 8, 8]", "1x32x32", "image_size")
    refused(command("bench.evaluate", f"distilled={run}", "arch=alexnet", "depth=2"), "one size")

    uneven = {"images": arrays["images"][:7], "labels": arrays["labels"].argmax(1)[:7]}
    np.savez(tmp_path / "uneven.npz", **uneven)
    for augmentation in ("none", "flip_or_rotate"):
        augmented = f"augment_evaluation={augmentation}"
        done = command("bench.evaluate", "distilled=uneven.npz", *tiny_evaluation, augmented)
        assert done.returncode == 0, done.stderr
    by_class = command(
        "bench.evaluate", "distilled=uneven.npz", *tiny_evaluation, "inner_classes=2"
    )
    refused(by_class, "sample batches by class")

    np.savez(tmp_path / "pixels.npz", images=np.zeros((10, 8, 8, 1), np.uint8), labels=range(10))
    pixels = command("bench.evaluate", "distilled=pixels.npz", *tiny_evaluation)
    assert "(pixels)" in pixels.stdout
    real = command("bench.evaluate", "distilled=real_images", *tiny_evaluation)
    assert "1 random real image per class" in real.stdout
    refused(command("bench.evaluate", "distilled=pixels.npz", *tiny_evaluation, "ipc=x"), "ipc=x")
    (tmp_path / "broken.npz").write_bytes(b"PK nothing")
    refused(
        command("bench.evaluate", "distilled=broken.npz", *tiny_evaluation), "broken.npz", "damaged"
    )


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("outer_steps=5", "outer_steps has no effect on this command"),
        ("scores=true", "scores has no effect on this command"),
        ("inner_momentum=0.9", "it needs inner_optimizer=sgd"),
    ],
)
def test_an_evaluation_refuses_what_it_does_not_read(
    command: Command, tiny_evaluation: list[str], setting: str, words: str
) -> None:
    done = command("bench.evaluate", "distilled=real_images", *tiny_evaluation, setting)
    refused(done, words)


def test_a_key_of_labels_names_an_entry_of_their_own_file(
    command: Command, tiny_evaluation: list[str], tmp_path: Path
) -> None:
    import numpy as np

    images = np.zeros((10, 8, 8, 1), np.uint8)
    np.savez(tmp_path / "set.npz", images=images, labels=range(10))
    np.savez(tmp_path / "soft.npz", hard=np.arange(10), soft=np.eye(10))
    given = ["distilled=set.npz", *tiny_evaluation]
    done = command("bench.evaluate", *given, "labels=soft.npz", "labels_key=soft")
    assert done.returncode == 0, done.stderr
    np.savez(tmp_path / "set.npz", images=images)
    done = command("bench.evaluate", *given, "label_form=from_1")
    refused(done, "label_form=from_1 has no effect: the file has no labels")


def test_a_run_without_its_set_is_said_to_be_one(
    command: Command, tiny: list[str], tmp_path: Path
) -> None:
    assert command("bench.run", *tiny).returncode == 0
    run = only_run(tmp_path)
    refused(command("bench.run", f"folder={run}", "scale=quick"), "has its own configuration")
    (run / "distilled.safetensors").unlink()
    done = command("bench.evaluate", f"distilled={run}")
    refused(done, "has no distilled set: the run is not finished")
