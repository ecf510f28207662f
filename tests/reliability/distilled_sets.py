"""Strategies for distilled sets made elsewhere with something wrong in them."""

import io
import json
import zipfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from bench.config.grid import single_run
from tests.reliability.archives import CONTENTS, damaged

Write = Callable[[Path], Any]
Named = dict[str, "np.ndarray[Any, Any]"]

TYPES = [
    *("f4", "f8", "f2", "u1", "i1", "u2", "i4", "i8", "u4", "u8", "?", ">f4", ">i8", "c8", "g"),
    *("S3", "U3", "O", "M8[s]", "m8[s]", "V4"),
]
OF_TORCH = {np.dtype(name).str for name in ("f4", "f8", "f2", "u1", "i1", "i4", "i8", "?")}
SHAPES = [
    *(
        (10, 1, 8, 8),
        (10, 8, 8, 1),
        (10, 64),
        (10, 1, 64),
        (10, 8, 8),
        (10, 3, 8, 8),
        (10, 4, 8, 8),
    ),
    *((1, 10, 1, 8, 8), (10, 10, 64), (2, 5, 1, 8, 8), (20, 1, 8, 8), (7, 1, 8, 8), (0, 1, 8, 8)),
    *((10,), (10, 10), (10, 1), (1, 10), (0,), (), (10, 0), (10, 7), (0, 10), (1,) * 9, (64,)),
    *((10, 1, 7, 9), (10, 2, 8, 8), (8, 8), (1, 8, 8), (10, 1, 1, 1), (10, 1, 8, 8, 1), (100, 64)),
]
NUMBERS = [0.0, -0.0, 1.0, -1.0, 255.0, 1e-45, 1e38, -1e38, np.nan, np.inf, -np.inf]
NAMES = [
    *("images", "labels", "x", "y", "data", "arr_0", "arr_1", "lr", "syn_lr", "0", "1", "", "é"),
    *("a/b", "../labels", "/images", "\x1b[1m", "class 1", "label_syn", "image_syn"),
]


@st.composite
def arrays(draw: Any) -> "np.ndarray[Any, Any]":
    """An array of any type and shape: pixels, classes, one number throughout, any numbers."""
    shape = draw(st.sampled_from(SHAPES))
    values: Any = np.random.default_rng(draw(st.integers(0, 3))).random(shape)
    match draw(st.integers(0, 5)):
        case 0:
            classes = np.arange(values.size) % draw(st.sampled_from([2, 10, 11, 300]))
            values = classes.reshape(shape) + draw(st.sampled_from([0, 0, 1, -1, 2**31, 2**62]))
        case 1:
            values = np.full(shape, draw(st.sampled_from(NUMBERS)))
        case 2:
            values = values * draw(st.sampled_from([2, 255, 1e6, 1e300, -1])) - 0.5
        case 3 if values.size:
            values.flat[draw(st.integers(0, values.size - 1))] = draw(st.sampled_from(NUMBERS))
    kind = draw(st.sampled_from([*["f4"] * 8, *["i8"] * 4, *TYPES]))
    with np.errstate(all="ignore"):
        # What is no number is made of whole ones.
        values = np.asarray(values).astype("i8") if kind[0] in "MmV" else np.asarray(values)
        return np.asarray(values.astype(kind))


def tensors() -> SearchStrategy[torch.Tensor]:
    numeric = arrays().filter(lambda array: array.dtype.str in OF_TORCH)
    return numeric.map(lambda array: torch.from_numpy(array.copy()))


@st.composite
def named_arrays(draw: Any) -> Named:
    """The arrays of a file: valid images and labels, some of them replaced or with other names."""
    random = np.random.default_rng(0)
    named: Named = {"images": random.random((10, 1, 8, 8), "f4"), "labels": np.arange(10)}
    for _ in range(draw(st.integers(0, 3))):
        key = draw(st.sampled_from(["images", "labels", *NAMES]))
        match draw(st.integers(0, 3)):
            case 0:
                named.pop(key, None)
            case 1 if key in named:
                named[draw(st.sampled_from(NAMES))] = named.pop(key)
            case _:
                named[key] = draw(arrays())
    return named


@st.composite
def metadata(draw: Any) -> dict[str, str] | None:
    """What a safetensors file states: as one of ours, with some of it replaced; or anything."""
    plain = st.recursive(
        st.one_of(st.none(), st.booleans(), st.integers(-2, 70), st.floats(), st.text(max_size=3)),
        lambda one: st.one_of(
            st.lists(one, max_size=3), st.dictionaries(st.sampled_from(NAMES), one, max_size=3)
        ),
        max_leaves=4,
    )
    config = asdict(single_run("quick", {}))
    for key in draw(st.lists(st.sampled_from([*config, "unknown"]), max_size=2)):
        config[key] = draw(plain)
    facts: Any = {"dataset": "digits", "space": "pixels", "zca": True, "config": config}
    facts |= {"zca_lambda": 0.1, "fingerprint": "0123456789abcdef", "class_folders": ["a"]}
    for key in draw(st.lists(st.sampled_from(sorted(facts)), max_size=4)):
        if draw(st.booleans()):
            facts[key] = draw(plain)
        else:
            facts.pop(key, None)
    text = json.dumps(facts if draw(st.integers(0, 3)) else draw(plain))
    return draw(
        st.sampled_from([None, {"distilled_set": text}, {"distilled_set": text}, {"x": text}])
        | st.text(max_size=3).map(lambda text: {"distilled_set": text})
    )


def python_values() -> SearchStrategy[Any]:
    """What a file of `torch.save` may hold."""
    sparse = st.just(torch.ones(2, 2).to_sparse())
    return st.recursive(
        st.one_of(tensors(), tensors(), sparse, st.integers(), st.text(max_size=3), st.none()),
        lambda one: st.one_of(
            st.lists(one, max_size=4),
            st.tuples(one, one),
            st.tuples(one, one, one),
            st.dictionaries(st.sampled_from(NAMES), one, max_size=3),
        ),
        max_leaves=6,
    )


def as_npz(named: Named, method: int) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for key, array in named.items():
            part = io.BytesIO()
            np.save(part, array)
            archive.writestr(f"{key}.npy", part.getvalue())
    return buffer.getvalue()


def as_npy(array: "np.ndarray[Any, Any]") -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def as_torch(value: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


def as_safetensors(named: Named, header: dict[str, str] | None) -> bytes:
    numeric = {key: array for key, array in named.items() if array.dtype.str in OF_TORCH}
    values = {key: torch.from_numpy(array.copy()) for key, array in numeric.items()}
    return safetensors.torch.save(values, header)


CONTENT: dict[str, SearchStrategy[bytes]] = {
    "npz": st.builds(as_npz, named_arrays(), st.sampled_from([0, 8])),
    "npy": st.builds(as_npy, arrays()),
    "pt": st.builds(as_torch, python_values()),
    "pth": st.builds(
        lambda named: as_torch({key: torch.from_numpy(a) for key, a in named.items()}),
        named_arrays().filter(lambda named: all(a.dtype.str in OF_TORCH for a in named.values())),
    ),
    "safetensors": st.builds(as_safetensors, named_arrays(), metadata()),
}


@st.composite
def files(draw: Any) -> tuple[str, Write]:
    """The name of a distilled set, and what writes it into a folder."""
    if draw(st.integers(0, 5)) == 0:
        places = ["0/a", "1/b", "10/c", "x/d", "é/e", "a/b/c", "top", ".h/x", "0/.y"]
        kinds = st.sampled_from(sorted(CONTENTS))
        content = draw(st.dictionaries(st.sampled_from(places), kinds, max_size=5))
        return "set", lambda here: write_pictures(here / "set", content)
    kind = draw(st.sampled_from(sorted(CONTENT)))
    content = draw(CONTENT[kind])
    damage = draw(st.sampled_from([None] * 8 + ["cut", "flipped", "empty", "text"]))
    whole = damaged(content, damage, draw(st.floats(0, 1)))
    return f"set.{kind}", lambda here: (here / f"set.{kind}").write_bytes(whole)


def write_pictures(folder: Path, content: dict[str, str]) -> None:
    folder.mkdir()
    for name, kind in content.items():
        path = folder / f"{name}{Path(kind).suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(CONTENTS[kind])
