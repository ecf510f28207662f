"""Find the tensors in plain Python data: lists, pairs of images and labels, dictionaries."""

from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bench.system.text import count


@dataclass(frozen=True)
class Content:
    """The content of one file or folder.

    Attributes:
        tensors: by name, of any shape and type; a nested one is called `outer/inner`.
        aside: by name, the kind of each entry without numbers.
        lengths: by name, for a tensor that was a list of stacks of images or labels, the length of
            each stack.
        bare: the file holds one tensor, list or array without a name, here called "images".
        sets: number of sets of images and labels in the file; the tensors are those of one.
        metadata: what one of our files states; of a folder, the names of its `class_folders`.
        notes: what was assumed in reading, for the user.
    """

    tensors: dict[str, Tensor]
    aside: dict[str, str] = field(default_factory=dict)
    lengths: dict[str, tuple[int, ...]] = field(default_factory=dict)
    bare: bool = False
    sets: int = 1
    metadata: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def as_tensor(value: Any) -> Tensor | None:
    """A tensor, array, number or list of numbers as a tensor; None for anything else."""
    if isinstance(value, Tensor):
        if value.is_meta:  # a shape without values
            return None
        value = value.detach()
        value = value.dequantize() if value.is_quantized else value
        value = value if value.layout == torch.strided else value.to_dense()
        return None if value.is_complex() else value
    if isinstance(value, np.ndarray | np.generic):
        return _of_array(np.asarray(value))
    if isinstance(value, bool | int | float) or _innermost_is_number(value):
        try:
            return _of_array(np.array(value))
        except (ValueError, OverflowError):  # lists of unequal lengths; beyond 64 bits
            return None
    return None


def _of_array(array: "np.ndarray[Any, Any]") -> Tensor | None:
    """A copy in this machine's byte order; None if it does not hold real numbers."""
    if array.dtype.kind not in "biuf":
        return None
    wide = array.dtype.kind == "f" and array.dtype.itemsize > 8  # long double
    native = np.dtype("f8") if wide else array.dtype.newbyteorder("=")
    return torch.from_numpy(np.array(array, dtype=native, order="C"))


def _innermost_is_number(value: Any) -> bool:
    while isinstance(value, list | tuple) and len(value):
        value = value[0]
    return isinstance(value, bool | int | float | np.number | np.bool_)


def content_of(held: Any, name: str, index: int) -> Content | None:
    """The tensors in a file's Python data.

    Args:
        held: the loaded object.
        name: the file's name, for notes.
        index: which of several sets; -1: the first, or all steps of a set that is trained on in
            several steps.

    Returns:
        None if there are no numbers in a known structure.
    """
    if (tensor := as_tensor(held)) is not None:
        return Content({"images": tensor}, bare=True) if tensor.dim() else None
    if isinstance(held, dict):
        return _of_dictionary(held, name, index)
    if isinstance(held, list | tuple) and held:
        return _of_list(list(held), name, index)
    return None


def _of_dictionary(held: dict[Any, Any], name: str, index: int) -> Content:
    """The parts by name, nested ones by both names."""
    tensors, aside, lengths = {}, {}, {}
    sets, notes = 1, []
    for key, value in held.items():
        if (tensor := as_tensor(value)) is not None:
            tensors[str(key)] = tensor
        elif (part := content_of(value, name, index)) is None:
            aside[str(key)] = _kind(value)
        else:
            named = {inner: str(key) if part.bare else f"{key}/{inner}" for inner in part.tensors}
            tensors |= {named[inner]: tensor for inner, tensor in part.tensors.items()}
            lengths |= {named[inner]: stacks for inner, stacks in part.lengths.items()}
            aside |= {f"{key}/{inner}": what for inner, what in part.aside.items()}
            sets = max(sets, part.sets)
            notes += part.notes
    return Content(tensors, aside, lengths, sets=sets, notes=tuple(notes))


def _kind(value: Any) -> str:
    """The kind of an entry without numbers."""
    while isinstance(value, list | tuple) and len(value):
        value = value[0]
    is_text = isinstance(value, str) or (isinstance(value, np.ndarray) and value.dtype.kind in "SU")
    return "text" if is_text else f"of type {type(value).__name__}"


def _of_list(held: list[Any], name: str, index: int) -> Content | None:
    """A set, several sets, or a stack for each class."""
    if (one := _of_set(held)) is not None:
        return Content(one, notes=_of_rates([one], name))
    if all(isinstance(part, dict) for part in held):
        contents = [content_of(part, name, index) for part in held]
        chosen = contents[min(max(index, 0), len(held) - 1)]
        notes = _which(len(held), name, index)
        return chosen and Content(
            chosen.tensors, chosen.aside, chosen.lengths, sets=len(held), notes=notes + chosen.notes
        )
    if (samples := _of_samples(held)) is not None:
        return Content(samples)
    sets = [_of_set(part) for part in held]
    whole = [one for one in sets if one is not None]
    if len(whole) < len(held):
        return _of_stacks(held)
    if index < 0 and len(whole) > 1 and all("learning_rate" in one for one in whole):
        return _of_steps(whole, name)
    chosen = whole[min(max(index, 0), len(whole) - 1)]
    notes = (*_which(len(whole), name, index), *_of_rates([chosen], name))
    return Content(chosen, sets=len(whole), notes=notes)


def _of_set(held: Any) -> dict[str, Tensor] | None:
    """A set (x, y) or (x, y, lr) of images, labels and a learning rate, x and y in either order;
    None if it is none."""
    if not isinstance(held, list | tuple) or len(held) not in (2, 3):
        return None
    parts = [_joined(part) for part in held]
    if any(part is None for part in parts):
        return None
    x, y, *rest = (part for part in parts if part is not None)
    if rest and rest[0].dim() > 1:
        return None
    if not is_set(x, y):
        x, y = y, x
        if x.dim() < 4 or not is_set(x, y):
            return None
    return {"images": x, "labels": y, **({"learning_rate": rest[0]} if rest else {})}


def _of_samples(held: list[Any]) -> dict[str, Tensor] | None:
    """A list of single images, each with its class: [(x, y), ...]; None if it is none."""
    if not all(isinstance(part, list | tuple) and len(part) == 2 for part in held):
        return None
    images, labels = (_joined([part[k] for part in held]) for k in (0, 1))
    if images is None or labels is None or images.dim() not in (3, 4) or labels.dim() != 1:
        return None
    return {"images": images, "labels": labels}


def _joined(value: Any) -> Tensor | None:
    """A tensor; tensors of one shape in a list are stacked."""
    if (tensor := as_tensor(value)) is not None or not isinstance(value, list | tuple):
        return tensor
    parts = [as_tensor(part) for part in value]
    tensors = [part for part in parts if part is not None]
    if not tensors or len(tensors) < len(parts) or len({part.shape for part in tensors}) > 1:
        return None
    return torch.stack(tensors)


def is_set(x: Tensor, y: Tensor) -> bool:
    """Whether x can be images and y their labels, by their shapes."""
    if x.dim() >= 4 and 1 <= y.dim() <= 2:
        return True
    if x.dim() not in (2, 3) or y.dim() not in (1, 2) or len(x) != len(y):
        return False
    return y.dim() < x.dim() or y.shape[1] < x.shape[1]


def _of_stacks(held: list[Any]) -> Content | None:
    """A list of images or labels: single ones, or a stack per class."""
    parts = [part for part in map(as_tensor, held) if part is not None]
    if len(parts) < len(held) or len({part.dim() for part in parts}) > 1:
        return None
    shapes = {part.shape for part in parts}
    if len(shapes) == 1 and parts[0].dim() < 4:
        return Content({"images": torch.stack(parts)}, bare=True)
    if not parts[0].dim() or len({shape[1:] for shape in shapes}) > 1:
        return None
    lengths = tuple(len(part) for part in parts)
    return Content({"images": torch.cat(parts)}, lengths={"images": lengths}, bare=True)


def _of_steps(steps: list[dict[str, Tensor]], name: str) -> Content | None:
    """A set that is trained on in several steps, each with its own images and learning rate (Wang
    et al., 2018), as one set. Images that later epochs repeat count once."""
    chosen: list[dict[str, Tensor]] = []
    for step in steps:
        if not any(torch.equal(step["images"], one["images"]) for one in chosen):
            chosen.append(step)
    shapes = {(one["images"].shape[1:], one["labels"].shape[1:]) for one in chosen}
    if len(shapes) > 1:
        return None
    tensors = {key: torch.cat([one[key] for one in chosen]) for key in ("images", "labels")}
    note = (
        f"{name} holds {count(len(steps), 'training step')}, each of images, labels and a learning"
        f" rate; combined into one set of {count(len(tensors['images']), 'image')} (otherwise:"
        " index=0 for the first step alone)"
    )
    return Content(tensors, sets=len(steps), notes=(note, *_of_rates(steps, name)))


def _which(sets: int, name: str, index: int) -> tuple[str, ...]:
    if sets == 1:
        return ()
    other = "otherwise: index=1, ..." if index < 0 else "as given"
    return (f"{name} holds {sets} sets; used is index={max(index, 0)} ({other})",)


def _of_rates(sets: list[dict[str, Tensor]], name: str) -> tuple[str, ...]:
    """The note on learning rates in a file, if there are any."""
    rates = [one["learning_rate"].flatten().tolist() for one in sets if "learning_rate" in one]
    values = list(chain.from_iterable(rates))
    return rate_note(values, name) if values else ()


def rate_note(rates: list[float], name: str) -> tuple[str, ...]:
    """The note that learning rates in a file are not used, with the setting that uses them."""
    low, high = min(rates), max(rates)
    span = f"{low:.3g}" if low == high else f"{low:.3g} to {high:.3g}"
    ways = f"inner_lr={low:.3g} uses it" if low == high else "inner_lr=... uses one"
    return (f"{name} holds a learning rate ({span}), which is not used ({ways})",)
