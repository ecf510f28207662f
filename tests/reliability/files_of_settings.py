"""Strategies for grids, scales, profiles and methods in files of a user's own, with mistakes."""

from typing import Any

import yaml
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from bench.config.grid import GRIDS, SCALES
from slurm.profile import PROFILES
from tests.reliability.strategies import BOMB, KEYS, anything, mistyped

WRITTEN = {
    kind: [path.read_text() for path in sorted(folder.glob("*.yaml"))]
    for kind, folder in (("grid", GRIDS), ("scale", SCALES), ("profile", PROFILES))
}
# As a program or a careless hand may write it.
TEXTS = [
    *("", "\n", "#", "---", "...", "- a", "a", "1", "null", "a: b: c", "a:\n\tb: 1", "a: 1\na: 2"),
    *(
        "{}",
        "[]",
        "runs:",
        "runs: []",
        "runs: [1]",
        "runs: [[]]",
        "runs: [{method: x}]",
    ),
    *(
        "? [a]\n: 1",
        "? {a: 1}\n: 1",
        "<<: 1",
        "<<: [1]",
        "<<: *x",
        "a: &a [*a]",
        "a: *b",
        "%YAML 9",
    ),
    *(
        "!!python/object/apply:os.system [id]",
        "a: !!binary x",
        "a: !x",
        "a: |\n b",
        "a: >",
        "'",
        '"\\x',
    ),
    *(BOMB, f"runs: {BOMB}", "{" * 3000, "a: " * 500, "\x00", "\x07: 1", "\ufeffa: 1", "a: \ud7ff"),
    "runs: [{method: bptt, <<: [" + ", ".join(["{a: 1}"] * 40) + "]}]",
    "a0: &a0 {k: 1}\n"
    + "\n".join(f"a{k}: &a{k} {{<<: [{', '.join([f'*a{k - 1}'] * 10)}]}}" for k in range(1, 10)),
]
ENCODINGS = ["utf-8", "utf-8", "utf-8", "utf-8-sig", "utf-16", "utf-32", "latin-1", "cp037"]


def trees(kind: str) -> SearchStrategy[Any]:
    """The content of a file of the project, with some values replaced."""
    leaves = st.one_of(anything(), st.integers(-5, 10**10), st.none(), st.booleans(), st.floats())
    nested = st.recursive(
        leaves,
        lambda inner: st.one_of(
            st.lists(inner, max_size=3), st.dictionaries(st.sampled_from(KEYS), inner, max_size=3)
        ),
        max_leaves=4,
    )
    contents = [yaml.safe_load(text) for text in WRITTEN[kind]]
    return st.sampled_from(contents).flatmap(lambda content: changed(content, nested))


@st.composite
def changed(draw: Any, content: Any, other: SearchStrategy[Any]) -> Any:
    """A copy of plain data in which something, at any depth, is another thing."""
    if not isinstance(content, dict | list) or not content or draw(st.integers(0, 3)) == 0:
        return draw(other)
    if isinstance(content, list):
        k = draw(st.integers(0, len(content) - 1))
        return [*content[:k], draw(changed(content[k], other)), *content[k + 1 :]]
    key = draw(st.sampled_from(sorted(content, key=str)))
    match draw(st.integers(0, 4)):
        case 0:  # another key
            new = draw(st.one_of(st.sampled_from(KEYS), mistyped(str(key)), anything()))
            return {new if one == key else one: value for one, value in content.items()}
        case 1:  # one more
            return {**content, draw(st.sampled_from(KEYS)): draw(other)}
        case _:
            return {**content, key: draw(changed(content[key], other))}


@st.composite
def yaml_files(draw: Any, kind: str) -> bytes:
    """A file of settings: text, or data, or a file of the project with a slip of the pen."""
    match draw(st.integers(0, 5)):
        case 0:
            text = draw(st.one_of(st.sampled_from(TEXTS), anything()))
        case 1:
            text = draw(st.sampled_from(WRITTEN[kind]))
            k = draw(st.integers(0, len(text)))
            text = text[:k] + draw(st.sampled_from([*TEXTS, ":", "\t", "[", "}", "\n"])) + text[k:]
        case _:
            text = yaml.safe_dump(draw(trees(kind)), allow_unicode=draw(st.booleans()))
    return text.encode(draw(st.sampled_from(ENCODINGS)), errors="replace")


# --- methods

HEAD = "from methods import StatelessMethod, Window\nimport random\n"
BASES = [*(["StatelessMethod"] * 5), "object", "dict", "Window", "Exception", "type"]
SHARED = "unroll_length, window_size"
CONSTRUCTORS = [
    "",
    "def __init__(self): pass",
    "def __init__(self, unroll_length, window_size, extra): pass",
    "def __init__(self, unroll_length, window_size, *rest, **more): pass",
    "def __init__(self, unroll_length, window_size): raise ValueError('a\\nb')",
    "def __init__(self, unroll_length, window_size): raise SystemExit(5)",
    "def __init__(self, unroll_length, window_size): 1 / 0",
    f"def __init__(self, {SHARED}, patience=VALUE): super().__init__({SHARED})",
    f"def __init__(self, {SHARED}, patience: KIND = VALUE): super().__init__({SHARED})",
]
DEFAULTS = [
    "1",
    "1.5",
    "None",
    "'a'",
    "True",
    "[]",
    "{}",
    "[1, 2]",
    "object()",
    "float('nan')",
    "b'x'",
    "{1: {2, 3}}",
    "10**400",
    "'\\x1b'",
    "'\\ud800'",
]
KINDS = [
    "int",
    "float",
    "str",
    "bool",
    "list[int]",
    "dict",
    "'nonsense'",
    "None",
    "int | None",
    "1 / 0",
]
NEXT_WINDOW = "def next_window(self, step, rng): return Window(0, 1)"
PARTS = [
    *(
        "label = 3",
        "label = 'a'",
        "look = 'red'",
        "options_before = 3",
        "options_before = {'patience': 1}",
    ),
    *(
        "next_window = 3",
        "observe = None",
        "state = 1",
        "1 / 0",
        "import nowhere",
        "raise SystemExit",
        "def",
    ),
    *(
        NEXT_WINDOW,
        "print('imported')",
        "x = '\\x1b[31m'",
    ),
]


@st.composite
def method_files(draw: Any) -> str:
    """A module with a class called Mine that may be no method."""
    constructor = draw(st.sampled_from(CONSTRUCTORS))
    constructor = constructor.replace("VALUE", draw(st.sampled_from(DEFAULTS))).replace(
        "KIND", draw(st.sampled_from(KINDS))
    )
    most = draw(st.sampled_from([NEXT_WINDOW, NEXT_WINDOW, ""]))
    parts = [constructor, most, *draw(st.lists(st.sampled_from(PARTS), max_size=3)), "pass"]
    body = "\n".join(f"    {part}" for part in parts if part)
    name = draw(st.sampled_from(["Mine", "Mine", "Mine", "Other"]))
    lines = [
        HEAD,
        draw(st.sampled_from(["", "", "", *PARTS])),
        f"class {name}({draw(st.sampled_from(BASES))}):",
        body,
    ]
    return "\n".join(
        [
            *lines,
            draw(st.sampled_from(["", "", "Mine = 3", "Mine = Mine()", "Mine = random.Random"])),
        ]
    )
