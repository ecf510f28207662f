"""Distilled sets as strangers save them: each is read for what it is, or refused with what to type.

All hold the same fifty real digits, five a class, so that each must come to the same images.
"""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tests.bench.conftest import Read

Write = Callable[[Path, Any, Any], Any]


def h5(path: Path, *other: bytes, **arrays: Any) -> None:
    """An HDF5 file of arrays, and of numbers with other names."""
    h5py = pytest.importorskip("h5py")
    with h5py.File(path, "w") as file:
        for name, array in arrays.items():
            file[name] = array
        for raw in other:
            file[raw] = 3


def pngs(path: Path, x: Any, y: Any, picture: Callable[[Any], Image.Image]) -> None:
    """Each image as `<class>/<number>.png`; `picture` makes it of bytes [8, 8]."""
    for i, (image, label) in enumerate(zip(np.round(x[:, 0] * 255), y, strict=True)):
        (path / str(label)).mkdir(parents=True, exist_ok=True)
        picture(image.astype("u1")).save(path / str(label) / f"{i:02d}.png")


def palette(image: Any) -> Image.Image:
    """Grey levels in another order, and a palette that puts them right."""
    made = Image.fromarray(255 - image, "L").convert("P")
    made.putpalette([255 - level for level in range(256) for _ in range(3)])
    return made


def stacks(x: Any, order: str = "class") -> list[Any]:
    """Five images of each of ten classes, as a list."""
    parts = list(torch.tensor(x).view(10, 5, 1, 8, 8))
    return parts if order == "class" else list(torch.stack(parts, dim=1))


def steps(x: Any, y: Any) -> list[Any]:
    """Two epochs of five training steps, each of images, labels and a learning rate."""
    images, labels = torch.tensor(x), torch.tensor(y)
    epoch = [(images[k::5], labels[k::5], torch.tensor(0.02 + k / 100)) for k in range(5)]
    return epoch + [(one, of_it, rate / 2) for one, of_it, rate in epoch]


def case(name: str, write: Write, message: str = "", *settings: str) -> Any:
    return pytest.param(name, write, message, settings, id=f"{name}-{message or 'silent'}"[:50])


READ = [
    # Python data, and what lies beside images and labels.
    case(
        "labels.pt", lambda p, x, y: torch.save({"images": torch.tensor(x), "labels": list(y)}, p)
    ),
    case(
        "ints.pt",
        lambda p, x, y: torch.save(
            {"x": torch.tensor(x), "y": tuple(y.tolist()), "acc": np.float32(0.5), "epoch": 7}, p
        ),
    ),
    case("lists.pt", lambda p, x, y: torch.save([x.tolist(), y.tolist()], p)),
    case(
        "nested.pt",
        lambda p, x, y: torch.save(
            {
                "args": argparse.Namespace(ipc=5),
                "best": {"syn": {"images": torch.tensor(x), "labels": torch.tensor(y)}},
                "history": [{"loss": 1.0}],
                "names": np.array(["zero", "one"]),
            },
            p,
        ),
    ),
    case(
        "text.npz",
        lambda p, x, y: np.savez(p, images=x, labels=y, classes=[str(c) for c in range(10)]),
    ),
    case("text.h5", lambda p, x, y: h5(p, **{"a/images": x, "a/labels": y, "a/about": "text"})),
    case(
        "rate.pt",
        lambda p, x, y: torch.save({"images": torch.tensor(x), "labels": y, "lr": 0.02}, p),
        "learning rate (0.02), which is not used (inner_lr=0.02 uses it)",
    ),
    case("samples.pt", lambda p, x, y: torch.save(list(zip(torch.tensor(x), y, strict=True)), p)),
    case("positions.npz", lambda p, x, y: np.savez(p, x, y)),
    case("swapped.npz", lambda p, x, y: np.savez(p, y, x)),
    case("swapped.pt", lambda p, x, y: torch.save((torch.tensor(y), torch.tensor(x)), p)),
    case("own.npz", lambda p, x, y: np.savez(p, a=x, b=y), "", "images_key=a", "labels_key=b"),
    # Steps of a training.
    case(
        "triple.pt",
        lambda p, x, y: torch.save((torch.tensor(x), torch.tensor(y), 0.02), p),
        "inner_lr=0.02 uses it",
    ),
    case(
        "steps.pt",
        lambda p, x, y: torch.save(steps(x, y), p),
        "holds 10 training steps, each of images, labels and a learning rate; combined into one"
        " set of 50 images (otherwise: index=0",
    ),
    # Images of a class by themselves.
    case("list.pt", lambda p, x, y: torch.save(stacks(x), p), "a stack for each class"),
    case(
        "list_of_five.pt",
        lambda p, x, y: torch.save({"images": stacks(x, "image")}, p),
        "stacks of one image of each class (otherwise: labels=PATH)",
    ),
    case(
        "list.npz",
        lambda p, x, y: np.savez(p, *(one.numpy() for one in stacks(x))),
        "the entries are not named after the classes of digits; used in their order: arr_0 as 0",
    ),
    case(
        "by_class.pt",
        lambda p, x, y: torch.save(dict(enumerate(stacks(x))), p),
    ),
    case("latin1.h5", lambda p, x, y: h5(p, "é".encode("latin-1"), images=x, labels=y)),
    case(
        "by_number.h5",
        lambda p, x, y: h5(p, **{f"class_{c}": one.numpy() for c, one in enumerate(stacks(x))}),
        "the entries are not named after the classes of digits; used in their order: class_0 as 0",
    ),
    # Layouts.
    case(
        "ipc_major.npz",
        lambda p, x, y: np.savez(p, images=x.reshape(10, 5, 1, 8, 8).swapaxes(0, 1)),
        "stacks of one image of each class",
    ),
    case(
        "class_major.npz",
        lambda p, x, y: np.savez(p, images=x.reshape(10, 5, 1, 8, 8)),
        "a stack for each class (otherwise: labels=PATH)",
    ),
    case(
        "in_turn.npy",
        lambda p, x, y: np.save(p, x.reshape(10, 5, 1, 8, 8).swapaxes(0, 1).reshape(50, 1, 8, 8)),
        "",
        "order=ipc_major",
    ),
    case(
        "flat.h5",
        lambda p, x, y: h5(p, data=x.reshape(50, 64), epoch=1825),
        "class by class, 5 images each (otherwise: order=ipc_major, or labels=PATH)",
    ),
    case("rows.npz", lambda p, x, y: np.savez(p, images=x.reshape(10, 5, 64)), "for each class"),
    case("last.npz", lambda p, x, y: np.savez(p, x=x.transpose(0, 2, 3, 1), y=y)),
    case("grey.npz", lambda p, x, y: np.savez(p, x=x[:, 0], y=y)),
    case("column.npz", lambda p, x, y: np.savez(p, x=x, y=y.reshape(50, 1))),
    case("grid.npz", lambda p, x, y: np.savez(p, x=x.reshape(10, 5, 64), y=y.reshape(10, 5))),
    case("each.npz", lambda p, x, y: np.savez(p, x=x.reshape(10, 5, 64), y=np.arange(10))),
    case(
        "rgb.npz",
        lambda p, x, y: np.savez(p, x=x.repeat(3, 1), y=y),
        "gray images as equal red, green and blue",
    ),
    # Numbers.
    case(
        "from_1.npz",
        lambda p, x, y: np.savez(p, x=x, y=y + 1),
        "go from 1 to 10; read as counted from 1",
    ),
    case("named_from_1.npz", lambda p, x, y: np.savez(p, x=x, y=y + 1), "", "label_form=from_1"),
    case(
        "centered.npz",
        lambda p, x, y: np.savez(p, x=x, y=np.eye(10)[y] - 0.1),
        "read as probabilities minus 1/10 (otherwise: label_form=logits)",
    ),
    case(
        "named_centered.npz",
        lambda p, x, y: np.savez(p, x=x, y=np.eye(10)[y] - 0.1),
        "",
        "label_form=centered",
    ),
    case("half.npz", lambda p, x, y: np.savez(p, x=x.astype("f2"), y=y)),
    case("long.npz", lambda p, x, y: np.savez(p, x=x.astype("g"), y=y)),
    case("big.npz", lambda p, x, y: np.savez(p, x=x.astype(">f4"), y=y.astype(">i2"))),
    case("big.h5", lambda p, x, y: h5(p, x=x.astype(">f8"), y=y.astype(">u4"))),
    case(
        "bf16.pt",
        lambda p, x, y: torch.save({"images": torch.tensor(x).bfloat16(), "labels": y}, p),
    ),
    case("minus.npz", lambda p, x, y: np.savez(p, x=x * 2 - 1, y=y), "pixels scaled to -1..1"),
    case("said.npz", lambda p, x, y: np.savez(p, x=x * 2 - 1, y=y), "", "mean=[0.5]", "std=[0.5]"),
    case("over.npz", lambda p, x, y: np.savez(p, x=x * 1.02 - 0.01, y=y), "were not clipped"),
    case("over255.npz", lambda p, x, y: np.savez(p, x=x * 260 - 2, y=y), "pixels in 0..255"),
    case(
        "levels.npz",
        lambda p, x, y: np.savez(p, x=(x * 16).astype("u1"), y=y),
    ),
    case(
        "int16.npz",
        lambda p, x, y: np.savez(p, x=(x * 2**14).astype("i2"), y=y),
    ),
    case("uint16.npz", lambda p, x, y: np.savez(p, x=(x * 65520).astype("u2"), y=y)),
    case(
        "uint32.npz", lambda p, x, y: np.savez(p, x=(x * np.float64(2**32 - 16)).astype("u4"), y=y)
    ),
    case(
        "wide.npz",
        lambda p, x, y: np.savez(p, x=(x * 65520).astype("i8"), y=y),
        "go up to 65520; read as of 0..65535 (otherwise: mean=0 std=",
    ),
    case(
        "bytes.npz",
        lambda p, x, y: np.savez(p, x=(x * 240).astype("u2"), y=y),
        "go up to 240; read as of 0..255 (otherwise: mean=0 std=",
    ),
    # Image files.
    case("L", lambda p, x, y: pngs(p, x, y, Image.fromarray)),
    case(
        "RGB",
        lambda p, x, y: pngs(p, x, y, lambda a: Image.fromarray(a).convert("RGB")),
        "as equal red",
    ),
    case("LA", lambda p, x, y: pngs(p, x, y, lambda a: Image.fromarray(a).convert("LA"))),
    case("P", lambda p, x, y: pngs(p, x, y, palette), "as equal red, green and blue"),
    case("16", lambda p, x, y: pngs(p, x, y, lambda a: Image.fromarray(a.astype("u2") * 257))),
]


@pytest.mark.parametrize(("name", "write", "message", "settings"), READ)
def test_a_strangers_set_comes_to_the_images_and_labels_that_it_holds(
    name: str,
    write: Write,
    message: str,
    settings: tuple[str, ...],
    read: Read,
    fifty: tuple[Any, Any],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    x, y = fifty
    torch.save({"images": torch.tensor(x), "labels": torch.tensor(y)}, tmp_path / "reference.pt")
    expected = read("reference.pt", "space=pixels")
    assert "note" not in capsys.readouterr().out
    write(tmp_path / name, x, y)
    images, labels = read(name, *settings)
    assert torch.equal(labels, expected[1])
    rounding = 0.05 if (tmp_path / name).is_dir() else 1e-4  # eight bits of 17 grey levels
    torch.testing.assert_close(images, expected[0], atol=rounding, rtol=0)
    assert message in (out := capsys.readouterr().out)
    assert "warning" not in out
