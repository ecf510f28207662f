"""What a file does not specify is an error that names the setting, or a warning."""

import builtins
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from bench.data import TargetSet
from bench.evaluation.layout import Arranged, arrange, labels_of_stacks
from bench.evaluation.pixel_ranges import assume_space, doubt_whitened, whole_numbers
from bench.system.errors import UserError
from tests.bench.conftest import Read

Write = Callable[[Path, Any, Any], Any]


def case(name: str, write: Write, message: str, *settings: str) -> Any:
    return pytest.param(name, write, message, settings, id=message[:50])


def one_hot(y: Any) -> Any:
    return np.eye(10, dtype="f4")[y]


REFUSED = [
    case(
        "ten.npz",
        lambda p, x, y: np.savez(p, images=np.repeat(x, 2, axis=0).reshape(10, 10, 1, 8, 8)),
        "order=class_major if the first axis is, order=ipc_major if the second is",
    ),
    case(
        "neither.npz",
        lambda p, x, y: np.savez(p, images=x.reshape(25, 2, 64)),
        "25 stacks of 2 images: neither is the number of classes, 10; labels=PATH",
    ),
    case(
        "five.npz",
        lambda p, x, y: np.savez(p, images=x.reshape(10, 5, 64)),
        "order=ipc_major: .* holds 10 stacks of 5 images, and there are 10 classes",
        "order=ipc_major",
    ),
    case(
        "rate.npz",
        lambda p, x, y: np.savez(p, images=x, lr=np.float32(0.1)),
        "labels_key=lr: in .*rate.npz this is a single number",
        "labels_key=lr",
    ),
    case(
        "meta.pt",
        lambda p, x, y: torch.save({"images": torch.empty(10, 1, 8, 8, device="meta")}, p),
        "not numbers",
    ),
    case("odd.npy", lambda p, x, y: np.save(p, x[:13]), "its 13 images are not .* labels=PATH"),
    case(
        "labels.npz", lambda p, x, y: np.savez(p, x, y), "order=.* is for images", "order=ipc_major"
    ),
    case(
        "unnamed.npz",
        lambda p, x, y: np.savez(p, images=x, classes=y, weights=y),
        "give labels_key=classes \\(or another of classes, weights\\)",
    ),
    case(
        "pictures.npz",
        lambda p, x, y: np.savez(p, pictures=x, kinds=y),
        "holds kinds, pictures, but none of images.*images_key=NAME",
    ),
    case(
        "two.npz",
        lambda p, x, y: np.savez(p, images=x, data=x, y=y),
        "holds images and data, .* images_key=images",
    ),
    case(
        "none.npz",
        lambda p, x, y: np.savez(p, x=x, y=y),
        "images_key=z: .* holds x, y",
        "images_key=z",
    ),
    case(
        "text.npz",
        lambda p, x, y: np.savez(p, images=x, labels=[f"digit {c}" for c in y]),
        "its labels, labels, are text, not numbers; labels=PATH",
    ),
    case(
        "objects.npz",
        lambda p, x, y: np.savez(p, images=np.array([print], dtype=object), labels=y),
        "its images, images, are Python objects, which are not loaded",
    ),
    case(
        "objects.npy",
        lambda p, x, y: np.save(p, np.array({"images": x}, dtype=object), allow_pickle=True),
        "holds Python objects, .* np.savez\\(path, images=..., labels=...\\)",
    ),
    case(
        "small.npz",
        lambda p, x, y: np.savez(p, x=x[..., :7], y=y),
        r"\[50, 1, 8, 7\] are not 1x8x8.*dataset=\.\.\. and image_size=\.\.\.",
    ),
    case(
        "colour.npz",
        lambda p, x, y: np.savez(p, x=np.concatenate([x, 1 - x, x], axis=1), y=y),
        "color images, .* dataset=",
    ),
    case("gap.npz", lambda p, x, y: np.savez(p, x=x, y=y + 2), "from 2 to 11 are not .* dataset="),
    case(
        "from_0.npz", lambda p, x, y: np.savez(p, x=x, y=y), "counted from 1", "label_form=from_1"
    ),
    case(
        "form.npz", lambda p, x, y: np.savez(p, x=x, y=y), "are class indices", "label_form=logits"
    ),
    case(
        "soft.npz",
        lambda p, x, y: np.savez(p, x=x, y=one_hot(y)),
        "label_form=from_0: the labels in .* are soft",
        "label_form=from_0",
    ),
    case(
        "seven.npz",
        lambda p, x, y: np.savez(p, x=x, y=one_hot(y)[:, :7]),
        "labels are for 7 classes, not 10; name the dataset=",
    ),
    case(
        "learned.npz",
        lambda p, x, y: np.savez(p, x=x, y=one_hot(y) - 0.1 + 0.02 * np.sin(np.arange(10))),
        "not probabilities: label_form=centered .*; label_form=logits",
    ),
    case(
        "logits.npz",
        lambda p, x, y: np.savez(p, x=x, y=9 * one_hot(y) - 3),
        "not probabilities: label_form=logits .*; label_form=centered",
    ),
    case(
        "normalized.npz",
        lambda p, x, y: np.savez(p, x=(x - 0.3) / 0.37, y=y),
        r"energy is where pixels have .* mean=\[...\] std=\[...\] .* space=preprocessed",
    ),
    case(
        "normalized.npz",
        lambda p, x, y: np.savez(p, x=(x - 0.3) / 0.37, y=y),
        r"normalized by channel look like .* mean=\[...\] std=\[...\] .* space=preprocessed",
        "zca=false",
    ),
    case(
        "noise.npz",
        lambda p, x, y: np.savez(p, x=np.random.default_rng(0).normal(0, 0.01, x.shape), y=y),
        r"their spread is 0.01, .* space=preprocessed",
    ),
    case("between.npz", lambda p, x, y: np.savez(p, x=9 * x, y=y), "give space="),
    case(
        "below.npz",
        lambda p, x, y: np.savez(p, x=(x * 9).astype("i8") - 1, y=y),
        "mean=... and std=",
    ),
    case(
        "dark.npz",
        lambda p, x, y: np.savez(p, x=(x * 320).astype("u2"), y=y),
        r"mean=0 std=0.00313",
    ),
    case(
        "past.npz",
        lambda p, x, y: np.savez(p, x=(x * 320).astype("u2"), y=y),
        "space=pixels255 is invalid",
        "space=pixels255",
    ),
]


@pytest.mark.parametrize(("name", "write", "message", "settings"), REFUSED)
def test_what_can_be_read_wrongly_is_refused_in_one_line(
    name: str,
    write: Write,
    message: str,
    settings: tuple[str, ...],
    read: Read,
    fifty: tuple[Any, Any],
    tmp_path: Path,
) -> None:
    write(tmp_path / name, *fifty)
    with pytest.raises(UserError, match=message) as refusal:
        read(name, *settings)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("name", "write", "message", "settings"),
    [
        case(
            "five.npz",
            lambda p, x, y: np.savez(p, x=x[:25], y=y[:25]),
            "5 of 10 classes without an image whose largest label is theirs: 5, 6, 7, 8, 9",
        ),
        case(
            "uneven.npz",
            lambda p, x, y: np.savez(p, x=x[2:], y=y[2:]),
            "the classes have 3 to 5 images each",
        ),
        case(
            "beyond.npz",
            lambda p, x, y: np.savez(p, x=x[2:], y=y[2:]),
            "28 of 48 images are beyond ipc=2; all are used (ipc=5 would fit)",
            "ipc=2",
        ),
        case(
            "whitened.npz",
            lambda p, x, y: np.savez(p, x=(x - 0.3) / 0.37, y=y),
            "unlikely to be whitened as those of digits are here",
            "space=preprocessed",
        ),
        case(
            "mistaken.npz",
            lambda p, x, y: np.savez(p, x=255 * x, y=y),
            "the images are unlikely to be space=pixels",
            "space=pixels",
        ),
    ],
)
def test_what_is_likely_to_be_wrong_is_a_warning(
    name: str,
    write: Write,
    message: str,
    settings: tuple[str, ...],
    read: Read,
    fifty: tuple[Any, Any],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    write(tmp_path / name, *fifty)
    read(name, *settings)
    warnings = [line for line in capsys.readouterr().out.splitlines() if "warning: " in line]
    assert any(line.startswith("warning: ") and message in line for line in warnings)


def test_labels_that_may_be_counted_from_0_or_1_are_told(
    read: Read, fifty: tuple[Any, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    x, y = fifty
    np.savez(tmp_path / "x.npz", x=x[:25], y=y[:25] + 1)  # 1..5
    assert read("x.npz")[1].argmax(dim=1).tolist() == (y[:25] + 1).tolist()
    assert "counted from 0 (otherwise: label_form=from_1)" in capsys.readouterr().out
    assert read("x.npz", "label_form=from_1")[1].argmax(dim=1).tolist() == y[:25].tolist()


def test_centered_labels_that_were_learned_lose_what_is_below_0(
    read: Read, fifty: tuple[Any, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    x, y = fifty
    learned = one_hot(y) - 0.1 + 0.02 * np.sin(np.arange(10, dtype="f4"))
    np.savez(tmp_path / "x.npz", x=x, y=learned)
    probabilities = read("x.npz", "label_form=centered")[1]
    torch.testing.assert_close(probabilities, torch.tensor(learned + 0.1).clamp(min=0))
    part = f"{100 * (learned < -0.1).mean():.1f} % of the labels are below -1/10; set to 0"
    assert part in capsys.readouterr().out


def test_a_ragged_list_has_an_entry_for_each_class(
    read: Read, fifty: tuple[Any, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    x, y = fifty
    parts = [torch.tensor(x[y == c][: 2 + c % 3]) for c in range(10)]
    torch.save(parts, tmp_path / "x.pt")
    counts = read("x.pt")[1].sum(dim=0).tolist()
    assert counts == [2 + c % 3 for c in range(10)]
    assert "a stack for each class (otherwise: labels=PATH)" in capsys.readouterr().out
    torch.save(parts[:9], tmp_path / "x.pt")
    with pytest.raises(UserError, match=r"9 stacks of 2 to 4 images: neither .* labels=PATH"):
        read("x.pt")


def test_a_step_of_several_is_named_and_transparent_images_are_told(
    read: Read, fifty: tuple[Any, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    x, y = (torch.tensor(part) for part in fifty)
    torch.save([(x[k::5], y[k::5], 0.1 * k) for k in range(5)], tmp_path / "x.pt")
    assert len(read("x.pt", "index=2")[0]) == 10
    output = capsys.readouterr().out
    assert "holds 5 sets; used is index=2" in output
    assert "inner_lr=0.2 uses it" in output
    for c in range(10):
        (tmp_path / "clear" / str(c)).mkdir(parents=True)
        gray = Image.fromarray((x[5 * c, 0] * 255).byte().numpy())
        gray.putalpha(Image.new("L", (8, 8), 100))
        gray.save(tmp_path / "clear" / str(c) / "0.png")
    read("clear")
    assert "holds transparent images; their transparency is ignored" in capsys.readouterr().out


# --- images in color


def test_flat_rows_in_colour_are_read_channels_first_unless_told_otherwise() -> None:
    images = torch.rand(20, 3, 4, 5)
    arranged = arrange(images.flatten(1), (), (3, 4, 5), "auto", "FILE")
    assert torch.equal(arranged.images, images)
    assert arranged.notes == (
        "FILE holds rows of 60 numbers; read as channels, then height, then width (otherwise:"
        " layout=hwc)",
    )
    last = images.permute(0, 2, 3, 1)
    for layout, given in (("hwc", last.flatten(1)), ("hwc", last), ("auto", last), ("chw", images)):
        arranged = arrange(given, (), (3, 4, 5), layout, "FILE")
        assert torch.equal(arranged.images, images)
        assert arranged.notes == ()
    with pytest.raises(UserError, match="in any layout with layout=hwc"):
        arrange(images, (), (3, 4, 5), "hwc", "FILE")
    with pytest.raises(UserError, match="layout=chw or layout=hwc"):
        arrange(torch.rand(20, 3, 3, 3), (), (3, 3, 3), "auto", "FILE")


def test_grey_images_of_a_set_in_color_and_an_alpha_channel_are_told() -> None:
    gray = torch.rand(20, 1, 4, 5)
    arranged = arrange(gray, (), (3, 4, 5), "auto", "FILE")
    assert torch.equal(arranged.images, gray.repeat(1, 3, 1, 1))
    assert "FILE holds gray images" in arranged.notes[0]
    color = torch.rand(20, 4, 4, 5)
    color[:, 3] = 1
    arranged = arrange(color.permute(0, 2, 3, 1), (), (3, 4, 5), "auto", "FILE")
    assert torch.equal(arranged.images, color[:, :3])
    assert "alpha, is ignored" in arranged.notes[0]
    with pytest.raises(UserError, match="not an opaque alpha channel"):
        arrange(torch.rand(20, 4, 4, 5), (), (3, 4, 5), "auto", "FILE")


# --- numbers


def test_a_row_for_each_stack_is_no_row_of_indices() -> None:
    # Ten stacks of ten images of ten classes: both are a matrix of ten by ten.
    images = torch.zeros(100, 1, 8, 8)
    arranged = Arranged(images, (10,) * 10, False, ())
    numbers = torch.arange(10)
    soft = torch.rand(10, 10, generator=torch.Generator().manual_seed(0))
    for rows in (torch.eye(10), torch.eye(10, dtype=torch.int64).flip(0), soft):
        labels = labels_of_stacks(rows, arranged, "a.pt")
        assert torch.equal(labels, rows.repeat_interleave(10, dim=0))
    indices = numbers.repeat_interleave(10).reshape(10, 10)
    for matrix in (indices, indices.float(), indices.T):
        assert torch.equal(labels_of_stacks(matrix, arranged, "a.pt"), matrix.flatten())


@pytest.mark.parametrize("kind", ["bool", "u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8"])
def test_each_type_of_whole_numbers_has_its_own_range(kind: str) -> None:
    top = 1 if kind == "bool" else np.iinfo(kind).max
    numbers = torch.from_numpy(np.array([0, top], dtype=kind))
    assert whole_numbers(numbers, "FILE", "auto")[0].tolist() == pytest.approx([0, 1])


def test_the_space_is_judged_by_all_values(digits: TargetSet) -> None:
    whitened = digits.train.images[:100]
    pixels = digits.whitening.to_pixels(whitened)
    assert assume_space(whitened, digits)[0] == "preprocessed"
    assert assume_space(0.4 * whitened, digits)[0] == "preprocessed"
    assert doubt_whitened(whitened, digits) is None
    assert doubt_whitened(pixels - pixels.mean(), digits) is not None
    pixels[0, 0, 0, 0] = -0.3  # one value says nothing of a set
    pixels[1, 0, 0, 0] = 1.4
    assert assume_space(pixels, digits)[0] == "pixels"
    assert assume_space(255 * pixels, digits)[0] == "pixels255"
    assert assume_space(2 * pixels.clamp(0, 1) - 1, digits)[0] == "minus_one_to_one"


def test_code_in_a_file_is_not_run(read: Read, tmp_path: Path) -> None:
    class Touch:
        def __reduce__(self) -> Any:
            return builtins.open, (str(tmp_path / "touched"), "w")

    torch.save({"images": torch.rand(10, 1, 8, 8), "code": Touch()}, tmp_path / "x.pt")
    code = np.array(Touch(), dtype=object)
    np.savez(tmp_path / "x.npz", images=np.random.rand(10, 1, 8, 8), code=code)
    np.save(tmp_path / "x.npy", code, allow_pickle=True)
    with pytest.raises(UserError, match="not loaded"):
        read("x.pt")
    assert len(read("x.npz")[0]) == 10  # what is not numbers is left aside
    with pytest.raises(UserError, match="not loaded"):
        read("x.npy")
    assert not (tmp_path / "touched").exists()
