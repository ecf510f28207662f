"""Evaluations that survive a kill: each is saved when it is made, and of the one that is being made
the networks that are trained. Small networks are trained together, so they are saved together.

With large networks an evaluation can take longer than the time limit of a job, and one network
takes minutes on a CPU.
"""

import hashlib
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from bench.evaluation.evaluation import Evaluation, Make, Measured
from bench.system import git, versions
from bench.system.errors import Damaged

FILE = "evaluations"  # .json in the run's folder, until its result is written


@dataclass
class SavedEvaluations:
    """The evaluations of one distilled set, in one file.

    Attributes:
        of: a hash of what must be the same; with another one nothing that was saved is used.
        by: a hash of what must be the same within one evaluation, too.
        selection: the part that selects the number of steps.
        read, write: the content of the file; None if there is none.
    """

    of: str
    by: str
    selection: str
    read: Callable[[], dict[str, Any] | None]
    write: Callable[[dict[str, Any]], object]

    def evaluation(self, name: str, make: Make, report: Callable[[int], None]) -> Evaluation:
        """The evaluation of this name: the one that was saved, or what `make` makes with the
        networks that were saved.

        Summaries contain every accuracy, so the evaluation that is read is the one that was saved.

        Args:
            report: called with the number of networks that are trained, when there are more, and
                at the start if some were saved.
        """
        content = self._content()
        made = content["made"]
        if name not in made:
            measured = self._begun(content, name)
            if measured:
                report(len(measured))

            def keep(trained: int) -> None:
                begun = {"name": name, "by": self.by, "measured": measured}
                self.write({"of": self.of, "made": made, "begun": begun})
                report(trained)

            evaluation = make(measured=measured, report=keep)
            made[name] = evaluation.summary(self.selection)
            self.write({"of": self.of, "made": made})
        return Evaluation.from_summary(made[name])

    def _begun(self, content: dict[str, Any], name: str) -> Measured:
        begun = content.get("begun") or {}
        same = (begun.get("name"), begun.get("by")) == (name, self.by)
        return begun["measured"] if same else []

    def _content(self) -> dict[str, Any]:
        try:
            content = self.read() or {}
        except Damaged as error:
            print(f"warning: {str(error).partition(';')[0]}; evaluating again", file=sys.stderr)
            content = {}
        return content if content.get("of") == self.of else {"of": self.of, "made": {}}


def hash_of_code(device: torch.device) -> str:
    """A hash of all besides data and settings that can change a number: versions, the source tree,
    the number of threads and the kind of device."""
    parts = versions.versions(), git.commit(), torch.get_num_threads(), device.type
    return hash_of(str(parts), str(git.uncommitted_diff()))


def hash_of(*parts: Tensor | str) -> str:
    """A hash of images, labels and texts."""
    digest = hashlib.sha256()
    for part in parts:
        is_text = isinstance(part, str)
        digest.update(part.encode() if is_text else part.detach().cpu().double().numpy().tobytes())
    return digest.hexdigest()[:16]
