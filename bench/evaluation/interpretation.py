"""How a distilled set is read: its images brought to where those of the target set are, its labels
to probabilities; every assumption is told, and what cannot be assumed is refused."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from bench.config.command_line import setting
from bench.config.run_config import RunConfig
from bench.system.errors import UserError
from bench.system.text import count

if TYPE_CHECKING:
    from torch import Tensor

    from bench.data import TargetSet
    from bench.evaluation.distilled_set import DistilledSet
    from bench.evaluation.layout import Arranged

REAL_IMAGES = "real_images"
WARNING = "warning: "


@dataclass(frozen=True)
class SubjectOptions:
    """What is evaluated."""

    distilled: str = setting(
        "",
        "a run folder, a .safetensors, .npz, .npy, .pt, .pth, .h5 or .hdf5 file, a folder of class"
        f" folders of PNGs, or {REAL_IMAGES}: ipc of them a class",
    )
    labels: str = setting("", "a file of the labels, where they lie in one of their own")
    images_key: str = setting("", "the name under which a file holds the images; '': what it shows")
    labels_key: str = setting("", "the name under which a file holds the labels; '': what it shows")
    index: int = setting(
        -1,
        "which set, of a file that holds several, from 0; -1: the first, or all steps of a training"
        " in several steps",
        minimum=-1,
    )
    layout: str = setting(
        "auto",
        "order of an image: channels, height, width or height, width, channels; auto: what its"
        " shape shows, and of flat rows chw",
        ("auto", "chw", "hwc"),
    )
    order: str = setting(
        "auto",
        "order of images without labels: class by class, or one of each class in turn; auto: what"
        " the shape shows, and of one row of images class_major",
        ("auto", "class_major", "ipc_major"),
    )
    space: str = setting(
        "auto",
        "what the images in the file are: whitened like the target set, pixels in [0, 1] or in"
        " 0..255, or pixels normalized by mean and std; auto: what the file says, else what the"
        " values show, and it is told",
        ("auto", "preprocessed", "pixels", "pixels255", "normalized"),
    )
    mean: list[float] = setting(
        [],
        "space=normalized: [mean of each channel], or one for all, pixels in [0, 1]",
        minimum=0,
        maximum=1,
    )
    std: list[float] = setting(
        [],
        "space=normalized: [standard deviation of each channel], or one for all",
        above=0,
        maximum=1,
    )
    label_form: str = setting(
        "auto",
        "labels in the file: class indices from 0 or 1, or soft labels: probabilities, logits, of"
        " which the softmax is taken, or centered, probabilities less 1/classes; auto: what they"
        " show, and it is told",
        ("auto", "from_0", "from_1", "probabilities", "logits", "centered"),
    )
    scale: str = setting(
        "auto", "auto, quick, cpu or paper, where the file states no configuration"
    )


def prepared(
    found: "DistilledSet",
    config: RunConfig,
    options: SubjectOptions,
    target_set: "TargetSet",
    stated_ipc: int = 0,
) -> tuple["Tensor", "Tensor", str, tuple[str, ...]]:
    """The images, preprocessed like the target set, their labels as probabilities, a description,
    and what was assumed.

    Args:
        stated_ipc: images of each class, as the user or the file states it; 0: neither does.

    Raises:
        UserError: the set does not fit the target set, or it is not clear how it is to be read.
    """
    import torch

    from bench.evaluation.label_forms import counts_said
    from bench.evaluation.layout import arrange

    notes = list(found.notes)
    is_ours = "config" in found.metadata
    arranged = arrange(
        found.images, found.lengths, target_set.image_shape, options.layout, options.distilled
    )
    notes += arranged.notes
    labels, of_labels = probabilities(found, arranged, options, target_set)
    images, space = preprocessed(arranged.images, found, config, options, target_set, notes)
    notes += () if is_ours else of_labels
    stated = found.metadata.get("fingerprint")
    if stated and stated != target_set.fingerprint:
        notes.append(f"distilled from other data ({stated}) than it is tested on")
    if not is_ours:  # in any order, of any number a class
        order = torch.argsort(labels.argmax(dim=1), stable=True)
        images, labels = images[order], labels[order]
        notes += map(warning, counts_said(labels, target_set.classes, stated_ipc))
        refuse_uneven(config, labels)
    elif stated_ipc and len(labels) != stated_ipc * len(target_set.classes):
        expected = stated_ipc * len(target_set.classes)
        notes.append(warning(f"the file states {expected} images and holds {len(labels)}"))
    like = target_set.train.images
    what = f"{count(len(images), 'distilled image')} ({space})"
    return images.to(like), labels.to(like), what, tuple(notes)


def warning(text: str) -> str:
    """A note of what is likely to be wrong."""
    return f"{WARNING}{text}"


def preprocessed(
    images: "Tensor",
    found: "DistilledSet",
    config: RunConfig,
    options: SubjectOptions,
    target_set: "TargetSet",
    notes: list[str],
) -> tuple["Tensor", str]:
    """The images [n, C, H, W], preprocessed like the target set, and the space that they came in;
    what was assumed is added to `notes`."""
    from bench.evaluation import pixel_ranges

    asked = options.space
    if options.mean or options.std:
        if asked not in ("auto", "normalized"):
            raise UserError(f"mean and std are of space=normalized, not of space={asked}")
        asked = "normalized"
    stated = found.metadata.get("space")
    file, mean, std = options.distilled, options.mean, options.std
    if not images.is_floating_point() and asked != "normalized":
        images, more = pixel_ranges.whole_numbers(images, file, asked)
        notes += more
        stated = "pixels"
    images = images.float().contiguous()
    if not images.isfinite().all():
        raise UserError(f"{file}: some values of the images are not finite")
    if stated == "pixels":
        if asked not in ("auto", "pixels", "pixels255"):
            raise UserError(f"space={asked}: {file} holds pixels")
        space = "pixels"
    elif stated and asked not in ("auto", stated):
        raise UserError(f"space={asked}: {file} says of itself space={stated}")
    elif stated or asked != "auto":
        space = stated or asked
    else:
        space, why = pixel_ranges.assume_space(images, target_set)
        notes.append(f"{file} does not say what its images are; {why}")
        if space == "minus_one_to_one":
            space, (mean, std) = "normalized", pixel_ranges.MINUS_ONE_TO_ONE
    if space != "preprocessed":
        pixels = pixel_ranges.to_pixels(images, space, mean, std)
        if doubt := pixel_ranges.doubt_pixels(pixels):
            notes.append(warning(f"the images are unlikely to be space={space}: only {doubt}"))
        return target_set.whitening.apply(pixels), space
    for key in ("zca", "zca_lambda"):
        once, now = found.metadata.get(key), getattr(config, key)
        if once is not None and once != now and (key == "zca" or config.zca):
            raise UserError(
                f"{key}={now}: the images in {file} were whitened with {key}={once}, which cannot"
                " be undone without loss"
            )
    if "config" not in found.metadata and (
        doubt := pixel_ranges.doubt_whitened(images, target_set)
    ):
        notes.append(
            warning(
                f"the images are unlikely to be whitened as those of {target_set.name} are here:"
                f" {doubt}. What another whitening did cannot be undone; pixels that were"
                " normalized are read with space=normalized mean=[...] std=[...]"
            )
        )
    return images, space


def probabilities(
    found: "DistilledSet", arranged: "Arranged", options: SubjectOptions, target_set: "TargetSet"
) -> tuple["Tensor", tuple[str, ...]]:
    """The labels [n, classes], none negative, and what was assumed."""
    from bench.evaluation.label_forms import as_probabilities, part_classes
    from bench.evaluation.layout import labels_by_place, labels_of_stacks

    file, classes, labels = options.distilled, target_set.classes, found.labels
    if labels is None:
        if found.unsure and options.order == "auto":
            raise UserError(
                f"{file} does not say which are its labels: name them, labels_key={found.unsure[0]}"
                f" (or another of {', '.join(found.unsure)}), labels=PATH where they lie in another"
                " file, or order=class_major where there are none"
            )
        labels, notes = labels_by_place(arranged, len(classes), options.order, file)
        return as_probabilities(labels, len(classes), "from_0", file)[0], notes
    if options.order != "auto":
        raise UserError(f"order={options.order} is of images without labels; {file} has labels")
    labels = labels_of_stacks(labels, arranged, file)
    for key, what in (("class_folders", "class folders"), ("class_entries", "entries")):
        if labels.dim() == 1 and (names := found.metadata.get(key)):
            of_parts, notes = part_classes(names, what, classes, target_set.name)
            labels = of_parts[labels]
            return as_probabilities(labels, len(classes), "from_0", file)[0], notes
    return as_probabilities(labels, len(classes), options.label_form, file)


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
