"""The records of a finished run as tables."""

import io
import struct
import zlib
from collections.abc import Sequence
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from bench.publishing.reading import PublishedRun
from bench.runs.run_folder import RunFolder
from bench.system.errors import Damaged, Unwritable
from bench.system.files import atomic_write, checksum

# At the beginning of a cache: CRC-32 of the lines, and of the Parquet file.
SUMS = struct.Struct("<II")
REMEDY = "restore it, or make the run again with force=true"


def seconds_before(metrics: pd.DataFrame, steps: Sequence[int]) -> np.ndarray:
    """The seconds of all outer steps of a run before each of these, without measurements.

    Args:
        metrics: the records of the run's outer steps.
    """
    elapsed = np.concatenate([[0.0], metrics.sort_values("step")["seconds"].cumsum()])
    return elapsed[np.minimum(np.asarray(steps, int), len(elapsed) - 1)]


def collected(folder: RunFolder, name: str) -> pd.DataFrame:
    """The records "metrics" or "measurements" of a run as a table, without lists.

    The table of a finished run is cached beside the JSON lines, with their checksum and its own,
    and read from the cache as long as both are right. If the folder cannot be written, the JSON
    lines are read every time.

    Raises:
        Damaged: the records are missing, or are no JSON lines.
    """
    folder = folder.with_result
    if isinstance(folder, PublishedRun):  # its files have been compared with their checksums
        path = folder.path / f"{name}.parquet"
        return _published(path, checksum(path)).copy(deep=False)
    path, cache = lines_of(folder, name), folder.path / f"{name}.cache"
    try:
        lines = checksum(path)
    except OSError as error:
        raise Damaged(f"{path} cannot be read ({error.strerror}); {REMEDY}") from error
    if (cached := _cached(cache, lines)) is not None:
        return cached
    is_finished = folder.has_result()  # before its lines are read: it may be about to write more
    try:
        table = _tidy(folder.records(name))
    except (ValueError, AttributeError) as error:  # no JSON, no UTF-8; JSON, but no object
        raise Damaged(f"{path} is damaged ({error}); {REMEDY}") from error
    if not is_finished:
        return table
    with suppress(Unwritable), atomic_write(cache) as temporary:  # it may belong to someone else
        content = table.to_parquet(index=False)
        temporary.write_bytes(SUMS.pack(lines, zlib.crc32(content)) + content)
    return table


def lines_of(folder: RunFolder, name: str) -> Path:
    """The file of JSON lines with these records of a run.

    Raises:
        Damaged: it is missing.
    """
    path = folder.path / f"{name}.jsonl"
    if not path.is_file():
        raise Damaged(f"{path} is {'no file' if path.exists() else 'missing'}; {REMEDY}")
    return path


@lru_cache(maxsize=4096)  # the figures and verdicts of a grid read the same runs
def _published(path: Path, content: int) -> pd.DataFrame:
    return pq.ParquetFile(path).read().to_pandas()


def _cached(cache: Path, lines: int) -> pd.DataFrame | None:
    """The table in a cache, if it is intact and of lines with this checksum; else None."""
    try:
        return _parsed(cache, lines, checksum(cache)).copy(deep=False)
    except (OSError, ValueError, struct.error):  # there is none, or one that was cut short
        return None


@lru_cache(maxsize=512)  # the same runs again; fewer than above: these tables have all columns
def _parsed(cache: Path, lines: int, content: int) -> pd.DataFrame:
    """The table in a cache with the checksum `content`, of lines with the checksum `lines`."""
    whole = cache.read_bytes()
    table = whole[SUMS.size :]
    if zlib.crc32(whole) != content or SUMS.unpack(whole[: SUMS.size]) != (
        lines,
        zlib.crc32(table),
    ):
        raise ValueError("it is not of these lines, or is damaged")
    return pd.read_parquet(io.BytesIO(table))


def _tidy(records: list[dict[str, Any]]) -> pd.DataFrame:
    plain = [
        {key: value for key, value in record.items() if not isinstance(value, list)}
        for record in records
    ]
    table = pd.DataFrame(plain)
    # The standard deviation of one network is null: a missing number, not an object.
    nulls = [key for key in table if table[key].isna().all()]
    for key in table.select_dtypes(exclude="number"):
        if len(kinds := {type(value).__name__ for value in table[key].dropna()}) > 1:
            raise ValueError(f"{key} is now of type {' now '.join(sorted(kinds))}")
    return table.astype(dict.fromkeys(nulls, "float64"))
