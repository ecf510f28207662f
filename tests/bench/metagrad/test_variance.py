"""The normalized variance against numpy and against numbers worked out by hand."""

import math

import numpy as np
import pytest
import torch

from bench.metagrad import normalized_variance
from bench.training.randomness import torch_generator


def test_the_normalized_variance_of_known_gradients_is_the_one_worked_out_by_hand() -> None:
    # Means 2 and 0, unbiased variances 2 and 8: (2 + 8)/2 over 2² + 0².
    assert normalized_variance(torch.tensor([[1.0, -2.0], [3.0, 2.0]])) == pytest.approx(5 / 4)


def test_equal_gradients_have_no_variance() -> None:
    assert normalized_variance(torch.ones(5, 2, 3)) == 0


@pytest.mark.parametrize("shape", [(2, 7), (100, 3, 2, 4, 4)])
def test_the_normalized_variance_equals_numpys(shape: tuple[int, ...]) -> None:
    gradients = 0.3 + torch.randn(
        shape, dtype=torch.float64, generator=torch_generator(0, "gradients")
    )
    array = gradients.numpy().reshape(shape[0], -1)
    expected = np.mean(np.var(array, axis=0, ddof=1)) / np.linalg.norm(np.mean(array, axis=0)) ** 2
    assert normalized_variance(gradients) == pytest.approx(expected, rel=1e-12)


def test_it_does_not_depend_on_the_scale_of_the_gradients() -> None:
    gradients = 1 + torch.randn(8, 5, dtype=torch.float64, generator=torch_generator(0, "g"))
    assert normalized_variance(1e6 * gradients) == pytest.approx(normalized_variance(gradients))


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_gradient_that_is_not_finite_shows(bad: float) -> None:
    gradients = torch.ones(3, 4)
    gradients[1, 2] = bad
    assert not math.isfinite(normalized_variance(gradients))


def test_a_vanishing_mean_shows() -> None:
    assert not math.isfinite(normalized_variance(torch.tensor([[1.0], [-1.0]])))
