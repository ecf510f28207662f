"""The command `python -m analysis.claims`: verdicts on records whose effects are known."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from unittest.mock import patch

import numpy as np
import pandas as pd
import pytest

from analysis.arguments import Request
from analysis.claims import main
from analysis.grid_entries import Entry, GridRuns
from analysis.load import Experiment, FinishedRun, Results
from analysis.verdicts.inference import Decision
from analysis.verdicts.judge import NOT_COMPARABLE, Claim, Outcome, load_claims, outcome_of
from analysis.verdicts.sides import names_of
from analysis.verdicts.table_cells import cell_claims
from analysis.verdicts.texts import corrected_text, verdict_text
from bench.config.grid import expand, load_grid
from bench.config.run_config import RunConfig
from bench.runs.run_folder import RunFolder
from bench.system.errors import UserError
from tests.analysis.judging import judged

if TYPE_CHECKING:
    from tests.analysis.conftest import Maker

CLAIMS = {claim.id: claim for claim in [*load_claims(), *cell_claims()]}


def fill(
    results: "Maker",
    grid: str,
    accuracies: dict[str, list[float]],
    still: Sequence[tuple[str, int]] = (),
) -> None:
    """Runs of a grid with these final accuracies, in points, by method and seed. Their windows
    shift at outer step 20, except those of the (method, seed) in `still`."""
    for config in expand(load_grid(grid), "quick", {}, seeds=10):
        own = accuracies.get(config.method, [])
        shift = 99 if (config.method, config.seed) in still else 20
        if config.seed < len(own):
            results.run(
                config,
                final=own[config.seed] / 100,
                start=lambda step, shift=shift: 10 * (step >= shift),
            )


def test_the_comparisons_of_a_claim_have_names_of_their_own() -> None:
    names = {claim.id: names_of(claim.pairs) for claim in CLAIMS.values()}
    assert [key for key, own in names.items() if len(set(own)) < len(own)] == []


def test_comparisons_of_one_name_say_where_they_are_made() -> None:
    names = names_of(CLAIMS["linear_bases_gain"].pairs)
    same = "parameterization=linear / parameterization=pixels"
    assert names == [f"{same} (ipc=1)", f"{same} (ipc=10)"]


def test_known_effects_get_their_verdicts(results: "Maker") -> None:
    fill(
        results,
        "window_ablation",
        {
            "rat_bptt": [70.0, 71.0, 72.0, 71.5],
            "forward_window": [60.0, 61.5, 62.2, 61.3],
            "backward_window": [65.0, 65.8, 67.1, 66.4],
        },
    )
    found = judged(results, "uniform_ends_above_moving_windows", "early_windows_gain")
    uniform = found["uniform_ends_above_moving_windows"]
    assert (uniform["verdict"], uniform["n"]) == ("holds", 4)
    least_certain, backward = uniform["comparisons"]
    assert least_certain["p"] == uniform["p"]
    assert backward["name"] == "method=rat_bptt window_resample_every=1 / method=backward_window"
    differences = [5.0, 5.2, 4.9, 5.1]
    assert backward["effect"] == pytest.approx(np.mean(differences))
    assert backward["low"] < 5.05 < backward["high"]
    assert found["early_windows_gain"]["verdict"] == "not run"


MOVING = {
    "rat_bptt": [70.0, 71.0, 72.0, 71.5],
    "forward_window": [60.0, 61.5, 62.2, 61.3],
    "backward_window": [65.0, 65.8, 67.1, 66.4],
}
MOVING_CLAIM = "uniform_ends_above_moving_windows"


def test_only_seeds_in_which_all_moving_windows_shifted_count(results: "Maker", capsys) -> None:
    fill(results, "window_ablation", MOVING, still=[("forward_window", 1)])
    found = judged(results, MOVING_CLAIM)[MOVING_CLAIM]
    assert (found["verdict"], found["n"], found["seeds"]) == ("holds", 3, [0, 2, 3])
    differences = [5.0, 4.9, 5.1]
    assert found["comparisons"][1]["effect"] == pytest.approx(np.mean(differences))
    at, every = "shifted at 20", "window_resample_every=1"
    assert found["conditions"] == [
        f"Forward moving, {every}: seed 0 {at}, seed 1 never shifted, seed 2 {at}, seed 3 {at}",
        f"Backward moving, {every}: seed 0 {at}, seed 1 {at}, seed 2 {at}, seed 3 {at}",
    ]
    markdown = next(results.root.glob("claims/*.md")).read_text()
    assert "seed 1 never shifted" in markdown


def test_a_claim_about_moving_windows_that_never_shifted_is_not_tested(
    results: "Maker", capsys
) -> None:
    still = [("backward_window", seed) for seed in range(4)]
    fill(results, "window_ablation", MOVING, still)
    found = judged(results, MOVING_CLAIM, "early_windows_gain")
    moving = found[MOVING_CLAIM]
    assert (moving["verdict"], moving["n"], moving["comparisons"]) == ("not tested", 0, [])
    assert moving["missing"] == []
    assert found["early_windows_gain"]["verdict"] == "not run"
    assert "not tested" in capsys.readouterr().out


def test_runs_that_are_not_there_are_not_run_whatever_the_condition(results: "Maker") -> None:
    still = [("forward_window", seed) for seed in range(4)]
    fill(results, "window_ablation", {k: v for k, v in MOVING.items() if k != "rat_bptt"}, still)
    assert judged(results, MOVING_CLAIM)[MOVING_CLAIM]["verdict"] == "not run"


def test_a_run_is_not_compared_with_itself(results: "Maker", capsys) -> None:
    for config in results.configs("initialization", 3, init="noise"):
        results.run(config, final=0.3 + 0.1 * config.seed)
    name = "real_images_converge_alike"
    found = judged(results, name, settings="init=noise")[name]
    assert (found["verdict"], found["n"], found["p"]) == ("not tested", 0, None)
    (reason,) = found["missing"]
    assert reason.startswith("with these settings ")
    assert reason.endswith(" is the same run on both sides")
    assert found["commands"] == []
    printed = capsys.readouterr().out
    assert "not tested" in printed
    assert "bench.sweep" not in printed
    assert reason in next(results.root.glob("claims/*.md")).read_text()


def fail(results: "Maker", kind: str, *runs: tuple[str, int]) -> None:
    """Let runs of `methods_comparison`, named by method and seed, end with this kind of failure."""
    for config in expand(load_grid("methods_comparison"), "quick", {}, seeds=6):
        if (config.method, config.seed) in runs:
            failed = results.run(config, finished=False)
            failed.write("error", {"kind": kind, "message": "made up"})


SURVIVORS = {"rat_bptt": [55.0, 56, 57, 55, 56, 57], "bptt": [60.0, 61.1, 62.1]}
LOST = [("bptt", 3), ("bptt", 4), ("bptt", 5)]
RAT_ABOVE = "rat_bptt_ends_above_bptt"


def test_seeds_that_are_left_after_others_diverged_decide_nothing(results: "Maker", capsys) -> None:
    fill(results, "methods_comparison", SURVIVORS)
    fail(results, "diverged", *LOST)
    found = judged(results, RAT_ABOVE)[RAT_ABOVE]
    assert (found["verdict"], found["n"], found["p"]) == ("not tested", 0, None)
    assert found["missing"] == [
        "BPTT seeds 3, 4, 5 failed (diverged)",
        "BPTT diverged in 3 of 6 seeds: the others decide nothing",
    ]
    assert found["commands"] == []  # to diverge again is no remedy
    assert found["missing"][1] in next(results.root.glob("claims/*.md")).read_text()
    assert "bench.sweep" not in capsys.readouterr().out


def test_seeds_that_are_left_after_another_failure_decide(results: "Maker") -> None:
    fill(results, "methods_comparison", SURVIVORS)
    fail(results, "out of memory", *LOST)
    found = judged(results, RAT_ABOVE)[RAT_ABOVE]
    assert (found["verdict"], found["seeds"]) == ("does not hold", [0, 1, 2])
    assert found["missing"] == ["BPTT seeds 3, 4, 5 failed (out of memory)"]
    assert found["commands"][0].startswith("python -m bench.sweep grid=methods_comparison")


def test_a_seed_that_diverged_counts_only_beside_the_same_seed(results: "Maker") -> None:
    fill(results, "methods_comparison", {**SURVIVORS, "rat_bptt": [55.0, 56, 57]})
    fail(results, "diverged", *LOST)
    found = judged(results, RAT_ABOVE)[RAT_ABOVE]
    assert (found["verdict"], found["seeds"]) == ("does not hold", [0, 1, 2])


def test_a_seed_that_diverged_counts_beside_a_number(results: "Maker") -> None:
    name = "rat_bptt_norms_decrease"
    for config in results.configs("methods_comparison", 4, outer_steps=40):
        bad = (config.method, config.seed) == ("rat_bptt", 3)
        run = results.run(config, finished=not bad, norm=lambda c, s: 1 / (1 + c.seed + s))
        if bad:
            run.write("error", {"kind": "diverged", "message": "made up"})
    found = judged(results, name, settings="outer_steps=40")[name]
    assert found["verdict"] == "not tested"
    assert found["missing"][1] == "RaT-BPTT diverged in 1 of 4 seeds: the others decide nothing"


def test_an_unknown_condition_is_refused(tmp_path: Path) -> None:
    (tmp_path / "claims.yaml").write_text(
        "- {id: one, claim: x, place: y, grid: window_ablation, quantity: final_accuracy,\n"
        "   first: {method: rat_bptt}, than: [{method: bptt}], is: above, requires: luck}\n"
    )
    with pytest.raises(UserError, match="one: there is no condition luck"):
        load_claims(tmp_path / "claims.yaml")


def test_the_same_claim_fails_and_is_undecided_where_the_records_say_so(
    results: "Maker", capsys
) -> None:
    high, low = [70.0, 71.0, 72.0], [60.0, 61.5, 62.2]
    fill(
        results, "methods_comparison", {"rat_bptt": low, "bptt": high, "t_bptt": [69.0, 73.0, 71.0]}
    )
    found = judged(results, "rat_bptt_ends_above_bptt", "bptt_ends_above_t_bptt")
    assert found["rat_bptt_ends_above_bptt"]["verdict"] == "does not hold"
    undecided = found["bptt_ends_above_t_bptt"]
    assert undecided["verdict"] == "undecided"
    assert undecided["seeds_needed"] > 3
    assert "2 claims of the paper (1 does not hold, 1 undecided)." in capsys.readouterr().out


def test_one_seed_is_never_a_verdict(results: "Maker") -> None:
    fill(results, "methods_comparison", {"rat_bptt": [90.0], "bptt": [10.0, 11.0, 12.0]})
    found = judged(results, "rat_bptt_ends_above_bptt")["rat_bptt_ends_above_bptt"]
    assert (found["verdict"], found["n"], found["seeds"]) == ("undecided", 1, [0])
    assert found["comparisons"][0]["low"] is None


def test_seeds_are_paired(results: "Maker") -> None:
    # Seeds differ by far more than methods: only seed by seed is the difference seen.
    bptt = [20.0, 50.0, 80.0, 35.0, 65.0]
    rat = [value + 2 + 0.1 * k for k, value in enumerate(bptt)]
    fill(results, "methods_comparison", {"rat_bptt": rat, "bptt": bptt})
    found = judged(results, "rat_bptt_ends_above_bptt")["rat_bptt_ends_above_bptt"]
    assert found["verdict"] == "holds"
    assert found["comparisons"][0]["effect"] == pytest.approx(2.2)


def test_without_runs_every_claim_is_not_run_and_names_the_command(
    results: "Maker", capsys
) -> None:
    results.root.mkdir()
    found = judged(results)
    assert list(found) == list(CLAIMS)
    assert len(found) > 80
    sweeps = {claim.grid for claim in CLAIMS.values()}
    for claim in found.values():
        assert claim["verdict"] == "not run"
        if claim["missing"] == [NOT_COMPARABLE]:
            assert claim["commands"] == []
            continue
        assert claim["commands"][0].startswith(
            f"python -m bench.sweep grid={claim['grid']} scale=quick results_root="
        )
        assert "not started" in claim["missing"][0]
    printed = capsys.readouterr().out
    assert "say nothing about the paper's CIFAR-10" in " ".join(printed.split())
    of_paper = sum(claim.kind == "paper" and not claim.group for claim in CLAIMS.values())
    assert f"{of_paper} claims of the paper ({of_paper} not run), " in printed
    assert printed.count("python -m bench.sweep grid=") == len(sweeps)


def test_each_step_of_each_pair_is_a_comparison(results: "Maker") -> None:
    results.grid("methods_comparison", seeds=3)  # 4 measured variances, 4 accuracies after step 0
    literal = (
        "rat_bptt_variance_is_lower_at_each_step_literally",
        "rat_bptt_leads_throughout_literally",
    )
    found = judged(results, *literal)
    assert {claim["kind"] for claim in found.values()} == {"literal"}
    variance = found[literal[0]]["comparisons"]
    steps = sorted(c["name"].rpartition("outer step ")[2] for c in variance)
    assert steps == ["0", "10", "20", "30"]
    # norm_of: exp(... + 0.1 * len(method)), so RaT-BPTT's is larger by exp(0.4) at each step.
    assert [c["effect"] for c in variance] == pytest.approx([math.exp(0.4)] * 4)
    assert found[literal[0]]["verdict"] == "does not hold"
    # accuracy_of: 1 point a letter more than the others' names have.
    leads = found[literal[1]]
    assert len(leads["comparisons"]) == 3 * 4
    assert leads["verdict"] == "holds"


def test_variances_of_the_former_definition_decide_nothing(results: "Maker") -> None:
    for folder in results.grid("methods_comparison", seeds=3):
        lines = [line for line in folder.records("measurements") if "samples" not in line]
        lines += [{"step": step, "normalized_variance": 1.0 + step} for step in (0, 10)]
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (folder.path / "measurements.jsonl").write_text(text)
    names = [id for id, claim in CLAIMS.items() if "variance" in claim.quantity]
    assert len(names) >= 4
    for claim in judged(results, *names).values():
        assert (claim["verdict"], claim["n"]) == ("not tested", 0)
        assert any("recorded no" in text and "norm" in text for text in claim["missing"])


@pytest.mark.parametrize("bad", [math.inf, math.nan])
@pytest.mark.parametrize(
    "name",
    [
        "rat_bptt_variance_is_the_lowest",
        "rat_bptt_variance_is_lower_at_each_step",
        "rat_bptt_variance_is_lower_at_each_step_literally",
        "truncated_norms_are_steadier",
    ],
)
def test_a_step_that_is_not_finite_does_not_leave_the_others_to_decide(
    results: "Maker", name: str, bad: float
) -> None:
    # BPTT's variance explodes in one seed and is a tenth of RaT-BPTT's elsewhere.
    def norm(config: RunConfig, step: int) -> float:
        exploded = config.seed == 1 and step in (10, 20)
        low = 0.1 * (1 + 0.01 * config.seed) * math.exp(0.01 * math.sin(step))
        return (bad if exploded else low) if config.method == "bptt" else math.exp(math.sin(step))

    for config in results.configs("methods_comparison", 4):
        results.run(config, norm=norm)
    found = judged(results, name)[name]
    assert (found["verdict"], found["n"]) == ("not tested", 0)
    (reason,) = found["missing"]
    assert reason.startswith("BPTT seed 1 not finite at some step: ")
    assert found["commands"] == []


def test_an_unbiased_norm_that_is_not_positive_at_a_step_leaves_no_seeds_that_did_well(
    results: "Maker",
) -> None:
    for config in results.configs("methods_comparison", 3):
        folder = results.run(config)
        if config.method == "bptt" and config.seed == 0:
            lines = folder.records("measurements")
            (line,) = [one for one in lines if "samples" in one and one["step"] == 20]
            line["normalized_variance_unbiased"] = math.nan
            text = "".join(json.dumps(one) + "\n" for one in lines)
            (folder.path / "measurements.jsonl").write_text(text)
    names = ("rat_bptt_variance_is_the_lowest", "rat_bptt_variance_is_the_lowest_unbiased")
    whole, unbiased = (judged(results, name)[name] for name in names)
    assert (whole["n"], unbiased["n"], unbiased["verdict"]) == (3, 0, "not tested")
    assert "BPTT seed 0 not finite at some step: normalized variance" in unbiased["missing"][0]
    assert whole["missing"] == []


def test_markdown_csv_and_json_say_the_same(results: "Maker", capsys) -> None:
    fill(results, "window_ablation", {"rat_bptt": [70.0, 71.0, 72.0]})
    found = judged(results)
    table = pd.read_csv(results.root / "claims" / "claims_quick.csv")
    assert list(table["id"]) == list(found)
    assert list(table["verdict"]) == [claim["verdict"] for claim in found.values()]
    markdown = (results.root / "claims" / "claims_quick.md").read_text()
    for claim in found.values():
        assert claim["claim"] in markdown
        assert claim["place"] in markdown
    assert "made up, fingerprint 0123456789abcdef." in markdown
    assert "selection=validation (20% of the training set" in markdown
    assert "Uniform windows end above" in capsys.readouterr().out


def test_an_unknown_claim_is_refused_with_those_there_are() -> None:
    with pytest.raises(UserError, match="known: rat_bptt_ends_above_bptt"):
        main(["claims=all_is_well", "scale=quick"])


@pytest.mark.parametrize("claim", CLAIMS.values(), ids=CLAIMS)
def test_every_claim_has_a_place_and_a_region_that_can_be_missed(claim: Claim) -> None:
    assert claim.place
    region = claim.region()
    assert region.low < region.high
    assert math.isfinite(region.low) or math.isfinite(region.high)


def test_entries_of_the_same_label_are_told_apart_by_identity(results: "Maker") -> None:
    fill(results, "methods_comparison", {"rat_bptt": [70.0, 71, 72], "bptt": [60.0, 61.5, 62.2]})
    with patch("analysis.load.distinct_labels", lambda configs, *_: ["same"] * len(configs)):
        claim = judged(results, "rat_bptt_ends_above_bptt")["rat_bptt_ends_above_bptt"]
    assert claim["verdict"] == "holds"
    assert claim["comparisons"][0]["effect"] == pytest.approx((10 + 9.5 + 9.8) / 3)


# --- how often a verdict is wrong, on whole records in memory

REPETITIONS = 200
GRID = load_grid("methods_comparison")
EXPERIMENTS = {
    name: Experiment(name, name, RunConfig(method=name)) for name in ("rat_bptt", "bptt")
}


def simulated(rng: np.random.Generator, means: dict[str, float], seeds: int) -> GridRuns:
    """Records of finished runs: a seed's own level, a method's mean, and noise of 1 point each."""
    level = rng.normal(60, 5, seeds)
    runs = [
        FinishedRun(
            RunFolder(Path(f"{method}-{seed}")),
            RunConfig(method=method, seed=seed),
            experiment,
            {},
            {
                "evaluation": {
                    "test_accuracy_mean": (level[seed] + means[method] + rng.normal()) / 100
                }
            },
        )
        for method, experiment in EXPERIMENTS.items()
        for seed in range(seeds)
    ]
    entries = [Entry(one, one.config) for one in EXPERIMENTS.values()]
    results = Results("made_up", "quick", list(EXPERIMENTS.values()), runs, [])
    return GridRuns(GRID, entries, results, {})


def rate(claim: Claim, verdict: str, means: dict[str, float], seeds: int) -> float:
    rng = np.random.default_rng(11)
    request = Request([], {}, "quick")
    wanted = [
        outcome_of(claim, simulated(rng, means, seeds), request).decision.verdict == verdict
        for _ in range(REPETITIONS)
    ]
    return sum(wanted) / REPETITIONS


@pytest.mark.parametrize("seeds", [3, 5, 10])
def test_records_without_an_effect_get_a_verdict_as_rarely_as_stated(seeds: int) -> None:
    none = dict.fromkeys(EXPERIMENTS, 0.0)
    claim = CLAIMS["rat_bptt_ends_above_bptt"]
    wrong = rate(claim, "holds", none, seeds) + rate(claim, "does not hold", none, seeds)
    # 5 % in all, and three standard deviations of the rate of 200 repetitions.
    assert 0 < wrong < 0.05 + 3 * math.sqrt(0.05 * 0.95 / REPETITIONS)


def test_records_with_an_effect_get_the_right_verdict() -> None:
    claim = CLAIMS["rat_bptt_ends_above_bptt"]
    means = {**dict.fromkeys(EXPERIMENTS, 0.0), "rat_bptt": 4.0}
    assert rate(claim, "holds", means, 5) > 0.9
    assert rate(claim, "does not hold", {**means, "rat_bptt": -4.0}, 5) > 0.9


def test_records_that_differ_by_the_margin_are_seldom_called_alike() -> None:
    alike = Claim(
        **{**vars(CLAIMS["rat_bptt_ends_above_bptt"]), "direction": "equal", "margin": 1.0}
    )
    means = dict.fromkeys(EXPERIMENTS, 0.0)
    edge = {**means, "rat_bptt": 1.0}
    assert rate(alike, "holds", edge, 10) < 0.025 + 3 * math.sqrt(0.025 * 0.975 / REPETITIONS)
    assert rate(alike, "holds", means, 50) > 0.9


def test_the_caption_says_how_many_verdicts_a_correction_leaves() -> None:
    first, second, third = load_claims()[:3]
    strong, weak = (Decision("holds", 5, [], p) for p in (0.001, 0.04))
    undecided = Decision("undecided", 5, [], seeds_needed=9)
    (text,) = corrected_text(
        [Outcome(first, strong), Outcome(second, weak), Outcome(third, undecided)]
    )
    assert text == (
        "Corrected for the 3 claims with 3 seeds or more, of the 2 verdicts that hold or do not"
        " Holm's correction leaves 1 (p up to 0.001), and a false discovery rate of 5 % (Benjamini"
        " and Hochberg) 1 (p up to 0.001)."
    )
    assert corrected_text([Outcome(first, strong)]) == []
    assert corrected_text([Outcome(first, undecided), Outcome(second, undecided)]) == []
    assert verdict_text(Outcome(first, strong)) == "holds, p = 0.001"
    assert verdict_text(Outcome(first, Decision("does not hold", 5, [], 0.0004))) == (
        "does not hold, p < 0.001"
    )
