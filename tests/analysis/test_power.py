"""That the computed power is what simulated seeds show."""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from analysis.table import main
from analysis.verdicts.inference import decide
from analysis.verdicts.judge import load_claims
from analysis.verdicts.paper_effects import claim_power, paper_effects, paper_number
from analysis.verdicts.power import Effect, detectable, power, seeds_for
from analysis.verdicts.region import MAX_NEEDED, Region
from bench.config.grid import load_grid
from bench.system.errors import UserError

CLAIMS = {claim.id: claim for claim in load_claims()}
ABOVE, ALIKE, BELOW = Region(0.0, math.inf), Region(-1.0, 1.0), Region(-math.inf, 0.0)
REPETITIONS = 400


def simulated(effects: Sequence[Effect], region: Region, seeds: int, verdict: str) -> float:
    """How often records with these true effects get the verdict."""
    rng = np.random.default_rng(3)
    means = np.array([[effect.mean] for effect in effects])
    spreads = np.array([[effect.spread] for effect in effects])
    names = ["x"] * len(effects)
    given = [
        decide(means + spreads * rng.standard_normal((len(effects), seeds)), names, region).verdict
        for _ in range(REPETITIONS)
    ]
    return given.count(verdict) / REPETITIONS


@pytest.mark.parametrize(
    ("effects", "region", "seeds"),
    [
        ([Effect(1.0, 1.0)], ABOVE, 5),
        ([Effect(1.0, 1.0)], ABOVE, 12),
        ([Effect(-0.7, 0.5)], BELOW, 4),
        ([Effect(0.0, 0.57)], ALIKE, 5),
        ([Effect(-0.4, 0.5)], ALIKE, 8),
        ([Effect(1.1, 1.2), Effect(3.6, 0.85), Effect(1.5, 1.13)], ABOVE, 6),
    ],
)
def test_the_power_to_hold_is_that_of_simulated_seeds(
    effects: list[Effect], region: Region, seeds: int
) -> None:
    expected = power(effects, region, seeds)
    error = math.sqrt(expected * (1 - expected) / REPETITIONS)
    found = simulated(effects, region, seeds, "holds")
    assert 0.05 < expected < 0.99
    # The bootstrap interval, which the power leaves out, takes 2 points at most.
    assert expected - 3 * error - 0.02 < found < expected + 3 * error


@pytest.mark.parametrize(
    ("effects", "region", "seeds"),
    [
        ([Effect(-1.0, 1.0)], ABOVE, 8),
        ([Effect(2.0, 0.8)], ALIKE, 5),
        ([Effect(-1.0, 0.7), Effect(0.5, 0.7)], ABOVE, 6),
    ],
)
def test_the_power_to_fail_is_that_of_simulated_seeds(
    effects: list[Effect], region: Region, seeds: int
) -> None:
    expected = power(effects, region, seeds)
    error = math.sqrt(expected * (1 - expected) / REPETITIONS)
    found = simulated(effects, region, seeds, "does not hold")
    assert 0.2 < expected < 0.99
    assert expected - 3 * error - 0.02 < found < expected + 3 * error


def test_on_the_edge_the_power_is_the_error_rate() -> None:
    for seeds in (3, 5, 20):
        assert power([Effect(1e-12, 1.0)], ABOVE, seeds) == pytest.approx(0.025, abs=1e-3)
        assert power([Effect(-1e-12, 1.0)], ABOVE, seeds) == pytest.approx(0.025, abs=1e-3)
    assert power([Effect(5.0, 1.0)], ABOVE, 2) == 0.0  # two seeds decide nothing
    assert power([Effect(5.0, 0.0)], ABOVE, 3) == 1.0


@pytest.mark.parametrize(("effect", "region"), [(0.6, ABOVE), (-0.6, ABOVE), (0.0, ALIKE)])
@pytest.mark.parametrize("comparisons", [1, 3])
@pytest.mark.parametrize("error", [0.05, 0.025])
def test_the_fewest_seeds_have_the_stated_power(
    effect: float, region: Region, comparisons: int, error: float
) -> None:
    effects = [Effect(effect, 1.0)] * comparisons
    needed = seeds_for(effects, region, error)
    assert power(effects, region, needed - 1, error) < 0.8 <= power(effects, region, needed, error)


def test_no_number_of_seeds_decides_on_the_edge() -> None:
    assert seeds_for([Effect(1e-6, 1.0)], ABOVE) == MAX_NEEDED + 1
    for region in (ABOVE, ALIKE):
        same = [Effect(region.low, 0.0)] * 5
        assert seeds_for(same, region) == MAX_NEEDED + 1


def test_what_seeds_detect_has_the_stated_power() -> None:
    distance = detectable(0.57, 7)
    assert power([Effect(distance, 0.57)], ABOVE, 7) == pytest.approx(0.8, abs=1e-3)
    assert detectable(0.57, 2) == math.inf


@pytest.mark.parametrize(
    ("claim", "mean", "spread"),
    [
        ("early_windows_gain", 0.4, math.hypot(0.4, 0.4)),
        ("sgd_does_as_well", -0.4, math.hypot(0.3, 0.4)),
        ("direct_training_gains", 1.1, math.hypot(0.8, 0.9)),
        ("transfer_to_wide_loses_nothing", 0.1, math.hypot(0.2, 0.2) * math.sqrt(13 / 8)),
    ],
)
def test_the_papers_effects_are_its_numbers(claim: str, mean: float, spread: float) -> None:
    smallest = min(paper_effects()[claim], key=lambda effect: abs(effect.mean))
    assert smallest.mean == pytest.approx(mean)
    assert smallest.spread == pytest.approx(spread)


@pytest.mark.parametrize("claim", paper_effects())
def test_the_seeds_of_the_grids_decide_at_the_papers_effects(claim: str) -> None:
    found = claim_power(CLAIMS[claim])
    assert found.seeds == load_grid(CLAIMS[claim].grid).seeds["paper"]
    if CLAIMS[claim].factor:
        assert found.power is None  # the paper reports no spread of its norms
    else:
        assert found.power is not None
        assert found.power >= 0.8


def test_a_number_that_the_paper_does_not_have_is_refused() -> None:
    for place in (["table1", "RaT-BPTT", "mnist", 1], ["figure", 2, "fluctuation", "x", "bptt"]):
        with pytest.raises(UserError, match="the paper has no number"):
            paper_number(place)


@pytest.mark.slow
def test_the_table_has_every_claim_with_its_seeds(tmp_path: Path, capsys) -> None:
    assert main(["table=power", "scale=quick", f"output={tmp_path}"]) == 0
    table = pd.read_csv(tmp_path / "table_power_paper.csv").set_index("id")
    assert list(table.index) == list(CLAIMS)
    assert table.loc["early_windows_gain", "n_seeds"] == 18
    norms = table.loc["truncated_norms_are_steadier"]
    assert [float(x) for x in norms["effects"].split()] == pytest.approx([15 / 41, 17 / 41], 1e-4)
    assert math.isnan(float(str(norms["power"])))
    assert "assumed: center" in capsys.readouterr().out
    assert main(["table=power", "scale=quick", "seeds=5", f"output={tmp_path}"]) == 0
    fewer = pd.read_csv(tmp_path / "table_power_paper.csv").set_index("id")
    assert set(fewer["n_seeds"]) == {5}
    assert float(str(fewer.loc["early_windows_gain", "power"])) < 0.3
