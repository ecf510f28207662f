"""Both engines against central differences of the outer loss, with torch's own optimizers.

The reference is a plain training loop. It runs the warm-up once on the given distilled set and
repeats only the window on perturbed ones: parameters and optimizer state at the window's start are
constants.
"""

import copy
import math
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from bench.metagrad import SGD, Adam, Problem, make_derivatives, make_engine
from bench.metagrad.derivatives import AutogradDerivatives
from bench.metagrad.layered import LayerDerivatives
from bench.metagrad.rules import (
    AveragePool,
    Convolution,
    Flatten,
    InstanceNorm,
    Linear,
    MaxPool,
    ReLU,
)
from bench.training.randomness import torch_generator
from methods import Window

TorchOptimizer = Callable[[list[nn.Parameter]], torch.optim.Optimizer]

ENGINES = ("exact", "higher")
# Small, because m/(√v + eps) bends sharply where a gradient passes through zero, and so that no
# input of a ReLU or max pool crosses a kink.
STEP = 1e-6
OPTIMIZERS: dict[str, tuple[Adam | SGD, TorchOptimizer]] = {
    "adam": (Adam(0.02, eps=1e-3), partial(torch.optim.Adam, lr=0.02, eps=1e-3)),
    "adam_eps_before_correction": (
        Adam(0.02, eps=1e-3, eps_form="higher"),
        partial(torch.optim.Adam, lr=0.02, eps=1e-3),
    ),
    "adam_published": (
        Adam(0.02, eps=1e-3, eps_form="published"),
        partial(torch.optim.Adam, lr=0.02, eps=1e-3),
    ),
    "adam_with_decay": (
        Adam(0.02, eps=1e-3, weight_decay=0.05, decay_steps=(2, 3), decay_factor=0.5),
        partial(torch.optim.Adam, lr=0.02, eps=1e-3, weight_decay=0.05),
    ),
    "sgd": (SGD(0.2), partial(torch.optim.SGD, lr=0.2)),
    "sgd_with_decay": (
        SGD(0.2, momentum=0.9, weight_decay=0.05, decay_steps=(2, 3), decay_factor=0.5),
        partial(torch.optim.SGD, lr=0.2, momentum=0.9, weight_decay=0.05),
    ),
}


class Reference:
    """Training written out, on the inner batches and with the outer loss of `problem`."""

    def __init__(
        self, problem: Problem, make_optimizer: TorchOptimizer, target: tuple[Tensor, Tensor]
    ) -> None:
        self.problem, self.target = problem, target
        self.network = copy.deepcopy(problem.network).double()
        self.network.load_state_dict(problem.parameters)
        self.optimizer = make_optimizer(list(self.network.parameters()))
        self.base = dict(self.optimizer.param_groups[0])

    def train(
        self, steps: range, images: Tensor, labels: Tensor, *, before_correction: set[str]
    ) -> None:
        """`before_correction`: the forms of eps that add it there in these steps."""
        settings, group = self.problem.optimizer, self.optimizer.param_groups[0]
        assert isinstance(settings, Adam | SGD)
        for t in steps:
            decays = len([step for step in settings.decay_steps if step <= t])
            group["lr"] = self.base["lr"] * settings.decay_factor**decays
            if isinstance(settings, Adam):
                before = settings.eps_form in before_correction
                root = math.sqrt(1 - settings.beta2 ** (t + 1)) if before else 1
                group["eps"] = self.base["eps"] / root
            batch_images, batch_labels = self.problem.inner_batch(t, images, labels)
            self.optimizer.zero_grad()
            F.cross_entropy(self.network(batch_images), batch_labels).backward()
            self.optimizer.step()

    def outer_loss(self) -> float:
        images, labels = self.target
        with torch.no_grad():
            return F.cross_entropy(self.network(images), labels).item()

    def loss_with(self, window: Window, images: Tensor, labels: Tensor) -> float:
        """The outer loss after the window on another distilled set; the state is put back."""
        network = copy.deepcopy(self.network.state_dict())
        optimizer = copy.deepcopy(self.optimizer.state_dict())
        steps = range(window.start, window.stop)
        self.train(steps, images, labels, before_correction={"higher", "published"})
        loss = self.outer_loss()
        self.network.load_state_dict(network)
        self.optimizer.load_state_dict(optimizer)
        return loss


DERIVATIVES = {
    "smooth": AutogradDerivatives,
    "convnet": LayerDerivatives,
    "all_rules": LayerDerivatives,
}


@pytest.mark.parametrize("network", DERIVATIVES)
@pytest.mark.parametrize("batches", ["whole_set", "augmented_subset"])
@pytest.mark.parametrize("window", [Window(0, 3), Window(2, 5), Window(3, 4)], ids=str)
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_meta_gradient_equals_finite_differences_along_random_directions(
    make_problem: Callable[..., Problem],
    target: tuple[Tensor, Tensor],
    name: str,
    window: Window,
    batches: str,
    network: str,
) -> None:
    optimizer, make_optimizer = OPTIMIZERS[name]
    problem = make_problem(optimizer, batches=batches, learn_labels=True, network=network)
    assert type(make_derivatives(problem.network)) is DERIVATIVES[network]
    reference = Reference(problem, make_optimizer, target)
    warm_up = range(window.start)
    reference.train(warm_up, problem.images, problem.labels, before_correction={"higher"})
    answers = [make_engine(engine).meta_gradient(problem, window, *target) for engine in ENGINES]
    base_loss = reference.loss_with(window, problem.images, problem.labels)
    for answer in answers:
        assert answer.outer_loss.item() == pytest.approx(base_loss, rel=1e-10)

    generator = torch_generator(0, "direction")
    for along_images, along_labels in ((1.0, 0.0), (0.0, 1.0), (1.0, 1.0)):
        image_direction = along_images * torch.randn(
            problem.images.shape, dtype=torch.float64, generator=generator
        )
        label_direction = along_labels * torch.randn(
            problem.labels.shape, dtype=torch.float64, generator=generator
        )
        above, below = (
            reference.loss_with(
                window,
                problem.images + step * image_direction,
                problem.labels + step * label_direction,
            )
            for step in (STEP, -STEP)
        )
        difference = (above - below) / (2 * STEP)
        assert abs(difference) > 1e-4
        for answer in answers:
            assert answer.labels is not None
            derivative = (answer.images * image_direction).sum()
            derivative += (answer.labels * label_direction).sum()
            assert derivative.item() == pytest.approx(difference, rel=1e-5, abs=1e-8)


STEPS_OF_A_RULE = ("forward", "input_gradient", "tangent", "tangent_input_gradient")
PARAMETER_STEPS = ("parameter_gradients", "tangent_parameter_gradients")
RULES = [
    *((rule, step) for rule in (AveragePool, Flatten, MaxPool, ReLU) for step in STEPS_OF_A_RULE),
    *(
        (rule, step)
        for rule in (Convolution, InstanceNorm, Linear)
        for step in STEPS_OF_A_RULE + PARAMETER_STEPS
    ),
]


@pytest.mark.parametrize(("rule", "step"), RULES)
def test_an_error_of_a_thousandth_in_any_rule_fails_the_test_above(
    make_problem: Callable[..., Problem],
    target: tuple[Tensor, Tensor],
    monkeypatch: pytest.MonkeyPatch,
    rule: type,
    step: str,
) -> None:
    correct = getattr(rule, step)

    def wrong(*arguments: Any) -> Any:
        return tree_map(lambda tensor: 1.001 * tensor, correct(*arguments))

    monkeypatch.setattr(rule, step, wrong)
    with pytest.raises(AssertionError, match="comparison failed"):
        test_the_meta_gradient_equals_finite_differences_along_random_directions(
            make_problem, target, "adam", Window(2, 5), "whole_set", "all_rules"
        )
