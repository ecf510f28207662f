"""Distilled sets made elsewhere: every format and space gives the images it holds, or a refusal."""

import builtins
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image
from torch import Tensor

from bench.config.command_line import parse
from bench.config.run_config import Environment, RunConfig
from bench.evaluation.distilled_set import load_distilled_set
from bench.evaluation.fresh_networks import evaluate
from bench.evaluation.interpretation import SubjectOptions
from bench.evaluation.pixel_ranges import to_pixels
from bench.runs.subject import Subject, set_up
from bench.system.errors import UserError

SetUp = Callable[..., Subject]


def pixels_and_labels() -> tuple[Tensor, Tensor]:
    """Two images a class, class by class, as bytes [20, 1, 8, 8], and their classes [20]."""
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (20, 1, 8, 8), generator=generator, dtype=torch.uint8)
    return pixels, torch.arange(10).repeat_interleave(2)


def write_h5(path: Path, pixels: Tensor, labels: Tensor) -> None:
    h5py = pytest.importorskip("h5py")
    with h5py.File(path, "w") as file:
        file["set/images"] = pixels.numpy()
        file["set/labels"] = labels.numpy()
        file["set/about"] = "text is passed over"


def write_folder(path: Path, pixels: Tensor, labels: Tensor) -> None:
    for i, (image, label) in enumerate(zip(pixels, labels.tolist(), strict=True)):
        folder = path / str(label)
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image[0].numpy()).save(folder / f"{i + 9}.png")  # 9.png before 10.png
    (path / "about.txt").write_text("passed over")


def write_npz(path: Path, pixels: Tensor, labels: Tensor) -> None:
    backwards = np.arange(20).reshape(10, 2)[::-1].ravel()  # the classes, not the images of each
    channels_last = pixels.numpy().transpose(0, 2, 3, 1)
    np.savez(path, x=channels_last[backwards], y=labels.numpy()[backwards])


# What the field's files look like: name -> how one is written.
FORMATS: dict[str, Callable[[Path, Tensor, Tensor], Any]] = {
    "set.npz": write_npz,
    "set.npy": lambda path, x, y: np.save(path, x.numpy()),
    "dict.pt": lambda path, x, y: torch.save({"images": x, "labels": y, "lr": 0.1}, path),
    "arrays.pth": lambda path, x, y: torch.save(
        {"image_syn": x.numpy(), "label_syn": y.numpy(), "acc": np.float64(0.5)}, path
    ),
    "pair.pt": lambda path, x, y: torch.save((x, y.int()), path),
    "dc.pt": lambda path, x, y: torch.save(
        {"data": [[x.float(), y], [255 - x.float(), y]], "accs_all_exps": {"ConvNet": []}}, path
    ),
    "bare.pt": lambda path, x, y: torch.save(torch.nn.Parameter(x.float()), path),
    "classes.pt": lambda path, x, y: torch.save(x.view(10, 2, 1, 8, 8), path),
    "unit.pt": lambda path, x, y: torch.save((x.float() / 255, y.float()[:, None]), path),
    "one_hot.pt": lambda path, x, y: torch.save((x, torch.eye(10)[y]), path),
    "set.h5": write_h5,
    "folder": write_folder,
}


@pytest.fixture
def subject(cache_root: Path, tmp_path: Path, tiny: list[str]) -> SetUp:
    """`subject("distilled=...", ...)` as `bench.evaluate` makes it; PATHs lie in `tmp_path`."""

    def made(name: str, *settings: str, base: list[str] = tiny) -> Subject:
        given = [f"distilled={tmp_path / name}", f"cache_root={cache_root}", *base, *settings]
        given.append(f"results_root={tmp_path / 'results'}")
        return set_up(parse(given, SubjectOptions, RunConfig, Environment))

    return made


@pytest.fixture
def reference(tmp_path: Path) -> str:
    """The set as safetensors: its name in `tmp_path`."""
    pixels, labels = pixels_and_labels()
    tensors = {"images": pixels, "labels": labels}
    safetensors.torch.save_file(tensors, tmp_path / "set.safetensors")
    return "set.safetensors"


def tensors(subject: Subject) -> tuple[Tensor, Tensor]:
    assert subject.images is not None
    assert subject.labels is not None
    return subject.images, subject.labels


def accuracies(subject: Subject) -> Tensor:
    config, target_set = subject.config, subject.target_set
    evaluation = evaluate(config, target_set, *tensors(subject), networks=2, steps=[4], purpose="x")
    return evaluation.test


@pytest.mark.parametrize("zca", ["true", "false"])
@pytest.mark.parametrize("name", FORMATS)
def test_every_format_gives_the_images_and_the_accuracy_of_safetensors(
    name: str, zca: str, subject: SetUp, reference: str, tmp_path: Path
) -> None:
    FORMATS[name](tmp_path / name, *pixels_and_labels())
    actual, expected = (subject(one, f"zca={zca}") for one in (name, reference))
    for ours, theirs in zip(tensors(actual), tensors(expected), strict=True):
        assert torch.equal(ours, theirs)
    assert torch.equal(accuracies(actual), accuracies(expected))


def test_the_longest_name_of_a_file_has_a_record(
    subject: SetUp, reference: str, tmp_path: Path
) -> None:
    longest = f"{'é' * 121}.safetensors"  # 254 bytes
    (tmp_path / reference).rename(tmp_path / longest)
    path = subject(longest).record("", {"accuracy": 0.5})
    assert path.name.startswith("é" * 50 + "-")
    assert json.loads(path.read_text())["accuracy"] == 0.5


def test_a_set_among_several_and_labels_of_another_file_are_named(
    subject: SetUp, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pixels, labels = pixels_and_labels()
    FORMATS["dc.pt"](tmp_path / "dc.pt", pixels, labels)
    first = tensors(subject("dc.pt"))[0]
    assert "note: dc.pt holds 2 sets; used is index=0" in capsys.readouterr().out
    second = tensors(subject("dc.pt", "index=1"))[0]
    assert torch.allclose(first, -second, atol=1e-6)  # the negative: the same without its mean
    with pytest.raises(UserError, match=r"index=2: .* holds 2 set"):
        subject("dc.pt", "index=2")
    torch.save(pixels, tmp_path / "images.pt")
    torch.save(labels.flip(0), tmp_path / "labels.pt")
    labelled = subject("images.pt", f"labels={tmp_path / 'labels.pt'}")
    assert tensors(labelled)[1].argmax(dim=1).tolist() == labels.tolist()
    # Sorted by class again: the images are those of the other end.
    assert torch.equal(tensors(labelled)[0][18:], tensors(subject("images.pt"))[0][:2])


# --- spaces


def test_normalized_and_preprocessed_images_come_to_where_the_pixels_do(
    subject: SetUp, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pixels, labels = pixels_and_labels()
    unit = pixels.float() / 255
    torch.save((unit, labels), tmp_path / "unit.pt")
    torch.save(((unit - 0.3) / 0.2, labels), tmp_path / "normalized.pt")
    expected = tensors(subject("unit.pt"))[0]
    assert "the values are between 0 and 1; read as pixels" in capsys.readouterr().out
    images = tensors(subject("normalized.pt", "mean=[0.3]", "std=[0.2]"))[0]
    assert torch.allclose(images, expected, atol=1e-5)
    torch.save((expected, labels), tmp_path / "whitened.pt")
    capsys.readouterr()
    assert torch.equal(tensors(subject("whitened.pt", "space=preprocessed"))[0], expected)
    output = capsys.readouterr().out  # noise has another spread than images
    assert "note" not in output
    assert "unlikely to be whitened as those of digits" in output
    # Said to be pixels, they are: clipped ones of an optimizer may lie below 0.
    other = tensors(subject("whitened.pt", "space=pixels"))[0]
    assert not torch.equal(other, expected)


def test_normalisation_is_undone_channel_by_channel() -> None:
    pixels = torch.rand(4, 3, 2, 2, dtype=torch.float64)
    mean, std = [0.1, 0.2, 0.3], [0.5, 0.6, 0.7]
    normalized = torch.stack([(pixels[:, c] - mean[c]) / std[c] for c in range(3)], dim=1)
    assert torch.allclose(to_pixels(normalized, "normalized", mean, std), pixels, atol=1e-12)
    with pytest.raises(UserError, match="3 channels"):
        to_pixels(normalized, "normalized", mean[:2], std)
    with pytest.raises(UserError, match="must be positive"):
        to_pixels(normalized, "normalized", mean, [0.0])


# --- labels


def test_soft_labels_are_kept_and_logits_named_are_softened(
    subject: SetUp, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pixels, labels = pixels_and_labels()
    logits = (
        torch.randn(20, 10, generator=torch.Generator().manual_seed(1)) + 9 * torch.eye(10)[labels]
    )
    torch.save({"images": pixels, "soft_labels": logits}, tmp_path / "logits.pt")
    with pytest.raises(UserError, match=r"not probabilities: label_form=logits"):
        subject("logits.pt")
    soft = tensors(subject("logits.pt", "label_form=logits"))[1]
    assert torch.allclose(soft, logits.softmax(dim=1))
    torch.save((pixels, soft), tmp_path / "soft.pt")
    capsys.readouterr()
    assert torch.equal(tensors(subject("soft.pt"))[1], soft)
    assert "note" not in capsys.readouterr().out
    torch.save((pixels, 2 * soft), tmp_path / "double.pt")
    assert torch.equal(tensors(subject("double.pt"))[1], 2 * soft)
    assert "sum to 2 to 2; used as they are" in capsys.readouterr().out


def test_class_folders_go_by_name_by_number_or_by_order(
    subject: SetUp, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pixels, labels = pixels_and_labels()
    write_folder(tmp_path / "named", pixels, labels)  # the classes of digits are named 0..9
    expected = tensors(subject("named"))
    assert "note" not in capsys.readouterr().out
    for names, message in (
        ([f"{c:05d}" for c in range(10)], "folders are numbers; read as the indices"),
        (list("abcdefghij"), "in their order: a as 0, ..., j as 9"),
    ):
        folder = tmp_path / names[1]
        write_folder(folder, pixels, labels)
        for c, name in enumerate(names):
            (folder / str(c)).rename(folder / name)
        assert torch.equal(tensors(subject(folder.name))[1], expected[1])
        assert message in capsys.readouterr().out
    few = tmp_path / "few"
    write_folder(few, pixels[:4], labels[:4])  # labels of a file number classes, not folders
    torch.save(torch.tensor([9, 8, 7, 6]), tmp_path / "labels.pt")
    labelled = subject("few", f"labels={tmp_path / 'labels.pt'}")
    assert tensors(labelled)[1].argmax(dim=1).tolist() == [6, 7, 8, 9]
    assert torch.equal(tensors(labelled)[0], expected[0][:4].flip(0))
    (tmp_path / "00001" / "00000").rename(tmp_path / "00001" / "00012")
    with pytest.raises(UserError, match="do not number the 10 classes from 0, nor from 1"):
        subject("00001")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="neither a run folder nor a folder of class folders"):
        subject("empty")


def test_as_many_folders_as_classes_or_a_refusal(subject: SetUp, tmp_path: Path) -> None:
    pixels, labels = pixels_and_labels()
    write_folder(tmp_path / "few", pixels[:4], labels[:4])
    (tmp_path / "few" / "0").rename(tmp_path / "few" / "zero")
    with pytest.raises(UserError, match="neither named after the classes of digits"):
        subject("few")


# --- refusals


class Code:
    """A Python object in a file, which is not to be run."""


def test_what_cannot_be_read_is_refused_in_words(subject: SetUp, tmp_path: Path) -> None:
    pixels, labels = pixels_and_labels()
    unit = pixels.float() / 255

    def refused(message: str, held: Any, *settings: str) -> None:
        torch.save(held, tmp_path / "x.pt")
        with pytest.raises(UserError, match=message):
            subject("x.pt", *settings)

    refused("holds Python objects besides tensors", {"images": unit, "code": Code()})
    refused("neither a dictionary", 3)
    refused("but none of images", {"pictures": unit})
    refused("labels_key=classes .*labels=PATH", {"images": unit, "classes": labels})
    refused("images and x, and each of them could be", {"images": unit, "x": unit, "y": labels})
    refused("labels \\[7\\] are not .* n=20", (unit, labels[:7]))
    refused("not finite", (unit / 0, labels))
    refused("are not the indices of 10 classes", (unit, labels + 2))
    refused("are not the indices of 10 classes", (unit, labels + 0.5))
    refused("labels are for 7 classes", (unit, torch.ones(20, 7)))
    refused("holds no labels, and its 13 images", unit[:13])
    refused("neither within 0..255", (pixels.int() + 1, labels))
    refused("space=normalized needs the mean", (unit, labels), "space=normalized")
    refused("mean and std are for space=normalized", (unit, labels), "space=pixels", "mean=[0.1]")
    refused("space=preprocessed: .* holds pixels", (pixels, labels), "space=preprocessed")
    refused(r"holds 1 set\(s\)", (unit, labels), "index=1")
    (tmp_path / "x.pt").write_bytes(b"PK nothing")
    with pytest.raises(UserError, match=r"x.pt is damaged"):
        subject("x.pt")
    (tmp_path / "x.mat").write_bytes(b"")
    with pytest.raises(UserError, match=r"a distilled set is a file of \.safetensors, .*\.h5"):
        subject("x.mat")
    with pytest.raises(UserError, match="allows no settings for reading a file"):
        subject("x.pt", "distilled=real_images", "space=pixels")


def test_a_missing_h5py_is_named_with_its_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "set.h5").write_bytes(b"")
    import_any = builtins.__import__

    def no_h5py(name: str, *rest: Any) -> Any:
        if name == "h5py":
            raise ImportError(name)
        return import_any(name, *rest)

    monkeypatch.setattr(builtins, "__import__", no_h5py)
    with pytest.raises(
        UserError, match=r"^\S*set.h5: reading it needs h5py: pip install .*formats"
    ):
        load_distilled_set(tmp_path / "set.h5")


def test_a_set_of_ours_is_not_tested_under_another_whitening(
    subject: SetUp, tmp_path: Path
) -> None:
    from bench.evaluation.distilled_set import DistilledSet

    pixels, labels = pixels_and_labels()
    config = {"dataset": "digits", "zca": True, "zca_lambda": 0.1, "scale": "quick"}
    metadata = {"space": "preprocessed", "zca": True, "zca_lambda": 0.1, "config": config}
    saved = DistilledSet(pixels.float() / 99 - 1, torch.eye(10)[labels], metadata)
    saved.save(tmp_path / "ours.safetensors")
    assert torch.equal(tensors(subject("ours.safetensors"))[0], saved.images)
    with pytest.raises(UserError, match=r"zca=False: .* were whitened with zca=True"):
        subject("ours.safetensors", "zca=false")
    with pytest.raises(UserError, match="states space=preprocessed"):
        subject("ours.safetensors", "space=pixels255")
