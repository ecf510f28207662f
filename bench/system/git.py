"""The running source tree: its folder, its commit, and uncommitted changes. No torch."""

import subprocess
from pathlib import Path
from typing import Any

from bench.system.files import atomic_write

SOURCE = Path(__file__).resolve().parents[2]


DIFF_FILE = "uncommitted.diff"
LARGEST_DIFF = 1 << 20  # bytes that are recorded; each run has a copy


def commit() -> dict[str, Any]:
    """The commit of the source tree, and whether it had uncommitted changes; empty outside git."""
    head = _git("rev-parse", "HEAD")
    if head is None:
        return {}
    return {"commit": head.decode().strip(), "uncommitted_changes": bool(uncommitted_diff())}


def uncommitted_diff() -> bytes:
    """`git diff HEAD` of the source tree; empty if nothing was changed. Bytes, because the files
    may have any encoding; plain, whatever the user's git is set to."""
    return _git("diff", "--no-ext-diff", "--no-color", "HEAD") or b""


def record_uncommitted_diff(folder: Path) -> None:
    """Write the uncommitted changes to a file in `folder`, if there are any; large ones are cut at
    the end of a line, and the last line then says so."""
    diff = uncommitted_diff()
    if not diff:
        return
    if len(diff) > LARGEST_DIFF:
        kept = diff[: diff.rfind(b"\n", 0, LARGEST_DIFF) + 1]
        diff = kept + b"[cut here: %d of %d bytes]\n" % (len(kept), len(diff))
    with atomic_write(folder / DIFF_FILE) as temporary:
        temporary.write_bytes(diff)


def _git(*arguments: str) -> bytes | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(SOURCE), *arguments], capture_output=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout
