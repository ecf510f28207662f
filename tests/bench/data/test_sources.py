"""Finding, reading and caching raw images, on small synthetic copies and on the real ones."""

import hashlib
import io
import os
import pickle
import shutil
import sys
import threading
import urllib.error
import urllib.request
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from bench.data import DATASETS, cache, download, find_source, load_raw, load_target_set
from bench.data.readers import torchvision_dataset
from bench.system import choices
from bench.system.errors import UserError

CLASSES = ("apple", "bear", "crab")
COUNTS = {"train": 5, "test": 2}

_BESIDE_REPOSITORY = Path(__file__).resolve().parents[4] / "shared" / "data"
REAL_DATA = Path(os.environ.get("BENCH_DATA_ROOT") or _BESIDE_REPOSITORY)


def pictures(seed: int = 0) -> dict[str, NDArray[np.uint8]]:
    """Path below the data set's folder -> 32x32 RGB image."""
    random = np.random.RandomState(seed)
    return {
        f"{split}/{name}/{index:04}.png": random.randint(0, 256, (32, 32, 3)).astype(np.uint8)
        for split, count in COUNTS.items()
        for name in CLASSES
        for index in range(count)
    }


def encode(image: NDArray[np.uint8], kind: str = "png") -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, kind, lossless=True)
    return buffer.getvalue()


def write_folder(root: Path, images: dict[str, NDArray[np.uint8]], name: str = "cifar10") -> Path:
    for path, image in images.items():
        file = root / name / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(encode(image))
    return root / name


def write_zip(root: Path, members: dict[str, bytes], name: str = "cifar10") -> Path:
    root.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(root / f"{name}.zip", "w") as archive:
        for path, content in members.items():
            archive.writestr(f"{name}/{path}", content)
    return root / f"{name}.zip"


def zip_of(root: Path, images: dict[str, NDArray[np.uint8]], name: str = "cifar10") -> Path:
    return write_zip(root, {path: encode(image) for path, image in images.items()}, name)


def write_torchvision(
    root: Path, images: dict[str, NDArray[np.uint8]], monkeypatch: pytest.MonkeyPatch
) -> Path:
    """The CIFAR-10 authors' format, shuffled; torchvision gets the checksums of these files."""
    folder = root / "cifar-10-batches-py"
    folder.mkdir(parents=True)

    def write(name: str, content: object) -> str:
        data = pickle.dumps(content)
        (folder / name).write_bytes(data)
        return hashlib.md5(data).hexdigest()

    sums = {}
    for split, file in (("train", "data_batch_1"), ("test", "test_batch")):
        paths = [path for path in images if path.startswith(split)]
        np.random.RandomState(5).shuffle(paths)
        data = np.stack([images[path].transpose(2, 0, 1).reshape(-1) for path in paths])
        labels = [CLASSES.index(path.split("/")[1]) for path in paths]
        sums[split] = [[file, write(file, {"data": data, "labels": labels})]]
    meta = {"filename": "batches.meta", "key": "label_names"}
    meta["md5"] = write("batches.meta", {"label_names": list(CLASSES)})
    dataset_class = torchvision_dataset("CIFAR10")
    monkeypatch.setattr(dataset_class, "train_list", sums["train"])
    monkeypatch.setattr(dataset_class, "test_list", sums["test"])
    monkeypatch.setattr(dataset_class, "meta", meta)
    return folder


def test_the_same_images_give_the_same_arrays_and_fingerprint_in_every_packaging(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = pictures()
    write_folder(tmp_path / "a", images)
    zip_of(tmp_path / "b", images)
    renamed = {path.replace(".png", ".webp"): encode(i, "webp") for path, i in images.items()}
    write_zip(tmp_path / "c", dict(reversed(renamed.items())))
    write_torchvision(tmp_path / "d", images, monkeypatch)
    copies = [load_raw("cifar10", tmp_path / root, tmp_path / f"cache_{root}") for root in "abcd"]
    for copy in copies:
        assert copy.fingerprint == copies[0].fingerprint
        assert copy.classes == CLASSES
        np.testing.assert_array_equal(copy.train_pixels, copies[0].train_pixels)
        np.testing.assert_array_equal(copy.train_labels, copies[0].train_labels)
        np.testing.assert_array_equal(copy.test_pixels, copies[0].test_pixels)
        np.testing.assert_array_equal(copy.test_labels, copies[0].test_labels)
    sizes = " (15 + 6 of 50000 + 10000)"
    assert [copy.source.removesuffix(sizes) for copy in copies] == [
        "class folders in cifar10/",
        "class folders in cifar10.zip",
        "class folders in cifar10.zip",
        "official files in cifar-10-batches-py",
    ]


def test_every_image_is_read_once_with_its_own_label(tmp_path: Path) -> None:
    images = pictures()
    zip_of(tmp_path, images)
    raw = load_raw("cifar10", tmp_path, tmp_path / "cache")
    for split, pixels, labels in (
        ("train", raw.train_pixels, raw.train_labels),
        ("test", raw.test_pixels, raw.test_labels),
    ):
        assert pixels.dtype == np.uint8
        assert labels.dtype == np.int64
        read = sorted((CLASSES[y], x.tobytes()) for x, y in zip(pixels, labels, strict=True))
        written = sorted(
            (path.split("/")[1], image.tobytes())
            for path, image in images.items()
            if path.startswith(split)
        )
        assert read == written


@pytest.mark.parametrize("change", ["pixel", "label", "split"])
def test_the_fingerprint_depends_on_pixels_labels_and_split(tmp_path: Path, change: str) -> None:
    images = pictures()
    zip_of(tmp_path / "before", images)
    if change == "pixel":
        images["train/bear/0000.png"][3, 4, 1] ^= 1
    elif change == "label":
        images["train/crab/0009.png"] = images.pop("train/bear/0000.png")
    else:
        images["test/bear/0009.png"] = images.pop("train/bear/0000.png")
    zip_of(tmp_path / "after", images)
    before, after = (load_raw("cifar10", tmp_path / d, tmp_path / "c") for d in ("before", "after"))
    assert before.fingerprint != after.fingerprint


@pytest.mark.parametrize("packaging", ["folder", "zip"])
def test_changed_bytes_of_one_image_are_read_not_the_stale_cache(
    tmp_path: Path, packaging: str
) -> None:
    images, write = pictures(), write_folder if packaging == "folder" else zip_of
    caches = tmp_path / "cache"
    write(tmp_path, images)
    before = load_target_set("cifar10", data_root=tmp_path, cache_root=caches, zca=False)
    changed = images["test/apple/0001.png"]
    changed[0, 0, 0] ^= 255
    path = write(tmp_path, images)
    os.utime(path, (0, 0))  # a modification time from before the cache was made must not help it
    after = load_target_set("cifar10", data_root=tmp_path, cache_root=caches, zca=False)
    assert before.fingerprint != after.fingerprint
    raw = load_raw("cifar10", tmp_path, caches)
    assert any(np.array_equal(image, changed) for image in raw.test_pixels)
    assert len(list((caches / "decoded").glob("*.safetensors"))) == 2
    assert len(list((caches / "whitened").glob("*.safetensors"))) == 2


def test_a_second_load_decodes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    zip_of(tmp_path, pictures())
    first = load_raw("cifar10", tmp_path, tmp_path / "cache")
    monkeypatch.setattr(Image, "open", lambda *_: pytest.fail("decoded again"))
    assert load_raw("cifar10", tmp_path, tmp_path / "cache").fingerprint == first.fingerprint


def test_copies_are_tried_in_the_stated_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert find_source("cifar10", tmp_path) is None
    readers = []
    for write in (zip_of, write_folder):
        write(tmp_path, pictures())
        readers.append(find_source("cifar10", tmp_path))
    write_torchvision(tmp_path, pictures(), monkeypatch)
    readers.append(find_source("cifar10", tmp_path))
    assert [reader.description for reader in readers if reader] == [
        "class folders in cifar10.zip",
        "class folders in cifar10/",
        "official files in cifar-10-batches-py",
    ]


def test_cifar100_from_class_folders_is_called_resplit(tmp_path: Path) -> None:
    zip_of(tmp_path / "a", pictures(), "cifar100")
    write_folder(tmp_path / "b", pictures(), "cifar100")
    for root in "ab":
        assert "(resplit)" in load_raw("cifar100", tmp_path / root, tmp_path / "cache").source


def test_files_that_are_no_images_of_the_set_are_passed_over(tmp_path: Path) -> None:
    members = {path: encode(image) for path, image in pictures().items()}
    zip_of(tmp_path / "plain", pictures())
    extra = {"lossy.txt": b"x", "train/bear/notes.txt": b"x", "train/bear/._0000.png": b"x"}
    write_zip(tmp_path / "extra", members | extra | {"train/odd.png": b"x"})
    plain, more = (load_raw("cifar10", tmp_path / d, tmp_path / "c") for d in ("plain", "extra"))
    assert plain.fingerprint == more.fingerprint


def test_grey_files_have_one_channel_and_palette_files_three(tmp_path: Path) -> None:
    def members(mode: str) -> dict[str, bytes]:
        def converted(image: NDArray[np.uint8]) -> bytes:
            buffer = io.BytesIO()
            Image.fromarray(image).convert(mode).save(buffer, "png")
            return buffer.getvalue()

        return {path: converted(image) for path, image in pictures().items()}

    write_zip(tmp_path / "grey", members("L"))
    write_zip(tmp_path / "palette", members("P"))
    shapes = [
        load_raw("cifar10", tmp_path / root, tmp_path / "cache").train_pixels.shape
        for root in ("grey", "palette")
    ]
    assert shapes == [(15, 32, 32, 1), (15, 32, 32, 3)]


# --- errors ---


def failure(root: Path, name: str = "cifar10") -> str:
    """The message of the UserError that loading ends with: one line, and no cache left behind."""
    with pytest.raises(UserError) as caught:
        load_raw(name, root, root / "cache")
    assert not list(root.glob("cache/**/*.safetensors"))
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_an_unknown_name_is_answered_with_the_nearest_one(tmp_path: Path) -> None:
    assert "did you mean cifar10?" in failure(tmp_path, "cifra10")


def test_a_missing_data_folder_is_named_with_what_to_do(tmp_path: Path) -> None:
    message = failure(tmp_path / "nowhere")
    assert f"{tmp_path}/nowhere" in message
    assert "does not exist" in message
    assert "python -m bench.prepare dataset=cifar10" in message
    assert "BENCH_DATA_ROOT" in message


def test_a_folder_without_the_set_is_answered_with_all_that_was_looked_for(tmp_path: Path) -> None:
    message = failure(tmp_path)
    for form in ("cifar-10-batches-py/", "cifar10/{train,test}/<class>/", "cifar10.zip"):
        assert form in message
    assert f"data_root={tmp_path}" in message


def test_a_truncated_zip_is_named(tmp_path: Path) -> None:
    path = zip_of(tmp_path, pictures())
    path.write_bytes(path.read_bytes()[:-40])
    assert str(path) in failure(tmp_path)
    assert "not a complete zip" in failure(tmp_path)


def test_a_member_with_a_wrong_checksum_is_named(tmp_path: Path) -> None:
    path = zip_of(tmp_path, pictures())
    content = bytearray(path.read_bytes())
    content[content.index(b"cifar10/train/bear/0002.png") + 200] ^= 255  # inside its image data
    path.write_bytes(content)
    message = failure(tmp_path)
    assert str(path) in message
    assert "train/bear/0002.png" in message
    assert "CRC" in message


@pytest.mark.parametrize(
    "content", [b"", b"not an image", encode(pictures()["train/bear/0000.png"])[:300]]
)
@pytest.mark.parametrize("packaging", ["folder", "zip"])
def test_a_damaged_image_is_named(tmp_path: Path, packaging: str, content: bytes) -> None:
    members = {path: encode(image) for path, image in pictures().items()}
    if packaging == "zip":
        place = write_zip(tmp_path, members | {"test/crab/0001.png": content})
    else:
        place = write_folder(tmp_path, pictures())
        (place / "test/crab/0001.png").write_bytes(content)
    message = failure(tmp_path)
    assert str(place) in message
    assert "test/crab/0001.png" in message


def test_an_image_of_another_size_is_named(tmp_path: Path) -> None:
    images = pictures()
    images["train/bear/0001.png"] = images["train/bear/0001.png"][:16]
    zip_of(tmp_path, images)
    message = failure(tmp_path)
    assert "train/bear/0001.png" in message
    assert "(16, 32, 3)" in message


def test_a_sixteen_bit_image_is_refused_rather_than_clipped(tmp_path: Path) -> None:
    members = {path: encode(image) for path, image in pictures().items()}
    deep = encode(np.full((32, 32), 40_000, dtype=np.uint16))  # type: ignore[arg-type]
    write_zip(tmp_path, members | {"train/bear/0001.png": deep})
    assert "not 8-bit" in failure(tmp_path)


@pytest.mark.parametrize("missing", ["test/crab/", "test/"])
def test_classes_or_splits_without_images_are_named(tmp_path: Path, missing: str) -> None:
    zip_of(tmp_path, {p: image for p, image in pictures().items() if not p.startswith(missing)})
    message = failure(tmp_path)
    assert ("class crab" if missing == "test/crab/" else "no images in test/<class>/") in message


def test_a_zip_of_something_else_is_named(tmp_path: Path) -> None:
    zip_of(tmp_path, pictures(), "flowers").rename(tmp_path / "cifar10.zip")
    message = failure(tmp_path)
    assert "cifar10.zip has class folders in flowers/, 3 of them, not the 10 of cifar10" in message
    assert "rename their folder to cifar10/" in message


def test_damaged_torchvision_files_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_torchvision(tmp_path, pictures(), monkeypatch)
    with open(folder / "data_batch_1", "ab") as file:
        file.write(b"x")
    assert f"{folder} are damaged or incomplete" in failure(tmp_path)


def test_a_torchvision_that_cannot_be_imported_is_said_clearly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_torchvision(tmp_path, pictures(), monkeypatch)
    monkeypatch.setitem(sys.modules, "torchvision", None)
    message = failure(tmp_path)
    assert "torchvision cannot be imported" in message
    assert "installed torch" in message


def test_a_cache_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    zip_of(tmp_path, pictures())
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match="file/decoded cannot be written"):
        load_raw("cifar10", tmp_path, tmp_path / "file")


def test_a_full_disk_is_said_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_space(_: object, path: Path, **__: object) -> None:
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    zip_of(tmp_path, pictures())
    monkeypatch.setattr(cache, "save_file", no_space)
    assert "No space left on device" in failure(tmp_path)
    assert [p.suffix for p in (tmp_path / "cache" / "decoded").iterdir()] in ([], [".lock"])


def test_a_complete_cache_is_read_where_nothing_can_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    zip_of(tmp_path, pictures())
    first = load_raw("cifar10", tmp_path, tmp_path / "cache")
    for name in ("make_folder", "FileLock", "atomic_write"):
        monkeypatch.setattr(cache, name, lambda *_: pytest.fail("tried to write"))
    assert load_raw("cifar10", tmp_path, tmp_path / "cache").fingerprint == first.fingerprint


def test_simultaneous_loads_build_once_and_agree(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    zip_of(tmp_path, pictures())
    builds, start, fingerprints = [], threading.Barrier(4), []
    save = cache.save
    monkeypatch.setattr(cache, "save", lambda *args: (builds.append(1), save(*args)))

    def load() -> None:
        start.wait()
        fingerprints.append(load_raw("cifar10", tmp_path, tmp_path / "cache").fingerprint)

    threads = [threading.Thread(target=load) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(builds) == 1
    assert len(fingerprints) == 4
    assert len(set(fingerprints)) == 1


def test_what_a_killed_writer_left_is_removed_and_never_read(tmp_path: Path) -> None:
    path = tmp_path / "thing.safetensors"
    orphan = tmp_path / f".{path.name}.abc.safetensors"
    orphan.write_bytes(b"half a file")
    stored = cache.load_or_build(path, lambda: cache.Stored({"x": torch.arange(3)}, {"a": 1}))
    assert torch.equal(stored.tensors["x"], torch.arange(3))
    assert stored.facts == {"a": 1}
    assert not orphan.exists()


def test_downloading_digits_needs_nothing(tmp_path: Path) -> None:
    download("digits", tmp_path / "never_made")
    assert not (tmp_path / "never_made").exists()


def test_no_network_is_one_line_with_a_way_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def offline(*_: object, **__: object) -> None:
        raise urllib.error.URLError("Name or service not known")

    monkeypatch.setattr(urllib.request, "urlopen", offline)
    with pytest.raises(UserError, match=r"could not be downloaded.*Name or service not known.*zip"):
        download("cifar10", tmp_path)


# --- the real images ---


@pytest.fixture(scope="session")
def real_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("real_cache")


@pytest.mark.parametrize("name", choices.SHAPES)
def test_every_data_set_that_a_run_may_name_is_known_here(name: str, tmp_path: Path) -> None:
    assert (find_source(name, tmp_path) is not None) == (name == "digits")


@pytest.mark.real_data
@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_the_real_copy_lists_all_its_images(name: str) -> None:
    path = REAL_DATA / f"{name}.zip"
    if not path.is_file():
        pytest.skip(f"{path} is not there (set BENCH_DATA_ROOT)")
    reader = find_source(name, REAL_DATA)
    assert reader is not None
    assert len(reader.content_hash()) == 64
    with zipfile.ZipFile(path) as archive:
        images = [member for member in archive.namelist() if member.endswith(".webp")]
    assert len(images) == sum(DATASETS[name].sizes)


@pytest.mark.real_data
@pytest.mark.slow  # decodes 60,000 images: about 15 seconds on two cores, 180 MB of cache
def test_the_real_cifar10_is_whole_balanced_and_labelled(real_cache: Path) -> None:
    if find_source("cifar10", REAL_DATA) is None:
        pytest.skip(f"no cifar10 in {REAL_DATA} (set BENCH_DATA_ROOT)")
    raw = load_raw("cifar10", REAL_DATA, real_cache)
    assert raw.train_pixels.shape == (50_000, 32, 32, 3)
    assert np.bincount(raw.train_labels).tolist() == [5_000] * 10
    assert np.bincount(raw.train_labels[-5_000:]).tolist() == [500] * 10  # the validation part
    assert np.bincount(raw.test_labels).tolist() == [1_000] * 10
    assert raw.classes[0] == "airplane"
    assert raw.classes[9] == "truck"
    assert "of 50000" not in raw.source
    # The channel means that every CIFAR-10 recipe quotes.
    means = raw.train_pixels.mean(axis=(0, 1, 2)) / 255
    np.testing.assert_allclose(means, [0.4914, 0.4822, 0.4465], atol=2e-4)
    shutil.rmtree(real_cache)
