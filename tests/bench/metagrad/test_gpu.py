"""Every engine on a GPU: the numbers of the same engine on a CPU, and of `higher`."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from subprocess import CompletedProcess

import pytest
import torch
from torch import Tensor

from bench.config.run_config import Environment
from bench.metagrad import SGD, Adam, ExactEngine, MetaGradient, Problem, make_engine
from bench.speed.engines import AUTO, COMPILED, RECOMPUTING, build
from bench.speed.work import Work, make_work
from bench.training.setup import settle_process
from methods import Window

pytestmark = [
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"),
    pytest.mark.filterwarnings("ignore"),  # torch's compiler warns of its own deprecations
]

Target = tuple[Tensor, Tensor]
RelativeError = Callable[[MetaGradient, MetaGradient], float]
OPTIMIZERS = [
    Adam(0.01, eps=1e-3),
    Adam(0.01, eps=1e-3, eps_form="published"),
    SGD(0.1, momentum=0.9, weight_decay=0.02, decay_steps=(2, 4), decay_factor=0.2),
]
GPU = torch.device("cuda")


def on_gpu(problem: Problem) -> Problem:
    return replace(
        problem,
        parameters={name: value.to(GPU) for name, value in problem.parameters.items()},
        images=problem.images.to(GPU),
        labels=problem.labels.to(GPU),
    )


def on_cpu(answer: MetaGradient) -> MetaGradient:
    labels = None if answer.labels is None else answer.labels.cpu()
    return replace(
        answer, images=answer.images.cpu(), labels=labels, outer_loss=answer.outer_loss.cpu()
    )


@pytest.mark.parametrize("window", [Window(0, 3), Window(2, 6)], ids=["first", "last"])
@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=["adam", "published", "sgd"])
def test_a_gpu_gives_the_gradients_of_a_cpu(
    make_problem: Callable[..., Problem],
    error: RelativeError,
    target: Target,
    optimizer: Adam | SGD,
    window: Window,
) -> None:
    problem = make_problem(optimizer, batches="augmented_subset", learn_labels=True)
    there = on_gpu(problem)
    images, classes = (part.to(GPU) for part in target)
    expected = ExactEngine().meta_gradient(problem, window, *target)
    for engine in (ExactEngine(), ExactEngine(activation_budget=1 << 30), make_engine("higher")):
        answer = engine.meta_gradient(there, window, images, classes)
        assert answer.images.device.type == "cuda"
        assert error(on_cpu(answer), expected) < 1e-9


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=["adam", "published", "sgd"])
def test_steps_replayed_as_cuda_graphs_give_the_gradients_of_a_cpu(
    make_problem: Callable[..., Problem],
    error: RelativeError,
    target: Target,
    optimizer: Adam | SGD,
) -> None:
    problem = make_problem(optimizer, learn_labels=True)
    there = on_gpu(problem)
    images, classes = (part.to(GPU) for part in target)
    engine = ExactEngine(compiled=True)
    for window in (Window(0, 3), Window(2, 6), Window(0, 3)):
        expected = ExactEngine().meta_gradient(problem, window, *target)
        answer = engine.meta_gradient(there, window, images, classes)
        assert error(on_cpu(answer), expected) < 1e-9


@pytest.mark.parametrize("engine", [RECOMPUTING, AUTO, COMPILED])
def test_reduced_precisions_err_as_they_should(engine: str) -> None:
    settle_process()
    # With the usual epsilon, Adam turns a rounding error near 0 into a large one.
    optimizer = Adam(1e-3, eps=1e-3)
    work = Work(width=32, images=10, window=5, warm_up=2, target_batch=100)
    window = Window(2, 7)
    problem, target = make_work(work, GPU, torch.float64)
    problem = replace(problem, optimizer=optimizer)
    exact = ExactEngine(precision="float64").meta_gradient(problem, window, *target)
    bounds = {"float32": (1e-9, 0.02), "tf32": (1e-5, 0.3), "bf16": (1e-4, 0.9)}
    for precision, (least, most) in bounds.items():
        reduced = replace(work, precision=precision)
        problem, target = make_work(reduced, GPU, torch.float32)
        problem = replace(problem, optimizer=optimizer)
        answer = build(engine, reduced, Environment(), GPU).meta_gradient(problem, window, *target)
        distance = (answer.images.double() - exact.images).norm() / exact.images.norm()
        assert least < distance < most, precision


def test_a_run_on_a_gpu_is_finished_and_records_its_memory(
    command: Callable[..., CompletedProcess[str]], tiny: list[str], tmp_path: Path
) -> None:
    settings = [*tiny, "device=cuda", "threads=1"]
    done = command("bench.run", *settings)
    assert done.returncode == 0, done.stderr
    (folder,) = (tmp_path / "results" / "runs").iterdir()
    result = json.loads((folder / "result.json").read_text())
    assert result["finished"]
    assert result["peak_memory_bytes"]["device"] > 0
    again = command("bench.run", *settings)
    assert again.returncode == 0
    assert json.loads((folder / "result.json").read_text()) == result
