"""Quantities of the first inner step: how large the spikes of the norm are, how much of the
meta-gradient comes through step 0, and whether rounding decides a result.

The last two are not in a run's own records. Each needs one more command once the runs are
finished: `anatomy_command` and `repetition_command` write it.
"""

import math
import shlex
from collections.abc import Sequence
from statistics import fmean, median
from typing import Any

from analysis.arguments import Request
from analysis.labels import differences
from analysis.load import FinishedRun
from analysis.records import collected
from analysis.verdicts.costs import machine_text
from bench.anatomies.folder import finished_anatomies
from bench.runs.heartbeat import progress_of
from bench.runs.run_folder import SET_FILE, Store, name_of
from bench.system.errors import UserError

REPEATED = "repeated"  # in results_root: a results folder with the same runs, made elsewhere
# What the anatomy of a set may have otherwise than the run that made it; it changes no trajectory.
NOT_OF_A_TRAJECTORY = {"engine", "transfer_to", "scores"}


def largest_over_median_norm(run: FinishedRun, evaluation: dict[str, Any]) -> dict[int, float]:
    """The logarithm of the largest norm in Figure 2 over its median, over all outer steps; NaN if
    one has no finite positive norm, without which the largest would be that of the others."""
    norms = collected(run.folder, "metrics")["image_gradient_norm"].tolist()
    if not all(math.isfinite(norm) and norm > 0 for norm in norms):
        return {0: math.nan}
    return {0: math.log(max(norms) / median(norms))} if norms else {}


def share_through_step_0(run: FinishedRun, evaluation: dict[str, Any]) -> dict[int, float]:
    """In percent, mean over networks: ‖g[0, N) − g[1, N)‖ / ‖g[0, N)‖ on the run's distilled set,
    where g[s, N) is the meta-gradient through the window [s, N). The difference is what flows
    through inner step 0 alone: contributions of inner steps add up. Contributions of step 0 and of
    the others may cancel, so the share can exceed 100.

    From `bench.anatomy` of the run's distilled set with the run's own settings, which records both
    norms and the cosine between them. Empty if there is none.
    """
    root = run.folder.path.parents[1]
    for folder in finished_anatomies(root):
        try:
            settings, config = folder.read("settings") or {}, folder.config()
            name = name_of(settings.get("distilled", ""))
            own_set = (run.result.get("checksums") or {}).get(SET_FILE)
            of_run = name == run.folder.name and config.seed == run.config.seed
            of_set = own_set in (None, settings.get("set_checksum", own_set))  # no earlier one
            if (
                not (of_run and of_set)
                or set(differences(config, run.config)) - NOT_OF_A_TRAJECTORY
            ):
                continue
            windows = {
                (record["network"], record["start"]): record
                for record in folder.records()
                if record["stop"] == config.unroll_length and record["start"] in (0, 1)
            }
            pairs = [(windows[k, 0], windows[k, 1]) for k, s in windows if s and (k, 0) in windows]
            shares = [_share(*pair) for pair in pairs]
        except (UserError, KeyError):  # damaged, or of another version
            continue
        if shares:
            return {0: 100 * fmean(shares)}
    return {}


def _share(from_0: dict[str, Any], from_1: dict[str, Any]) -> float:
    """‖a − b‖ / ‖a‖ of two gradients, from their norms and the cosine of b to a."""
    a, b, cosine = from_0["gradient_norm"], from_1["gradient_norm"], from_1["cosine_to_full"]
    if not a or cosine is None:
        return math.nan
    return math.sqrt(max(a * a + b * b - 2 * a * b * cosine, 0.0)) / a


def _own(request: Request, runs: Sequence[FinishedRun]) -> list[FinishedRun]:
    """The runs that are not published records: nothing is made in the folder of those."""
    published = request.published.root
    return [run for run in runs if published not in run.folder.path.parents]


def anatomy_command(request: Request, runs: Sequence[FinishedRun]) -> str:
    """The command that measures what `share_through_step_0` needs, on the sets of runs."""
    few = ["stops=1", "starts=2", "variance_networks=0"]
    sets = [str(run.folder.path) for run in _own(request, runs)]
    return request.for_each("bench.anatomy", sets, few) if sets else request.sweep("first_steps")


def difference_of_repetition(run: FinishedRun, evaluation: dict[str, Any]) -> dict[int, float]:
    """In points: the absolute difference of the final test accuracy between a run and the same run
    under `results_root/repeated`; NaN if that diverged. Empty if it is not finished, or was made
    with as many threads on the same kind of machine: then there is nothing to learn from an
    agreement."""
    folder = Store(run.folder.path.parents[1] / REPEATED).run(run.config)
    try:
        result, manifest = folder.read("result"), folder.read("manifest")
        if not result and progress_of(folder).kind == "diverged":
            return {0: math.nan}
    except UserError:
        return {}
    if not result or not manifest:
        return {}
    other = FinishedRun(folder, run.config, run.experiment, manifest, result)
    machines = [machine_text(one) for one in (run, other)]
    if not all(machines) or machines[0] == machines[1]:
        return {}
    means = [one.result["evaluation"]["test_accuracy_mean"] for one in (run, other)]
    return {0: 100 * abs(means[0] - means[1])}


def repetition_command(request: Request, runs: Sequence[FinishedRun]) -> str:
    """The command that makes the runs of the grid `rounding` a second time, or a first time where
    there are published records only, beside which nothing is made."""
    own = _own(request, runs)
    if not own:
        return request.sweep("rounding")
    root = own[0].folder.path.parents[1] / REPEATED
    words = request.sweep("rounding", results_root=str(root))
    return f"{words} {shlex.join(['threads=2'])}"
