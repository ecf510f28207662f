"""Fresh networks on a distilled set: the numbers that everybody will quote."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bench.config.command_line import parse
from bench.config.grid import single_run
from bench.config.run_config import RunConfig
from bench.data import TargetSet
from bench.data.target_set import Split
from bench.evaluation.evaluation import Evaluation
from bench.evaluation.fresh_networks import (
    accuracy,
    accuracy_and_finiteness,
    evaluate,
    evaluate_real_images,
)
from bench.metagrad import MeanLoss, make_derivatives
from bench.networks import alexnet, initial_parameters
from bench.training.batches import InnerBatches
from bench.training.randomness import torch_generator
from bench.training.setup import make_network


@pytest.fixture
def config(tiny: list[str]) -> RunConfig:
    return single_run("quick", parse(tiny, RunConfig))


def training_images(digits: TargetSet, each: int) -> tuple[Tensor, Tensor]:
    """The first images of each class, class by class."""
    chosen = torch.cat([torch.where(digits.train.labels == c)[0][:each] for c in range(10)])
    return digits.train.images[chosen], torch.eye(10).repeat_interleave(each, dim=0)


@pytest.mark.parametrize("eps_form", ["torch", "published"])
def test_training_is_that_of_torch_s_own_adam(
    config: RunConfig, digits: TargetSet, eps_form: str
) -> None:
    config = replace(config, precision="float64", inner_eps_form=eps_form)
    digits = digits.to("cpu", torch.float64)
    images, labels = training_images(digits, 2)
    labels = labels.double()
    measured = evaluate(config, digits, images, labels, networks=1, steps=[5, 20], purpose="x")
    network = make_network(config, digits).double()
    initial = initial_parameters(network, torch_generator(config.seed, "x/network", 0))
    network.load_state_dict(initial)
    optimizer = torch.optim.Adam(network.parameters(), lr=config.inner_lr)
    for column, steps in enumerate((5, 15)):
        for _ in range(steps):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(network(images), labels).backward()
            optimizer.step()
        right = (network(digits.test.images).argmax(dim=1) == digits.test.labels).double()
        assert measured.test[0, column].item() == pytest.approx(right.mean().item())


def adam_on_the_batches_of_an_evaluation(
    config: RunConfig, digits: TargetSet, images: Tensor, labels: Tensor, lr: float
) -> list[Tensor]:
    """The parameters after 3 and 8 steps of torch's own Adam, from the initial parameters and on
    the batches of network 0 in the evaluation "x"."""
    network = make_network(config, digits).double()
    network.load_state_dict(
        initial_parameters(network, torch_generator(config.seed, "x/network", 0))
    )
    optimizer = torch.optim.Adam(network.parameters(), lr=lr, eps=config.inner_eps)
    batches = InnerBatches(config, 10, config.augment_evaluation, "x", (0,))
    derivatives, thetas = make_derivatives(network), []
    for t in range(8):
        batch_images, batch_labels = batches(t, images, labels)
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(network(batch_images), batch_labels).backward()
        optimizer.step()
        if t + 1 in (3, 8):
            thetas.append(
                derivatives.flatten({k: v.detach() for k, v in network.named_parameters()})
            )
    return thetas


def test_a_set_of_a_decaying_sgd_is_evaluated_by_plain_adam(
    config: RunConfig, digits: TargetSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    double = digits.to("cpu", torch.float64)
    images, labels = training_images(double, 2)
    labels = labels.double()
    sgd = {"inner_optimizer": "sgd", "inner_lr": 0.1, "inner_momentum": 0.9}
    decay = {"inner_weight_decay": 0.01, "inner_decay_steps": [2, 5], "inner_decay_factor": 0.2}
    batches = {"inner_classes": 6, "inner_ipc": 1, "augment_evaluation": "flip_or_rotate"}
    # With the usual 1e-8 Adam turns rounding noise into steps.
    own = replace(config, **sgd, **decay, **batches, inner_eps=1e-4)
    thetas: list[Tensor] = []

    def noting(loss: MeanLoss, theta: Tensor, split: Split) -> tuple[float, bool]:
        thetas.append(theta)
        return accuracy_and_finiteness(loss, theta, split)

    monkeypatch.setattr("bench.evaluation.fresh_networks.accuracy_and_finiteness", noting)

    def evaluated(changed: RunConfig) -> tuple[Evaluation, Tensor]:
        thetas.clear()
        protocol: dict[str, Any] = {"networks": 1, "steps": [3, 8], "purpose": "x"}
        measured = evaluate(changed, double, images, labels, **protocol)
        return measured, torch.stack(thetas[::2])  # of the two splits, one

    adam = replace(own, evaluation_optimizer="adam", evaluation_lr=0.01)
    by_adam, found = evaluated(adam)
    expected = torch.stack(
        adam_on_the_batches_of_an_evaluation(own, double, images, labels, lr=0.01)
    )
    assert ((found - expected).norm(dim=1) <= 1e-10 * expected.norm(dim=1)).all()
    # The same as the evaluation of a set that Adam distilled, and not that of the inner SGD.
    distilled_by_adam = replace(config, **batches, inner_eps=1e-4, inner_lr=0.01)
    alike, found_alike = evaluated(distilled_by_adam)
    assert torch.equal(by_adam.test, alike.test)
    assert torch.equal(found, found_alike)
    _, by_sgd = evaluated(own)
    assert (found - by_sgd).norm() > 1e-2 * found.norm()
    # An inner optimizer at another rate keeps its momentum, weight decay and decay steps.
    _, slower = evaluated(replace(own, evaluation_lr=0.02))
    assert torch.equal(slower, evaluated(replace(own, inner_lr=0.02))[1])


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
    monkeypatch.setattr("bench.evaluation.fresh_networks.FORWARD_BATCH", 7)
    assert accuracy(loss, theta, digits.test) == whole
    empty = Split(digits.test.images[:0], digits.test.labels[:0])
    assert math.isnan(accuracy(loss, theta, empty))


def test_accuracy_and_loss_on_the_training_part_are_those_of_torch(
    config: RunConfig, digits: TargetSet
) -> None:
    config = replace(config, precision="float64")
    digits = digits.to("cpu", torch.float64)
    images, labels = training_images(digits, 2)
    measured = evaluate(
        config,
        digits,
        images,
        labels.double(),
        networks=2,
        steps=[3, 9],
        purpose="x",
        on_train=True,
    )
    assert measured.train is not None
    assert measured.train_loss is not None
    for k in range(2):
        network = make_network(config, digits).double()
        network.load_state_dict(
            initial_parameters(network, torch_generator(config.seed, "x/network", k))
        )
        optimizer = torch.optim.Adam(network.parameters(), lr=config.inner_lr)
        for column, steps in enumerate((3, 6)):
            for _ in range(steps):
                optimizer.zero_grad()
                torch.nn.functional.cross_entropy(network(images), labels.double()).backward()
                optimizer.step()
            with torch.no_grad():
                logits = network(digits.train.images)  # all at once
            loss = torch.nn.functional.cross_entropy(logits, digits.train.labels)
            right = (logits.argmax(dim=1) == digits.train.labels).double().mean()
            assert measured.train[k, column].item() == pytest.approx(right.item())
            assert measured.train_loss[k, column].item() == pytest.approx(loss.item())


def test_the_training_part_is_measured_only_where_it_is_needed(
    config: RunConfig, digits: TargetSet
) -> None:
    protocol: dict[str, Any] = {"networks": 1, "steps": [2], "purpose": "x"}
    images, labels = training_images(digits, 1)
    plain = evaluate(config, digits, images, labels, **protocol)
    selecting = evaluate(replace(config, selection="train"), digits, images, labels, **protocol)
    assert plain.train is None
    assert "all_train" not in plain.summary("validation")
    assert selecting.train is not None
    assert torch.equal(plain.test, selecting.test)
    with pytest.raises(ValueError, match="did not measure the accuracy on the train part"):
        plain.summary("train")


# --- several networks at once

SETTINGS = {
    "adam": {},
    "higher_s_adam": {"inner_eps_form": "higher"},
    "published_adam": {"inner_eps_form": "published"},
    "sgd": {"inner_optimizer": "sgd", "inner_momentum": 0.9, "inner_lr": 0.1},
    "decay": {"inner_weight_decay": 0.01, "inner_decay_steps": [3]},
    "subsets": {"inner_classes": 4, "inner_ipc": 1},
    "augmented": {"augment_evaluation": "flip_or_rotate"},
}


def smooth_network() -> nn.Module:
    """Has a layer that is differentiated by autograd only."""
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1),
        nn.GroupNorm(4, 4),
        nn.Tanh(),
        nn.Flatten(),
        nn.Linear(256, 10),
    )


@pytest.fixture
def trained(
    config: RunConfig, digits: TargetSet, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., tuple[Evaluation, Tensor]]:
    """`trained(at_once, real_images=False, **settings)`: three networks trained in float64, so many
    at once, on learned labels or on real images; the accuracies, and all θ whose accuracy was
    measured, [3 networks * 2 steps * 2 splits, P]."""
    double = digits.to("cpu", torch.float64)
    images, labels = training_images(digits, 2)
    labels = labels.double() + 0.1 * torch.rand(labels.shape, generator=torch_generator(0, "l"))

    def run(at_once: int, real_images: bool = False, **settings: Any) -> tuple[Evaluation, Tensor]:
        thetas: list[Tensor] = []

        def noting(loss: MeanLoss, theta: Tensor, split: Split) -> tuple[float, bool]:
            thetas.append(theta)
            return accuracy_and_finiteness(loss, theta, split)

        monkeypatch.setattr(
            "bench.evaluation.fresh_networks.networks_at_once", lambda *given: at_once
        )
        monkeypatch.setattr("bench.evaluation.fresh_networks.accuracy_and_finiteness", noting)
        # With the usual 1e-8 Adam turns the rounding noise of gradients that are truly 0 (biases
        # before a norm) into steps of 1e-10.
        changed = replace(config, ipc=2, inner_eps=1e-4, **settings)
        protocol: dict[str, Any] = {"networks": 3, "steps": [2, 6], "purpose": "x"}
        if real_images:
            return evaluate_real_images(changed, double, **protocol), torch.stack(thetas)
        measured = evaluate(changed, double, images.double(), labels, indices=(7,), **protocol)
        return measured, torch.stack(thetas)

    return run


def in_one_order(thetas: Tensor) -> Tensor:
    """Sorted by their first parameter, which no two networks share."""
    return thetas[thetas[:, 0].argsort(stable=True)]


def assert_equal(one: tuple[Evaluation, Tensor], other: tuple[Evaluation, Tensor]) -> None:
    for part in ("steps", "test", "validation"):
        assert str(getattr(one[0], part)) == str(getattr(other[0], part))
    ours, theirs = in_one_order(one[1]), in_one_order(other[1])
    assert ours.shape == theirs.shape
    assert ((ours - theirs).norm(dim=1) <= 1e-12 * theirs.norm(dim=1)).all()
    assert len(theirs[:, 0].unique()) == 6  # three networks at two numbers of steps


Trained = Callable[..., tuple[Evaluation, Tensor]]


@pytest.mark.parametrize("name", SETTINGS)
def test_networks_trained_at_once_are_those_trained_alone(name: str, trained: Trained) -> None:
    alone = trained(1, **SETTINGS[name])
    assert_equal(trained(3, **SETTINGS[name]), alone)
    assert_equal(trained(2, **SETTINGS[name]), alone)  # a group of two and one left over


def test_real_images_at_once_are_each_network_s_own(trained: Trained) -> None:
    assert_equal(trained(3, real_images=True), trained(1, real_images=True))


@pytest.mark.parametrize("at_once", [1, 3])
@pytest.mark.parametrize("real_images", [False, True])
def test_the_published_form_trains_networks_to_the_bits_of_torch_s(
    at_once: int, real_images: bool, trained: Trained
) -> None:
    published, after, before = (
        trained(at_once, real_images, inner_eps_form=form)[1]
        for form in ("published", "torch", "higher")
    )
    assert torch.equal(published, after)
    assert (published - before).norm() > 1e-3 * published.norm()


@pytest.mark.parametrize("at_once", [1, 3])
@pytest.mark.parametrize("real_images", [False, True])
def test_draws_are_named_by_the_number_of_the_network(
    at_once: int, real_images: bool, trained: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    networks: set[tuple[Any, ...]] = set()
    batches: set[tuple[Any, ...]] = set()

    def noting_generator(seed: int, purpose: str, *indices: int) -> torch.Generator:
        networks.add((purpose, *indices))
        return torch_generator(seed, purpose, *indices)

    def noting_batches(
        config: RunConfig, classes: int, kind: str, purpose: str, key: tuple[int, ...], **rest: int
    ) -> InnerBatches:
        batches.add((kind, purpose, *key))
        return InnerBatches(config, classes, kind, purpose, key, **rest)

    monkeypatch.setattr("bench.evaluation.fresh_networks.torch_generator", noting_generator)
    monkeypatch.setattr("bench.evaluation.fresh_networks.InnerBatches", noting_batches)
    trained(at_once, real_images, augment_evaluation="rotate", augment_inner="flip")
    keys = [(k, 0) if real_images else (7, k) for k in range(3)]
    assert networks - {("real_images", k) for k in range(3)} == {("x/network", *k) for k in keys}
    assert batches == {("rotate", "x", *k) for k in keys}


def test_networks_without_layer_rules_are_trained_at_once_too(
    trained: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "bench.evaluation.fresh_networks.make_network", lambda *given: smooth_network()
    )
    assert_equal(trained(3), trained(1))


def test_networks_with_max_pools_are_trained_at_once_too(
    trained: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(alexnet, "CHANNELS", (4, 6, 8, 6, 5))
    assert_equal(trained(3, arch="alexnet"), trained(1, arch="alexnet"))


def test_small_networks_are_trained_at_once_and_the_bits_come_again(
    config: RunConfig, digits: TargetSet
) -> None:
    reports: list[int] = []
    images, labels = training_images(digits, 1)
    first, again = (
        evaluate(
            replace(config, augment_evaluation="flip_or_rotate"),
            digits,
            images,
            labels,
            networks=5,
            steps=[10],
            purpose="x",
            report=reports.append,
        )
        for _ in range(2)
    )
    assert torch.equal(first.test, again.test)
    assert reports == [5, 5]


@pytest.mark.parametrize("at_once", [1, 3])
def test_the_training_can_be_stopped_at_any_step(
    at_once: int, config: RunConfig, digits: TargetSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Stop(Exception):
        pass

    checked: list[int] = []

    def check() -> None:
        checked.append(len(checked))
        if len(checked) == 4:
            raise Stop

    monkeypatch.setattr("bench.evaluation.fresh_networks.networks_at_once", lambda *given: at_once)
    images, labels = training_images(digits, 1)
    with pytest.raises(Stop):
        evaluate(config, digits, images, labels, networks=3, steps=[50], purpose="x", check=check)
    assert len(checked) == 4  # within the training of the first networks
