"""The table of settings: every setting at `scale=paper` with its source. It needs no runs."""

from collections.abc import Sequence
from typing import Any

import pandas as pd

from analysis.rendered_table import RenderedTable
from analysis.setting_sources import LABELS, Rule, Sourced, rules, sourced
from bench.config.grid import grid_names, load_grid

NO_SOURCE = "none"
TITLE = "Settings of scale=paper, each with its source"


def settings_table(grid: str = "") -> RenderedTable:
    """The settings of all grids, or of one.

    Raises:
        UserError: there is no such grid, or it is invalid.
    """
    grids = [grid] if grid else grid_names()
    found = [one for name in grids for one in sourced(name, rules())]
    rows = [
        row
        for setting in dict.fromkeys([*rules(), *(one.setting for one in found)])
        for row in _rows(setting, [one for one in found if one.setting == setting])
    ]
    unused = dict.fromkeys(row["setting"] for row in rows if row["source"] == "unused")
    shown = [row for row in rows if row["source"] != "unused"]
    return RenderedTable(
        name="settings",
        title=TITLE,
        caption=_caption(shown, [load_grid(name).name for name in grids] if grid else []),
        frames=[(pd.DataFrame([_as_text(row) for row in shown]), "")],
        tidy=pd.DataFrame(rows),
        notes=[f"Left out where they have no effect: {', '.join(unused)}."] if unused else [],
    )


def _rows(setting: str, found: Sequence[Sourced]) -> list[dict[str, Any]]:
    """A row for each rule and value of a setting, in the order of the file."""
    groups: dict[tuple[str, str], list[Sourced]] = {}
    for one in found:
        groups.setdefault((repr(one.rule if one.agrees else None), str(one.value)), []).append(one)
    order = [repr(rule) for rule in rules().get(setting, [])]
    keys = sorted(groups, key=lambda key: order.index(key[0]) if key[0] in order else len(order))
    return [_row(setting, groups[key], len(groups) == 1) for key in keys]


def _row(setting: str, group: Sequence[Sourced], only: bool) -> dict[str, Any]:
    first = group[0]
    rule = first.rule if first.agrees else None
    return {
        "setting": setting,
        "value": str(first.value),
        "where": "everywhere" if only else _where(rule),
        "grids": " ".join(dict.fromkeys(one.grid for one in group)),
        "experiments": len(group),
        "source": rule.label if rule else NO_SOURCE,
        "place_or_reason": rule.text if rule else "no source is recorded for this value",
    }


def _where(rule: Rule | None) -> str:
    if rule is None:
        return ""
    texts = (f"{key} {', '.join(map(str, values))}" for key, values in rule.conditions.items())
    return "; ".join(texts) or "elsewhere"


def _as_text(row: dict[str, Any]) -> dict[str, str]:
    return {
        "Setting": row["setting"],
        "Value": row["value"],
        "Where": row["where"],
        "Experiments": str(row["experiments"]),
        "Source": row["source"],
        "Place or reason": row["place_or_reason"],
    }


def _caption(rows: Sequence[dict[str, Any]], grids: Sequence[str]) -> str:
    counts = {label: sum(row["source"] == label for row in rows) for label in (*LABELS, NO_SOURCE)}
    numbers = ", ".join(f"{n} {label}" for label, n in counts.items() if n)
    return (
        f"{TITLE}, of {f'grid {grids[0]}' if grids else 'all grids'} without settings from the"
        f" command line ({numbers}). stated: the paper; code: its authors' published code, commands"
        " or distilled sets, where the text is silent; rival: the paper or code of another system;"
        " ours: none of them. Experiments: entries of grids"
        " that have the value, whatever the seed. Where: of several lines the first that applies."
    )
