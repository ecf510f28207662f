"""What is published of a run: the files of its folder, thinned, without names of people, machines
and folders. The same run gives the same bytes.

    config.json, manifest.json, result.json   as the run has them, without commands, hosts and paths
    metrics.parquet        of each outer step: the columns `METRICS`
    measurements.parquet   of each measurement: everything but the accuracies of single networks
    distilled.safetensors  the distilled set, if it is published, and its picture distilled.png
    error.json, progress.json   of a run that failed, in place of all but config.json
    progress.json               of a run that is not finished, in place of its result and set
"""

import io
import json
import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from bench.publishing.publication import Files
from bench.system.errors import UserError

if TYPE_CHECKING:
    import pandas as pd

METRICS = ("step", "window_start", "window_stop", "image_gradient_norm", "seconds")
TICKS = 2**20  # a second; times are rounded to whole ticks, which compress
OF_A_START = ("time", "step", "versions", "hardware", "world_size", "commit", "uncommitted_changes")
PERSONAL_HARDWARE = ("platform",)  # the name of the kernel may be that of a site
# A path from a root or a home, at the start of a text or of a word in it.
PATH = re.compile(r"(?:^|[\s=:'\"(\[,])(?:/\w|~[\w/]|[A-Za-z]:\\)")

Record = dict[str, Any]


def run_with_records(
    name: str,
    config: Record,
    manifest: Record,
    end: dict[str, Record],
    tables: "Mapping[str, pd.DataFrame]",
    distilled: Files,
) -> Files:
    """The files of a run that has recorded outer steps, by path in the folder of records.

    Args:
        end: "result" of a finished run, or "progress" of one that is not.
        tables: "metrics" and "measurements", without lists.
        distilled: distilled.safetensors and distilled.png, if they are published.

    Raises:
        UserError: a text in a record holds a path.
    """
    records = {
        "config": config_record(config),
        "manifest": manifest_record(manifest),
        **end,
    }
    files = {f"{one}.json": json_bytes(f"{name}/{one}.json", r) for one, r in records.items()}
    files["metrics.parquet"] = parquet(metrics_table(tables["metrics"]))
    files["measurements.parquet"] = parquet(tables["measurements"])
    return {f"runs/{name}/{file}": content for file, content in (files | distilled).items()}


def failed_run(name: str, config: Record, kind: str, step: int) -> Files:
    """The files of a failed run: its configuration, the kind of failure, and the outer step."""
    records: dict[str, Record] = {
        "config": config_record(config),
        "error": {"kind": kind, "message": ""},
        "progress": progress_record(config, "failed", step),
    }
    return {
        f"runs/{name}/{one}.json": json_bytes(f"{name}/{one}.json", record)
        for one, record in records.items()
    }


def progress_record(config: Record, state: str, step: int) -> Record:
    """The last heartbeat of a run that will not go on by itself."""
    return {
        **{"state": state, "host": "", "pid": 0, "process_started": None, "job": ""},
        **{"step": step, "outer_steps": config["outer_steps"], "activity": ""},
        **{"seconds_per_step": None, "time": 0},
    }


def config_record(config: Record) -> Record:
    """The configuration without the command that made the run."""
    return {key: value for key, value in config.items() if key != "command"}


def manifest_record(manifest: Record) -> Record:
    """The manifest: of each start when, on which hardware, with which versions and commit. The
    configuration has a file of its own."""
    starts = [_start(start) for start in manifest.get("starts") or []]
    return {**{key: value for key, value in manifest.items() if key != "config"}, "starts": starts}


def _start(start: Record) -> Record:
    kept = {key: start[key] for key in OF_A_START if key in start}
    if hardware := kept.get("hardware"):
        kept["hardware"] = {k: v for k, v in hardware.items() if k not in PERSONAL_HARDWARE}
    return kept


def metrics_table(table: "pd.DataFrame") -> "pd.DataFrame":
    """The columns of the metrics that are published; seconds are rounded to 1 / `TICKS`."""
    kept = table[[name for name in METRICS if name in table]]
    if "seconds" in kept:
        kept = kept.assign(seconds=(kept["seconds"] * TICKS).round() / TICKS)
    return kept


def parquet(table: "pd.DataFrame") -> bytes:
    """A table as Parquet, as small as it gets without loss. Numbers that were float32 take the
    space of float32: the bytes of a column are stored place by place."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    arrow = pa.Table.from_pandas(table, preserve_index=False).replace_schema_metadata(None)
    floats = [one.name for one in arrow.schema if pa.types.is_floating(one.type)]
    integers = [one.name for one in arrow.schema if pa.types.is_integer(one.type)]
    content = io.BytesIO()
    options: dict[str, Any] = {
        "use_dictionary": [n for n in arrow.column_names if n not in (*floats, *integers)],
        "use_byte_stream_split": floats,
        "column_encoding": dict.fromkeys(integers, "DELTA_BINARY_PACKED"),
    }
    pq.write_table(
        arrow,
        content,
        compression="zstd",
        compression_level=19,
        write_statistics=False,
        store_schema=False,
        **options,
    )
    return content.getvalue()


def json_bytes(name: str, record: Record) -> bytes:
    """A record as JSON.

    Raises:
        UserError: a text in it holds a path.
    """
    if found := next(paths_in(record), None):
        raise UserError(f"{name} is not published: it holds a path: {found}")
    return (json.dumps(record, separators=(",", ":")) + "\n").encode()


def paths_in(value: Any) -> Iterator[str]:
    """The texts in a record, as "key: text", that hold a path of some machine."""
    if isinstance(value, dict):
        for key, one in value.items():
            yield from (
                f"{key}: {text}" if isinstance(one, str) else text for text in paths_in(one)
            )
    elif isinstance(value, list):
        for one in value:
            yield from paths_in(one)
    elif isinstance(value, str) and PATH.search(value):
        yield value


def distilled_set(content: bytes, precision: str) -> bytes:
    """A file of a distilled set; float16: its images are rounded to half precision.

    Raises:
        UserError: the file is damaged, or its description holds a path.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load, save

    try:
        tensors = load(content)
        length = int.from_bytes(content[:8], "little")
        metadata = json.loads(content[8 : 8 + length])["__metadata__"]
        description = json.loads(metadata["distilled_set"])
    except (SafetensorError, KeyError, ValueError) as error:
        raise UserError(f"the distilled set is damaged ({error})") from error
    json_bytes("the distilled set", description)
    if precision == "float32":
        return content
    rounded = {**tensors, "images": tensors["images"].astype(precision)}
    return save(rounded, metadata)
