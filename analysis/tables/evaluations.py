"""What `bench.evaluate` and `bench.scores` recorded of distilled sets, a row for each record."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.arguments import Request
from analysis.grid_entries import evaluation_records
from analysis.labels import flat_settings
from analysis.rendered_table import RenderedTable, as_shown
from analysis.tables.scores import MEASURES
from bench.config.command_line import keys_of
from bench.config.read_settings import EvaluationSettings
from bench.config.resolve import has_settings
from bench.config.run_config import RunConfig
from bench.publishing.reading import EVALUATIONS
from bench.runs.run_folder import name_of
from bench.runs.subject import network_text, training_text
from bench.system.errors import UserError
from bench.system.text import mean_std, percent

ACCURACIES = "Accuracies"
SCORED = (
    "Beside as many random real images and the full training set, at the number of steps that the"
    " record's own selection chose (HLR, IOR and score: as in table=scores)"
)


Record = tuple[dict[str, Any], RunConfig]
Row = tuple[dict[str, str], dict[str, Any]]  # as shown, and as numbers


def evaluation_table(request: Request, root: Path) -> RenderedTable:
    """The records under `root` and, where it has none of the same name, the published ones.

    Raises:
        UserError: there is none with these settings.
    """
    records = _records(request, root)
    plain = list(_rows(records, "evaluation", _plain))
    scored = list(_rows(records, "hard_label_recovery", _scored))
    if not plain + scored:
        scale = f"scale={request.scale}"
        settings = " ".join([scale, *request.settings()])
        read = [key for key in keys_of(EvaluationSettings) if key not in ("scale", "seed")]
        of_evaluation = " ".join([scale, *request.written(*read)])
        raise UserError(
            f"table evaluations: nothing is recorded at {settings}; make a record with:"
            f" python -m bench.evaluate distilled=PATH {of_evaluation}"
        )
    frames = [(plain, ACCURACIES if scored else ""), (scored, SCORED)]
    return RenderedTable(
        name="evaluations",
        title="Evaluations of distilled sets",
        caption=_caption(records, request),
        frames=[(as_shown([shown for shown, _ in rows]), text) for rows, text in frames if rows],
        tidy=pd.DataFrame([tidy for _, tidy in plain + scored]),
    )


def _records(request: Request, root: Path) -> list[Record]:
    """The records with the request's scale and settings, by name of the file."""
    own = sorted(root.glob(f"{EVALUATIONS}/*.json"))
    by_name = {
        path.name: record
        for path in [*request.published.evaluations(), *own]
        for record in evaluation_records([path])
    }
    return [
        (record, config)
        for _, (record, config) in sorted(by_name.items())
        if config.scale == request.scale and has_settings(config, request.overrides)
    ]


def _rows(
    records: Sequence[Record], key: str, row: Callable[[dict[str, Any]], Row]
) -> Iterator[Row]:
    """The rows of the records with this key. Those of one set, network and training state the
    settings in which they differ."""
    own = [one for one in records if key in one[0]]
    abouts = [_about(*one) for one in own]
    settings = [{**flat_settings(config), "seed": config.seed} for _, config in own]
    for (record, _), about, of_one in zip(own, abouts, settings, strict=True):
        alike = [other for other, a in zip(settings, abouts, strict=True) if a == about]
        differing = [k for k in of_one if any(other.get(k) != of_one[k] for other in alike)]
        text = ", ".join(f"{k}={of_one[k]}" for k in differing)
        with suppress(KeyError, TypeError):  # a record of another version
            shown, tidy = row(record)
            yield about | shown | {"Settings": text}, about | tidy | {"Settings": text}


def _about(record: dict[str, Any], config: RunConfig) -> dict[str, str]:
    """The set, and what was trained on it."""
    return {
        "Set": name_of(record["distilled"]),
        "What": record["what"],
        "Data set": config.dataset,
        "Network": network_text(config),
        "Training": training_text(config, record.get("protocol", "")),
    }


def _plain(record: dict[str, Any]) -> Row:
    """The row of an accuracy as shown, and as numbers."""
    evaluation = record["evaluation"]
    mean, std = evaluation["test_accuracy_mean"], evaluation.get("test_accuracy_std")
    n = evaluation["n"]
    selected = {"Steps": f"{evaluation['steps']:,}", "Selected by": evaluation["selection"]}
    numbers = {"mean": 100 * mean, "std": None if std is None else 100 * std, "n_networks": n}
    shown = {"Test accuracy": percent(mean, std), "n (networks)": str(n), **selected}
    return shown, numbers | selected


def _scored(record: dict[str, Any]) -> Row:
    """The same of scores."""
    n = record["hard_label_recovery"]["n"]
    values = {measure: measure.value(record) for measure in MEASURES}
    shown = {measure.name: mean_std(v, None, measure.form) for measure, v in values.items()}
    numbers = {measure.key: value for measure, value in values.items()}
    return {**shown, "n (networks)": str(n)}, {**numbers, "n_networks": n}


def _caption(records: Sequence[Record], request: Request) -> str:
    data = [record["data"] for record, _ in records]
    copies = dict.fromkeys(f"{one['source']}, fingerprint {one['fingerprint']}" for one in data)
    published = request.published.runs() if request.published.evaluations() else []
    source = f" Published records are of {published[0].date}." if published else ""
    return (
        "Test accuracy (%) of n fresh networks trained on a set: mean ± standard deviation over"
        " networks, at the number of steps that the stated split selects. Each row is one record.\n"
        f"{', '.join([f'scale={request.scale}', *request.settings()])}; data:"
        f" {' and '.join(copies)}.{source}"
    )
