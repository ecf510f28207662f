"""Small pieces of text that all commands print."""


def count(number: int, noun: str) -> str:
    """`1 run`, `3 runs`, `2 classes`."""
    ending = "" if number == 1 else "es" if noun.endswith(("s", "x", "ch", "sh")) else "s"
    return f"{number:,} {noun}{ending}"
