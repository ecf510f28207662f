"""The options of `bench.anatomy`, and the windows that they mean."""

from dataclasses import dataclass

from bench.config.command_line import setting

FIRST_STARTS = 6  # never left out: the first inner steps are where optimizers differ most


@dataclass(frozen=True)
class AnatomyOptions:
    """What is measured of the meta-gradient."""

    networks: int = setting(
        8, "fresh networks, each with a target batch of its own", minimum=1, maximum=10_000
    )
    stops: int = setting(
        12, "ends of windows, evenly spaced up to unroll_length", minimum=1, maximum=10_000
    )
    starts: int = setting(
        30,
        f"starts of windows: every inner step if there are no more, else so many evenly spaced and"
        f" the first {FIRST_STARTS}; the gradients of all windows are in memory",
        minimum=2,
        maximum=10_000,
    )
    variance_networks: int = setting(
        2,
        "networks for which the variance over variance_samples target images is measured too, which"
        " takes several times as long as all the rest; 0: none",
        minimum=0,
    )
    force: bool = setting(False, "start over even if there are networks that are done")


def stops_of(unroll_length: int, count: int) -> list[int]:
    """The stops, ascending: `count` evenly spaced ones, or every step if there are fewer steps. The
    last one is `unroll_length`."""
    return sorted({max(1, round(k * unroll_length / count)) for k in range(1, count + 1)})


def starts_of(unroll_length: int, count: int) -> list[int]:
    """The starts, ascending, from 0 to `unroll_length` - 1."""
    last = unroll_length - 1
    if unroll_length <= count:
        return list(range(unroll_length))
    spaced = {round(k * last / (count - 1)) for k in range(count)}
    return sorted(spaced | set(range(min(FIRST_STARTS, unroll_length))))
