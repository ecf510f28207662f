"""The normalized variance: against numpy, and on simulated gradients whose noise is known."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from bench.metagrad import SampleVariance
from bench.training.randomness import torch_generator

SAMPLES = 100  # as in C.4
READINGS = ("whole_batch", "unbiased", "sample_mean")


def test_known_gradients_give_the_numbers_worked_out_by_hand() -> None:
    # Means 2 and 0, unbiased variances 2 and 8.
    found = SampleVariance.of(torch.tensor([[1.0, -2.0], [3.0, 2.0]]))
    assert found == SampleVariance(2, 2, (2 + 8) / 2, 2.0**2 + 0.0**2)
    # The squared norm of the mean contains (2 + 8)/2 of noise, more than there is.
    assert found.record(10.0) == pytest.approx(
        {
            **{"samples": 2, "entries": 2, "variance": 5.0},
            **{"sample_mean_squared_norm": 4.0, "whole_batch_squared_norm": 10.0},
            "normalized_variance_whole_batch": 5 / 10,
            "normalized_variance_unbiased": math.nan,
            "normalized_variance_sample_mean": 5 / 4,
        },
        nan_ok=True,
    )
    assert SampleVariance(2, 2, 0.5, 4.0).record(1.0)["normalized_variance_unbiased"] == (
        pytest.approx(0.5 / (4 - 2 * 0.5 / 2))
    )


def test_equal_gradients_have_no_variance() -> None:
    found = SampleVariance.of(torch.ones(5, 2, 3)).record(6.0)
    assert [found[f"normalized_variance_{name}"] for name in READINGS] == [0, 0, 0]


@pytest.mark.parametrize("shape", [(2, 7), (100, 3, 2, 4, 4)])
def test_variance_and_norm_equal_numpys(shape: tuple[int, ...]) -> None:
    gradients = 0.3 + torch.randn(
        shape, dtype=torch.float64, generator=torch_generator(0, "gradients")
    )
    array = gradients.numpy().reshape(shape[0], -1)
    found = SampleVariance.of(gradients)
    assert (found.samples, found.entries) == array.shape
    assert found.variance == pytest.approx(np.mean(np.var(array, axis=0, ddof=1)), rel=1e-12)
    expected = np.linalg.norm(np.mean(array, axis=0)) ** 2
    assert found.sample_mean_squared_norm == pytest.approx(expected, rel=1e-12)


def test_the_readings_do_not_depend_on_the_scale_of_the_gradients() -> None:
    gradients = 1 + torch.randn(8, 5, dtype=torch.float64, generator=torch_generator(0, "g"))
    one, other = (SampleVariance.of(c * gradients).record(c**2 * 3.0) for c in (1.0, 1e6))
    for name in READINGS:
        key = f"normalized_variance_{name}"
        assert other[key] == pytest.approx(one[key])


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_gradient_that_is_not_finite_shows_in_every_reading(bad: float) -> None:
    gradients = torch.ones(3, 4)
    gradients[1, 2] = bad
    found = SampleVariance.of(gradients).record(4.0)
    assert not any(math.isfinite(found[f"normalized_variance_{name}"]) for name in READINGS)


@pytest.mark.parametrize("squared_norm", [0.0, math.nan, math.inf])
def test_a_norm_that_nothing_can_be_divided_by_gives_nan(squared_norm: float) -> None:
    found = SampleVariance.of(torch.tensor([[1.0], [-1.0]])).record(squared_norm)
    assert all(math.isnan(found[f"normalized_variance_{name}"]) for name in READINGS)


# --- simulated gradients g + noise, tr V = noise-to-signal ratio · ‖g‖²


def simulated(ratio: float, entries: int, batch: int = 0, index: int = 0) -> dict[str, Any]:
    """A measurement on single-sample gradients with ‖g‖ = 1.

    Args:
        ratio: tr V / ‖g‖².
        batch: images in the whole batch; 0: so many that it has no noise.
    """
    generator = torch_generator(index, "simulated")

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, dtype=torch.float64, generator=generator)

    signal = normal(entries)
    signal /= signal.norm()
    sigma = math.sqrt(ratio / entries)
    whole = signal + (sigma / math.sqrt(batch) * normal(entries) if batch else 0)
    samples = signal + sigma * normal(SAMPLES, entries)
    return SampleVariance.of(samples).record(whole.square().sum().item())


@pytest.mark.parametrize("entries", [1_000, 10_000])
@pytest.mark.parametrize("ratio", [1, 30, 300])
def test_the_ratio_of_noise_to_signal_is_found_and_the_samples_own_mean_hides_it(
    ratio: float, entries: int
) -> None:
    found = simulated(ratio, entries)
    variance_over_signal = ratio / entries
    assert found["normalized_variance_whole_batch"] == pytest.approx(variance_over_signal, rel=0.02)
    assert found["normalized_variance_unbiased"] == pytest.approx(variance_over_signal, rel=0.5)
    # Saturates at n/D.
    hidden = variance_over_signal / (1 + ratio / SAMPLES)
    assert found["normalized_variance_sample_mean"] == pytest.approx(hidden, rel=0.2)
    assert found["normalized_variance_sample_mean"] < SAMPLES / entries


def test_the_noise_of_the_whole_batch_is_all_that_remains() -> None:
    found = simulated(300, 10_000, batch=2000)
    expected = 300 / 10_000 / (1 + 300 / 2000)
    assert found["normalized_variance_whole_batch"] == pytest.approx(expected, rel=0.1)


@pytest.mark.parametrize(("ratio", "hidden_spread"), [(30, 0.38), (300, 0.13)])
def test_a_noisier_method_must_not_look_steadier(ratio: float, hidden_spread: float) -> None:
    # Noise-to-signal ratios over 39 steps whose logarithms have the standard deviation 0.50.
    normal = torch.distributions.Normal(0.0, 1.0).icdf((torch.arange(39) + 0.5) / 39).double()
    logs = math.log(ratio) + 0.5 * normal / normal.std()
    steps = [simulated(math.exp(log), 2_000, index=k) for k, log in enumerate(logs.tolist())]

    def spread(reading: str) -> float:
        values = torch.tensor([step[f"normalized_variance_{reading}"] for step in steps])
        return values.log().std().item()

    assert spread("whole_batch") == pytest.approx(0.5, abs=0.02)
    assert spread("sample_mean") == pytest.approx(hidden_spread, abs=0.03)
