"""Which runs are submitted together: job arrays of runs that request the same resources."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from bench.sweeps.launcher import PlannedRun
from slurm.profile import Profile, for_method, processes


@dataclass(frozen=True)
class JobArray:
    """Runs that request the same resources and are submitted together.

    Attributes:
        profile: the resources of each run.
        nodes, tasks: the number of nodes of a run, and of its processes on each.
        runs: the names of the runs' folders; task k of the array makes the k-th.
        parallel: how many of them at a time; 0: no limit.
        after: the job that has to end first; empty: none.
    """

    profile: Profile
    nodes: int
    tasks: int
    runs: tuple[str, ...]
    parallel: int = 0
    after: str = ""

    @property
    def kind(self) -> tuple[Profile, int, int]:
        """Equal for all arrays that request the same resources."""
        return self.profile, self.nodes, self.tasks

    @property
    def processes(self) -> int:
        """Processes of each run."""
        return self.nodes * self.tasks


def job_arrays(runs: Sequence[PlannedRun], profile: Profile, largest: int) -> list[JobArray]:
    """The job arrays of these runs: the runs of one request the same resources, none is larger than
    `largest`, and all together allow at most `profile.parallel` runs at a time."""
    groups: list[tuple[tuple[Profile, int, int], list[str]]] = []
    methods = {run.config.method for run in runs}
    by_method = {method: for_method(profile, method) for method in methods}
    for run in runs:
        request = by_method[run.config.method]
        kind = (request, *processes(request, run.config))
        names = next((names for other, names in groups if other == kind), None)
        if names is None:
            groups.append((kind, names := []))
        names.append(run.folder.name)
    largest = min(largest, profile.max_array or largest)
    arrays = [
        JobArray(*kind, runs=tuple(names[first : first + largest]))
        for kind, names in groups
        for first in range(0, len(names), largest)
    ]
    shares = share(profile.parallel, [len(array.runs) for array in arrays])
    return [replace(array, parallel=n) for array, n in zip(arrays, shares, strict=True)]


def share(parallel: int, sizes: Sequence[int]) -> list[int]:
    """Divide `parallel` among arrays of these sizes, in proportion: each gets at least 1, and at
    most its size. No limit (0) stays none."""
    if parallel == 0:
        return [0] * len(sizes)
    parts = [1] * len(sizes)
    for _ in range(parallel - len(sizes)):
        growing = [k for k in range(len(sizes)) if parts[k] < sizes[k]]
        if not growing:
            break
        parts[max(growing, key=lambda k: sizes[k] / parts[k])] += 1
    return parts


def one_after_another(arrays: Sequence[JobArray]) -> bool:
    """Whether each array waits for the one before: there are more of them than runs allowed at a
    time."""
    limit = arrays[0].profile.parallel if arrays else 0
    return 0 < limit < len(arrays)
