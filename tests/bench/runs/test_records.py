"""Records and checkpoints: nothing is read that is damaged or unfinished."""

from pathlib import Path

import psutil
import pytest
import torch

from bench.runs.records import Recorder, load_checkpoint, save_checkpoint
from bench.runs.run_folder import RunFolder
from bench.system.errors import UserError


def test_a_damaged_checkpoint_is_noticed_wherever_the_damage_matters(tmp_path: Path) -> None:
    images = torch.randn(100)
    save_checkpoint(tmp_path, {"images": images, "step": 3})
    path = tmp_path / "checkpoint.pt"
    whole = path.read_bytes()
    data = whole.find(images.numpy().tobytes())
    noticed: list[int] = []
    for position in [data, data + 399, *range(0, len(whole), 37)]:
        damaged = bytearray(whole)
        damaged[position] ^= 0xFF
        path.write_bytes(damaged)
        try:
            loaded = load_checkpoint(tmp_path)
        except UserError:
            noticed.append(position)
        else:  # padding between the parts of the file
            assert loaded is not None
            assert torch.equal(loaded["images"], images)
            assert loaded["step"] == 3
    assert {data, data + 399} <= set(noticed)
    assert len(noticed) > 10


def test_a_checkpoint_that_was_cut_short_is_noticed(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, {"images": torch.randn(1000)})
    path = tmp_path / "checkpoint.pt"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(UserError, match="force=true"):
        load_checkpoint(tmp_path)


def test_records_are_cut_back_to_what_the_checkpoint_states(tmp_path: Path) -> None:
    with Recorder(tmp_path, {}) as recorder:
        recorder.append("metrics", {"step": 0})
        sizes = recorder.sizes()
        recorder.append("metrics", {"step": 1, "loss": float("nan")})
    with open(tmp_path / "metrics.jsonl", "a") as file:
        file.write('{"step": 2, "lo')  # a kill in the middle of a line
    assert [record["step"] for record in RunFolder(tmp_path).records("metrics")] == [0, 1]
    with Recorder(tmp_path, sizes) as recorder:
        recorder.append("metrics", {"step": 1})
    assert RunFolder(tmp_path).records("metrics") == [{"step": 0}, {"step": 1}]


def test_records_shorter_than_the_checkpoint_says_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="shorter"), Recorder(tmp_path, {"metrics.jsonl": 10}):
        pass


def test_a_file_that_cannot_be_opened_leaves_no_other_one_open(tmp_path: Path) -> None:
    (tmp_path / "measurements.jsonl").mkdir()
    with pytest.raises(UserError, match=r"measurements\.jsonl"):
        Recorder(tmp_path, {})
    assert not [one for one in psutil.Process().open_files() if one.path.startswith(str(tmp_path))]
