"""Loading never executes code from a file: checkpoints, distilled sets, jobs, settings, data."""

import ast
import io
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bench.evaluation.distilled_set import load_distilled_set
from bench.runs.records import CHECKPOINT, load_checkpoint
from bench.system.errors import UserError
from slurm.job import refuse_foreign

REPOSITORY = Path(__file__).resolve().parents[2]


class Bomb:
    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.folder),)


def test_no_file_runs_code(tmp_path: Path) -> None:
    mark = tmp_path / "code has run"
    bomb = pickle.dumps(Bomb(mark))
    archive = io.BytesIO()
    torch.save({"images": Bomb(mark)}, archive)
    for content in (archive.getvalue(), bomb):
        (tmp_path / CHECKPOINT).write_bytes(content)
        with pytest.raises(UserError, match="is damaged"):
            load_checkpoint(tmp_path)
        for suffix in (".pt", ".pth", ".npy", ".npz", ".h5", ".safetensors"):
            path = tmp_path / f"set{suffix}"
            path.write_bytes(content)
            with pytest.raises(UserError):
                load_distilled_set(path)
    np.save(tmp_path / "objects.npy", np.array([Bomb(mark)], object), allow_pickle=True)
    np.savez(tmp_path / "objects.npz", images=np.array([Bomb(mark)], object))
    for name in ("objects.npy", "objects.npz"):
        with pytest.raises(UserError):
            load_distilled_set(tmp_path / name)
    (tmp_path / "7_submitted.pkl").write_bytes(bomb)
    with pytest.raises(UserError, match=r"not of this job \(it names (posix|nt|os)\.mkdir\)"):
        refuse_foreign(tmp_path / "7_submitted.pkl")
    assert not mark.exists()
    pickle.loads(bomb)  # the bomb is one
    assert mark.exists()


# What may be called to read a file in a format that can hold code, and why it is safe.
SAFE = {
    "torch.load": lambda keywords: keywords.get("weights_only") == "True",
    "np.load": lambda keywords: keywords.get("allow_pickle") == "False",
    "pickle.loads": lambda keywords: keywords.get("encoding") == "'latin1'",  # official.py: MD5
    "yaml.load": lambda keywords: keywords.get("Loader") in ("LOADER", "_AsTyped"),  # safe ones
}
UNSAFE = ("pickle.load", "marshal.load", "marshal.loads", "shelve.open", "joblib.load", "eval")
UNSAFE = (*UNSAFE, "exec", "yaml.unsafe_load", "yaml.full_load", "np.loadtxt", "torch.jit.load")


def test_every_call_that_reads_a_file_is_one_that_runs_no_code() -> None:
    seen = set()
    for package in ("bench", "slurm", "analysis", "methods"):
        for path in (REPOSITORY / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if not isinstance(node, ast.Call):
                    continue
                name = ast.unparse(node.func)
                keywords = {str(k.arg): ast.unparse(k.value) for k in node.keywords}
                assert name not in UNSAFE, f"{path}: {name}"
                if name in SAFE:
                    assert SAFE[name](keywords), f"{path}: {name} {keywords}"
                    seen.add((name, path.name))
    assert {name for name, _ in seen} == {*SAFE}
    assert {where for name, where in seen if name == "pickle.loads"} == {"official.py"}
