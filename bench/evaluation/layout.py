"""The order of axes and images in a file made elsewhere, and the conversion to [n, C, H, W].

Channels may come first or last, images may be flat rows, and there may be an axis for the images of
a class. If the shapes leave the order open, the error names the setting that decides it.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from bench.system.errors import UserError
from bench.system.text import count


@dataclass(frozen=True)
class Arranged:
    """Images in the order of their file.

    Attributes:
        images: [n, C, H, W].
        lengths: of the stacks in the file, one stack per class or stacks of one image per class;
            empty if the images were not in stacks.
        is_list: whether the stacks were a list, not an axis.
        notes: what was assumed, for the user.
    """

    images: Tensor
    lengths: tuple[int, ...]
    is_list: bool
    notes: tuple[str, ...]


def arrange(
    images: Tensor,
    lengths: tuple[int, ...],
    shape: tuple[int, int, int],
    layout: str,
    file: str,
) -> Arranged:
    """Bring images to [n, C, H, W].

    Args:
        images: as in the file, [n, ...] or [k, m, ...] with images in any layout.
        lengths: for concatenated stacks, the length of each.
        shape: (C, H, W) of the target set.
        layout: chw or hwc, for flat rows and images whose shape fits both; auto: by the shape.
        file: its name, for messages.

    Raises:
        UserError: no layout gives images of this shape, or several do.
    """
    channels, height, width = shape
    notes = []
    fitting = _fitting(images, shape, layout)
    # [n, 3, H, W] is n color images if they fit, not n stacks of three gray images.
    nearest = [one for one in fitting if one[0] == fitting[0][0]]
    chosen = [one for one in nearest if one[2] == channels] or nearest
    if len(chosen) > 1 and len({one[1] for one in chosen}) > 1:
        raise UserError(
            f"{file}: images {list(images.shape)} may have their channels first or last: layout=chw"
            " or layout=hwc"
        )
    if not chosen:
        given = f" with layout={layout}" if layout != "auto" else ""
        raise UserError(
            f"{file}: images {list(images.shape)} are not {_text(shape)}, as those of the target"
            f" set, in any layout{given}; name the dataset=... and image_size=... that they were"
            " distilled at"
        )
    lead, order, file_channels = chosen[0]
    if not lengths and lead == 2:
        lengths, is_list = (images.shape[1],) * images.shape[0], False
    else:
        is_list = bool(lengths)
    if order == "flat":
        if channels > 1 and layout == "auto":
            notes.append(
                f"{file} holds rows of {images.shape[-1]} numbers; read as channels, then height,"
                " then width (otherwise: layout=hwc)"
            )
        order = "hwc" if layout == "hwc" else "chw"
    if order == "hwc":
        flat = images.reshape(-1, height, width, file_channels).permute(0, 3, 1, 2)
    else:
        flat = images.reshape(-1, file_channels, height, width)
    flat, more = _recolored(flat, channels, file)
    return Arranged(flat, lengths, is_list, (*notes, *more))


def _fitting(
    images: Tensor, shape: tuple[int, int, int], layout: str
) -> list[tuple[int, str, int]]:
    """(axes before an image, order, channels) of each fitting layout, those with one axis first."""
    channels, height, width = shape
    fitting: list[tuple[int, str, int]] = []
    for lead in (1, 2):
        rest = tuple(images.shape[lead:])
        for number in dict.fromkeys((channels, 1, 3, 4)):
            if rest == (number, height, width) and layout != "hwc":
                fitting.append((lead, "chw", number))
            if rest == (height, width, number) and layout != "chw":
                fitting.append((lead, "hwc", number))
        if rest == (height, width) and (channels == 1 or lead == 1):
            fitting.append((lead, "chw", 1))
        if rest == (channels * height * width,):
            fitting.append((lead, "flat", channels))
    return fitting


def _recolored(images: Tensor, channels: int, file: str) -> tuple[Tensor, tuple[str, ...]]:
    """Images with the target set's number of channels, and notes on what was done.

    Raises:
        UserError: the images would lose information.
    """
    file_channels = images.shape[1]
    if file_channels == channels:
        return images, ()
    notes: tuple[str, ...] = ()
    if file_channels == 4:
        if not (images[:, 3] == images[0, 3, 0, 0]).all():
            raise UserError(
                f"{file}: the fourth channel of the images varies, so it is not an opaque alpha"
                f" channel; save the images with {channels}"
            )
        images, notes = images[:, :3], (f"{file}: the fourth channel, alpha, is ignored",)
    if channels == 3 and images.shape[1] == 1:
        return images.expand(-1, 3, -1, -1), (
            *notes,
            f"{file} holds gray images; red, green and blue are set to the same values",
        )
    if channels == 1 and images.shape[1] == 3:
        if not _are_alike(images, 1):
            raise UserError(
                f"{file} holds color images, and those of the target set are gray; name the"
                " dataset=... that they were distilled from"
            )
        return images[:, :1], (
            *notes,
            f"{file} holds gray images as equal red, green and blue; one of them is used",
        )
    return images, notes


def _are_alike(images: Tensor, axis: int) -> bool:
    values = images.double()
    differences = values - values.narrow(axis, 0, 1)
    return bool(differences.abs().max() <= 0.01 * (values.max() - values.min()))


def labels_of_stacks(labels: Tensor, arranged: Arranged, file: str) -> Tensor:
    """Labels [n] or [n, classes] of arranged images, from labels of images or of stacks.

    Raises:
        UserError: the number of labels or their rank is wrong.
    """
    n, lengths = len(arranged.images), arranged.lengths
    shape = list(labels.shape)
    by_image = bool(lengths) and shape[:2] == [len(lengths), lengths[0]]
    if by_image and (labels.dim() > 2 or _are_indices(labels)):
        labels = labels.flatten(0, 1)
    if labels.dim() >= 2 and labels.shape[-1] == 1:
        labels = labels[..., 0]
    if lengths and len(labels) == len(lengths) != n:
        labels = labels.repeat_interleave(torch.tensor(lengths), dim=0)
    if len(labels) != n or labels.dim() not in (1, 2):
        raise UserError(
            f"{file}: labels {shape} are not [n, classes] or [n], with n={n}, the number of images"
        )
    return labels


def _are_indices(labels: Tensor) -> bool:
    """Whether a matrix holds a class index for each image, and not a row of values for each stack,
    which has as many columns where a stack has as many images as there are classes."""
    values = labels.double()
    one_hot = (values.amin(1) == 0) & (values.amax(1) == 1) & (values.sum(1) == 1)
    return bool((values == values.round()).all() and not one_hot.all())


def labels_by_place(
    arranged: Arranged, classes: int, order: str, file: str
) -> tuple[Tensor, tuple[str, ...]]:
    """Labels [n] of images without labels, from their order, and notes on what was assumed.

    Raises:
        UserError: the images are not in the order of the classes, or that is not clear.
    """
    n, lengths = len(arranged.images), arranged.lengths
    numbers = torch.arange(classes)
    if not lengths:
        ipc, rest = divmod(n, classes)
        if rest:
            raise UserError(
                f"{file} holds no labels, and its {n} images are not equally many for each of"
                f" {classes} classes; labels=PATH names a file of them"
            )
        if order == "ipc_major":
            return numbers.repeat(ipc), ()
        ways = "order=ipc_major, or labels=PATH" if ipc > 1 else "labels=PATH"
        note = (
            f"{file} holds no labels; read as class by class, {count(ipc, 'image')} each"
            f" (otherwise: {ways})"
        )
        return numbers.repeat_interleave(ipc), (note,) if order == "auto" else ()
    by_class = len(lengths) == classes
    by_image = set(lengths) == {classes}
    stacks = f"{len(lengths)} stacks of {_span(lengths)} images"
    if (order == "class_major" and not by_class) or (order == "ipc_major" and not by_image):
        raise UserError(f"order={order}: {file} holds {stacks}, and there are {classes} classes")
    if not by_class and not by_image:
        raise UserError(
            f"{file} holds no labels, and {stacks}: neither is the number of classes, {classes};"
            " labels=PATH names a file of them"
        )
    if order == "auto" and by_class and by_image:
        if not arranged.is_list:
            raise UserError(
                f"{file} holds no labels, and {stacks}: either may be the classes;"
                " order=class_major if the first axis is, order=ipc_major if the second is"
            )
        note = (
            f"{file} holds no labels; read as a stack for each class (otherwise: order=ipc_major)"
        )
        return numbers.repeat_interleave(classes), (note,)
    if order == "ipc_major" or not by_class:
        note = f"{file} holds no labels; read as stacks of one image of each class"
        return numbers.repeat(len(lengths)), (f"{note} (otherwise: labels=PATH)",)
    note = f"{file} holds no labels; read as a stack for each class (otherwise: labels=PATH)"
    return numbers.repeat_interleave(torch.tensor(lengths)), (note,)


def _span(lengths: tuple[int, ...]) -> str:
    low, high = min(lengths), max(lengths)
    return f"{low}" if low == high else f"{low} to {high}"


def _text(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))
