"""The numbers in README.md and results/README.md are those of the commands beside them, from the
published records."""

import html
import json
import re
import shlex
from collections.abc import Iterable
from pathlib import Path
from statistics import fmean

import pytest
from scipy.stats import ttest_1samp

from analysis.claims import main as claims
from analysis.table import main
from analysis.verdicts.inference import Decision, standing
from bench.config.grid import load_grid, requested
from bench.runs.run_folder import Store
from tests.conftest import REPOSITORY

RESULTS = (REPOSITORY / "results" / "README.md").read_text()
TABLE = re.compile(
    r"```sh\n(?:python -m analysis\.table )"
    r"(table=(?:1|2|norms|accuracies|summary|rivals|rivals_ipc10|scores|evaluations)"
    r" .*)\n```\n\n((?:\|.*\n)+)"
)
SHOWN = TABLE.findall(RESULTS)


def rows(text: str) -> list[str]:
    """The rows of Markdown tables, without the line beneath the heading."""
    lines = [re.sub(r" +", " ", line.strip()) for line in text.splitlines()]
    return [line for line in lines if line.startswith("|") and not re.match(r"\|[:\s]*-", line)]


def cells(row: str) -> list[str]:
    return [cell.strip() for cell in row.split("|")[1:-1]]


def test_there_are_tables_to_compare() -> None:
    commands = re.findall(r"\npython -m analysis\.table table=.*\n```", RESULTS)
    assert len(SHOWN) == len(commands) >= 15


@pytest.mark.parametrize(("arguments", "table"), SHOWN)
def test_a_table_is_what_the_command_above_it_prints(
    arguments: str, table: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    monkeypatch.chdir(tmp_path)  # where there are no runs
    published = REPOSITORY / "results" / "published"
    assert main([*shlex.split(arguments), f"published={published}"]) == 0
    printed = rows(capsys.readouterr().out)
    if re.search("table=(1|2|scores) ", arguments):  # without what has not run
        printed = [row for row in printed if "| missing |" not in row]
    if "table=1 " in arguments:  # without the numbers that the paper quotes
        printed = printed[: next(k for k, row in enumerate(printed) if "(quoted)" in row)]
    assert rows(table) == printed


def rows_under(verdict: str) -> list[list[str]]:
    """The rows of the tables of claims with this last column."""
    heading = f"| claim | claimed | effect, 95 % interval | n (seeds) | {verdict} |\n"
    assert RESULTS.count(heading) == RESULTS.count(f"| {verdict} |\n")  # none is left out
    _, *tables = RESULTS.split(heading)
    return [cells(row) for table in tables for row in rows(table.partition("\n\n")[0])]


def verdicts(scale: str, folder: Path, *settings: str) -> dict[str, list[str]]:
    """By claim: what is claimed, the effect, the number of seeds and the verdict."""
    published = REPOSITORY / "results" / "published"
    root = f"results_root={folder / 'none'}"
    assert claims([f"scale={scale}", f"published={published}", root, *settings]) == 0
    (path,) = folder.glob("none/claims/*.md")
    found: dict[str, list[str]] = {}
    heading: list[str] = []
    for line in map(cells, rows(path.read_text())):
        if line[0] == "Claim":  # each of several tables has columns of its own
            heading = line
        elif "Effect [95 %]" in heading and len(line) == len(heading):
            row = dict(zip(heading, line, strict=True))
            found[row["Claim"]] = [
                row[name] for name in ("Claimed", "Effect [95 %]", "n (seeds)", "Verdict")
            ]
    return found


@pytest.mark.slow
@pytest.mark.parametrize("scale", ["cpu", "quick"])
def test_the_readme_counts_the_verdicts(
    scale: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    verdicts(scale, tmp_path)
    (path,) = tmp_path.glob("none/claims/*.md")
    kinds = ("claims of the paper", "findings of ours")
    counts = [re.search(rf"(\d+) {kind} \((.*?)\)", path.read_text()) for kind in kinds]
    texts = " | ".join(f"{found[1]}: {found[2]}" for found in counts if found)
    corrected = re.search(
        r"of the (\d+) verdicts .* Holm's correction leaves (\d+) .* Hochberg\) (\d+)",
        path.read_text(),
    )
    assert corrected
    decided, holm, false_discovery = corrected.groups()
    left = f"{holm} (Holm) or {false_discovery} (false discovery rate) of {decided}"
    assert f"| `scale={scale}` | {texts} | {left} |" in (REPOSITORY / "README.md").read_text()
    if scale == "cpu":  # the published report is about these verdicts
        page = (REPOSITORY / "results" / "published" / "report.html").read_text()
        assert corrected[0] in html.unescape(page)


@pytest.mark.slow
def test_verdicts_at_cpu_are_those_of_the_command_above_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    found = verdicts("cpu", tmp_path)
    shown = rows_under("verdict at `cpu`")
    assert len(shown) >= 25
    for claim, *numbers in shown:
        assert found[claim] == numbers


@pytest.mark.slow
def test_verdicts_are_those_of_the_command_above_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    found = verdicts("quick", tmp_path)
    shown = rows_under("verdict")
    assert len(shown) >= 20
    for claim, *numbers in shown:
        assert found[claim] == numbers


@pytest.mark.slow
def test_verdicts_with_other_settings_are_those_of_the_command_above_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    ((line, text),) = re.findall(
        r"```sh\npython -m analysis\.claims (.*)\n```\n\n\|.* (verdict .*) \|\n", RESULTS
    )
    settings = [word for word in shlex.split(line) if word != "scale=cpu"]
    found = verdicts("cpu", tmp_path, *settings)
    shown = rows_under(text)
    assert len(shown) == 4
    for claim, *numbers in shown:
        assert found[claim] == numbers


# "In short" says of these claims that a correction leaves them, or does not.
IN_SHORT = {
    ("cpu", "truncated_norms_are_steadier"): "fluctuate less than those of BPTT (`cpu` [H]",
    ("cpu", "bptt_ends_above_t_bptt"): "BPTT ends above T-BPTT (`cpu` [H],",
    ("cpu", "rat_bptt_leads_at_equal_time"): "RaT-BPTT is above BPTT (`cpu` [H])",
    ("cpu", "rat_bptt_above_frepo"): "above FRePO [F], RFAD and RCIG",
    ("cpu", "rat_bptt_above_frepo_ipc10"): "and above FRePO [H], RFAD and RCIG at ten",
    ("cpu", "rat_bptt_above_rfad"): "RFAD and RCIG with learned labels",
    ("cpu", "rat_bptt_above_rfad_ipc10"): "RFAD and RCIG at ten (`cpu`",
    ("cpu", "uniform_ends_above_moving_windows"): "move forward or backward (`cpu` [H]",
    ("cpu", "long_unroll_hurts"): "trajectories of 75 end below shorter ones [H]",
    ("cpu", "window_of_40_is_too_small"): "15 and 25 end above windows of 10 (`cpu`",
    ("cpu", "bptt_gains_without_the_first_step"): "in each form of Adam (`cpu`, seven",
    ("cpu", "first_step_makes_bptt_fluctuate"): "other steps stays (`cpu` [H],",
    ("quick", "first_step_makes_bptt_fluctuate"): "(`cpu` [H], digits [H], seen",
    ("cpu", "first_step_makes_bptt_fluctuate_ipc10"): "ten images per class, too (`cpu` [F]",
    ("cpu", "rat_bptt_ends_above_r_bptt_ipc10"): "RaT-BPTT ends above R-BPTT [F]",
    ("cpu", "rat_bptt_ends_above_t_bptt_ipc10"): "and T-BPTT (`cpu`, four seeds",
    (
        "cpu",
        "bptt_without_the_first_step_ends_above_rat_bptt_ipc10",
    ): "BPTT without inner step 0 ends above RaT-BPTT (`cpu`, four",
    (
        "cpu",
        "transfer_to_wide_loses_nothing_on_cifar10",
    ): "at one and ten images per class (`cpu` [F],",
    ("cpu", "results_without_the_first_step_repeat"): "another kind of processor (`cpu` [F]",
    ("cpu", "t_bptt_leads_bptt_early"): "does not lead BPTT early on (`cpu` [H]",
}


@pytest.mark.slow
def test_in_short_marks_the_verdicts_that_a_correction_leaves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    seeds = RESULTS.partition("- **Seeds.** ")[2].partition("Such further looks")[0]
    second, _, third = seeds.partition("were known, ")[2].partition("After a third look ")
    looks_at = dict.fromkeys(re.findall(r"`(\w+)`", second), 2)
    looks_at |= dict.fromkeys(re.findall(r"`(\w+)`", third), 3)
    short = " ".join(RESULTS.partition("### In short")[2].partition("\n### ")[0].split())
    marks = {}
    for scale in ("cpu", "quick"):
        verdicts(scale, tmp_path / scale)
        records = json.loads((tmp_path / scale / f"none/claims/claims_{scale}.json").read_text())
        judged = []
        for one in records["claims"]:
            looks = looks_at.get(one["grid"], 1) if scale == "cpu" else 1
            p = None if one["p"] is None else looks * one["p"]
            judged.append(Decision(one["verdict"], one["n"], [], p))
        holm, false_discovery = standing(judged)
        for one, decision in zip(records["claims"], judged, strict=True):
            mark = "[H]" if decision.p in holm else "[F]" if decision.p in false_discovery else ""
            marks[scale, one["id"]] = mark
    for key, words in IN_SHORT.items():
        assert short.count(words) == 1
        assert re.findall(r"\[[HF]\]", words)[-1:] == [marks[key]] * bool(marks[key]), key
    assert sum(bool(marks[key]) for key in IN_SHORT) == len(re.findall(r"\[[HF]\]", short)) - 3


@pytest.mark.slow
def test_the_verdicts_on_adaptive_methods_are_those_of_both_scales(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    found = [verdicts(scale, tmp_path / scale) for scale in ("quick", "cpu")]
    methods = [cells(row) for row in rows((REPOSITORY / "methods" / "README.md").read_text())]
    start = methods.index(["finding", "effect, digits", "verdict", "effect, CIFAR-10", "verdict"])
    for claim, *shown in methods[start + 1 : start + 8]:
        numbers = [of_scale[claim] for of_scale in found]
        assert shown == [
            text
            for _, effect, _, verdict in numbers
            for text in (effect, verdict.partition(",")[0])
        ]


@pytest.mark.slow
def test_an_interval_in_a_sentence_is_that_of_a_comparison(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    known = set()
    for scale in ("cpu", "quick"):
        verdicts(scale, tmp_path / scale)
        records = json.loads((tmp_path / scale / f"none/claims/claims_{scale}.json").read_text())
        for one in (each for claim in records["claims"] for each in claim["comparisons"]):
            low, high = one["low"] or 0, one["high"] or 0
            for ends in ((low, high), (-high, -low)):  # "A is above B" and "B is below A"
                interval = "[{:+.1f}, {:+.1f}]".format(*ends)
                known |= {("", interval), (f"{abs(one['effect']):.1f}", interval)}
    text = RESULTS + (REPOSITORY / "README.md").read_text()
    sentences = " ".join(line.strip() for line in text.splitlines() if not line.startswith("|"))
    said = re.findall(r"(?:(\d+\.\d) points )?(\[[+-]\d+\.\d, [+-]\d+\.\d\])", sentences)
    assert len(said) >= 10
    assert [one for one in said if one not in known] == []


def on_two_machines(scale: str, ipc: int) -> list[tuple[tuple[str, int], int, float, float]]:
    """Of the runs that were repeated, in the order of seeds: method and first inner step, seed, and
    the accuracy of the final set in percent, here and there."""
    published = REPOSITORY / "results" / "published"
    found = []
    for path in (published / "repeated").glob("runs/*/result.json"):
        config = json.loads((path.parent / "config.json").read_text())
        if (config["scale"], config["ipc"]) == (scale, ipc):
            here = published / "runs" / path.parent.name / "result.json"
            results = [json.loads(each.read_text())["evaluation"] for each in (here, path)]
            means = [100 * result["test_accuracy_mean"] for result in results]
            method = config["method"], config["method_options"].get("first", 0)
            found.append((method, config["seed"], *means))
    return sorted(found)


def listed(values: Iterable[float]) -> str:
    return ", ".join(f"{value:.1f}" for value in values)


@pytest.mark.parametrize("scale", ["quick", "cpu"])
def test_the_two_machines_are_those_of_the_records(scale: str) -> None:
    runs = on_two_machines(scale, 1)
    changes = []
    for method, words in (
        (("bptt", 0), "BPTT"),
        (("bptt", 1), "BPTT from step 1"),
        (("rat_bptt", 0), "RaT-BPTT"),
    ):
        here, there = zip(*((a, b) for found, _, a, b in runs if found == method), strict=True)
        assert len(here) == 5
        assert f"| {words} | {listed(here)} | {listed(there)} |" in RESULTS
        of_seeds = [abs(a - b) for a, b in zip(here, there, strict=True)]
        changes += [f"{sum(of_seeds) / 5:.1f}", f"{max(of_seeds):.1f}"]
    if scale == "cpu":
        words = "differ by {} points on average and by up to {}, without it by {} and up to {}, and"
        text = f"{words} those of RaT-BPTT by {{}} and up to {{}}".format(*changes)
        assert text in " ".join(RESULTS.split())


def test_ten_images_per_class_on_two_machines_are_those_of_the_records() -> None:
    runs = on_two_machines("cpu", 10)
    assert [(found, seed) for found, seed, *_ in runs] == [(("rat_bptt", 0), k) for k in range(4)]
    there = {seed: accuracy for _, seed, _, accuracy in runs}
    text = f"{listed(there.values())} % in place of {listed(run[2] for run in runs)}"
    assert text in " ".join(RESULTS.split())
    above: dict[tuple[str, int], list[float]] = {}
    for config in requested(load_grid("methods_ipc10"), "cpu", {}):
        folder = Store(REPOSITORY / "results" / "published").run(config).path
        evaluation = json.loads((folder / "result.json").read_text())["evaluation"]
        method = config.method, config.method_options.get("first", 0)
        difference = 100 * evaluation["test_accuracy_mean"] - there[config.seed]
        above.setdefault(method, []).append(difference)
    gain = above["bptt", 1]
    _, p = ttest_1samp(gain, 0)
    said = f"the difference is {fmean(gain):.1f} points (p = {p:.2f})"
    assert said in " ".join(RESULTS.split())
    below = [-fmean(above[name, 0]) for name in ("r_bptt", "t_bptt")]
    said = "from the same machine as theirs, by {:.1f} and {:.1f} points".format(*below)
    assert said in " ".join(RESULTS.split())


def test_the_readme_has_the_numbers_of_these_tables() -> None:
    found = {}
    for arguments, table in SHOWN:
        if "scale=paper" not in arguments or "table=evaluations" in arguments:
            continue
        heading, *lines = map(cells, rows(table))
        for line in lines:
            row = dict(zip(heading, line, strict=True))
            found.setdefault(row["Method"].partition(" (Adam")[0], {}).update(row)
    readme = (REPOSITORY / "README.md").read_text()
    start = readme.index("| seed 0 |")
    _, *lines = rows(readme[start : readme.index("\n\n", start)])
    names = {"BPTT": "bptt", "T-BPTT": "t_bptt", "R-BPTT": "r_bptt", "RaT-BPTT": "rat_bptt"}
    assert len(lines) == 6
    for line in lines:
        name, norm, fluctuation, papers, after_300, final = cells(line)
        row = found[name]
        assert (norm, fluctuation) == (row["200–300"], row["Fluctuation"])
        assert after_300 == row["300"]
        assert final == row["Final set"].partition(" (n")[0]
        paper = found.get(f"paper: {names.get(name)}", {"Fluctuation": ""})
        assert papers == paper["Fluctuation"]
