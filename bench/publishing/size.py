"""The size of what is published, and the most that may be."""

from collections import Counter
from collections.abc import Mapping, Sequence

from bench.publishing.catalog import REPORT, record_files, unit_of
from bench.publishing.publication import Publication
from bench.system.errors import UserError

MOST_MIB = 20  # of the whole folder, since every clone of the repository has it
MIB = 2**20
KINDS = {
    "distilled.safetensors": "distilled sets",
    "distilled.png": "pictures",
    "metrics.parquet": "metrics",
    "measurements.parquet": "measurements",
    REPORT: "the report",
}
LARGEST = 3  # grids that are named


def bytes_by_kind(records: Publication) -> Counter[str]:
    """The bytes of everything that will be in the folder, by kind."""
    kinds: Counter[str] = Counter()
    for path, size in records.sizes().items():
        kinds[KINDS.get(path.rpartition("/")[2], "other records")] += size
    others = {path for path in records.root.rglob("*") if path.is_file()}
    others -= {records.root / path for path in record_files(records.root)}
    kinds["files that are no records"] = sum(path.stat().st_size for path in others)
    return kinds


def size_text(size: int) -> str:
    """In MiB."""
    return f"{size / MIB:.1f} MiB"


def refuse_too_much(
    records: Publication,
    grids: Mapping[str, Sequence[str]],
    state: str = "nothing was published",
) -> None:
    """Refuse to publish more than `MOST_MIB`.

    Args:
        grids: the grids of the selected runs, by name of the run.
        state: what was published so far, for the error message.

    Raises:
        UserError: it would be more; says what takes the space, and what to leave out.
    """
    kinds = bytes_by_kind(records)
    if kinds.total() <= MOST_MIB * MIB:
        return
    parts = ", ".join(f"{kind} {size_text(size)}" for kind, size in kinds.most_common() if size)
    of_grids: Counter[str] = Counter()
    for path, size in records.sizes().items():
        names = grids.get(unit_of(path).partition("/")[2], ["runs that are not selected"])
        of_grids[" and ".join(names)] += size if path != REPORT else 0
    largest = ", ".join(f"{name} {size_text(n)}" for name, n in of_grids.most_common(LARGEST))
    raise UserError(
        f"{state}: {records.root} would take {size_text(kinds.total())}, and the most"
        f" is {MOST_MIB} MiB. It would hold {parts}; the largest grids: {largest}. Leave out"
        " distilled sets (sets=none), round them (set_precision=float16), leave out the report"
        " (report=false), or select fewer grids or methods (grid=, only=, with drop_others=true)"
    )
