"""What is published besides runs: anatomies, and evaluations of distilled sets made elsewhere."""

import json
from pathlib import Path
from typing import Any

from bench.anatomies.folder import FOLDER, AnatomyFolder
from bench.publishing.publication import Files
from bench.publishing.reading import EVALUATIONS
from bench.publishing.records import Record, json_bytes, manifest_record, parquet
from bench.runs.json_files import without_checksum
from bench.runs.run_folder import name_of
from bench.system.errors import Damaged

# Of records.jsonl: what is drawn of single networks. result.json has everything over all networks.
OF_A_WINDOW = (
    *("network", "start", "stop", "cotangent", "outer_gradient_norm"),
    *("gradient_norm", "cosine_to_full"),  # how much comes through inner step 0
)


def anatomy_files(folder: AnatomyFolder) -> Files:
    """The files of a finished anatomy.

    Raises:
        UserError: it is damaged, or a text in it holds a path.
    """
    import pandas as pd

    settings, manifest, result = (folder.read(n) or {} for n in ("settings", "manifest", "result"))
    records = {
        "settings": {**settings, "distilled": name_of(settings["distilled"])},
        "manifest": manifest_record(manifest),
        "result": result,
    }
    files = {
        f"{one}.json": json_bytes(f"{folder.name}/{one}.json", r) for one, r in records.items()
    }
    rows = [{key: record[key] for key in OF_A_WINDOW} for record in folder.records()]
    files["records.parquet"] = parquet(pd.DataFrame(rows))
    return {f"{FOLDER}/{folder.name}/{name}": content for name, content in files.items()}


def evaluation_records(root: Path, scale: str) -> dict[str, Record]:
    """What `bench.evaluate` and `bench.scores` recorded at a scale, by name of the file.

    Raises:
        Damaged: a record is no JSON, or does not have its checksum.
    """
    found = {}
    for path in sorted((root / EVALUATIONS).glob("*.json")):
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise Damaged(f"{path} cannot be read ({error}); delete it") from error
        if isinstance(record, dict) and (record.get("config") or {}).get("scale") == scale:
            found[path.name] = without_checksum(record, path, "delete it")
    return found


def evaluation_files(name: str, record: Record) -> Files:
    """The file of an evaluation, in which distilled sets have names instead of paths.

    Raises:
        UserError: a text in it holds a path.
    """
    read_as, notes = dict(record.get("read_as") or {}), record.get("notes") or []
    for key in ("distilled", "labels"):
        if typed := read_as.get(key):
            read_as[key] = name_of(typed)
            notes = [note.replace(typed, read_as[key]) if "/" in typed else note for note in notes]
    published: dict[str, Any] = {
        **record,
        "distilled": name_of(record.get("distilled") or ""),
        "read_as": read_as,
        "notes": notes,
    }
    return {f"{EVALUATIONS}/{name}": json_bytes(name, published)}
