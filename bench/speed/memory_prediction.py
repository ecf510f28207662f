"""Predict the memory of a measurement, so that one that would not fit is not started."""

from dataclasses import replace

from bench.speed.engines import GRAPH_ENGINES
from bench.speed.measure import Measurement, Missing
from bench.speed.work import Work
from bench.system.machine import free_memory

KEYS = ("window", "warm_up", "width", "target_batch")
USABLE = 0.9  # of the free memory: the prediction is a straight line, the truth not quite


def predicted_bytes(engine: str, work: Work, measured: list[Measurement]) -> int | None:
    """Peak memory of an engine that holds a graph, extrapolated from two smaller pieces of work
    that differ from this one in one number only. None if there are not two, or for other
    engines."""
    if engine not in GRAPH_ENGINES:
        return None
    for key in KEYS:
        size = getattr(work, key)
        points = sorted(
            (getattr(m.work, key), m.peak_bytes)
            for m in measured
            if m.engine == engine and differs_in(key, m.work, work) and getattr(m.work, key) < size
        )
        if len(points) > 1:
            (before, less), (last, more) = points[-2:]
            return int(more + max(0.0, (more - less) / (last - before)) * (size - last))
    return None


def smaller_did_not_fit(engine: str, work: Work, missing: list[Missing]) -> Missing | None:
    """A piece of work, smaller in one number, that did not fit for this engine."""
    for m in missing:
        if m.engine == engine and m.needed_bytes is not None:
            for key in KEYS:
                if differs_in(key, m.work, work) and getattr(m.work, key) < getattr(work, key):
                    return m
    return None


def differs_in(key: str, one: Work, other: Work) -> bool:
    """Whether two pieces of work are the same but for `key`, or altogether."""
    return replace(one, **{key: getattr(other, key)}) == other


def free_bytes(device_type: str) -> int:
    """Memory that is free now: of the GPU, or of this machine, container or batch job."""
    if device_type == "cuda":
        import torch

        return torch.cuda.mem_get_info()[0]
    return free_memory()
