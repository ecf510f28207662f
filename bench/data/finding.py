"""Find a copy of a data set, and recognize its form.

Searched are folders and archives in the data root that have one of the set's names, the same within
such a folder (unpacking often nests folders), and the data root itself. A form is recognized by its
content: the files of the authors' packaging, or class folders.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from bench.data.archives import ENDINGS, Files, FolderFiles, TarFiles, ZipFiles
from bench.data.class_folders import IMAGE_SUFFIXES, SPLITS
from bench.data.readers import Reader
from bench.system.errors import UserError

# The end of an image's path in class folders; before it comes the folder of the data set.
IN_CLASS_FOLDER = re.compile(
    rf"(?:{'|'.join(SPLITS)})/[^/]+/[^/]+(?i:{'|'.join(map(re.escape, IMAGE_SUFFIXES))})"
)


@dataclass(frozen=True)
class Packaging:
    """A form in which the authors of a data set publish it.

    Attributes:
        folder: its name.
        markers: files below that folder; it has at least one of them.
        reader: of its files.
        images: a folder that identifies it as well, if its name matches.
    """

    folder: str
    markers: tuple[str, ...]
    reader: Callable[[Files], Reader]
    images: str = ""


@dataclass(frozen=True)
class Wanted:
    """The data set to find.

    Attributes:
        name: of the data set, for messages.
        names: of folders and archives that may hold it, preferred ones first.
        packaging: its authors' form, if there is one.
        class_folders: the reader of images in class folders.
        classes: their number.
    """

    name: str
    names: tuple[str, ...]
    packaging: Packaging | None
    class_folders: Callable[[Files], Reader]
    classes: int


def plain(name: str) -> str:
    """A name in lower case without punctuation: `CIFAR-10` and `cifar10` are the same."""
    return re.sub(r"[^a-z0-9]", "", name.lower())


def stem(path: Path) -> str:
    """The name of a folder, or of an archive without its ending."""
    name = path.resolve().name
    ending = next((e for e in reversed(ENDINGS) if name.lower().endswith(e)), "")
    return name[: len(name) - len(ending)]


def find(data_root: Path, wanted: Wanted) -> Reader | None:
    """The first copy: folders before archives, the authors' form before others; None if none.

    Raises:
        UserError: a file with the name of the data set is damaged or holds something else.
    """
    if data_root.is_file():
        return in_archive(data_root, wanted)
    named = named_entries(data_root, wanted)
    within = [part for each in named if each.is_dir() for part in named_entries(each, wanted)]
    entries = [*named, *within]
    folders = [entry for entry in entries if entry.is_dir()]
    for form in (packaging_in, class_folders_in):
        for folder in [*folders, data_root]:
            if reader := form(folder, wanted, folder in folders):
                return reader
    readers = (in_archive(entry, wanted) for entry in entries if entry.is_file())
    return next((reader for reader in readers if reader), None)


def named_entries(folder: Path, wanted: Wanted) -> list[Path]:
    """The folders and archives in a folder that have one of the names, in the order of these."""
    ranks = {plain(name): rank for rank, name in reversed(list(enumerate(wanted.names)))}
    try:
        entries = sorted(folder.iterdir())
    except OSError:
        return []
    usable = [e for e in entries if e.is_dir() or e.name.lower().endswith(ENDINGS)]
    named = [entry for entry in usable if plain(stem(entry)) in ranks]
    return sorted(named, key=lambda entry: ranks[plain(stem(entry))])


def packaging_in(folder: Path, wanted: Wanted, named: bool) -> Reader | None:
    """The authors' form, unpacked."""
    form = wanted.packaging
    if form is None:
        return None
    marked = any((folder / marker).is_file() for marker in form.markers)
    if not (marked or (named and form.images and (folder / form.images).is_dir())):
        return None
    return form.reader(FolderFiles(folder.resolve()))


def class_folders_in(folder: Path, wanted: Wanted, named: bool) -> Reader | None:
    """Class folders, unpacked. A folder with another name must have the right number of classes."""
    splits = [folder / split for split in SPLITS if (folder / split).is_dir()]
    if not splits:
        return None
    classes = [entry for entry in splits[0].iterdir() if entry.is_dir()]
    if not (
        named or contains_name(folder.resolve().name, wanted) or len(classes) == wanted.classes
    ):
        return None
    return wanted.class_folders(FolderFiles(folder.resolve()))


def contains_name(name: str, wanted: Wanted) -> bool:
    """Whether this name contains one of the set's: `CIFAR-10-images-master`, not `cifar100`."""
    return any(re.search(rf"{plain(known)}(?![0-9])", plain(name)) for known in wanted.names)


def in_archive(path: Path, wanted: Wanted) -> Reader | None:
    """The copy in an archive; None if the file is not an archive.

    Raises:
        UserError: it is damaged, or holds something else.
    """
    if not path.name.lower().endswith(ENDINGS):
        return None
    archive = ZipFiles(path) if path.name.lower().endswith(".zip") else TarFiles(path)
    classes: dict[str, set[str]] = {}  # by the folder of the set
    for name in archive.names():
        if (prefix := prefix_of_packaging(name, wanted.packaging)) is not None:
            assert wanted.packaging is not None
            return wanted.packaging.reader(archive.below(prefix))
        *above, split, class_name, file = ["", "", "", *name.split("/")]
        if IN_CLASS_FOLDER.fullmatch("/".join((split, class_name, file))):
            prefix = "".join(f"{part}/" for part in above if part)
            classes.setdefault(prefix, set()).add(class_name)
    for prefix in sorted(classes, key=lambda prefix: (prefix.count("/"), prefix)):
        named = contains_name(prefix, wanted) or (not prefix and contains_name(stem(path), wanted))
        if named or len(classes[prefix]) == wanted.classes:
            return wanted.class_folders(archive.below(prefix))
    if classes:
        prefix, names = next(iter(classes.items()))
        raise UserError(
            f"{path} has class folders in {prefix or 'its top folder'}, {len(names)} of them, not"
            f" the {wanted.classes} of {wanted.name}; if it is a part of {wanted.name}, rename"
            f" their folder to {wanted.name}/"
        )
    forms = ["train/<class>/", *([wanted.packaging.folder + "/"] if wanted.packaging else [])]
    raise UserError(f"{path}: there are no images in {' nor in '.join(forms)}")


def prefix_of_packaging(name: str, form: Packaging | None) -> str | None:
    """The folder of the authors' form within an archive, by the name of one of its files."""
    if form is None:
        return None
    for marker in form.markers:
        if name == marker or name.endswith(f"/{marker}"):
            return name.removesuffix(marker)
    parts = PurePosixPath(name).parts[:-1]
    for depth, part in enumerate(parts):
        if plain(part) == plain(form.folder) and plain(form.folder) not in map(
            plain, parts[depth + 1 : depth + 2]
        ):
            return "".join(f"{above}/" for above in parts[: depth + 1])
    return None


def similar_names(data_root: Path, wanted: Wanted) -> list[str]:
    """Entries of the data root with a similar name, in a form that is not supported."""
    entries = sorted(data_root.iterdir()) if data_root.is_dir() else []
    return [entry.name for entry in entries if contains_name(entry.name, wanted)]
