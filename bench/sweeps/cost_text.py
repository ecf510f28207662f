"""Time and memory of runs, in a few words."""

from collections.abc import Sequence

from bench.sweeps.cost_model import Estimate
from bench.system.text import duration


def costs(estimates: Sequence[Estimate]) -> str:
    """`12 s to 31 s a run, 0.4 to 1.2 GiB each`; the memory includes what runs take only if it is
    free."""
    seconds = [duration(each(one.seconds for one in estimates)) for each in (min, max)]
    peaks = [one.peak_bytes + one.spare_bytes for one in estimates if one.peak_bytes is not None]
    if not peaks:
        return f"{span(seconds)} a run, memory: not measured"
    return f"{span(seconds)} a run, {span([gib(min(peaks)), gib(max(peaks))])} GiB each"


def span(ends: Sequence[str]) -> str:
    """`a to b`, or `a` where both are the same."""
    return " to ".join(dict.fromkeys(ends))


def gib(n_bytes: float) -> str:
    """Bytes in GiB, to a tenth."""
    return f"{n_bytes / 2**30:,.1f}"
