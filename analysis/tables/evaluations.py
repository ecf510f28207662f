"""What `bench.evaluate` and `bench.scores` recorded of distilled sets, a row for each record."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.arguments import Request
from analysis.grid_entries import evaluation_records
from analysis.labels import has_settings
from analysis.rendered_table import RenderedTable, as_shown
from analysis.tables.scores import MEASURES
from bench.config.run_config import RunConfig
from bench.publishing.others import name_of
from bench.publishing.reading import EVALUATIONS
from bench.runs.subject import network_text, training_text
from bench.system.errors import UserError
from bench.system.text import mean_std, percent

SCORED = "Beside as many random real images and the full training set"


Record = tuple[dict[str, Any], RunConfig]


def evaluation_table(request: Request, root: Path) -> RenderedTable:
    """The records under `root` and, where it has none of the same name, the published ones.

    Raises:
        UserError: there is none with these settings.
    """
    records = _records(request, root)
    if not records:
        settings = " ".join([f"scale={request.scale}", *request.settings()])
        raise UserError(
            f"table evaluations: nothing is recorded at {settings}; make a record with:"
            f" python -m bench.evaluate distilled=PATH {settings}"
        )
    plain = [_plain(*one) for one in records if "evaluation" in one[0]]
    scored = [_scored(*one) for one in records if "hard_label_recovery" in one[0]]
    frames = [(plain, ""), (scored, SCORED)]
    return RenderedTable(
        name="evaluations",
        title="Evaluations of distilled sets",
        caption=_caption(records, request),
        frames=[
            (as_shown([shown for shown, _ in rows]), text if plain else "")
            for rows, text in frames
            if rows
        ],
        tidy=pd.DataFrame([tidy for _, tidy in plain + scored]),
    )


def _records(request: Request, root: Path) -> list[Record]:
    """The records with the request's scale and settings, by name of the file."""
    published = request.published.evaluations()
    paths = {path.name: path for path in [*published, *root.glob(f"{EVALUATIONS}/*.json")]}
    return [
        (record, config)
        for record, config in evaluation_records(paths[name] for name in sorted(paths))
        if config.scale == request.scale and has_settings(config, request.overrides)
    ]


def _about(record: dict[str, Any], config: RunConfig) -> dict[str, str]:
    """The set, and what was trained on it."""
    return {
        "Set": name_of(record["distilled"]),
        "What": record["what"],
        "Data set": config.dataset,
        "Network": network_text(config),
        "Training": training_text(config, record.get("protocol", "")),
    }


def _plain(record: dict[str, Any], config: RunConfig) -> tuple[dict[str, str], dict[str, Any]]:
    """The row of an accuracy as shown, and as numbers."""
    about, evaluation = _about(record, config), record["evaluation"]
    mean, std = evaluation["test_accuracy_mean"], evaluation.get("test_accuracy_std")
    n = evaluation["n"]
    selected = {"Steps": f"{evaluation['steps']:,}", "Selected by": evaluation["selection"]}
    numbers = {"mean": 100 * mean, "std": None if std is None else 100 * std, "n_networks": n}
    shown = {"Test accuracy": percent(mean, std), "n (networks)": str(n), **selected}
    return about | shown, about | numbers | selected


def _scored(record: dict[str, Any], config: RunConfig) -> tuple[dict[str, str], dict[str, Any]]:
    """The same of scores."""
    about, n = _about(record, config), record["hard_label_recovery"]["n"]
    values = {measure: measure.value(record) for measure in MEASURES}
    shown = {measure.name: mean_std(v, None, measure.form) for measure, v in values.items()}
    numbers = {measure.key: value for measure, value in values.items()}
    return about | shown | {"n (networks)": str(n)}, about | numbers | {"n_networks": n}


def _caption(records: Sequence[Record], request: Request) -> str:
    data = [record["data"] for record, _ in records]
    copies = dict.fromkeys(f"{one['source']}, fingerprint {one['fingerprint']}" for one in data)
    return (
        "Test accuracy (%) of n fresh networks trained on a set: mean ± standard deviation over"
        " networks, at the number of steps that the stated split selects. Each row is one set.\n"
        f"{', '.join([f'scale={request.scale}', *request.settings()])}; data:"
        f" {' and '.join(copies)}."
    )
