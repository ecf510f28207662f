"""Strategies of Hypothesis for what can be typed. They are built from the settings' own types,
ranges and choices, so a setting that is added later is tried too."""

import string
from dataclasses import Field
from typing import Any, get_args, get_origin

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from bench.config.command_line import RENAMED, keys_of
from bench.config.grid import PARTS, grid_names
from bench.config.run_config import RunConfig
from bench.config.values import LARGEST, Range
from bench.system.choices import SHAPES
from methods import METHODS
from slurm.profile import Profile
from tests.every_setting import Command

# What a person may type by mistake, or a script.
NASTY = [
    *("", " ", ".", "..", "-", ",", ":", "a:b", "/", "//", "/nonexistent", "/dev/null"),
    *("/proc/x/y", "../up", "~", "~nobody/x", "*", "???", "$HOME", "${x}", "%s", "%j", "a b"),
    *("x" * 300, "x" * 5000, "9" * 5000, "1e999", "-1e999", "0x10", "0b1", "1_000", "1,000"),
    *("nan", "NaN", "inf", "-inf", ".nan", ".inf", "null", "None", "~", "true", "True", "on", "No"),
    *("[]", "[[]]", "[", "]", "{}", "{", "{a: 1}", "{a: 1, a: 2}", "{: }", "[1, [2, [3]]]", "[,]"),
    *("&a [*a]", "[&a [1], *a]", "{<<: {a: 1}}", "!!python/object:os.system {}", "!x 1", "'", '"'),
    *(
        "[" * 400,
        "[" * 5000,
        "{a: " * 300,
        "- a\n- b",
        "a\nb",
        "a\tb",
        "a\rb",
        "\x1b[31mred",
        "\x07",
    ),
    *("é\U0001f600", "²", "٣", "\u202e", "\ufeff", "\udcff", "ſcale", "１", "½", "∞", "−1"),
    *(
        "0",
        "-0",
        "00",
        "01",
        "1.",
        ".5",
        "1e3",
        "1e-320",
        "-1",
        "1.5",
        "0.1",
        "10:30",
        "2026-01-01",
    ),
    *(
        "random:Random",
        "os:path",
        "my_methods:Mine",
        "bench.config.run_config:RunConfig",
        ":",
        "a:",
    ),
    *("mine.yaml", "site.yaml", "set.npz", ".yaml", "/dev/null.yaml", "here", "results", "x.npz"),
    *("cuda:99", "cuda:x", "cpu:99", "meta", "mps", "auto", "all", "failed,lost", "done"),
]
# One that seems to hold little and holds a thousand million times as much.
BOMB = ", ".join(
    ["a0: &a0 [x]", *(f"a{k}: &a{k} [{', '.join([f'*a{k - 1}'] * 10)}]" for k in range(1, 10))]
).join("{}")

# Typed text cannot have these: the system ends an argument at the first one.
TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=30)
ASCII = st.text(string.printable, max_size=12)
DIGITS = st.text("0123456789+-.eE_,: []", max_size=12)
WORDS = [*METHODS, *SHAPES, "quick", "cpu", "paper", *grid_names(), *RENAMED]


def anything() -> SearchStrategy[str]:
    """Any text, most of it near something valid."""
    return st.one_of(
        st.sampled_from([*NASTY, BOMB]), st.sampled_from(WORDS), ASCII, DIGITS, TEXT, numbers()
    )


def numbers() -> SearchStrategy[str]:
    whole = st.one_of(st.integers(-3, 300), st.integers(), st.sampled_from([2**31, 2**63, 10**30]))
    return st.one_of(whole.map(str), st.floats().map(repr))


def mistyped(text: str) -> SearchStrategy[str]:
    """A text with one character left out, doubled or changed, or in another case."""
    places = st.integers(0, max(0, len(text) - 1))
    return st.one_of(
        st.sampled_from([text.upper(), text.title(), f" {text}", f"{text} ", text * 2, text[:-1]]),
        places.map(lambda k: text[:k] + text[k + 1 :]),
        places.map(lambda k: text[: k + 1] + text[k:]),
        st.tuples(places, st.sampled_from("x-_.é ")).map(
            lambda pair: text[: pair[0]] + pair[1] + text[pair[0] + 1 :]
        ),
    )


def member_values(kind: Any, choices: tuple[str, ...], allowed: Range) -> SearchStrategy[str]:
    """Valid values of a setting (of a list: of a member), and some just beyond."""
    if choices:
        some = st.sampled_from(choices)
        return st.one_of(some, some, some.flatmap(mistyped))
    if kind is bool:
        return st.sampled_from(["true", "false", "True", "0", "1", "on", "off", "yes", "2"])
    if kind in (int, float):
        low = -LARGEST if allowed.minimum is None else allowed.minimum
        high = LARGEST if allowed.maximum is None else allowed.maximum
        ends = [low, low - 1, low + 1, high, high - 1, high + 1, (low + high) / 2, low + 1e-9, 0]
        small = st.integers(0, 12).map(str)
        near = st.sampled_from([str(int(end)) if end == int(end) else repr(end) for end in ends])
        return st.one_of(small, small, near, st.floats(0, 2).map(repr) if kind is float else near)
    return st.one_of(st.sampled_from(WORDS), anything())


def values(item: Field[Any]) -> SearchStrategy[str]:
    """What may be typed for a setting."""
    kind, choices, allowed = item.type, item.metadata["choices"], item.metadata["range"]
    if get_origin(kind) is list:
        one = member_values(get_args(kind)[0], choices, allowed)
        some = st.lists(one, max_size=4)
        valid = st.one_of(one, some.map(lambda each: f"[{','.join(each)}]"), some.map(",".join))
    elif get_origin(kind) is dict:
        pairs = st.lists(
            st.tuples(st.one_of(st.sampled_from(OPTIONS), ASCII), anything()), max_size=3
        )
        valid = pairs.map(lambda each: ", ".join(f"{key}: {one}" for key, one in each).join("{}"))
    else:
        valid = member_values(kind, choices, allowed)
    return st.one_of(valid, valid, valid, anything())


def assigned(item: Field[Any]) -> SearchStrategy[str]:
    """A setting with a value."""
    return values(item).filter(lambda value: "\0" not in value).map(f"{item.name}={{}}".format)


# Options of methods and of resources, for the settings that are mappings.
OPTIONS = ["patience", "rule", "first", "smoothing", "mem_gb", "time_min", "exclude", "bptt", "a.b"]


def arguments(command: Command) -> SearchStrategy[str]:
    """One argument of a command: most have a key of the command and a value of its type."""
    settings = command.settings()
    keyed = st.sampled_from(list(settings.values())).flatmap(assigned)
    keys = st.sampled_from(sorted(settings))
    wrong_key = st.one_of(keys.flatmap(mistyped), st.sampled_from(list(RENAMED)), TEXT, ASCII)
    wrong = st.tuples(wrong_key, anything()).map("=".join)
    dotted = st.tuples(keys, st.sampled_from([*OPTIONS, "", ".", "a.b.c"]), anything()).map(
        lambda parts: f"{parts[0]}.{parts[1]}={parts[2]}"
    )
    bare = st.one_of(TEXT, anything(), st.sampled_from(["--help", "-h", "--", "=", "==", "-x=1"]))
    one = st.one_of(keyed, keyed, keyed, keyed, keyed, keyed, wrong, dotted, bare)
    return one.filter(lambda text: "\0" not in text)


# Keys of all kinds of files.
KEYS = sorted({*keys_of(RunConfig, Profile), *PARTS, *OPTIONS, "scales", "quick", "<<"})
