"""The running source tree: its folder, its commit, and uncommitted changes. No torch."""

import subprocess
from pathlib import Path
from typing import Any

SOURCE = Path(__file__).resolve().parents[2]


def commit() -> dict[str, Any]:
    """The commit of the source tree, and whether it had uncommitted changes; empty outside git."""
    head = _git("rev-parse", "HEAD")
    if head is None:
        return {}
    return {"commit": head.strip(), "uncommitted_changes": bool(uncommitted_diff())}


def uncommitted_diff() -> str:
    """`git diff HEAD` of the source tree; empty if nothing was changed."""
    return _git("diff", "HEAD") or ""


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(SOURCE), *arguments], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout
