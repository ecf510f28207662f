"""The error of each precision, and emulated bf16."""

import pytest
import torch

from bench.config.run_config import Environment
from bench.speed.bf16_emulation import EmulatedBf16
from bench.speed.precision_errors import errors_table, measure_errors
from bench.speed.work import PRECISIONS, Work

SMALL = Work(width=4, images=4, window=2, target_batch=4)


def test_the_errors_of_the_precisions_grow_from_one_to_the_next(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("bench.speed.precision_errors.WINDOWS", ((0, 4), (6, 10)))
    errors = measure_errors(Environment(device="cpu", threads=1), SMALL, seeds=2)
    by_precision = {
        precision: [
            max(each.distances)
            for each in errors
            if each.precision == precision and each.optimizer.startswith("SGD")
        ]
        for precision in PRECISIONS
    }
    for single, tf32, bf16 in zip(*by_precision.values(), strict=True):
        assert 0 < 10 * single < tf32 < bf16 < 1
    text = errors_table(errors)
    assert "n = 2 seeds" in text
    assert len(text.splitlines()) == 4 + 8


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
