"""How a distilled set is read: its images brought to where those of the target set are, its labels
to probabilities; every assumption is told, and what cannot be assumed is refused."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from bench.config import RunConfig
from bench.errors import UserError
from bench.settings import setting
from bench.text import count

if TYPE_CHECKING:
    from torch import Tensor

    from bench.data import TargetSet
    from bench.data.distilled_set import DistilledSet

REAL_IMAGES = "real_images"


@dataclass(frozen=True)
class SubjectOptions:
    """What is evaluated."""

    distilled: str = setting(
        "",
        "a run folder, a .safetensors, .npz, .npy, .pt, .pth, .h5 or .hdf5 file, a folder of class"
        f" folders of PNGs, or {REAL_IMAGES}: ipc of them a class",
    )
    labels: str = setting("", "a file of the labels, where they lie in one of their own")
    index: int = setting(0, "which set, of a file that holds several", minimum=0)
    space: str = setting(
        "auto",
        "what the images in the file are: whitened like the target set, pixels in [0, 1] or in"
        " 0..255, or pixels normalised by mean and std; auto: what the file says, else what the"
        " values show, and it is told",
        ("auto", "preprocessed", "pixels", "pixels255", "normalised"),
    )
    mean: list[float] = setting(
        [], "space=normalised: [mean of each channel], pixels in [0, 1]", minimum=0, maximum=1
    )
    std: list[float] = setting(
        [], "space=normalised: [standard deviation of each channel]", above=0, maximum=1
    )
    label_form: str = setting(
        "auto",
        "soft labels in the file; of logits the softmax is taken; auto: probabilities, and"
        " refused where they cannot be",
        ("auto", "probabilities", "logits"),
    )
    scale: str = setting(
        "auto", "auto, quick, cpu or paper, where the file states no configuration"
    )


def prepared(
    found: "DistilledSet", config: RunConfig, options: SubjectOptions, target_set: "TargetSet"
) -> tuple["Tensor", "Tensor", str, tuple[str, ...]]:
    """The images, preprocessed like the target set, their labels as probabilities, a description,
    and what was assumed.

    Raises:
        UserError: the set does not fit the target set, or it is not clear how it is to be read.
    """
    import torch

    notes = list(found.notes)
    images = found.images
    if tuple(images.shape[1:]) != target_set.image_shape:
        raise UserError(
            f"the distilled images are {'x'.join(map(str, images.shape[1:]))}, those of"
            f" {target_set.name} {'x'.join(map(str, target_set.image_shape))}; name the"
            " dataset=... and image_size=... that they were distilled at"
        )
    images, space = preprocessed(found, config, options, target_set, notes)
    labels = probabilities(found, options, target_set, notes)
    stated = found.metadata.get("fingerprint")
    if stated and stated != target_set.fingerprint:
        notes.append(f"distilled from other data ({stated}) than it is tested on")
    if "config" not in found.metadata:  # made elsewhere: in any order, of any number a class
        order = torch.argsort(labels.argmax(dim=1), stable=True)
        images, labels = images[order], labels[order]
        refuse_uneven(config, labels)
    like = target_set.train.images
    what = f"{len(images)} distilled images ({space})"
    return images.to(like), labels.to(like), what, tuple(notes)


def preprocessed(
    found: "DistilledSet",
    config: RunConfig,
    options: SubjectOptions,
    target_set: "TargetSet",
    notes: list[str],
) -> tuple["Tensor", str]:
    """The images, preprocessed like the target set, and the space that they came in; what was
    assumed is added to `notes`."""
    from bench.data.spaces import assume_space, to_pixels

    asked = options.space
    if options.mean or options.std:
        if asked not in ("auto", "normalised"):
            raise UserError(f"mean and std are of space=normalised, not of space={asked}")
        asked = "normalised"
    stated = found.metadata.get("space")
    if stated == "pixels":
        if asked not in ("auto", "pixels", "pixels255"):
            raise UserError(f"space={asked}: {options.distilled} holds pixels")
        space = "pixels"
    elif stated and asked not in ("auto", stated):
        raise UserError(f"space={asked}: {options.distilled} says of itself space={stated}")
    elif stated or asked != "auto":
        space = stated or asked
    else:
        space, why = assume_space(found.images)
        notes.append(f"{options.distilled} does not say what its images are; {why}")
    if space != "preprocessed":
        pixels = to_pixels(found.images, space, options.mean, options.std)
        return target_set.whitening.apply(pixels), space
    for key in ("zca", "zca_lambda"):
        once, now = found.metadata.get(key), getattr(config, key)
        if once is not None and once != now and (key == "zca" or config.zca):
            raise UserError(
                f"{key}={now}: the images in {options.distilled} were whitened with {key}={once},"
                " which cannot be undone without loss"
            )
    return found.images, space


def probabilities(
    found: "DistilledSet", options: SubjectOptions, target_set: "TargetSet", notes: list[str]
) -> "Tensor":
    """The labels [n, classes], none negative; what was assumed is added to `notes`."""
    import torch
    import torch.nn.functional as F

    classes, labels = len(target_set.classes), found.labels
    if labels is None:
        ipc, rest = divmod(len(found.images), classes)
        if rest:
            raise UserError(
                f"{options.distilled} holds no labels, and its {len(found.images)} images are not"
                f" as many of each of {classes} classes; labels=PATH names a file of them"
            )
        notes.append(
            f"{options.distilled} holds no labels; taken as class by class,"
            f" {count(ipc, 'image')} each (otherwise: labels=PATH)"
        )
        labels = torch.arange(classes).repeat_interleave(ipc)
    elif found.metadata.get("class_folders") and labels.dim() == 1:
        labels = folder_classes(found, target_set, notes, labels)
    if labels.dim() == 1:
        if (labels != labels.long()).any() or labels.min() < 0 or labels.max() >= classes:
            raise UserError(
                f"labels from {labels.min()} to {labels.max()} are not the indices of {classes}"
                " classes, counted from 0"
            )
        return F.one_hot(labels.long(), classes).float()
    labels = labels.float()
    if labels.shape[1] != classes:
        raise UserError(f"the labels are for {labels.shape[1]} classes, not {classes}")
    if not labels.isfinite().all():
        raise UserError(f"some labels in {options.distilled} are not finite")
    if options.label_form == "logits":
        return labels.softmax(dim=1)
    if labels.min() < 0:
        raise UserError(
            f"labels down to {labels.min():.3g} are no probabilities; label_form=logits takes their"
            " softmax"
        )
    sums = labels.sum(dim=1)
    if "config" not in found.metadata and (sums - 1).abs().max() > 1e-3:
        notes.append(
            f"the soft labels of an image sum to {sums.min():.3g} to {sums.max():.3g}; used as they"
            " are (otherwise: label_form=logits)"
        )
    return labels


def folder_classes(
    found: "DistilledSet", target_set: "TargetSet", notes: list[str], labels: "Tensor"
) -> "Tensor":
    """Class indices from indices of class folders: the folders are named after the classes, or
    numbered from 0, or one for each class in the classes' order."""
    import torch

    names, classes = found.metadata["class_folders"], target_set.classes
    if set(names) <= set(classes):
        index = [classes.index(name) for name in names]
    elif all(name.isdecimal() for name in names):
        index = [int(name) for name in names]
        if max(index) >= len(classes) or len(set(index)) < len(index):
            raise UserError(
                f"the class folders {names[0]} to {names[-1]} do not number the {len(classes)}"
                " classes from 0"
            )
        notes.append("the class folders are numbers; taken as the indices of the classes, from 0")
    elif len(names) == len(classes):
        index = list(range(len(names)))
        notes.append(
            f"the class folders are not named after the classes of {target_set.name}; taken in"
            f" their order: {names[0]} as {classes[0]}, ..., {names[-1]} as {classes[-1]}"
        )
    else:
        raise UserError(
            f"the class folders ({names[0]}, ...) are neither named after the classes of"
            f" {target_set.name} ({classes[0]}, ...) nor one for each"
        )
    return torch.tensor(index)[labels]


def refuse_uneven(config: RunConfig, labels: "Tensor") -> None:
    """Refuse batches class by class where the classes, by their largest label [n, classes], have
    different numbers of images.

    Raises:
        UserError: says how many.
    """
    counts = labels.argmax(dim=1).bincount(minlength=labels.shape[1])
    if (config.inner_classes or config.inner_ipc) and len(counts.unique()) > 1:
        raise UserError(
            "inner_classes and inner_ipc draw batches class by class, but the classes have"
            f" {counts.min()} to {counts.max()} distilled images"
        )
