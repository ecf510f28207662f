"""What `python -m analysis.claims` and `analysis.table` say of made-up runs."""

import json
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

import pandas as pd

from analysis.claims import main
from analysis.table import main as table
from bench.config.run_config import RunConfig
from bench.runs.run_folder import Store

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


def with_result(results: "Maker", config: RunConfig, **content: Any) -> None:
    """Put more into the result of a run."""
    folder = Store(results.root).run(config)
    folder.write("result", {**(folder.read("result") or {}), **content})


def transfer(results: "Maker", config: RunConfig, accuracy: float, **changed: Any) -> None:
    """What `bench.evaluate distilled=RUN arch=...` leaves behind."""
    folder = results.root / "evaluations"
    folder.mkdir(exist_ok=True)
    own = Store(results.root).run(config).path
    changed |= {"transfer_to": [], "scores": False}  # an evaluation does neither
    record = {
        "distilled": str(own if config.seed else own / "distilled.safetensors"),
        "config": asdict(replace(config, **changed)),
        "evaluation": evaluation(accuracy),
    }
    path = folder / f"{own.name}-{len(list(folder.iterdir()))}.json"
    path.write_text(json.dumps(record))


def evaluation(accuracy: float) -> dict[str, Any]:
    return {"selection": "validation", "n": 10, "test_accuracy_mean": accuracy}
