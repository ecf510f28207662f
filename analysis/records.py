"""The records of a finished run as tables."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from bench.runs.run_folder import RunFolder
from bench.system.errors import Unwritable, UserError
from bench.system.files import atomic_write


def seconds_before(metrics: pd.DataFrame, steps: Sequence[int]) -> np.ndarray:
    """The seconds of all outer steps of a run before each of these, without measurements.

    Args:
        metrics: the records of the run's outer steps.
    """
    elapsed = np.concatenate([[0.0], metrics.sort_values("step")["seconds"].cumsum()])
    return elapsed[np.minimum(np.asarray(steps, int), len(elapsed) - 1)]


def collected(folder: RunFolder, name: str) -> pd.DataFrame:
    """The records "metrics" or "measurements" of a run as a table, without lists.

    The table of a finished run is cached in a Parquet file beside the JSON lines, and read from it
    as long as it is newer. If the folder cannot be written, the JSON lines are read every time.

    Raises:
        UserError: the records are missing or damaged.
    """
    folder = folder.with_result
    lines, parquet = folder.path / f"{name}.jsonl", folder.path / f"{name}.parquet"
    if _is_newer(parquet, lines):
        try:
            return pd.read_parquet(parquet)
        except (OSError, ValueError):  # cut short by a copy; the JSON lines are the original
            pass
    if not lines.exists():
        raise UserError(f"{lines} is missing: the run cannot be drawn")
    try:
        table = _tidy(folder.records(name))
    except ValueError as error:  # no JSON, no UTF-8
        raise UserError(
            f"{lines} is damaged ({error}); restore it or start the run anew"
        ) from error
    if not folder.has_result():
        return table
    try:
        with atomic_write(parquet) as temporary:
            table.to_parquet(temporary, index=False)
    except Unwritable:
        pass  # a results folder that belongs to someone else
    return table


def _tidy(records: list[dict[str, Any]]) -> pd.DataFrame:
    plain = [
        {key: value for key, value in record.items() if not isinstance(value, list)}
        for record in records
    ]
    table = pd.DataFrame(plain)
    # The standard deviation of one network is null: a missing number, not an object.
    nulls = [key for key in table if table[key].isna().all()]
    return table.astype(dict.fromkeys(nulls, "float64"))


def _is_newer(parquet: Path, lines: Path) -> bool:
    if not parquet.is_file():
        return False
    return not lines.exists() or parquet.stat().st_mtime_ns > lines.stat().st_mtime_ns
