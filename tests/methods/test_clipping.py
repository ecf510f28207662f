"""Clippings against independent loops over the sequence of gradient norms."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.training.randomness import python_random
from methods import CLIPPINGS, make_clipping
from methods.clipping import EmaClipping

NORMS = [10 ** python_random(0, "norm", step).uniform(-6, 6) for step in range(200)]


@pytest.mark.parametrize(("ratio", "decay"), [(2.0, 0.9), (1.05, 0.9), (0.5, 0.0)])
def test_clipped_norms_equal_an_independent_loop(ratio: float, decay: float) -> None:
    clipping = make_clipping("ema", ratio, decay)
    clipped = [norm * clipping.factor(norm) for norm in NORMS]
    for last, norm in enumerate(NORMS):
        # The average in closed form: the first norm keeps the weight that is not given away.
        average = decay**last * NORMS[0] + sum(
            (1 - decay) * decay ** (last - step) * NORMS[step] for step in range(1, last + 1)
        )
        assert clipped[last] == pytest.approx(min(norm, ratio * average), rel=1e-9)
    assert any(after < 0.99 * norm for after, norm in zip(clipped, NORMS, strict=True))


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_norm_that_is_not_finite_never_enters_the_average(bad: float) -> None:
    undisturbed, disturbed = EmaClipping(2.0, 0.9), EmaClipping(2.0, 0.9)
    for first in range(0, len(NORMS), 7):
        assert disturbed.factor(bad) == 1.0
        for norm in NORMS[first : first + 7]:
            assert disturbed.factor(norm) == undisturbed.factor(norm)
    assert disturbed.state() == undisturbed.state()


@pytest.mark.parametrize("interruption", [0, 1, 100])
def test_a_clipping_restored_from_json_continues_as_the_uninterrupted_one(
    interruption: int,
) -> None:
    uninterrupted, stopped = EmaClipping(1.05, 0.9), EmaClipping(1.05, 0.9)
    expected = [uninterrupted.factor(norm) for norm in NORMS]
    for norm in NORMS[:interruption]:
        stopped.factor(norm)
    restored = EmaClipping(1.05, 0.9)
    restored.load_state(json.loads(json.dumps(stopped.state(), allow_nan=False)))
    assert [restored.factor(norm) for norm in NORMS[interruption:]] == expected[interruption:]


@pytest.mark.parametrize("norm", NORMS[:20])
def test_unit_norm_makes_every_norm_one(norm: float) -> None:
    assert norm * make_clipping("unit_norm", 2.0, 0.9).factor(norm) == pytest.approx(1)


@pytest.mark.parametrize("norm", NORMS[:20])
def test_none_leaves_the_gradient_as_it_is(norm: float) -> None:
    assert make_clipping("none", 2.0, 0.9).factor(norm) == 1.0


ANY_NORM = st.sampled_from([0.0, math.nan, math.inf]) | st.floats(1e-300, 1e300)


@pytest.mark.parametrize("name", CLIPPINGS)
@given(norms=st.lists(ANY_NORM, max_size=20))
def test_the_factor_is_finite_and_positive_whatever_the_norms(
    name: str, norms: list[float]
) -> None:
    clipping = make_clipping(name, 2.0, 0.9)
    factors = [clipping.factor(norm) for norm in norms]
    assert all(math.isfinite(factor) and factor > 0 for factor in factors)


@pytest.mark.parametrize(
    ("ratio", "decay", "message"),
    [(0.0, 0.9, "clip_ratio"), (-1.0, 0.9, "clip_ratio"), (2.0, 1.0, "clip_decay"),
     (2.0, -0.1, "clip_decay"), (2.0, math.nan, "clip_decay")],
)  # fmt: skip
def test_clipping_settings_outside_their_range_are_rejected_by_name(
    ratio: float, decay: float, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        make_clipping("ema", ratio, decay)


def test_an_unknown_clipping_is_rejected_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match="ema, unit_norm, none"):
        make_clipping("clip", 2.0, 0.9)
