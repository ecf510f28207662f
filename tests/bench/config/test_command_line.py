"""Settings from the command line and from YAML files: claims over all of every command."""

import re
from collections.abc import Iterator
from dataclasses import Field, asdict, fields
from pathlib import Path
from typing import Any

import pytest

from bench.config.command_line import help_text, parse, setting, typed
from bench.config.grid import expand, load_grid
from bench.config.resolve import resolve
from bench.config.run_config import RunConfig
from bench.config.values import LARGEST
from bench.system.errors import UserError
from slurm.batch_script import flags
from slurm.profile import Profile, load_profile
from tests.every_setting import Command, commands, is_list, member

COMMANDS = commands()

# What people type, mean and mistype; what YAML 1.1 and omegaconf take for something else.
AS_TYPED = [
    *("0123", "on", "no", "null", "~", "true", "1e3", "1_000", "0x10", "0o17", "1:30:00", ".inf"),
    *("2024-01-31", "???", "${HOME}", "${oc.env:HOME}", "=", "<<", "a=b", "a: b", "a #b", "5.0"),
    *("'x'", '"x"', "!x", "*x", "&x", "%x", "@x", "`x`", "{}", "{a: 1}", "[]", "[a, b]", "-", "é"),
]
NASTY = [
    *AS_TYPED,
    *(
        "",
        " ",
        "[",
        "]",
        "[[]]",
        "[a",
        "{",
        "{a",
        "[{a: 1}]",
        "[1, [2]]",
        "[null]",
        "[,]",
        ",",
        ":",
    ),
    *(
        "a:b",
        "random:Random",
        "bench.config.run_config:RunConfig",
        "os:system",
        "...:x",
        "!!python/name:os.x",
    ),
    *("/nonexistent", "/dev/null", "/proc/x/y", "..", "x" * 300, "x" * 5000, "9" * 5000, "-1", "1"),
    *("nan", "inf", "-inf", "1e999", "99999999999999999999", "٣", "²", "\udcff", "\U0001f600"),
    *("a\nb", "&a [*a]", "!!int 3", "[" * 3000, "%s", "%(x)s", "\\", "a\tb", "None", "all"),
]


def refusal(command: Command, *argv: str) -> str:
    """The line that refuses a command line."""
    with pytest.raises(UserError) as refused:
        typed_all(command, *argv)
    return str(refused.value)


def typed_all(command: Command, *argv: str) -> dict[str, Any]:
    """What a command line comes to, in the types of every schema of the command."""
    given = parse(argv, *command.schemas)
    for schema in command.schemas:
        values = {k: v for k, v in given.items() if k in {item.name for item in fields(schema)}}
        if schema is RunConfig:
            values.pop("scale", None)  # of the command's options: it may be auto there
            resolve(values)
        else:
            typed(schema, values)
    return given


def settings(*kinds: type) -> Iterator[tuple[Command, str, Field[Any]]]:
    """Every setting whose members have one of the types."""
    for command in COMMANDS:
        for key, item in command.settings().items():
            if member(item) in kinds:
                yield command, key, item


def test_the_commands_are_found() -> None:
    names = {command.name for command in COMMANDS}
    assert names == {
        *(f"bench.{name}" for name in ("sweep", "run", "status", "evaluate", "scores", "prepare")),
        *("bench.anatomy", "bench.estimate", "bench.publish", "bench.speed", "tests.slurm.lab"),
        *(f"analysis.{name}" for name in ("plot", "table", "claims", "report")),
    }


# --- numbers


def test_every_number_says_where_its_range_begins() -> None:
    without = [
        f"{command}: {key}"
        for command, key, item in settings(int, float)
        if item.metadata["range"].minimum is None
    ]
    assert without == []


def test_every_number_refuses_in_a_line_what_is_none_or_infinite_or_out_of_its_range() -> None:
    accepted, unclear = [], []
    for command, key, item in settings(int, float):
        allowed = item.metadata["range"]
        low, high = allowed.minimum, allowed.maximum or LARGEST
        wrong = ["nan", "inf", "-inf", ".nan", ".inf", "1e999", "-1e999", "9" * 5000, "x", "-", "٣"]
        wrong += ["0x10", "1_000", "0o17", "1:30", "1,5", "true", "null", "{}", "{a: 1}", "[[1]]"]
        wrong += [f"{low - 1}", f"{high * 10}"]
        wrong += [str(low)] if allowed.open_below else []
        wrong += [str(high)] if allowed.open_above else []
        wrong += ["5.0", "1e0", "0.5"] if member(item) is int else []
        wrong += (
            [f"[{value}]" for value in wrong if value != "1,5"]
            if is_list(item)
            else ["", "[1]", "[]"]
        )
        for value in wrong:
            try:
                parse([f"{key}={value}"], *command.schemas)
                accepted.append(f"{command}: {key}={value}")
            except UserError as error:
                if not str(error).startswith(f"{key}=") or len(str(error).splitlines()) > 1:
                    unclear.append(f"{command}: {key}={value}: {error}")
    assert accepted == []
    assert unclear == []


def test_every_number_takes_the_end_of_its_range_and_its_own_default() -> None:
    numbers = [(*each, each[2].metadata["range"]) for each in settings(int, float)]
    closed = [each for each in numbers if not each[3].open_below]
    single = [each for each in numbers if not is_list(each[2])]
    assert len(closed) > 50
    assert len(single) > 50
    for command, key, item, allowed in closed:
        given = parse([f"{key}={allowed.minimum}"], *command.schemas)
        assert given[key] == ([allowed.minimum] if is_list(item) else allowed.minimum)
    for command, key, item, _ in single:
        assert parse([f"{key}={item.default}"], *command.schemas)[key] == item.default


def test_whole_numbers_are_decimal_however_many_zeros_they_begin_with() -> None:
    for command, key, item in settings(int):
        number = max(10, item.metadata["range"].minimum)
        given = parse([f"{key}=0{number}"], *command.schemas)[key]
        assert given == ([number] if is_list(item) else number)
    numbered = [parse([f"seed={k:03}"], RunConfig)["seed"] for k in range(1, 101)]  # seq -w 1 100
    assert numbered == list(range(1, 101))


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("inner_lr=inf", "inner_lr=inf is not finite"),
        ("outer_lr=inf", "outer_lr=inf is not finite"),
        ("inner_weight_decay=nan", "inner_weight_decay=nan is not finite"),
        ("inner_weight_decay=-1", "inner_weight_decay=-1 must be at least 0"),
        ("inner_decay_steps=[-3]", "inner_decay_steps=-3 must be at least 1"),
        ("inner_decay_factor=nan", "inner_decay_factor=nan is not finite"),
        ("inner_classes=11", "inner_classes=11 is more than the 10 classes of cifar10"),
        ("boost_beta=1.5", "boost_beta=1.5 must lie in [0, 1]"),
        ("ipc=1e3", "ipc=1e3 is not a whole number (write 1000)"),
        ("target_batch=10000000000", "target_batch=10000000000 must be at most 1000000000"),
        ("evaluation_steps=300,600", "evaluation_steps=300,600 is not a whole number"),
    ],
)
def test_what_cannot_be_is_refused_with_the_reason(argument: str, message: str) -> None:
    (run,) = [command for command in COMMANDS if command.name == "bench.run"]
    assert refusal(run, argument).startswith(message)


# --- text


def test_every_text_is_taken_as_typed_on_the_command_line() -> None:
    free = [
        (command, key)
        for command, key, item in settings(str)
        if not item.metadata["choices"] and not is_list(item)
    ]
    assert len(free) > 20
    for command, key in free:
        for value in AS_TYPED:
            assert parse([f"{key}={value}"], *command.schemas)[key] == value


# What stands alone in YAML and is a text there, too.
PLAIN = [value for value in AS_TYPED if value[0] not in "'\"!*&%@`{[<" and value not in "-a: ba #b"]


@pytest.mark.parametrize("value", PLAIN)
def test_every_text_is_taken_as_it_stands_in_a_profile(tmp_path: Path, value: str) -> None:
    texts = [item.name for item in fields(Profile) if item.type is str]
    lists = [item.name for item in fields(Profile) if is_list(item)]
    lines = [*(f"{key}: {value}" for key in [*texts, *lists]), f"sbatch:\n  comment: {value}"]
    lines += [f"methods:\n  bptt:\n    partition: {value}"]
    (tmp_path / "site.yaml").write_text("\n".join(lines))
    profile = load_profile(str(tmp_path / "site.yaml"), {})
    assert {getattr(profile, key) for key in texts} == {value}
    assert [getattr(profile, key) for key in lists] == [[value]] * len(lists)
    assert profile.sbatch == {"comment": value}
    assert profile.methods == {"bptt": {"partition": value}}


def test_an_option_of_sbatch_is_a_text_or_said_to_be_on_or_off(tmp_path: Path) -> None:
    (tmp_path / "site.yaml").write_text("sbatch: {exclusive: true, hold: false, comment: 010}")
    profile = load_profile(str(tmp_path / "site.yaml"), parse(["sbatch.nice=on"], Profile))
    assert flags(profile) == {"exclusive": True, "comment": "010", "nice": "on"}


@pytest.mark.parametrize("text", ["sbatch: {mail-type: [FAIL, END]}", 'account: "a\\nb"'])
def test_what_no_line_of_a_batch_script_can_say_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "site.yaml").write_text(text)
    with pytest.raises(UserError, match="must be a text of one line"):
        load_profile(str(tmp_path / "site.yaml"), {})


# --- lists


def test_one_value_is_a_list_of_one_on_the_command_line_and_in_files(tmp_path: Path) -> None:
    lists = [each for each in settings(int, float, str) if is_list(each[2])]
    assert len(lists) > 5
    for command, key, item in lists:
        one = (item.metadata["choices"] or ("1",))[-1]
        bare, listed = (parse([f"{key}={v}"], *command.schemas)[key] for v in (one, f"[{one}]"))
        assert bare == listed
        assert len(bare) == 1
    (tmp_path / "mine.yaml").write_text(
        "figures: 5\n"
        "common: {transfer_to: vgg11, image_size: 32}\n"
        "scales: {quick: {evaluation_steps: 0300}}\n"
        "runs: {full_train_steps: 7, inner_decay_steps: [010, 20]}\n"
    )
    grid = load_grid(str(tmp_path / "mine.yaml"))
    (config,) = expand(grid, "quick", {}, seeds=1)
    assert grid.figures == [5]
    assert (config.transfer_to, config.evaluation_steps) == (["vgg11"], [300])
    assert (config.full_train_steps, config.inner_decay_steps) == ([7], [10, 20])


def test_an_empty_value_is_an_empty_list() -> None:
    assert parse(["transfer_to="], RunConfig) == parse(["transfer_to=[]"], RunConfig)


# --- options of a method


def test_options_of_a_method_have_the_types_of_its_constructor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "typed_method.py").write_text(
        "from methods.random_truncated import RandomTruncatedBPTT as Base\n"
        "class Typed(Base):\n"
        "    def __init__(self, unroll_length, window_size, count: int = 3, name='x', part=1,\n"
        "                 limit=float('inf'), free=None):\n"
        "        super().__init__(unroll_length, window_size)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    start = ["method=typed_method:Typed"]

    def options(*argv: str) -> dict[str, Any]:
        config = resolve(parse([*start, *argv], RunConfig))
        assert resolve(asdict(config)) == config  # as it is read back from a run's folder
        return config.method_options

    defaults = {"count": 3, "name": "x", "part": 1, "limit": float("inf"), "free": None}
    assert options() == defaults
    given = ["count=010", "name=010", "part=0.5", "limit=2", "free=010"]
    converted = options(*(f"method_options.{each}" for each in given))
    assert converted == {"count": 10, "name": "010", "part": 0.5, "limit": 2, "free": 10}
    assert options("method_options={count: 4}", "method_options.name=y")["count"] == 4
    for wrong in ("count=1.5", "count=nan", "part=nan", "limit=inf", "part=x", "other=1"):
        with pytest.raises(UserError, match=f"method_options.{wrong.partition('=')[0]}"):
            options(f"method_options.{wrong}")


def test_a_whole_number_where_any_number_may_stand_keeps_the_identity_that_it_had() -> None:
    given = ["method=early_rat_bptt", "method_options.power=2"]
    assert repr(resolve(parse(given, RunConfig)).method_options) == "{'power': 2}"


def test_a_method_in_a_package_is_named_in_full_where_it_asks_for_something_else() -> None:
    given = parse(["methods.my.own:Method.mem_gb=80", "methods.bptt.cpus=2"], Profile)
    assert given == {"methods": {"my.own:Method": {"mem_gb": "80"}, "bptt": {"cpus": "2"}}}


def test_options_of_sbatch_are_added_to_those_of_the_profile(tmp_path: Path) -> None:
    (tmp_path / "site.yaml").write_text("sbatch: {exclude: node7, comment: a}")
    given = parse(["sbatch.comment=b"], Profile)
    assert load_profile(str(tmp_path / "site.yaml"), given).sbatch == {
        "exclude": "node7",
        "comment": "b",
    }


# --- files


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("runs: [{ipc: many}]", "ipc=many is not a whole number"),
        ("runs: [{ipc: 0}]", "ipc=0 must be at least 1"),
        ("runs: [{ip: 1}]", "unknown key 'ip'"),
        ("runs: [3]", "runs=3 is not a mapping"),
        ("runs: [{scales: {quik: {ipc: 1}}}]", "unknown key 'quik'; did you mean quick?"),
        ("{runs: [{}], scales: {quick: {ipc: x}}}", "ipc=x is not a whole number"),
        ("{runs: [{}], seeds: {quick: 0}}", "seeds.quick=0 must lie in [1, 10000]"),
        ("{runs: [{}], seeds: 3}", "seeds=3 is not a mapping"),
        ("{runs: [{}], common: [1]}", "common=['1'] is not a mapping"),
        ("{runs: [{}], figures: five}", "figures=five is not a whole number"),
        ("runs: [{ipc: 1, ipc: 2}]", "ipc is given twice"),
        ("runs: [{ipc: !!int 3}]", "cannot be read"),
        ("runs: [{ipc: *a}]", "cannot be read"),
        ("runs: &a [*a]", "nested too deeply"),
        ("runs: [{? [a] : 1}]", "cannot be read"),
        ("[" * 3000, "cannot be read"),
        ("\x00", "cannot be read"),
    ],
)
def test_a_mistake_in_a_grid_is_refused_in_a_line_that_names_the_file(
    tmp_path: Path, text: str, message: str
) -> None:
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(UserError) as refused:
        load_grid(str(tmp_path / "mine.yaml"))
    assert message in str(refused.value)
    assert "mine.yaml" in str(refused.value)
    assert len(str(refused.value).splitlines()) == 1


def test_a_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_bytes(b"runs: \xff\xfe\x00")
    with pytest.raises(UserError, match="cannot be read"):
        load_grid(str(tmp_path / "mine.yaml"))


# --- nothing else than a line


SCHEMAS = {schema: command for command in COMMANDS for schema in command.schemas}


@pytest.mark.parametrize("schema", SCHEMAS, ids=lambda schema: schema.__name__)
@pytest.mark.slow
def test_no_value_of_any_setting_is_answered_by_anything_but_a_line(schema: type) -> None:
    command, wrong = SCHEMAS[schema], []
    for key in (item.name for item in fields(schema)):
        arguments = [f"{key}={value}" for value in NASTY]
        arguments += [f"{key}.part={value}" for value in ("1", "x", "{}", "[")]
        arguments += [f"{key}.a.b.c=1", f"{key}.=1", f"{key}..=1", key, f"{key}[0]=1", f"{key}+=1"]
        for argument in arguments:
            try:
                typed_all(command, argument)
            except UserError as error:
                if len(str(error)) > 1200:
                    wrong.append(f"{argument[:99]}: {len(str(error))} characters")
            except Exception as error:
                wrong.append(f"{argument[:99]}: {type(error).__name__}: {error}"[:300])
    assert wrong == []


def test_help_tells_the_range_of_every_number() -> None:
    for command, key, item in settings(int, float):
        text = help_text("usage", *command.schemas)
        (line,) = [line for line in text.splitlines() if line.startswith(f"  {key}=")][:1]
        assert line.endswith(f"({item.metadata['range']})")


def test_help_lists_a_setting_once() -> None:
    for command in SCHEMAS.values():
        keys = re.findall(r"^  ([a-z_]+)=", help_text("usage", *command.schemas), re.MULTILINE)
        assert len(keys) == len(set(keys)) > 0


def test_a_setting_may_state_both_ends() -> None:
    assert str(setting(0.5, "", above=0, below=1).metadata["range"]) == "in (0, 1)"
