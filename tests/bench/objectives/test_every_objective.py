"""What holds for every objective: its gradient, its checkpoints, its draws, its help."""

import copy
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from bench.config.command_line import help_text, parse
from bench.config.grid import single_run
from bench.config.identity import run_name
from bench.config.objectives import OBJECTIVES
from bench.config.resolve import resolve
from bench.config.run_config import RunConfig
from bench.data import TargetSet
from bench.distillation.outer_loop import Distillation
from bench.metagrad import MetaGradient
from bench.objectives import IMPLEMENTATIONS, make_objective
from bench.system.errors import UserError
from bench.training.setup import make_network
from tests.small_objectives import SMALL

every_objective = pytest.mark.parametrize("name", OBJECTIVES)


def configuration(tiny: list[str], name: str, **settings: Any) -> RunConfig:
    given = {**parse(tiny, RunConfig), **settings}
    given = {k: v for k, v in given.items() if k not in ("unroll_length", "window_size")}
    options = {"objective": name, "objective_options": SMALL[name]}
    return single_run("quick", {**given, **options})


def test_every_objective_is_implemented_and_tested() -> None:
    assert set(OBJECTIVES) == set(IMPLEMENTATIONS) == set(SMALL)


@every_objective
def test_the_gradient_agrees_with_finite_differences(
    tiny: list[str], digits: TargetSet, cache_root: Path, name: str
) -> None:
    learned = OBJECTIVES[name].learns_labels
    config = configuration(tiny, name, precision="float64", ipc=2, learn_labels=learned)
    double = digits.to("cpu", torch.float64)
    network = make_network(config, double)
    run = Distillation(config, double, cache_root=cache_root)
    for step in range(2):  # what an objective keeps is then that of a later step
        if step:
            run.outer_step()
    objective = run.objective
    assert objective is not None
    images, labels = (part.clone() for part in run.parameters.at(1))
    kept = copy.deepcopy(objective.state())

    def value(images: Tensor, labels: Tensor) -> float:
        fresh = make_objective(config, double, network, cache_root)
        assert fresh is not None
        fresh.load_state(copy.deepcopy(kept))
        return fresh.gradient(config.seed, 1, images, labels).outer_loss.item()

    gradient = objective.gradient(config.seed, 1, images, labels)
    generator = torch.Generator().manual_seed(0)
    parts = [(images, gradient.images)]
    if learned:
        assert gradient.labels is not None
        parts.append((labels, gradient.labels))
    for k, (part, of_part) in enumerate(parts):
        assert of_part.shape == part.shape
        for _ in range(3):
            direction = torch.randn(part.shape, generator=generator, dtype=torch.float64)
            direction /= direction.norm()
            h = 1e-6 * part.norm().item()  # so small that hardly a ReLU bends in between
            # Training steps jump where a ReLU switches, so that few may within 2h.
            h = 1e-7 * part.norm().item()
            ends = []
            for sign in (1, -1):
                moved = [images, labels]
                moved[k] = part + sign * h * direction
                ends.append(value(*moved))
            slope = (ends[0] - ends[1]) / (2 * h)
            expected = (of_part * direction).sum().item()
            assert slope == pytest.approx(expected, rel=1e-4, abs=1e-6 * of_part.norm().item())


@every_objective
def test_a_run_goes_on_from_a_checkpoint_bit_for_bit(
    tiny: list[str], digits: TargetSet, cache_root: Path, name: str
) -> None:
    config = configuration(tiny, name)

    def start() -> Distillation:
        return Distillation(config, digits, cache_root=cache_root)

    def recorded(run: Distillation, steps: int) -> list[object]:
        return [asdict(replace(run.outer_step(), seconds=0.0)) for _ in range(steps)]

    whole = start()
    records = recorded(whole, 7)
    for stop in range(1, 7):
        first = start()
        assert recorded(first, stop) == records[:stop]
        second = start()
        second.load_state(copy.deepcopy(first.state()))
        assert recorded(second, 7 - stop) == records[stop:]
        assert torch.equal(second.images, whole.images)


@every_objective
def test_a_checkpoint_is_read_to_the_device_of_the_run(
    tiny: list[str], digits: TargetSet, cache_root: Path, name: str
) -> None:
    config = configuration(tiny, name)
    run = Distillation(config, digits, cache_root=cache_root)
    run.outer_step()
    assert run.objective is not None
    state = copy.deepcopy(run.state())
    run.target_set = digits.to("meta")  # as a GPU, every machine has this other device
    run.load_state(state)
    devices = {part.device.type for part in tensors(run.objective.state())}
    assert devices <= {"meta"}


def tensors(state: Any) -> list[Tensor]:
    """Those in a state."""
    if isinstance(state, dict):
        state = list(state.values())
    if isinstance(state, list | tuple):
        return [part for each in state for part in tensors(each)]
    return [state] if isinstance(state, Tensor) else []


@every_objective
def test_a_run_goes_back_after_a_step_that_is_not_finite_and_goes_on(
    tiny: list[str], digits: TargetSet, cache_root: Path, name: str
) -> None:
    run = Distillation(
        configuration(tiny, name, not_finite="restore"), digits, cache_root=cache_root
    )
    objective, begun = run.objective, run.images.clone()
    assert objective is not None
    gradient = objective.gradient

    def broken(seed: int, step: int, images: Tensor, labels: Tensor) -> MetaGradient:
        found = gradient(seed, step, images, labels)
        return replace(found, images=found.images * torch.nan) if step == 1 else found

    objective.gradient = broken
    assert [run.outer_step().updated for _ in range(2)] == [True, False]
    assert torch.equal(run.images, begun)
    assert [run.outer_step().updated for _ in range(5)] == [True] * 5


@every_objective
def test_it_is_resolved_once_and_for_all(tiny: list[str], name: str) -> None:
    config = configuration(tiny, name)
    assert run_name(config).startswith(f"{name}-")
    assert resolve(vars(config)) == config
    assert config.variance_every == 0
    other = resolve({**vars(config), "outer_loss": "mse"})
    assert run_name(other) == run_name(config)  # it makes no difference


@every_objective
def test_its_options_are_in_the_help(name: str) -> None:
    text = help_text("", OBJECTIVES[name])
    assert text.strip().startswith(f"{name}: ")
    assert all(f"\n  objective_options.{key}=" in text for key in SMALL[name])


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"learn_labels": True}, "objective=dm takes the labels only as classes"),
        ({"objective_options": {"real": 3}}, "did you mean real_ipc?"),
        ({"objective_options": {"real_ipc": 0}}, "real_ipc=0"),
        ({"precision": "bf16"}, "precision=bf16"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(given: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words.replace("?", r"\?")) as refusal:
        single_run("quick", {"objective": "dm", **given})
    assert "\n" not in str(refusal.value)


def test_a_network_that_is_kept_has_no_replicas() -> None:
    with pytest.raises(UserError, match="replicas=2: objective=dc"):
        single_run("quick", {"objective": "dc", "replicas": 2})
    single_run("quick", {"objective": "dm", "replicas": 2})


def test_the_unrolled_objective_has_no_options() -> None:
    with pytest.raises(UserError, match="objective=unrolled has none"):
        single_run("quick", {"objective_options": {"real_ipc": 3}})
