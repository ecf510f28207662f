"""Python's search for garbage, kept away from what stays: torch's modules are half a million
objects, and searching them during the import and again at exit takes a second and a half."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def imports() -> Iterator[None]:
    """Around imports: does not search meanwhile, and never searches what was imported."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if enabled:
            gc.enable()
