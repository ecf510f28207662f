"""The form of the labels in a file made elsewhere, and their conversion to probabilities."""

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.system.errors import UserError
from bench.system.text import count

_OF_INDICES = ("from_0", "from_1")
_ROUNDING = 1e-3


def as_probabilities(
    labels: Tensor, classes: int, form: str, file: str
) -> tuple[Tensor, tuple[str, ...]]:
    """Labels [n, classes], none negative, and notes on what was assumed.

    Args:
        labels: class indices [n], or soft labels [n, classes].
        form: for indices from_0 or from_1; for soft labels probabilities, logits, or centered,
            which are probabilities minus 1/classes (FRePO, RFAD, RCIG); auto: by the values.
        file: its name, for messages.

    Raises:
        UserError: they do not fit the number of classes or the form, or the form is not clear.
    """
    if not labels.double().isfinite().all():
        raise UserError(f"some labels in {file} are not finite")
    if labels.dim() == 1:
        if form not in ("auto", *_OF_INDICES):
            raise UserError(f"label_form={form}: the labels in {file} are class indices")
        return _of_indices(labels.double(), classes, form, file)
    if form in _OF_INDICES:
        raise UserError(f"label_form={form}: the labels in {file} are soft, not indices")
    if labels.shape[1] != classes:
        raise UserError(
            f"the labels are for {labels.shape[1]} classes, not {classes}; name the dataset=..."
            " that the images were distilled from"
        )
    return _of_soft(labels.float(), classes, form, file)


def _of_indices(
    labels: Tensor, classes: int, form: str, file: str
) -> tuple[Tensor, tuple[str, ...]]:
    low, high = int(labels.min()), int(labels.max())
    notes: tuple[str, ...] = ()
    first = 1 if form == "from_1" else 0
    if form == "auto" and low == 1 and high == classes:
        first, notes = 1, (f"the labels in {file} go from 1 to {classes}; read as counted from 1",)
    if (labels != labels.long()).any() or low < first or high >= classes + first:
        raise UserError(
            f"labels from {labels.min():g} to {labels.max():g} are not the indices of {classes}"
            f" classes, counted from {first}; name the dataset=... that the images were distilled"
            " from"
        )
    if form == "auto" and low == 1 and not first:
        notes = (f"no label in {file} is 0; read as counted from 0 (otherwise: label_form=from_1)",)
    return F.one_hot(labels.long() - first, classes).float(), notes


def _of_soft(labels: Tensor, classes: int, form: str, file: str) -> tuple[Tensor, tuple[str, ...]]:
    if form == "logits":
        return labels.softmax(dim=1), ()
    sums, low = labels.sum(dim=1), labels.min().item()
    if form == "centered" or (form == "auto" and low < 0):
        raised = labels + 1 / classes
        sure = sums.abs().max() < _ROUNDING and raised.min() > -_ROUNDING
        if form == "auto" and not sure:
            raise UserError(_negative(labels, file))
        notes = []
        if form == "auto":
            notes.append(
                f"the labels in {file} sum to 0, down to {low:.3g}; read as probabilities minus"
                f" 1/{classes} (otherwise: label_form=logits)"
            )
        if raised.min() < -_ROUNDING:
            part = 100 * (raised < 0).float().mean().item()
            notes.append(f"{part:.1f} % of the labels are below -1/{classes}; set to 0")
        return raised.clamp(min=0), tuple(notes)
    if low < 0:
        raise UserError(_negative(labels, file))
    if (sums - 1).abs().max() > _ROUNDING:
        return labels, (
            f"the soft labels of an image sum to {sums.min():.3g} to {sums.max():.3g}; used as they"
            " are (otherwise: label_form=logits)",
        )
    return labels, ()


def _negative(labels: Tensor, file: str) -> str:
    """The error for negative labels: centered or logits, the more likely form first."""
    sums, high = labels.sum(dim=1), labels.max()
    centered = "label_form=centered adds 1/classes back, if that was subtracted (FRePO, RCIG)"
    logits = "label_form=logits applies the softmax, if they are logits"
    is_centered = sums.abs().mean() < 0.5 and high < 2
    first, second = (centered, logits) if is_centered else (logits, centered)
    return f"labels down to {labels.min():.3g} in {file} are not probabilities: {first}; {second}"


def part_classes(
    names: list[str], what: str, classes: tuple[str, ...], target: str
) -> tuple[Tensor, tuple[str, ...]]:
    """The class index of each named part of a set, and notes on what was assumed. The names are
    those of the classes, or numbers, or there is one per class in the order of the classes.

    Args:
        what: what the parts are, for messages: "class folders".
        target: the name of the target set.

    Raises:
        UserError: the names are none of these.
    """
    if set(names) <= set(classes):
        return torch.tensor([classes.index(name) for name in names]), ()
    if all(name.isdecimal() for name in names):
        index = [int(name) for name in names]
        first = 1 if min(index) == 1 and max(index) == len(classes) else 0
        if max(index) >= len(classes) + first or len(set(index)) < len(index):
            raise UserError(
                f"the {what} {names[0]} to {names[-1]} do not number the {len(classes)} classes"
                " from 0, nor from 1; labels=PATH names a file of labels"
            )
        note = f"the {what} are numbers; read as the indices of the classes, from {first}"
        return torch.tensor(index) - first, (f"{note} (otherwise: labels=PATH)",)
    if len(names) == len(classes):
        note = (
            f"the {what} are not named after the classes of {target}; used in their order:"
            f" {names[0]} as {classes[0]}, ..., {names[-1]} as {classes[-1]}"
            " (otherwise: labels=PATH)"
        )
        return torch.arange(len(names)), (note,)
    raise UserError(
        f"the {what} ({names[0]}, ...) are neither named after the classes of {target}"
        f" ({classes[0]}, ...) nor one for each; labels=PATH names a file of labels"
    )


def count_warnings(labels: Tensor, names: tuple[str, ...], ipc: int) -> list[str]:
    """Warnings on the numbers of images per class.

    Args:
        labels: [n, classes]; the largest label is an image's class.
        names: of the classes.
        ipc: images per class as the user states it; 0: not stated.
    """
    counts = labels.argmax(dim=1).bincount(minlength=len(names))
    warnings = []
    if len(empty := (counts == 0).nonzero().flatten().tolist()):
        listed = ", ".join(names[c] for c in empty[:10])
        more = f" and {len(empty) - 10} more" if len(empty) > 10 else ""
        warnings.append(
            f"{len(empty)} of {len(names)} classes without an image whose largest label is theirs:"
            f" {listed}{more}"
        )
    filled = counts[counts > 0]
    if filled.min() < filled.max():
        warnings.append(f"the classes have {filled.min()} to {filled.max()} images each")
    if ipc and filled.max() > ipc:
        beyond = int((counts - ipc).clamp(min=0).sum())
        warnings.append(
            f"{beyond} of {count(len(labels), 'image')} are beyond ipc={ipc}; all are used"
            f" (ipc={int(filled.max())} would fit)"
        )
    return warnings
