"""What an evaluation found: accuracies of fresh networks, the selection, the record."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

# Of each trained network, at each number of steps: whether all logits are finite (1 or 0), the
# accuracy on the validation and the test part, and, if that is measured, the accuracy and the loss
# on the training part.
Measured = list[list[list[float]]]


@dataclass(frozen=True)
class Evaluation:
    """Accuracies of fresh networks, in [0, 1].

    Attributes:
        steps: training steps at which they were measured, ascending.
        validation: [networks, steps]; NaN where there is no validation part.
        test: [networks, steps].
        train: [networks, steps], on the images that a run distills from (the training set without
            the validation part), without augmentation; None where it was not measured.
        train_loss: [networks, steps], the mean cross-entropy there, likewise.
        finite: [networks, steps], 1 where all logits on the test images are finite, else 0; None if
            it was not recorded, which is so where all are.
    """

    steps: list[int]
    validation: Tensor
    test: Tensor
    train: Tensor | None = None
    train_loss: Tensor | None = None
    finite: Tensor | None = None

    def accuracies(self, part: str) -> Tensor:
        """[networks, steps] on "validation", "test" or "train".

        Raises:
            ValueError: they were not measured.
        """
        measured = {"validation": self.validation, "test": self.test, "train": self.train}[part]
        if measured is None:
            raise ValueError(f"this evaluation did not measure the accuracy on the {part} part")
        return measured

    def selected(self, selection: str) -> int:
        """Index into `steps` of the step count with the best mean accuracy on the part that
        `selection` names ("validation", "test" or "train"); the earliest among equal means in
        float32, in which rounding decides between some that are equal in exact numbers."""
        return int(self.accuracies(selection).mean(dim=0).argmax())

    def not_finite(self, selection: str) -> int:
        """How many networks are not finite at the selected step count."""
        if self.finite is None:
            return 0
        return int((self.finite[:, self.selected(selection)] == 0).sum())

    def all_not_finite(self, selection: str) -> bool:
        """Whether none of them is finite there."""
        return self.not_finite(selection) == len(self.test)

    def summary(self, selection: str) -> dict[str, Any]:
        """Plain numbers for records: mean, standard deviation (over networks, unbiased) and n at
        the selected step count, and all accuracies. If some networks are not finite there, their
        number is `not_finite`, and they count with the accuracy that they have."""
        chosen = self.selected(selection)
        summary: dict[str, Any] = {
            "selection": selection,
            "steps": self.steps[chosen],
            "n": len(self.test),
        }
        everything: dict[str, Any] = {"all_steps": self.steps}
        if not_finite := self.not_finite(selection):
            summary["not_finite"] = not_finite
        if self.finite is not None and not self.finite.all():
            everything["all_finite"] = self.finite.tolist()
        for name, part, values in (
            ("validation_accuracy", "validation", self.validation),
            ("test_accuracy", "test", self.test),
            ("train_accuracy", "train", self.train),
            ("train_loss", "train_loss", self.train_loss),
        ):
            if values is not None:
                column = values[:, chosen]
                summary[f"{name}_mean"] = column.mean().item()
                summary[f"{name}_std"] = column.std().item() if len(column) > 1 else None
                everything[f"all_{part}"] = _shortest(values)
        return summary | everything

    @classmethod
    def from_summary(cls, summary: dict[str, Any]) -> "Evaluation":
        """The evaluation that was recorded."""
        parts = ("validation", "test", "train", "train_loss", "finite")
        values = {part: summary.get(f"all_{part}") for part in parts}
        measured = {part: torch.tensor(value) for part, value in values.items() if value}
        return cls(summary["all_steps"], **measured)


def _shortest(values: Tensor) -> list[list[float]]:
    """Each number as the shortest decimal that float32 reads as the same number: half of a record
    would otherwise be digits beyond float32."""
    return [[float(str(number)) for number in row] for row in values.numpy()]


class Make(Protocol):
    """Makes an evaluation, or what is missing of one."""

    def __call__(self, *, measured: Measured, report: Callable[[int], None]) -> Evaluation:
        """Train the networks that are not in `measured` and add them to it.

        Args:
            report: called with the number of networks trained so far, when it changes.
        """
        ...


class Save(Protocol):
    """Keeps evaluations by name."""

    def __call__(self, name: str, make: Make, report: Callable[[int], None]) -> Evaluation:
        """The evaluation that was kept, or the one that `make` makes with the networks that were
        kept."""
        ...


def unsaved(name: str, make: Make, report: Callable[[int], None]) -> Evaluation:
    """Makes each evaluation whole."""
    return make(measured=[], report=report)
