"""Expert trajectories: how they are trained, kept and prepared."""

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from bench.data import TargetSet, load_target_set
from bench.data.cache import Stored
from bench.objectives.experts import Experts, flat_direction
from bench.sweeps.cost_measurement import Measurement
from bench.sweeps.cost_model import Linear
from bench.sweeps.placeholder_data import random_target_set
from bench.system.errors import UserError
from bench.training.randomness import torch_generator
from tests.bench.objectives.trajectories import OPTIONS, configuration, experts
from tests.conftest import Command


def test_an_expert_is_trained_as_torch_would(digits: TargetSet) -> None:
    options = {**OPTIONS, "expert_augmentation": "none"}
    double = digits.to("cpu", torch.float64)
    own = experts(double, None, options)
    start, end = own.pair(1, 0, 2)
    network = own.setting.network.double()
    network.load_state_dict(own.network.unflatten(start))
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    for epoch in range(2):
        generator = torch_generator(0, "expert/epoch", 1, epoch)
        order = torch.randperm(len(double.train), generator=generator)
        for batch in order.split(400):
            optimizer.zero_grad()
            logits = network(double.train.images[batch])
            F.cross_entropy(logits, double.train.labels[batch]).backward()
            optimizer.step()
    torch.testing.assert_close(end, own.network.flatten(dict(network.named_parameters())))


def test_experts_are_trained_once(
    digits: TargetSet, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told: list[str] = []
    first = experts(digits, tmp_path)
    first.prepare(told.append)
    assert sorted(told) == ["training experts 0/2", "training experts 1/2"]
    assert "training 2 expert trajectories, kept in" in capsys.readouterr().out
    again = experts(digits, tmp_path, {**OPTIONS, "student_steps": 9, "lr_lr": 0}, seed=3)
    again.prepare(told.append)
    assert len(told) == 2
    assert capsys.readouterr().out == ""
    assert torch.equal(first.pair(1, 0, 2)[1], again.pair(1, 0, 2)[1])
    assert first.seconds() == again.seconds() > 0
    more = experts(digits, tmp_path, {**OPTIONS, "experts": 3})
    files = {
        path: path.stat().st_mtime_ns for path in (tmp_path / "experts").rglob("*.safetensors")
    }
    more.prepare(told.append)
    assert {path: path.stat().st_mtime_ns for path in files} == files
    assert len(list((tmp_path / "experts").rglob("*.safetensors"))) == 3


def test_two_that_start_at_once_train_each_expert_once(
    digits: TargetSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train, trained = Experts._train, list[int]()

    def counted(self: Experts, expert: int) -> Stored:
        trained.append(expert)
        return train(self, expert)

    monkeypatch.setattr(Experts, "_train", counted)
    both = [experts(digits, tmp_path, {**OPTIONS, "experts": 4}) for _ in range(2)]
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda one: one.prepare(lambda text: None), both))
    assert sorted(trained) == [0, 1, 2, 3]


def test_a_damaged_expert_is_trained_again(digits: TargetSet, tmp_path: Path) -> None:
    before = [theta.clone() for theta in experts(digits, tmp_path).pair(0, 0, 2)]
    (path,) = (tmp_path / "experts").rglob("*.safetensors")
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)
    after = experts(digits, tmp_path).pair(0, 0, 2)
    assert torch.equal(before[1], after[1])


@pytest.mark.parametrize(
    ("options", "settings", "loading"),
    [
        *[({key: value}, {}, {}) for key, value in [("expert_lr", 0.2), ("expert_epochs", 3)]],
        *[({key: value}, {}, {}) for key, value in [("expert_batch", 401)]],
        ({"expert_augmentation": "flip"}, {}, {}),
        ({}, {"width": 5}, {}),
        ({}, {"depth": 2}, {}),
        ({}, {"conv_bias": False}, {}),
        ({}, {}, {"zca": False}),
        ({}, {}, {"zca_lambda": 0.2}),
        ({}, {}, {"validation_fraction": 0.2}),
        ({}, {}, {"image_size": 16}),
    ],
)
def test_other_experts_are_kept_in_another_folder(
    digits: TargetSet,
    cache_root: Path,
    options: dict[str, Any],
    settings: dict[str, Any],
    loading: dict[str, Any],
) -> None:
    changed = load_target_set("digits", data_root=cache_root, cache_root=cache_root, **loading)
    one = experts(digits, cache_root).folder
    assert one == experts(digits, cache_root, seed=5, ipc=3, outer_lr=2.0).folder
    assert one != experts(changed, cache_root, {**OPTIONS, **options}, **settings).folder


def test_experts_see_the_training_part_alone(digits: TargetSet) -> None:
    empty = replace(digits.test, images=digits.test.images[:0], labels=digits.test.labels[:0])
    alone = replace(digits, test=empty, validation=empty)
    assert torch.equal(
        experts(digits, None).pair(0, 0, 2)[1], experts(alone, None).pair(0, 0, 2)[1]
    )


def test_flat_experts_move_against_the_gradient_where_the_loss_is_higher() -> None:
    """GSAM of a quadratic loss, whose gradient is curvature * θ, in numbers worked out by hand."""
    curvature, theta = torch.tensor([1.0, 2.0]), torch.tensor([3.0, 2.0])

    def gradient(at: Tensor) -> Tensor:
        return curvature * at

    g = torch.tensor([3.0, 4.0])  # of norm 5
    h = torch.tensor([3.0 + 0.5 * 0.6, 2 * (2.0 + 0.5 * 0.8)])  # (3.3, 4.8)
    torch.testing.assert_close(flat_direction(gradient, theta, 0.5, 0.0), h)
    across = g - 29.1 / 33.93 * h
    assert across @ h == pytest.approx(0, abs=1e-5)
    torch.testing.assert_close(flat_direction(gradient, theta, 0.5, 0.3), h - 0.3 * across)
    torch.testing.assert_close(flat_direction(gradient, theta, 0.0, 0.3), g)


def test_experts_of_ftd_are_others_and_those_of_mtt_with_radius_0(digits: TargetSet) -> None:
    plain = experts(digits, None).pair(0, 0, 2)
    flat, radius_0 = (
        experts(digits, None, {**OPTIONS, "expert_rho": rho}, objective="ftd").pair(0, 0, 2)
        for rho in (0.5, 0.0)
    )
    assert torch.equal(plain[0], flat[0])
    assert not torch.allclose(plain[1], flat[1])
    torch.testing.assert_close(plain[1], radius_0[1])


def test_an_expert_that_diverges_says_so(digits: TargetSet) -> None:
    with pytest.raises(UserError, match="expert 0 is not finite after epoch"):
        experts(digits, None, {**OPTIONS, "expert_lr": 1e9}).pair(0, 0, 1)


def test_an_estimate_trains_no_expert(monkeypatch: pytest.MonkeyPatch) -> None:
    def train(*args: Any) -> None:
        raise AssertionError

    monkeypatch.setattr(Experts, "_train", train)
    config = configuration({**OPTIONS, "experts": 100})
    target_set = random_target_set(config, torch.device("cpu"))
    seconds, n_bytes = Measurement(config, target_set, 0, 0.1).outer_step()
    assert seconds == Linear(seconds.constant)  # of a whole outer step, which has no window
    assert seconds.constant > 0
    assert n_bytes == Linear(n_bytes.constant)


def test_prepare_trains_the_experts_of_a_run_which_records_its_learning_rate(
    command: Command, tiny: list[str], tmp_path: Path
) -> None:
    own = [f"objective_options.{key}={value}" for key, value in OPTIONS.items()]
    settings = [
        each for each in tiny if not each.startswith(("unroll", "window", "target", "variance"))
    ]
    settings += ["objective=mtt", *own, f"cache_root={tmp_path / 'cache'}"]
    prepared = command("bench.prepare", "dataset=digits", *settings)
    assert prepared.returncode == 0, prepared.stderr
    assert "training 2 expert trajectories" in prepared.stdout
    done = command("bench.run", *settings)
    assert done.returncode == 0, done.stderr
    assert "expert" not in done.stdout
    (path,) = (tmp_path / "results" / "runs").glob("*/result.json")
    recorded = json.loads(path.read_text())["objective"]
    assert recorded["expert_seconds"] > 0
    assert recorded["student_lr"] != 0.01
