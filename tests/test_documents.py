"""What the documents say can be typed, opened and found."""

import re
import shlex
from pathlib import Path

import pytest

from bench.config.command_line import RENAMED, parse
from tests.conftest import REPOSITORY
from tests.every_setting import commands

FOLDERS = ("methods", "bench", "slurm", "analysis", "results")
DOCUMENTS = sorted(
    path
    for pattern in ("*.md", *(f"{folder}/**/*.md" for folder in FOLDERS))
    for path in REPOSITORY.glob(pattern)
)
LINK = re.compile(r"\]\(([^)\s]+)\)|src=\"([^\"]+)\"")
TYPED = re.compile(r"python -m ((?:bench|analysis|tests|slurm)\.\w+[^\n`#;|&)]*)")
PATH = re.compile(r"`((?:bench|methods|analysis|slurm|tests|results)/[\w./]*)`")

each_document = pytest.mark.parametrize(
    "document", DOCUMENTS, ids=lambda path: str(path.relative_to(REPOSITORY))
)


def anchors(document: Path) -> set[str]:
    """The anchors that GitHub gives to the headings of a document."""
    headings = re.findall(r"^#+ (.+)$", document.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-") for text in headings}


@each_document
def test_every_link_leads_somewhere(document: Path) -> None:
    for link in (first or second for first, second in LINK.findall(document.read_text())):
        if link.startswith("https://"):
            continue
        name, _, anchor = link.partition("#")
        target = document.parent / name if name else document
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


@each_document
def test_every_file_that_a_document_names_exists(document: Path) -> None:
    for name in PATH.findall(document.read_text()):
        made_by_runs = name.startswith("results/") and not name.startswith("results/published")
        if not made_by_runs and "NAME" not in name:
            assert (REPOSITORY / name).exists(), name


@each_document
def test_every_command_that_a_document_names_has_these_settings(document: Path) -> None:
    known = {command.name: command for command in commands()}
    text = re.sub(r'"\$\(.*?\)"', "OUTPUT", document.read_text().replace("\\\n", ""))
    for typed in TYPED.findall(text):
        name, *arguments = shlex.split(re.sub(r"\[\w+=\.\.\.\]|\.\.\.", "", typed))
        if name in known:
            settings = [argument for argument in arguments if "=" in argument]
            placeholders = [each for each in settings if each.partition("=")[2].isupper()]
            assert {each.partition("=")[0] for each in placeholders} <= known[
                name
            ].settings().keys()
            parse([each for each in settings if each not in placeholders], *known[name].schemas)


def test_the_readme_is_one_page() -> None:
    assert len((REPOSITORY / "README.md").read_text().splitlines()) <= 150


def test_the_readme_quotes_what_make_types() -> None:
    readme, makefile = ((REPOSITORY / name).read_text() for name in ("README.md", "Makefile"))
    recipes = re.findall(r"^(?:demo|test): setup\n((?:\t.*\n)+)", makefile, re.MULTILINE)
    lines = [line.strip() for recipe in recipes for line in recipe.splitlines()]
    assert len(lines) == 3
    for line in lines:
        assert line.replace("$(BIN)", ".venv/bin").replace("$(WORKERS)", "3") in readme


def test_the_reading_order_is_short_and_numbered() -> None:
    order = (REPOSITORY / "CONTRIBUTING.md").read_text().partition("## Reading order")[2]
    stops = re.findall(r"^(\d+)\. (?:\*\*)?`([\w/.]+)`", order, re.MULTILINE)
    assert [int(number) for number, _ in stops] == list(range(1, len(stops) + 1))
    assert 20 <= len({path for _, path in stops}) == len(stops) <= 40


def test_the_changelog_has_every_renamed_setting() -> None:
    changelog = (REPOSITORY / "CHANGELOG.md").read_text()
    rows = re.findall(r"^ *\| `([^`]+)` \| `([^`]+)` \|", changelog, re.MULTILINE)
    words = {(old, new) for row in rows for old, new in zip(*map(_words, row), strict=True)}
    assert RENAMED.items() <= words


def _words(setting: str) -> list[str]:
    return re.findall(r"\w+", setting)
