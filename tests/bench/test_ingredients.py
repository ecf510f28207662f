"""What a run needs before it starts: its memory budget, and whether it is compiled."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from bench.config import Place, RunConfig
from bench.data import TargetSet, load_target_set
from bench.errors import UserError
from bench.execute import execute
from bench.grids import single_run
from bench.ingredients import activation_budget, compiles, run_multiply_adds
from bench.run import Console
from bench.settings import parse
from bench.store import Store

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def digits(cache_root: Path) -> TargetSet:
    return load_target_set("digits", data_root=cache_root, cache_root=cache_root)


@pytest.fixture
def config(tiny: list[str]) -> RunConfig:
    return single_run("quick", parse(tiny, RunConfig))


def test_the_budget_is_what_was_stated_in_gib() -> None:
    assert activation_budget(Place(activation_memory="1.5"), CPU) == 3 << 29
    assert activation_budget(Place(activation_memory="0"), CPU) == 0


@pytest.mark.parametrize("stated", ["much", "-1", "nan", "inf"])
def test_another_budget_is_refused(stated: str) -> None:
    with pytest.raises(UserError, match="activation_memory"):
        activation_budget(Place(activation_memory=stated), CPU)


def test_the_automatic_budget_is_the_share_of_the_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = []
    for cores in (1, 4):
        monkeypatch.setattr("bench.ingredients.cpu_cores", lambda cores=cores: cores)
        monkeypatch.setattr("torch.get_num_threads", lambda: 1)
        whole.append(activation_budget(Place(), CPU))
    assert whole[0] > 0
    assert whole[1] == pytest.approx(whole[0] / 4, rel=0.2)


def test_the_work_of_a_run_is_counted_in_its_convolutions(digits: TargetSet) -> None:
    config = replace(
        RunConfig(),
        width=4,
        depth=1,
        ipc=2,
        unroll_length=5,
        window_size=2,
        outer_steps=7,
        replicas=3,
    )
    forward = 20 * (8 * 8 * 9 * 4 + 4 * 4 * 4 * 10)  # 20 images: a convolution, a linear layer
    assert run_multiply_adds(config, digits) == 7 * 3 * (3 * 5 + 8 * 2) * forward


def test_long_runs_are_compiled_by_themselves(
    config: RunConfig, digits: TargetSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bench.ingredients.can_compile", lambda device: True)
    long = replace(config, outer_steps=10**9)
    assert compiles(long, Place(), digits, CPU)
    assert not compiles(config, Place(), digits, CPU)
    assert not compiles(long, Place(compile="never"), digits, CPU)
    assert compiles(config, Place(compile="always"), digits, CPU)
    assert not compiles(replace(long, engine="higher"), Place(compile="always"), digits, CPU)


def test_where_nothing_can_be_compiled_only_an_order_to_is_refused(
    config: RunConfig, digits: TargetSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bench.ingredients.can_compile", lambda device: False)
    assert not compiles(replace(config, outer_steps=10**9), Place(), digits, CPU)
    with pytest.raises(UserError, match="compile=always"):
        compiles(config, Place(compile="always"), digits, CPU)


def test_a_run_goes_on_uncompiled_as_it_began(
    config: RunConfig, cache_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = Place(data_root=str(cache_root), cache_root=str(cache_root), threads=1)
    folder = Store(tmp_path).run(config)
    folder.create(config)
    execute(folder, place, Console(config))
    folder.remove("result.json")
    monkeypatch.setattr("bench.ingredients.can_compile", lambda device: True)
    execute(folder, replace(place, compile="always"), Console(config))
    manifest = folder.read("manifest")
    assert manifest is not None
    assert manifest["compiled"] is False
    assert len(manifest["starts"]) == 2
