"""The findings of ours: each is judged, both ways, on records whose effects are known."""

import math
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pandas as pd
import pytest

from analysis.arguments import Request
from analysis.grid_entries import grid_runs
from analysis.load import Experiment, FinishedRun
from analysis.verdicts.first_step import REPEATED, repetition_command, share_through_step_0
from analysis.verdicts.judge import FINDINGS, OPPOSITE, Claim, load_claims
from analysis.verdicts.quantities import QUANTITIES
from bench.anatomies.folder import AnatomyFolder
from bench.config.grid import grid_names, single_run
from bench.config.run_config import RunConfig
from bench.publishing.reading import Published
from bench.runs.run_folder import SET_FILE, RunFolder, Store
from tests.analysis.conftest import write_run
from tests.analysis.judging import judged

if TYPE_CHECKING:
    from tests.analysis.conftest import Maker

CLAIMS = {claim.id: claim for claim in load_claims(FINDINGS)}
SEEDS = 3
# The value of the second side of a comparison; that of the first has the effect besides.
BASES = {
    **{"share_through_step_0": 50.0, "difference_of_repetition": 10.0, "final_accuracy": 50.0},
    "largest_over_median_norm": 30.0,
}


def test_findings_of_ours_are_apart_from_the_claims_of_the_paper() -> None:
    everything = load_claims()
    findings = [claim for claim in everything if claim.kind == "finding"]
    assert [claim.id for claim in findings] == list(CLAIMS)
    assert everything[-len(findings) :] == findings
    assert len({claim.id for claim in everything}) == len(everything)


@pytest.mark.parametrize("claim", CLAIMS.values(), ids=CLAIMS)
def test_every_finding_says_who_says_so_in_which_grid_and_of_which_quantity(claim: Claim) -> None:
    assert claim.place
    assert claim.grid in grid_names()
    assert claim.quantity in QUANTITIES
    assert claim.direction in OPPOSITE
    grid = grid_runs(claim.grid, Request([], {}, "quick"), [], Path("nowhere"))
    sides = [side for side in claim.sides().values() if "number" not in side]
    found = [
        (grid.entry(of_run(side)).experiment.identity, side.get("tested_on")) for side in sides
    ]
    assert len(set(found)) == len(found)


def of_run(side: dict[str, Any]) -> dict[str, Any]:
    """The settings of a side that find its run."""
    return {key: value for key, value in side.items() if key != "tested_on"}


# --- records with a quantity of a known value


def spiky(value: float) -> Callable[[RunConfig, int], float]:
    """Norms whose largest is `value` times the median."""
    return lambda config, step: value if step == 20 else 1.0


def fluctuating(value: float) -> Callable[[RunConfig, int], float]:
    """Norms whose logarithm fluctuates in proportion to `value`."""
    return lambda config, step: math.exp(value * (-1) ** step)


def write(root: Path, config: RunConfig, quantity: str, value: float) -> None:
    """A run with this value of the quantity; of factors, the value itself, not its logarithm."""
    match quantity:
        case "norm_fluctuation" | "norm_total_fluctuation":
            write_run(root, config, norm=fluctuating(value))
        case "largest_over_median_norm":
            write_run(root, config, norm=spiky(value))
        case "final_accuracy":
            write_run(root, config, final=value / 100)
        case "accuracy_by_seconds":
            write_run(root, config, accuracy=lambda _, step: value / 100)
        case "seconds_per_step":
            write_run(root, config, seconds=value)
        case "gpu_memory":
            folder = write_run(root, config)
            peak = {"peak_memory_bytes": {"device": round(1e9 * value)}}
            folder.write("result", {**(folder.read("result") or {}), **peak})
        case "share_through_step_0":
            write_anatomy(write_run(root, config), config, 1.0, 1 - value / 100, 1.0)
        case "difference_of_repetition":
            write_run(root, config, final=0.5)
            write_run(root / REPEATED, config, final=0.5 + value / 100, machine="another CPU")
        case _:
            raise AssertionError(f"no records of {quantity}")


def evaluate_on(root: Path, config: RunConfig, network: str, accuracy: float) -> None:
    """Let the set of a run have this accuracy, in percent, on another network."""
    folder = Store(root).run(config)
    result = folder.read("result") or {}
    evaluation = {**result["evaluation"], "test_accuracy_mean": accuracy / 100}
    folder.write("result", {**result, "transfers": {network: evaluation}})


@pytest.mark.parametrize(("of_set", "share"), [(7, {0: 50.0}), (None, {0: 50.0}), (8, {})])
def test_an_anatomy_of_a_set_that_a_rerun_has_replaced_does_not_count(
    tmp_path: Path, of_set: int | None, share: dict[int, float]
) -> None:
    config = single_run("quick", {})
    folder = write_run(tmp_path, config)
    anatomy = write_anatomy(folder, config, 1.0, 0.5, 1.0)
    if of_set is not None:
        anatomy.write("settings", {**(anatomy.read("settings") or {}), "set_checksum": of_set})
    result = {"checksums": {SET_FILE: 7}}
    run = FinishedRun(folder, config, cast(Any, None), {}, result)
    assert share_through_step_0(run, {}) == share


def write_anatomy(
    run: RunFolder, config: RunConfig, norm_0: float, norm_1: float, cosine: float
) -> AnatomyFolder:
    """An anatomy of a run's set: the norms from steps 0 and 1 to the end, and their cosine."""
    folder = AnatomyFolder(run.path.parents[1] / "anatomy" / f"{run.name}-0123456789ab")
    folder.path.mkdir(parents=True, exist_ok=True)
    last, settings = config.unroll_length, asdict(replace(config, engine="exact"))
    about = {"distilled": str(run.path), "what": "a set", "starts": [0, 1], "stops": [last]}
    folder.write("settings", {**about, "state": ["m", "v"], "config": settings})
    of_window = [(0, last, norm_0, 1.0), (1, last, norm_1, cosine), (1, last - 1, 9.0, 0.3)]
    keys = ("start", "stop", "gradient_norm", "cosine_to_full")
    records = [
        {"network": k, **dict(zip(keys, window, strict=True))}
        for k in range(2)
        for window in of_window
    ]
    folder.write_finished(records, {"networks": 2, "windows": [], "seconds": 1.0})
    return folder


def fill(root: Path, claim: Claim, effect: float) -> None:
    """Runs in which every comparison of the claim has this effect, up to little noise."""
    grid = grid_runs(claim.grid, Request([], {}, "quick"), [], root)
    written = set()
    for first, than in claim.pairs:
        base = than.get("number", BASES.get(claim.quantity, 1.0))
        base = 50.0 if claim.quantity == "accuracy_by_seconds" else base
        value = base * math.exp(effect) if claim.factor else base + effect
        for side, of_side in ((than, base), (first, value)):
            if "number" in side or str(side) in written:
                continue
            written.add(str(side))
            config = grid.entry(of_run(side)).experiment.config
            for seed in range(SEEDS):
                noise = 1 + 0.002 * (seed if side is first else -seed)
                of_seed = replace(config, seed=seed)
                if "tested_on" in side:  # the run is that of the other side
                    evaluate_on(root, of_seed, side["tested_on"], of_side * noise)
                else:
                    write(root, of_seed, claim.quantity, of_side * noise)


def effects(claim: Claim) -> dict[str, float]:
    """An effect in the middle of the claimed region, and one outside."""
    region, step = claim.region(), math.log(3) if claim.factor else 5.0
    if math.isinf(region.high):
        return {"holds": region.low + step, "does not hold": region.low - step}
    if math.isinf(region.low):
        return {"holds": region.high - step, "does not hold": region.high + step}
    return {"holds": (region.low + region.high) / 2, "does not hold": region.high + step}


@pytest.mark.parametrize("verdict", ["holds", "does not hold"])
@pytest.mark.parametrize("claim", CLAIMS.values(), ids=CLAIMS)
def test_a_finding_gets_the_verdict_that_records_imply(
    results: "Maker", claim: Claim, verdict: str
) -> None:
    effect = effects(claim)[verdict]
    if claim.pairs[0][1] == {"number": 1}:  # a difference of repetitions is not negative
        effect = max(effect, -0.5)
    fill(results.root, claim, effect)
    found = judged(results, claim.id)[claim.id]
    assert (found["verdict"], found["n"]) == (verdict, SEEDS), found
    assert len(found["comparisons"]) >= len(claim.pairs)


# --- the tables


def test_they_are_shown_in_a_table_of_their_own(results: "Maker", capsys) -> None:
    fill(results.root, CLAIMS["bptt_gains_without_the_first_step"], 5.0)
    both = "rat_bptt_ends_above_bptt", "bptt_gains_without_the_first_step"
    judged(results, *both)
    shown = capsys.readouterr().out
    (markdown,) = results.root.glob("claims/*.md")
    for text in (shown, markdown.read_text()):
        of_paper, _, of_ours = text.partition("Findings of ours, which are not in the paper")
        assert [name in of_paper for name in both] == [True, False]
        assert [name in of_ours for name in both] == [False, True]
    (csv,) = results.root.glob("claims/*.csv")
    assert dict(pd.read_csv(csv)[["id", "kind"]].values) == dict(
        zip(both, ("paper", "finding"), strict=True)
    )


# --- the quantities


def measured(results: "Maker", name: str) -> dict[str, Any]:
    return judged(results, name)[name]


def runs_of(claim: Claim, results: "Maker", side: int = 0, **how: Any) -> list[RunFolder]:
    """Finished runs of one side of the first comparison of a claim."""
    grid = grid_runs(claim.grid, Request([], {}, "quick"), [], results.root)
    config = grid.entry(claim.pairs[0][side]).experiment.config
    return [results.run(replace(config, seed=seed), **how) for seed in range(SEEDS)]


def test_the_share_is_the_norm_of_the_difference_of_the_gradients(results: "Maker") -> None:
    claim = CLAIMS["half_of_the_norm_comes_through_step_0"]
    rng = np.random.default_rng(0)
    expected = []
    for folder in runs_of(claim, results):
        whole, rest = rng.standard_normal((2, 50))
        norms = np.linalg.norm(whole), np.linalg.norm(rest)
        cosine = whole @ rest / (norms[0] * norms[1])
        write_anatomy(folder, folder.config(), *map(float, (*norms, cosine)))
        expected.append(100 * np.linalg.norm(whole - rest) / norms[0])
    found = measured(results, claim.id)
    assert found["comparisons"][0]["effect"] == pytest.approx(np.mean(expected) - 50)


def test_an_anatomy_with_other_settings_or_of_another_set_is_not_taken(results: "Maker") -> None:
    claim = CLAIMS["half_of_the_norm_comes_through_step_0"]
    for folder in runs_of(claim, results):
        config = folder.config()
        match config.seed:
            case 0:
                write_anatomy(folder, replace(config, inner_eps=1e-6), 1.0, 0.2, 1.0)
            case 1:
                write_anatomy(folder, replace(config, seed=7), 1.0, 0.2, 1.0)
            case 2:
                write_anatomy(folder, config, 1.0, 0.2, 1.0)
    found = measured(results, claim.id)
    assert found["seeds"] == [2]
    assert "seeds 0, 1 recorded no share of the norm" in found["missing"][-1]
    command = found["commands"][-1]
    assert command.startswith("for run in ")
    assert command.count("runs/bptt-") == 2
    assert 'bench.anatomy "distilled=$run" stops=1 starts=2 variance_networks=0' in command


def test_a_repetition_counts_only_where_threads_or_machine_differ(results: "Maker") -> None:
    claim = CLAIMS["results_without_the_first_step_repeat"]
    again = results.root / REPEATED
    for folder in runs_of(claim, results, final=0.8):
        config = folder.config()
        if config.seed == 0:
            write_run(again, config, final=0.803, machine="another CPU")
        elif config.seed == 1:
            write_run(again, config, final=0.9)  # the same again
        else:
            other = write_run(again, config, final=0.795)
            other.write("manifest", {**(other.read("manifest") or {}), "threads": 2})
    found = measured(results, claim.id)
    assert found["seeds"] == [0, 2]
    assert found["comparisons"][0]["effect"] == pytest.approx((0.3 + 0.5) / 2 - 1)
    assert found["commands"][-1] == (
        f"python -m bench.sweep grid=rounding scale=quick results_root={again} threads=2"
    )


def test_a_repetition_that_diverged_is_not_left_out(results: "Maker") -> None:
    claim = CLAIMS["results_without_the_first_step_repeat"]
    for folder in runs_of(claim, results, final=0.8):
        config = folder.config()
        good = config.seed < SEEDS - 1
        made = write_run(
            results.root / REPEATED, config, final=0.803, machine="another CPU", finished=good
        )
        if not good:
            made.write("error", {"kind": "diverged", "message": "made up"})
    found = measured(results, claim.id)
    assert (found["verdict"], found["n"]) == ("not tested", 0)
    assert f"seed {SEEDS - 1} not finite" in found["missing"][-1]


def test_a_run_that_diverged_counts_beside_one_that_lacks_a_number(results: "Maker") -> None:
    # Making what is missing, here the anatomies of a seed, must not take a verdict away.
    claim = CLAIMS["less_comes_through_step_0_with_sgd"]
    first, second = (runs_of(claim, results, side) for side in (0, 1))
    for folder in (*first, *second[:-1]):
        write_anatomy(folder, folder.config(), 1.0, 0.5, 0.9)
    lost = first[-1]
    for name in ("result.json", "distilled.safetensors"):
        lost.remove(name)
    lost.write("error", {"kind": "diverged", "message": "made up"})
    found = measured(results, claim.id)
    assert (found["verdict"], found["n"]) == ("not tested", 0)
    assert any(" diverged in 1 of " in line for line in found["missing"])


def test_published_runs_are_made_before_they_are_made_again(results: "Maker") -> None:
    claim = CLAIMS["results_without_the_first_step_repeat"]
    found = [
        FinishedRun(folder, folder.config(), Experiment("", "", folder.config()), {}, {})
        for folder in runs_of(claim, results)
    ]
    root = f"results_root={results.root}"
    command = "python -m bench.sweep grid=rounding scale=quick results_root="
    request = Request([root], {}, "quick", published=Published(results.root))
    assert repetition_command(request, found) == f"{command}{results.root}"
    own = replace(request, published=Published())
    assert repetition_command(own, found) == f"{command}{results.root / REPEATED} threads=2"


def test_the_largest_norm_is_over_the_median_and_none_of_the_finite_ones(results: "Maker") -> None:
    norms = np.random.default_rng(1).lognormal(size=40)
    largest = math.log(norms.max() / np.median(norms))
    for seed, value, expected in (
        (0, norms[7], largest),
        (1, math.inf, math.nan),
        (2, math.nan, math.nan),
    ):
        config, norms[7] = RunConfig(seed=seed), value
        folder = results.run(config, norm=lambda config, step: float(norms[step]))
        run = FinishedRun(folder, config, Experiment("", "", config), {}, {})
        found = QUANTITIES["largest_over_median_norm"].of(run, {})
        assert found[0] == pytest.approx(expected, nan_ok=True)
