"""Which engines are measured, on which work."""

from dataclasses import replace
from importlib.util import find_spec

import pytest
import torch

from bench.config.run_config import Environment
from bench.metagrad import Adam, MetaGradient, Problem, make_engine
from bench.metagrad.derivatives import AutogradDerivatives
from bench.metagrad.layered import LayerDerivatives
from bench.speed.engines import (
    AUTO,
    AUTOGRAD,
    COMPILED,
    HIGHER,
    RECOMPUTING,
    TORCHOPT,
    build,
    can,
    engines,
)
from bench.speed.work import GROWTH, PRECISIONS, Work, make_network, make_work, variations
from methods import Window

CPU = torch.device("cpu")
SMALL = Work(width=4, images=4, window=2, target_batch=4)


def test_compiled_steps_are_measured_on_a_gpu_or_on_request() -> None:
    assert COMPILED in engines("cuda", compiled=False)
    assert COMPILED in engines("cpu", compiled=True)
    assert COMPILED not in engines("cpu", compiled=False)


def test_peers_are_measured_where_they_are_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    for there in (True, False):
        monkeypatch.setattr("bench.speed.engines.installed", lambda package, there=there: there)
        assert (TORCHOPT in engines("cpu", compiled=False)) == there


def test_engines_that_refuse_a_precision_are_not_asked_for_it() -> None:
    problem, target = make_work(SMALL, CPU, torch.float32)
    assert not can(HIGHER, "bf16")
    assert not can(AUTOGRAD, "bf16")
    with pytest.raises(ValueError, match="bf16"):
        make_engine("higher", precision="bf16")
    for precision in PRECISIONS:
        assert can(AUTO, precision)
        make_engine("exact", precision=precision).meta_gradient(problem, Window(0, 1), *target)


def test_one_row_is_the_exact_engine_without_the_layers_rules() -> None:
    network = make_network(SMALL)
    environment = Environment(device="cpu")
    for engine, kind in ((AUTOGRAD, AutogradDerivatives), (RECOMPUTING, LayerDerivatives)):
        assert isinstance(build(engine, SMALL, environment, CPU).derivatives(network), kind)
    assert AUTOGRAD in engines("cpu", compiled=False)


def test_each_variation_differs_in_one_thing() -> None:
    works = variations(Work(), {**GROWTH, "precision": ("float32", "bf16")})
    assert works.count(Work()) == 1
    assert len(set(works)) == len(works) == 12
    for other in works:
        changed = [key for key, value in vars(other).items() if value != vars(Work())[key]]
        assert len(changed) <= 1


def test_variations_go_from_small_to_large() -> None:
    works = variations(Work(window=30), {"window": (10, 20, 40)})
    assert [work.window for work in works] == [10, 20, 30, 40]


@pytest.mark.skipif(find_spec("torchopt") is None, reason="the peers are not installed")
def test_torchopt_does_the_same_work() -> None:
    from bench.speed.torchopt_engine import TorchOptEngine

    torch.set_default_dtype(torch.float64)  # in which TorchOpt corrects the bias
    try:
        problem, target = make_work(SMALL, CPU, torch.float64)
        for window in (Window(0, 3), Window(2, 4)):
            expected = make_engine("exact").meta_gradient(problem, window, *target)
            assert error(TorchOptEngine("float64"), problem, window, target, expected) < 1e-10
            other = replace(problem, optimizer=Adam(1e-3, eps_form="higher"))
            expected = make_engine("exact").meta_gradient(other, window, *target)
            assert error(TorchOptEngine("float64"), problem, window, target, expected) > 1e-6
    finally:
        torch.set_default_dtype(torch.float32)


def error(
    engine: object,
    problem: Problem,
    window: Window,
    target: tuple[torch.Tensor, torch.Tensor],
    expected: MetaGradient,
) -> float:
    """Relative distance of the engine's gradient."""
    actual = engine.meta_gradient(problem, window, *target).images  # type: ignore[attr-defined]
    return ((actual - expected.images).norm() / expected.images.norm()).item()
