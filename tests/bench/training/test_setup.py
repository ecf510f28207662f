"""What a run needs before it starts: its memory budget, and whether it is compiled."""

import os
import tempfile
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from bench.config.command_line import parse
from bench.config.grid import single_run
from bench.config.run_config import Environment, RunConfig
from bench.run import Console
from bench.runs.execute import execute
from bench.runs.run_folder import Store
from bench.system.errors import UserError
from bench.training.setup import (
    activation_budget,
    check_device,
    compiles,
    find_room_to_compile,
    load_data,
    make_network,
)

CPU = torch.device("cpu")


@pytest.fixture
def config(tiny: list[str]) -> RunConfig:
    return single_run("quick", parse(tiny, RunConfig))


def test_the_budget_is_what_was_stated_in_gib() -> None:
    assert activation_budget(Environment(activation_memory="1.5"), CPU) == 3 << 29
    assert activation_budget(Environment(activation_memory="0"), CPU) == 0


@pytest.mark.parametrize("stated", ["much", "-1", "nan", "inf"])
def test_another_budget_is_refused(stated: str) -> None:
    with pytest.raises(UserError, match="activation_memory"):
        activation_budget(Environment(activation_memory=stated), CPU)


def test_the_automatic_budget_is_the_share_of_the_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = []
    for cores in (1, 4):
        monkeypatch.setattr("bench.training.setup.cpu_cores", lambda cores=cores: cores)
        monkeypatch.setattr("torch.get_num_threads", lambda: 1)
        whole.append(activation_budget(Environment(), CPU))
    assert whole[0] > 0
    assert whole[1] == pytest.approx(whole[0] / 4, rel=0.2)


def test_runs_are_compiled_on_a_gpu_or_on_order(
    config: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bench.training.setup.compile_error", lambda device: "")
    gpu = torch.device("cuda")
    assert compiles(config, Environment(), gpu)
    assert not compiles(config, Environment(), CPU)
    assert not compiles(config, Environment(compile="never"), gpu)
    assert compiles(config, Environment(compile="always"), CPU)
    assert not compiles(replace(config, engine="higher"), Environment(compile="always"), gpu)


def test_where_nothing_can_be_compiled_only_an_order_to_is_refused(
    config: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bench.training.setup.compile_error", lambda device: "no compiler")
    assert not compiles(config, Environment(), torch.device("cuda"))
    with pytest.raises(UserError, match=r"compile=always.*: no compiler"):
        compiles(config, Environment(compile="always"), CPU)


@pytest.mark.parametrize(
    ("free_mib", "moved"), [((64, 9000), True), ((9000, 9000), False), ((64, 64), False)]
)
def test_compilers_have_room_where_temporary_files_have_little(
    free_mib: tuple[int, int], moved: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small, cache = tmp_path / "small", tmp_path / "cache"
    small.mkdir()
    free = dict(zip((small, cache), free_mib, strict=True))

    def disk_usage(folder: Path | str) -> SimpleNamespace:
        return SimpleNamespace(free=free[Path(folder)] << 20)

    monkeypatch.setattr("bench.training.setup.shutil.disk_usage", disk_usage)
    monkeypatch.setattr("bench.training.setup.tempfile.tempdir", None)
    monkeypatch.setenv("TMPDIR", str(small))
    find_room_to_compile(cache)
    assert tempfile.gettempdir() == str(cache if moved else small)
    assert os.environ["TMPDIR"] == tempfile.gettempdir()


def test_higher_is_refused_tf32_where_no_gpu_does_it(config: RunConfig) -> None:
    tf32 = replace(config, precision="tf32")
    check_device(tf32, CPU)
    check_device(replace(tf32, engine="higher"), torch.device("cuda"))
    with pytest.raises(UserError, match="from a GPU"):
        check_device(replace(tf32, engine="higher"), CPU)


@pytest.mark.parametrize("arch", ["vgg11", "resnet18"])
def test_images_too_small_for_a_network_are_refused_with_the_setting_that_helps(
    config: RunConfig, cache_root: Path, arch: str
) -> None:
    environment = Environment(data_root=str(cache_root), cache_root=str(cache_root))
    config = replace(config, arch=arch)
    with pytest.raises(UserError, match=rf"arch={arch} .* 8x8.*; image_size=32 enlarges them"):
        make_network(config, load_data(config, environment, CPU))
    config = replace(config, image_size=32)
    target_set = load_data(config, environment, CPU)
    assert target_set.image_shape == (1, 32, 32)
    make_network(config, target_set)


@pytest.mark.parametrize("selection", ["validation", "train", "test"])
def test_a_validation_part_without_images_is_refused_only_where_it_would_select(
    selection: str, cache_root: Path
) -> None:
    config = single_run("quick", {"selection": selection, "validation_fraction": 0.0003})
    environment = Environment(cache_root=str(cache_root))
    if selection == "validation":
        with pytest.raises(UserError, match=r"holds out none .* give at least 0\.00077") as refused:
            load_data(config, environment, CPU)
        least = float(str(refused.value).rpartition(" ")[2])
        config = replace(config, validation_fraction=least)
    target_set = load_data(config, environment, CPU)
    assert len(target_set.validation) == (selection == "validation")


def test_a_run_goes_on_uncompiled_as_it_began(
    config: RunConfig, cache_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment = Environment(data_root=str(cache_root), cache_root=str(cache_root), threads=1)
    folder = Store(tmp_path).run(config)
    folder.create(config)
    execute(folder, environment, Console(config))
    folder.remove("result.json")
    monkeypatch.setattr("bench.training.setup.compile_error", lambda device: "")
    execute(folder, replace(environment, compile="always"), Console(config))
    manifest = folder.read("manifest")
    assert manifest is not None
    assert manifest["compiled"] is False
    assert len(manifest["starts"]) == 2
