"""Evaluations that survive a kill: each is saved when it is done, and each network of the one that
is being made.

With large networks an evaluation can take longer than the time limit of a job, and one network
takes minutes on a CPU.
"""

import hashlib
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from bench.evaluation.evaluation import Evaluation, Make, Measured
from bench.system.errors import Damaged

FILE = "evaluations"  # .json in the run's folder, until its result is written


@dataclass
class SavedEvaluations:
    """The evaluations of one distilled set, in one file.

    Attributes:
        of: a hash of the set, and of all else that must be the same: with another one nothing that
            was saved is used.
        selection: the part that selects the number of steps.
        read, write: the content of the file; None if there is none.
    """

    of: str
    selection: str
    read: Callable[[], dict[str, Any] | None]
    write: Callable[[dict[str, Any]], object]

    def evaluation(self, name: str, make: Make, report: Callable[[int], None]) -> Evaluation:
        """The evaluation of this name: the one that was saved, or what `make` makes with the
        networks that were saved.

        Summaries contain every accuracy, so the evaluation that is read is the one that was saved.

        Args:
            report: called with the number of networks that are trained, when there are more.
        """
        content = self._content()
        if name in content["made"]:
            return Evaluation.from_summary(content["made"][name])
        measured: Measured = content.get("begun", {}).get(name, [])

        def keep(trained: int) -> None:
            self.write({**content, "begun": {name: measured}})
            report(trained)

        evaluation = make(measured=measured, report=keep)
        made = {**content["made"], name: evaluation.summary(self.selection)}
        self.write({"of": self.of, "made": made})
        return Evaluation.from_summary(made[name])

    def _content(self) -> dict[str, Any]:
        try:
            content = self.read() or {}
        except Damaged as error:
            print(f"warning: {str(error).partition(';')[0]}; evaluating again", file=sys.stderr)
            content = {}
        return content if content.get("of") == self.of else {"of": self.of, "made": {}}


def hash_of(*parts: Tensor | str) -> str:
    """A hash of images, labels and texts: on a GPU a resumed run may choose another set."""
    digest = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part.detach().cpu().double().numpy()
        digest.update(data if isinstance(data, bytes) else data.tobytes())
    return digest.hexdigest()[:16]
