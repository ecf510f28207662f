"""What several tests of `bench` start from."""

import errno
import os
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_digits
from torch import Tensor

from bench.config.command_line import parse
from bench.config.run_config import Environment, RunConfig
from bench.data import TargetSet, load_target_set
from bench.evaluation.interpretation import SubjectOptions
from bench.runs.subject import set_up

Read = Callable[..., tuple[Tensor, Tensor]]


@pytest.fixture(scope="module")
def digits(cache_root: Path) -> TargetSet:
    return load_target_set("digits", data_root=cache_root, cache_root=cache_root)


@pytest.fixture(scope="module")
def fifty() -> tuple[Any, Any]:
    """Pixels [50, 1, 8, 8] of 0..1, class by class, and their classes [50]."""
    digits: Any = load_digits()
    chosen = np.concatenate([np.where(digits.target == c)[0][:5] for c in range(10)])
    return (digits.images[chosen] / 16).astype("f4")[:, None], digits.target[chosen]


@pytest.fixture
def read(cache_root: Path, tmp_path: Path, tiny: list[str]) -> Read:
    """`read("name", *settings)`: images and labels, as `bench.evaluate` reads a file in
    `tmp_path`."""

    def images_and_labels(name: str, *settings: str) -> tuple[Tensor, Tensor]:
        arguments = [f"distilled={tmp_path / name}", f"cache_root={cache_root}", *tiny, *settings]
        arguments.append(f"results_root={tmp_path / 'results'}")
        subject = set_up(parse(arguments, SubjectOptions, RunConfig, Environment))
        assert subject.images is not None
        assert subject.labels is not None
        return subject.images, subject.labels

    return images_and_labels


@pytest.fixture
def no_locks(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A file system without locks."""

    def unknown(*_: Any) -> None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr("fcntl.flock", unknown)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # filelock's, that there are none
        yield
