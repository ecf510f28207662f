"""What `python -m analysis.claims` and `analysis.table` say of made-up runs."""

import json
from typing import TYPE_CHECKING, Any

import pandas as pd

from analysis.claims import main
from analysis.table import main as table

if TYPE_CHECKING:
    from tests.analysis.conftest import Maker


def judged(results: "Maker", *ids: str, scale: str = "quick", settings: str = "") -> dict[str, Any]:
    """What the command writes about some claims, by id."""
    root = results.root
    words = [f"claims={','.join(ids)}"] if ids else []
    words += [settings] if settings else []
    assert main([*words, f"scale={scale}", f"results_root={root}"]) == 0
    newest = max(root.glob("claims/*.json"), key=lambda path: path.stat().st_mtime_ns)
    return {claim["id"]: claim for claim in json.loads(newest.read_text())["claims"]}


def made(results: "Maker", name: str, *arguments: str) -> pd.DataFrame:
    """The CSV of a table."""
    output = results.root / f"out{len(list(results.root.glob('out*')))}"
    words = [f"table={name}", f"output={output}", f"results_root={results.root}"]
    assert table([*words, *arguments]) == 0
    (path,) = output.glob("*.csv")
    return pd.read_csv(path)
