"""eps_form="published" is the arithmetic of the paper's published code, in every engine."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from bench.metagrad import Adam, Engine, ExactEngine, MetaGradient, Problem, make_engine
from bench.networks import ConvNet, initial_parameters
from bench.training.randomness import python_random, torch_generator
from methods import METHODS, Window, make_method
from tests.bench.published_form import published_meta_gradient

MakeProblem = Callable[..., Problem]
RelativeError = Callable[[MetaGradient, MetaGradient], float]
Target = tuple[Tensor, Tensor]

TOLERANCE = 1e-10
DECAY = {"weight_decay": 0.02, "decay_steps": (2, 4), "decay_factor": 0.2}
OPTIMIZERS = {
    "adam": Adam(0.01, eps=1e-6, eps_form="published"),
    "adam_with_decay": Adam(0.01, eps=1e-3, eps_form="published", **DECAY),
}
WINDOWS = {
    "start": Window(0, 3),
    "after_one_step": Window(1, 3),
    "middle": Window(2, 5),
    "end": Window(4, 7),
    "one_step": Window(4, 5),
}
ENGINES: dict[str, Callable[[], Engine]] = {
    "computing_again": ExactEngine,
    "keeping_activations": lambda: ExactEngine(activation_budget=1 << 30),
    "in_parts": lambda: ExactEngine(images_at_once=2),
    "higher": lambda: make_engine("higher"),
}


def with_form(problem: Problem, eps_form: str) -> Problem:
    assert isinstance(problem.optimizer, Adam)
    return replace(problem, optimizer=replace(problem.optimizer, eps_form=eps_form))


@pytest.mark.parametrize("learn_labels", [False, True], ids=["fixed_labels", "learned_labels"])
@pytest.mark.parametrize("network", ["convnet", "smooth"])  # by layer rules, and by autograd
@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_every_engine_gives_the_meta_gradients_of_torch_s_adam_and_then_higher(
    make_problem: MakeProblem,
    error: RelativeError,
    target: Target,
    optimizer: str,
    window: str,
    network: str,
    learn_labels: bool,
) -> None:
    problem = make_problem(
        OPTIMIZERS[optimizer],
        batches="augmented_subset",
        learn_labels=learn_labels,
        network=network,
    )
    expected = published_meta_gradient(problem, WINDOWS[window], target)
    errors = {
        name: error(make().meta_gradient(problem, WINDOWS[window], *target), expected)
        for name, make in ENGINES.items()
    }
    assert max(errors.values()) < TOLERANCE, errors


@pytest.mark.parametrize("engine", ENGINES)
def test_so_are_those_of_single_samples(
    make_problem: MakeProblem, error: RelativeError, target: Target, engine: str
) -> None:
    problem = make_problem(OPTIMIZERS["adam"], batches="augmented_subset", learn_labels=True)
    for window in (Window(0, 3), Window(2, 5)):
        samples = ENGINES[engine]().sample_gradients(problem, window, *target)
        alone = [
            published_meta_gradient(problem, window, (image[None], label[None]))
            for image, label in zip(*target, strict=True)
        ]
        expected = MetaGradient(
            torch.stack([each.images for each in alone]),
            torch.stack([each.labels for each in alone if each.labels is not None]),
            torch.stack([each.outer_loss for each in alone]),
        )
        assert error(samples, expected) < TOLERANCE


@pytest.mark.parametrize("name", METHODS)
def test_the_form_changes_where_the_window_of_each_outer_step_starts(
    make_problem: MakeProblem, error: RelativeError, target: Target, name: str
) -> None:
    options = {
        "forward_window": {"patience": 1},
        "backward_window": {"patience": 1},
        "growing_bptt": {"grow_steps": 4},
    }
    method = make_method(name, 6, 2, options.get(name, {}))
    problem = make_problem(OPTIMIZERS["adam"], batches="subset")
    engines = [make_engine("exact"), make_engine("higher")]  # the same for all outer steps
    starts, lengths = set(), set()
    for step in range(5):
        window = method.next_window(step, python_random(0, "window", step))
        expected = published_meta_gradient(problem, window, target)
        for engine in engines:
            assert error(engine.meta_gradient(problem, window, *target), expected) < TOLERANCE
        method.observe(step, 1.0)
        starts.add(window.start)
        lengths.add(window.stop)
    assert (len(starts) > 1) == (name not in {"bptt", "t_bptt", "r_bptt", "growing_bptt"})
    assert (len(lengths) > 1) == (name not in {"bptt", "t_bptt"})


@pytest.mark.parametrize("engine", ENGINES)
def test_a_window_from_the_first_step_on_is_wholly_in_the_form_of_higher(
    make_problem: MakeProblem, error: RelativeError, target: Target, engine: str
) -> None:
    problem = make_problem(OPTIMIZERS["adam"], batches="subset", learn_labels=True)
    answer, before, after = (
        ENGINES[engine]().meta_gradient(with_form(problem, form), Window(0, 4), *target)
        for form in ("published", "higher", "torch")
    )
    assert torch.equal(answer.images, before.images)
    assert answer.labels is not None
    assert before.labels is not None
    assert torch.equal(answer.labels, before.labels)
    assert torch.equal(answer.outer_loss, before.outer_loss)
    assert error(after, answer) > 0.1


@pytest.mark.parametrize("window", [Window(4, 8), Window(10, 13)], ids=str)
def test_one_form_for_warm_up_and_window_is_percents_off(
    error: RelativeError, window: Window
) -> None:
    """As the paper trains: ConvNet-3, Adam at 0.001 with eps 1e-8, images of norm 1. Inside a
    window that comes later the two forms are nearly the same; what they make of the warm-up, whose
    first steps are largest where the gradient is as small as eps, is not."""
    network = ConvNet((3, 32, 32), 10, width=32, depth=3)
    initial = initial_parameters(network, torch_generator(0, "network"))
    generator = torch_generator(0, "images")
    images = torch.randn(60, 3, 32, 32, dtype=torch.float64, generator=generator)
    images /= images.flatten(1).norm(dim=1)[:, None, None, None]
    problem = Problem(
        network,
        {name: tensor.double() for name, tensor in initial.items()},
        Adam(0.001),
        images[:10],
        torch.eye(10, dtype=torch.float64),
    )
    target = images[10:], torch.arange(50) % 10
    expected = published_meta_gradient(problem, window, target)
    errors = {
        form: error(
            make_engine("exact").meta_gradient(with_form(problem, form), window, *target), expected
        )
        for form in ("published", "higher", "torch")
    }
    assert errors["published"] < TOLERANCE
    assert 0.02 < errors["higher"] < 0.2
    assert 1e-5 < errors["torch"] < 0.02


def test_a_form_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ValueError, match=r"eps_form='pytorch' is not one of torch, higher, publ"):
        Adam(0.01, eps_form="pytorch")
