"""Fresh networks on a distilled set: the numbers that everybody will quote."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from bench.config import RunConfig
from bench.data import TargetSet, load_target_set
from bench.data.target_set import Split
from bench.evaluation import Evaluation, accuracy, evaluate
from bench.grids import single_run
from bench.ingredients import make_network
from bench.metagrad import MeanLoss, make_derivatives
from bench.networks import initial_parameters
from bench.randomness import torch_generator
from bench.settings import parse


@pytest.fixture(scope="module")
def digits(cache_root: Path) -> TargetSet:
    return load_target_set("digits", data_root=cache_root, cache_root=cache_root)


@pytest.fixture
def config(tiny: list[str]) -> RunConfig:
    return single_run("quick", parse(tiny, RunConfig))


def training_images(digits: TargetSet, each: int) -> tuple[Tensor, Tensor]:
    """The first images of each class, class by class."""
    chosen = torch.cat([torch.where(digits.train.labels == c)[0][:each] for c in range(10)])
    return digits.train.images[chosen], torch.eye(10).repeat_interleave(each, dim=0)


def test_training_is_that_of_torch_s_own_adam(config: RunConfig, digits: TargetSet) -> None:
    config = replace(config, precision="float64")
    digits = digits.to("cpu", torch.float64)
    images, labels = training_images(digits, 2)
    labels = labels.double()
    measured = evaluate(config, digits, images, labels, networks=1, steps=[5, 20], purpose="x")
    network = make_network(config, digits).double()
    drawn = initial_parameters(network, torch_generator(config.seed, "x/network", 0))
    network.load_state_dict(drawn)
    optimizer = torch.optim.Adam(network.parameters(), lr=config.inner_lr)
    for t in range(20):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(network(images), labels).backward()
        optimizer.step()
        if t + 1 in (5, 20):
            right = (network(digits.test.images).argmax(dim=1) == digits.test.labels).double()
            column = (5, 20).index(t + 1)
            assert measured.test[0, column].item() == pytest.approx(right.mean().item())


def test_real_images_teach_and_each_network_is_another(
    config: RunConfig, digits: TargetSet
) -> None:
    config = replace(config, width=16)
    images, labels = training_images(digits, 20)
    measured = evaluate(config, digits, images, labels, networks=3, steps=[60], purpose="x")
    assert measured.test.min() > 0.6  # chance is 0.1
    assert len(set(measured.test[:, 0].tolist())) > 1
    again = evaluate(config, digits, images, labels, networks=3, steps=[60], purpose="x")
    assert torch.equal(measured.test, again.test)


def test_accuracy_counts_in_parts_what_it_counts_at_once(
    config: RunConfig, digits: TargetSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = make_network(config, digits)
    loss = MeanLoss(make_derivatives(network))
    theta = loss.derivatives.flatten(initial_parameters(network, torch_generator(0, "x")))
    whole = accuracy(loss, theta, digits.test)
    monkeypatch.setattr("bench.evaluation.FORWARD_BATCH", 7)
    assert accuracy(loss, theta, digits.test) == whole
    empty = Split(digits.test.images[:0], digits.test.labels[:0])
    assert math.isnan(accuracy(loss, theta, empty))


def test_selection_looks_at_the_part_it_names_and_at_no_other() -> None:
    validation = torch.tensor([[0.1, 0.9, 0.2], [0.3, 0.9, 0.2]])
    test = torch.tensor([[0.5, 0.1, 0.9], [0.7, 0.3, 0.9]])
    evaluation = Evaluation([10, 20, 30], validation, test)
    fair = evaluation.summary("validation")
    assert (fair["steps"], fair["n"], fair["selection"]) == (20, 2, "validation")
    assert fair["test_accuracy_mean"] == pytest.approx(0.2)
    assert fair["test_accuracy_std"] == pytest.approx(0.2 / math.sqrt(2))
    published = evaluation.summary("test")
    assert (published["steps"], published["test_accuracy_mean"]) == (30, pytest.approx(0.9))


def test_one_network_has_no_standard_deviation() -> None:
    evaluation = Evaluation([10], torch.tensor([[0.1]]), torch.tensor([[0.5]]))
    assert evaluation.summary("validation")["test_accuracy_std"] is None
