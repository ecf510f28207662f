"""Small pieces of text that all commands print."""


def count(number: int, noun: str) -> str:
    """`1 run`, `3 runs`, `2 classes`."""
    ending = "" if number == 1 else "es" if noun.endswith(("s", "x", "ch", "sh")) else "s"
    return f"{number:,} {noun}{ending}"


def mean_std(mean: float, std: float | None = None, form: str = ".1f") -> str:
    """`83.2 ± 1.3`, or the mean alone where there is no standard deviation (None or NaN)."""
    spread = "" if std is None or std != std else f" ± {std:{form}}"
    return f"{mean:{form}}{spread}"
