"""The error of each precision, and emulated bf16."""

from dataclasses import replace

import pytest
import torch

from bench.config.run_config import Environment
from bench.metagrad import make_engine
from bench.speed.__main__ import work_of_errors
from bench.speed.bf16_emulation import EmulatedBf16
from bench.speed.precision_errors import (
    CALCULATIONS,
    WORK,
    errors_table,
    inner_optimizers,
    measure_errors,
    with_changed_inputs,
)
from bench.speed.work import PRECISIONS, Work, make_work
from bench.system.errors import UserError
from methods import Window

SMALL = Work(width=4, images=4, window=2, target_batch=4)


@pytest.mark.slow
def test_the_errors_of_the_precisions_grow_from_one_to_the_next(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("bench.speed.precision_errors.WINDOWS", ((0, 4), (6, 10)))
    every = inner_optimizers()
    two = {name: every[name] for name in ("Adam, eps 1e-8 (published)", "SGD, momentum 0.9")}
    monkeypatch.setattr("bench.speed.precision_errors.inner_optimizers", lambda: two)
    errors = measure_errors(Environment(device="cpu", threads=1), SMALL, seeds=2)
    for calculation in CALCULATIONS:
        by_precision = {
            precision: [
                max(each.distances)
                for each in errors
                if (each.precision, each.calculation) == (precision, calculation)
                and each.optimizer.startswith("SGD")
            ]
            for precision in PRECISIONS
        }
        for single, tf32, bf16 in zip(*by_precision.values(), strict=True):
            assert 0 < 10 * single < tf32 < bf16 < 1
    text = errors_table(errors)
    assert "n = 2 seeds" in text
    assert len(text.splitlines()) == 4 + 2 * len(two) * len(CALCULATIONS)


def test_the_sizes_of_the_work_can_be_given_and_what_is_varied_anyway_cannot() -> None:
    assert work_of_errors({"width": 32, "images": 20}) == replace(WORK, width=32, images=20)
    for key, value in {"window": 5, "precision": "tf32", "conv_bias": False}.items():
        with pytest.raises(UserError, match=f"{key}={value}: errors=true measures"):
            work_of_errors({key: value})


def test_the_work_without_biases_has_the_same_draws_and_the_same_float64_gradient() -> None:
    works = [replace(SMALL, conv_bias=conv_bias) for conv_bias in (True, False)]
    (problem, target), (without, same_target) = (
        make_work(work, torch.device("cpu"), torch.float64, seed=3) for work in works
    )
    assert torch.equal(problem.images, without.images)
    assert all(torch.equal(*pair) for pair in zip(target, same_target, strict=True))
    assert len(problem.parameters) == len(without.parameters) + SMALL.depth
    assert all(
        torch.equal(value, problem.parameters[name]) for name, value in without.parameters.items()
    )
    engine = make_engine("exact", precision="float64")
    expected, found = (
        engine.meta_gradient(each, Window(0, 4), *target).images for each in (problem, without)
    )
    assert (found - expected).norm() <= 1e-7 * expected.norm()


def test_inputs_change_by_no_more_than_one_rounding_in_each_seed_in_another_way() -> None:
    problem, _ = make_work(SMALL, torch.device("cpu"), torch.float64)
    first, again, other = (with_changed_inputs(problem, 2**-11, seed) for seed in (0, 0, 1))
    pairs = [(first.images, problem.images)]
    pairs += [(value, problem.parameters[name]) for name, value in first.parameters.items()]
    for changed, given in pairs:
        numbers = given != 0  # shifts of norms are, and stay so
        ratios = changed[numbers] / given[numbers] - 1
        assert torch.equal(changed[~numbers], given[~numbers])
        assert (ratios.abs() <= 2**-11 * (1 + 1e-9)).all()
        assert len(ratios) == 0 or ratios.abs().max() > 2**-13
    assert torch.equal(first.images, again.images)
    assert not torch.equal(first.images, other.images)


def test_emulated_bf16_is_bf16_with_sums_in_float32() -> None:
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator).bfloat16()

    x, w, gy = draw(4, 8, 16, 16), draw(8, 8, 3, 3), draw(4, 8, 16, 16)
    a, b = draw(32, 300), draw(300, 16)
    geometry = ([1, 1], [1, 1], [1, 1])

    def compute(*tensors: torch.Tensor) -> list[torch.Tensor]:
        x, w, gy, a, b = tensors
        backward = torch.ops.aten.convolution_backward
        gx, gw, _ = backward(gy, x, w, None, *geometry, False, [0, 0], 1, [True, True, False])
        return [torch.conv2d(x, w, None, *geometry), gx, gw, a @ b, torch.stack([a, a]) @ b]

    tensors = (x, w, gy, a, b)
    exact = compute(*(tensor.double() for tensor in tensors))
    with EmulatedBf16():
        emulated = compute(*tensors)
    for ours, expected in zip(emulated, exact, strict=True):
        assert ours.dtype == torch.bfloat16
        # Half of the last of 8 bits, and what sums in float32 lose.
        assert ((ours.double() - expected).abs() <= 2**-8 * expected.abs() + 1e-4).all()


def test_emulated_bf16_leaves_other_numbers_alone() -> None:
    a = torch.randn(8, 8, dtype=torch.float64)
    with EmulatedBf16():
        assert torch.equal(a @ a, a.clone() @ a)
        assert (a @ a).dtype == torch.float64
        assert (a.bfloat16() + a.bfloat16()).dtype == torch.bfloat16
