"""A finished table: its frames of text, and the Markdown, LaTeX and CSV that are written of it."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from bench.system.files import write_texts

MISSING = "missing"
LATEX_SIGNS = {
    **{"±": "$\\pm$", "≈": "$\\approx$", "−": "$-$", "≥": "$\\geq$", "×": "$\\times$"},
    "ε": "$\\varepsilon$",
}


@dataclass(frozen=True)
class RenderedTable:
    """A table as it is shown.

    Attributes:
        name: in file names and LaTeX labels.
        caption: how to read it and where its numbers come from.
        frames: the table as text and, where there are some, further tables with their own captions.
        tidy: the same for programs: numbers are numbers.
        missing: what is missing, in a sentence without a full stop; empty if nothing is.
        commands: the commands that make what is missing.
        notes: paragraphs between the frames and what is missing.
    """

    name: str
    title: str
    caption: str
    frames: list[tuple[pd.DataFrame, str]]
    tidy: pd.DataFrame
    missing: str = ""
    commands: Sequence[str] = ()
    notes: Sequence[str] = field(default_factory=list)

    def markdown(self) -> str:
        """Everything as Markdown."""
        parts = [f"**{self.caption}**"]
        for frame, text in self.frames:
            parts += [f"**{text}**"] if text else []
            parts.append(frame.to_markdown(index=False, disable_numparse=True))
        parts += self.notes
        if self.missing and self.commands:
            lines = "\n".join(f"    {line}" for line in self.commands)
            parts.append(f"{self.missing}; make them with:\n\n{lines}")
        elif self.missing:
            parts.append(f"{self.missing}.")
        return "\n\n".join(parts) + "\n"

    def latex(self) -> str:
        """Each frame as a LaTeX table (packages booktabs and graphicx)."""
        return "\n".join(
            _latex_table(
                frame, text or self.caption, f"tab:{self.name}" + (f"-{n}" if n > 1 else "")
            )
            for n, (frame, text) in enumerate(self.frames, 1)
        )

    def write(self, stem: Path) -> list[Path]:
        """Write `stem`.md, `stem`.tex and `stem`.csv, each atomically; returns the paths."""
        texts = {"md": self.markdown(), "tex": self.latex(), "csv": self.tidy.to_csv(index=False)}
        return write_texts(texts, stem)


def as_shown(rows: Sequence[dict[str, str]]) -> pd.DataFrame:
    """Rows of text as a frame; columns that few rows need are dropped where all is empty."""
    frame = pd.DataFrame(rows)
    few = ("Missing", "Condition", "Settings")
    empty = [name for name in few if name in frame and not frame[name].any()]
    return frame.drop(columns=empty)


def _latex_table(frame: pd.DataFrame, text: str, label: str) -> str:
    """One table that fits the width of the text."""
    body = frame.map(_escaped).rename(columns=_escaped)
    tabular = body.to_latex(index=False, escape=False, column_format="l" * len(frame.columns))
    return (
        f"\\begin{{table}}\n\\centering\n\\caption{{{_escaped(text)}}}\n\\label{{{label}}}\n"
        f"\\resizebox{{\\linewidth}}{{!}}{{%\n{tabular.rstrip()}}}\n\\end{{table}}\n"
    )


def _escaped(text: str) -> str:
    for sign in "&%$#_{}":
        text = text.replace(sign, f"\\{sign}")
    for sign, command in LATEX_SIGNS.items():
        text = text.replace(sign, command)
    return text
