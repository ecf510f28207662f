"""Claims of one group, such as the numbers of a row of Table 1, shown as one row."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile

from analysis.verdicts.inference import Verdict
from analysis.verdicts.judge import Outcome

VERDICTS: tuple[Verdict, ...] = (
    *("holds", "does not hold", "undecided"),
    *("not tested", "not run"),
)
PLURALS = {"holds": "hold", "does not hold": "do not hold"}


@dataclass(frozen=True)
class Group:
    """Several claims that are shown in one row. It has no verdict: each claim has its own."""

    name: str
    outcomes: list[Outcome]

    @property
    def claim(self) -> str:
        return f"{self.name}: each of {len(self.outcomes)} is within its margin of the paper's"

    @property
    def id(self) -> str:
        """A pattern of the ids of its claims."""
        parts = zip(*(outcome.claim.id.split("_") for outcome in self.outcomes), strict=False)
        shared = takewhile(lambda same: len(set(same)) == 1, parts)
        return "_".join([*(same[0] for same in shared), "*"])

    @property
    def holding(self) -> str:
        """How many of its claims hold."""
        holding = sum(outcome.decision.verdict == "holds" for outcome in self.outcomes)
        return f"{holding} of {len(self.outcomes)} within their margin"

    @property
    def look(self) -> Verdict:
        """The verdict whose look the row has: that of all, else of one that does not hold."""
        found: list[Verdict] = [outcome.decision.verdict for outcome in self.outcomes]
        if len(set(found)) == 1:
            return found[0]
        return "does not hold" if "does not hold" in found else "undecided"

    @property
    def margins(self) -> str:
        """The margins of its claims, in points."""
        margins = sorted({outcome.claim.margin or 0.0 for outcome in self.outcomes})
        text = " to ".join(f"{margin:g}" for margin in dict.fromkeys((margins[0], margins[-1])))
        return f"within {text}"

    @property
    def seeds(self) -> str:
        """The numbers of seeds behind its claims."""
        numbers = sorted({outcome.decision.n for outcome in self.outcomes})
        return " to ".join(map(str, dict.fromkeys((numbers[0], numbers[-1]))))

    @property
    def missing(self) -> list[str]:
        """What its claims lack, each once."""
        return list(dict.fromkeys(text for one in self.outcomes for text in one.missing))


def grouped(outcomes: Sequence[Outcome]) -> list[Outcome | Group]:
    """The rows of a table: claims without a group, and groups, in their order."""
    rows: dict[str, Outcome | Group] = {}
    for outcome in outcomes:
        name = outcome.claim.group
        if not name:
            rows[outcome.claim.id] = outcome
        elif isinstance(group := rows.setdefault(name, Group(name, [])), Group):
            group.outcomes.append(outcome)
    return list(rows.values())


def counts_text(outcomes: Sequence[Outcome]) -> dict[str, str]:
    """The number of claims with each verdict, in words; verdicts of no claim are omitted."""
    numbers = Counter(outcome.decision.verdict for outcome in outcomes)
    return {
        verdict: f"{n} {verdict if n == 1 else PLURALS.get(verdict, verdict)}"
        for verdict in VERDICTS
        if (n := numbers[verdict])
    }


KINDS = {  # one, several
    "paper": ("claim of the paper", "claims of the paper"),
    "literal": ("literal reading", "literal readings"),
    "finding": ("finding of ours", "findings of ours"),
    "number": ("number of its tables", "numbers of its tables"),
}


def counts_by_kind(outcomes: Sequence[Outcome]) -> str:
    """How many claims there are of each kind, and with each verdict, as a sentence."""
    kinds: dict[str, list[Outcome]] = {}
    for one in outcomes:
        kinds.setdefault("number" if one.claim.group else one.claim.kind, []).append(one)
    texts = []
    for kind, of_kind in kinds.items():
        verdicts = ", ".join(counts_text(of_kind).values())
        texts.append(f"{len(of_kind)} {KINDS[kind][len(of_kind) > 1]} ({verdicts})")
    return f"{', '.join(texts)}."
