"""From what a file holds to a set that can be evaluated: images preprocessed like the target set,
labels as probabilities.

What a file does not specify is assumed and noted with the setting that overrides the assumption; if
there is no safe assumption, a `UserError` names the setting.
"""

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
    """The distilled set to evaluate, and how to read its file."""

    distilled: str = setting(
        "",
        "a run folder, a .safetensors, .npz, .npy, .pt, .pth, .h5 or .hdf5 file, a folder of class"
        f" folders of images, or {REAL_IMAGES}: ipc random training images per class",
    )
    labels: str = setting("", "file of the labels, if it is not the file of the images")
    images_key: str = setting("", "name of the images in the file; '': found by common names")
    labels_key: str = setting("", "name of the labels in the file; '': found by common names")
    index: int = setting(
        -1,
        "which set of a file with several, from 0; -1: the first, or all steps of a set that is"
        " trained on in several steps",
        minimum=-1,
    )
    layout: str = setting(
        "auto",
        "axes of an image: channels, height, width or height, width, channels; auto: by its shape,"
        " and chw for flat rows",
        ("auto", "chw", "hwc"),
    )
    order: str = setting(
        "auto",
        "order of images without labels: class by class, or one image of each class in turn; auto:"
        " by the shape, and class_major for a single axis of images",
        ("auto", "class_major", "ipc_major"),
    )
    space: str = setting(
        "auto",
        "values of the images: preprocessed (whitened like the target set), pixels in [0, 1] or in"
        " 0..255, or pixels normalized by mean and std; auto: as the file states, else by the"
        " values, with a note",
        ("auto", "preprocessed", "pixels", "pixels255", "normalized"),
    )
    mean: list[float] = setting(
        [],
        "space=normalized: means of the channels, or one for all, of pixels in [0, 1]",
        minimum=0,
        maximum=1,
    )
    std: list[float] = setting(
        [],
        "space=normalized: standard deviations of the channels, or one for all",
        above=0,
        maximum=1,
    )
    label_form: str = setting(
        "auto",
        "labels in the file: class indices from 0 or 1, or soft labels: probabilities, logits"
        " (softmax is applied) or centered (probabilities minus 1/classes); auto: by the values,"
        " with a note",
        ("auto", "from_0", "from_1", "probabilities", "logits", "centered"),
    )
    scale: str = setting("auto", "auto, quick, cpu or paper: used if the file has no configuration")


def prepared(
    distilled: "DistilledSet",
    config: RunConfig,
    options: SubjectOptions,
    target_set: "TargetSet",
    stated_ipc: int = 0,
) -> tuple["Tensor", "Tensor", str, tuple[str, ...]]:
    """The images, preprocessed like the target set, their labels as probabilities, a description,
    and notes on what was assumed.

    Args:
        stated_ipc: images per class as the user or the file states it; 0: not stated.

    Raises:
        UserError: the set does not fit the target set, or it is not clear how to read it.
    """
    import torch

    from bench.evaluation.label_forms import count_warnings
    from bench.evaluation.layout import arrange

    if not distilled.images.numel():
        raise UserError(f"{options.distilled} holds no images: {list(distilled.images.shape)}")
    notes = list(distilled.notes)
    arranged = arrange(
        distilled.images,
        distilled.lengths,
        target_set.image_shape,
        options.layout,
        options.distilled,
    )
    notes += arranged.notes
    labels, label_notes = probabilities(distilled, arranged, options, target_set)
    images, space = preprocessed(arranged.images, distilled, config, options, target_set, notes)
    notes += () if distilled.is_ours else label_notes
    stated = distilled.metadata.get("fingerprint")
    if stated and stated != target_set.fingerprint:
        notes.append(f"distilled from other data ({stated}) than it is tested on")
    if not distilled.is_ours:  # in any order, with any number of images per class
        order = torch.argsort(labels.argmax(dim=1), stable=True)
        images, labels = images[order], labels[order]
        notes += map(warning, count_warnings(labels, target_set.classes, stated_ipc))
        refuse_uneven(config, labels)
    elif stated_ipc and len(labels) != stated_ipc * len(target_set.classes):
        expected = stated_ipc * len(target_set.classes)
        notes.append(warning(f"the file states {expected} images and holds {len(labels)}"))
    like = target_set.train.images
    what = f"{count(len(images), 'distilled image')} ({space})"
    return images.to(like), labels.to(like), what, tuple(notes)


def warning(text: str) -> str:
    """A note on what is probably wrong."""
    return f"{WARNING}{text}"


def preprocessed(
    images: "Tensor",
    distilled: "DistilledSet",
    config: RunConfig,
    options: SubjectOptions,
    target_set: "TargetSet",
    notes: list[str],
) -> tuple["Tensor", str]:
    """The images [n, C, H, W], preprocessed like the target set, and the file's space.
    Assumptions are added to `notes`."""
    from bench.evaluation import pixel_ranges

    requested = options.space
    if options.mean or options.std:
        if requested not in ("auto", "normalized"):
            raise UserError(f"mean and std are for space=normalized, not for space={requested}")
        requested = "normalized"
    stated = distilled.metadata.get("space")
    file, mean, std = options.distilled, options.mean, options.std
    if not images.is_floating_point() and requested != "normalized":
        images, more = pixel_ranges.whole_numbers(images, file, requested)
        notes += more
        stated = "pixels"
    images = images.float().contiguous()
    if not images.isfinite().all():
        raise UserError(f"{file}: some values of the images are not finite")
    if stated == "pixels":
        if requested not in ("auto", "pixels", "pixels255"):
            raise UserError(f"space={requested}: {file} holds pixels")
        space = "pixels"
    elif stated and requested not in ("auto", stated):
        raise UserError(f"space={requested}: {file} states space={stated}")
    elif stated or requested != "auto":
        space = stated or requested
    else:
        space, why = pixel_ranges.assume_space(images, target_set)
        notes.append(f"{file} does not state the space of its images; {why}")
        if space == "minus_one_to_one":
            space, (mean, std) = "normalized", pixel_ranges.MINUS_ONE_TO_ONE
    if space != "preprocessed":
        pixels = pixel_ranges.to_pixels(images, space, mean, std)
        if doubt := pixel_ranges.doubt_pixels(pixels):
            notes.append(warning(f"the images are unlikely to be space={space}: only {doubt}"))
        return target_set.whitening.apply(pixels), space
    for key in ("zca", "zca_lambda"):
        stated, current = distilled.metadata.get(key), getattr(config, key)
        if stated is not None and stated != current and (key == "zca" or config.zca):
            raise UserError(
                f"{key}={current}: the images in {file} were whitened with {key}={stated}, which"
                " cannot be undone without loss"
            )
    if not distilled.is_ours and (doubt := pixel_ranges.doubt_whitened(images, target_set)):
        notes.append(
            warning(
                f"the images are unlikely to be whitened as those of {target_set.name} are here:"
                f" {doubt}. Another whitening cannot be undone; pixels that were normalized are"
                " read with space=normalized mean=[...] std=[...]"
            )
        )
    return images, space


def probabilities(
    distilled: "DistilledSet",
    arranged: "Arranged",
    options: SubjectOptions,
    target_set: "TargetSet",
) -> tuple["Tensor", tuple[str, ...]]:
    """The labels [n, classes], none negative, and notes on what was assumed."""
    from bench.evaluation.label_forms import as_probabilities, part_classes
    from bench.evaluation.layout import labels_by_place, labels_of_stacks

    file, classes, labels = options.distilled, target_set.classes, distilled.labels
    if labels is None:
        if distilled.unsure and options.order == "auto":
            raise UserError(
                f"{file} does not state which entry is its labels: give"
                f" labels_key={distilled.unsure[0]} (or another of {', '.join(distilled.unsure)}),"
                " labels=PATH if they are in another file, or order=class_major if there are none"
            )
        _refuse_label_form(options, "the file has no labels")
        labels, notes = labels_by_place(arranged, len(classes), options.order, file)
        return as_probabilities(labels, len(classes), "from_0", file)[0], notes
    if options.order != "auto":
        raise UserError(f"order={options.order} is for images without labels; {file} has labels")
    labels = labels_of_stacks(labels, arranged, file)
    for key, what in (("class_folders", "class folders"), ("class_entries", "entries")):
        if labels.dim() == 1 and (names := distilled.metadata.get(key)):
            _refuse_label_form(options, f"the names of {what} say which class is which")
            indices, notes = part_classes(names, what, classes, target_set.name)
            labels = indices[labels]
            return as_probabilities(labels, len(classes), "from_0", file)[0], notes
    return as_probabilities(labels, len(classes), options.label_form, file)


def _refuse_label_form(options: SubjectOptions, why: str) -> None:
    if options.label_form != "auto":
        raise UserError(f"label_form={options.label_form} has no effect: {why}")


def refuse_uneven(config: RunConfig, labels: "Tensor") -> None:
    """Reject settings that sample batches by class if classes have different numbers of images.

    Args:
        labels: [n, classes]; the largest label is an image's class.

    Raises:
        UserError: states the numbers.
    """
    counts = labels.argmax(dim=1).bincount(minlength=labels.shape[1])
    if (config.inner_classes or config.inner_ipc) and len(counts.unique()) > 1:
        raise UserError(
            "inner_classes and inner_ipc sample batches by class, but the classes have"
            f" {counts.min()} to {counts.max()} distilled images"
        )
