"""Compiled steps give the numbers of the others."""

import shutil
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch._dynamo.utils import counters

from bench.metagrad import (
    OUTER_LOSSES,
    SGD,
    Adam,
    ExactEngine,
    InnerOptimizer,
    MetaGradient,
    Problem,
)
from bench.metagrad.compiled import Compiled, CompiledOptimizer, WrongCompilation
from methods import Window

needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler")
DECAY = {"weight_decay": 0.02, "decay_steps": (2, 4), "decay_factor": 0.2}


@needs_compiler
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # torch's compiler warns of its own deprecations
def test_a_compiled_engine_gives_the_gradients_of_an_eager_one(
    make_problem: Callable[..., Problem],
    error: Callable[[MetaGradient, MetaGradient], float],
) -> None:
    problem = make_problem(Adam(0.01, eps=1e-3, eps_form="published"), learn_labels=True)
    images = torch.randn(problem.images.shape, generator=torch.Generator().manual_seed(1)).double()
    target = images, torch.arange(len(images)) % 3
    engine = ExactEngine(compiled=True)
    for optimizer in (problem.optimizer, SGD(0.1, momentum=0.9, **DECAY)):
        posed = replace(problem, optimizer=optimizer)
        for window in (Window(0, 3), Window(2, 6)):
            answer = engine.meta_gradient(posed, window, *target)
            assert error(answer, ExactEngine().meta_gradient(posed, window, *target)) < 1e-9
            assert answer.labels is not None
    posed = replace(problem, outer_loss=OUTER_LOSSES["mse"])
    answer = engine.meta_gradient(posed, Window(2, 6), *target)
    assert error(answer, ExactEngine().meta_gradient(posed, Window(2, 6), *target)) < 1e-9


@needs_compiler
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "optimizer",
    [
        Adam(0.01),
        Adam(0.01, eps_form="higher", **DECAY),
        Adam(0.01, eps=1e-3, eps_form="published"),
        SGD(0.1, momentum=0.9, **DECAY),
    ],
)
def test_one_compilation_serves_all_steps_of_an_optimizer(optimizer: InnerOptimizer) -> None:
    torch._dynamo.reset()
    counters.clear()
    compiled = CompiledOptimizer(optimizer)
    generator = torch.Generator().manual_seed(0)
    theta = torch.randn(7, generator=generator, dtype=torch.float64)
    state = optimizer.initial_state(theta)
    for t in range(5):
        grad = torch.randn(7, generator=generator, dtype=torch.float64)
        bars = torch.randn(1, 7, generator=generator, dtype=torch.float64)
        state_bars = tuple(bars for _ in state)
        ours = compiled.adjoint(bars, state_bars, theta, grad, state, t)
        expected = optimizer.adjoint(bars, state_bars, theta, grad, state, t)
        torch.testing.assert_close(ours, expected, rtol=1e-12, atol=0)
        after = compiled.step(theta, grad, state, t, in_window=t >= 2)
        theta, state = optimizer.step(theta, grad, state, t, in_window=t >= 2)
        torch.testing.assert_close(after, (theta, state), rtol=1e-12, atol=1e-15)
    assert counters["stats"]["unique_graphs"] == 2


def test_code_that_was_compiled_wrongly_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def compile_wrongly(function: Callable[[Tensor], tuple[Tensor]], **options: object) -> object:
        return lambda x: (function(x)[0] * 1.01,)

    monkeypatch.setattr(torch, "compile", compile_wrongly)
    half = Compiled(lambda x: (x / 2,), tolerance=1e-3)
    with pytest.raises(WrongCompilation, match=r"off by 1\.0e-02"):
        half(torch.ones(3))
    assert Compiled(lambda x: (x / 2,), tolerance=0.1)(torch.ones(1))[0].item() > 0.5


@needs_compiler
@pytest.mark.filterwarnings("ignore")
def test_what_cannot_be_compiled_is_said_in_one_line_with_the_remedy() -> None:
    def untraceable(x: Tensor) -> tuple[Tensor]:
        torch._dynamo.graph_break()
        return (x / 2,)

    with pytest.raises(
        WrongCompilation, match=r"untraceable: .*; compile=never force=true"
    ) as told:
        Compiled(untraceable, tolerance=1e-3)(torch.ones(3))
    assert "\n" not in str(told.value)
