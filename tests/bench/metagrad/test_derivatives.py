"""Cotangents of several outputs are pulled back exactly, one or many at a time."""

import pytest
import torch

from bench.metagrad.derivatives import pull_back


@pytest.mark.parametrize("directions", [1, 3])
def test_pulled_back_cotangents_have_the_bits_of_torchs_own(directions: int) -> None:
    generator = torch.Generator().manual_seed(0)
    x, y, unused = (torch.randn(4, 5, generator=generator).requires_grad_() for _ in range(3))
    outputs = [(x * y).tanh(), x[:2].exp()]
    cotangents = [torch.randn(directions, *out.shape, generator=generator) for out in outputs]
    with torch.no_grad():
        of_x, of_y, of_unused = pull_back(outputs, cotangents, [x, y, unused])
    assert of_unused is None
    assert of_x is not None
    assert of_y is not None
    for k in range(directions):
        expected = torch.autograd.grad(
            outputs, (x, y), [cotangent[k] for cotangent in cotangents], retain_graph=True
        )
        assert torch.equal(of_x[k], expected[0])
        assert torch.equal(of_y[k], expected[1])
