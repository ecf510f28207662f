"""Reduced precision: what is rounded, how far the meta-gradient moves, and what is refused."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from bench.metagrad import Adam, MetaGradient, Problem, make_engine, storage_type
from bench.metagrad.precision import hardware_precision, to_tf32
from methods import Window


def in_float32(problem: Problem) -> Problem:
    return Problem(
        problem.network,
        {name: value.float() for name, value in problem.parameters.items()},
        problem.optimizer,
        problem.images.float(),
        problem.labels.float(),
        problem.inner_batch,
    )


def test_tf32_keeps_ten_bits_of_mantissa() -> None:
    values = torch.tensor([0.0, 1.0, -1.5, 1 + 2.0**-10, 3e38, -1e-30])
    expected = torch.tensor([1.0, 1 + 2.0**-10, -(1 + 2.0**-10), float("inf"), float("-inf")])
    rounded = to_tf32(
        torch.tensor([1 + 2.0**-12, 1 + 3 * 2.0**-12, -(1 + 2.0**-11), float("inf"), -float("inf")])
    )
    assert (to_tf32(values) - values).abs().max() <= 3e38 * 2.0**-11
    assert torch.equal(to_tf32(values[:4]), values[:4])
    assert torch.equal(rounded, expected)
    assert to_tf32(torch.tensor([float("nan")])).isnan().all()


def test_each_precision_is_further_off_than_the_one_before(
    make_problem: Callable[..., Problem],
    error: Callable[[MetaGradient, MetaGradient], float],
    target: tuple[Tensor, Tensor],
) -> None:
    # A large eps, so that no rounding noise is blown up by Adam.
    problem = make_problem(Adam(0.01, eps=1e-2), batches="augmented_subset")
    double = make_engine("exact").meta_gradient(problem, Window(1, 5), *target)
    errors = []
    for precision in ("float32", "tf32", "bf16"):
        engine = make_engine("exact", precision=precision)
        single = in_float32(problem)
        answer = engine.meta_gradient(single, Window(1, 5), target[0].float(), target[1])
        assert answer.images.dtype == storage_type(precision) == torch.float32
        errors.append(error(answer, double))
    assert 0 < 10 * errors[0] < errors[1]
    assert 3 * errors[1] < errors[2] < 0.5


def test_a_reduced_precision_needs_layers_with_rules(
    make_problem: Callable[..., Problem], target: tuple[Tensor, Tensor]
) -> None:
    problem = in_float32(make_problem(Adam(0.01), network="smooth"))
    with pytest.raises(ValueError, match=r"precision=bf16.*Tanh"):
        make_engine("exact", precision="bf16").meta_gradient(problem, Window(0, 2), *target)


def test_higher_says_which_precisions_it_does_not_have(
    make_problem: Callable[..., Problem], target: tuple[Tensor, Tensor]
) -> None:
    with pytest.raises(ValueError, match="bf16"):
        make_engine("higher", precision="bf16")
    problem = in_float32(make_problem(Adam(0.01)))
    with pytest.raises(ValueError, match="tf32 on a GPU only"):
        make_engine("higher", precision="tf32").meta_gradient(problem, Window(0, 2), *target)


def test_the_hardware_takes_tf32_only_while_asked_to() -> None:
    convolutions = torch.backends.cudnn.conv  # pyright: ignore[reportAttributeAccessIssue]
    before = convolutions.fp32_precision
    with hardware_precision("tf32"):
        assert convolutions.fp32_precision == "tf32"
    with hardware_precision("float32"):
        assert convolutions.fp32_precision == "ieee"
    assert convolutions.fp32_precision == before
