"""Configurations: typed, checked, and the identity of a run."""

import re
from dataclasses import asdict, fields, make_dataclass, replace
from pathlib import Path

import pytest

from bench import networks
from bench.config.command_line import help_text, parse, setting, typed
from bench.config.grid import single_run
from bench.config.identity import experiment_identity, identity, run_name, values_before
from bench.config.resolve import on_network, resolve
from bench.config.run_config import RunConfig
from bench.system.choices import ARCHITECTURES, SIZED_ARCHITECTURES, SMALLEST_SIDES
from bench.system.errors import UserError


def other_value(config: RunConfig, key: str) -> object:
    value = getattr(config, key)
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return value + 1
    if isinstance(value, str):
        return value + "x"
    if isinstance(value, list):
        return [*value, 7]
    return {**value, "extra": 1}


@pytest.mark.parametrize("key", [item.name for item in fields(RunConfig) if item.name != "scale"])
def test_every_setting_of_a_run_is_part_of_its_identity(key: str) -> None:
    config = resolve({})
    changed = replace(config, **{key: other_value(config, key)})
    assert identity(changed) != identity(config)
    assert (experiment_identity(changed) == experiment_identity(config)) == (key == "seed")


def test_the_method_s_own_defaults_are_part_of_the_identity() -> None:
    config = resolve({"method": "forward_window"})
    assert config.method_options == {"patience": 2000, "smoothing": 0.99}
    stated = resolve({"method": "forward_window", "method_options": {"patience": 2000}})
    assert identity(stated) == identity(config)


def test_the_identity_is_the_same_in_another_process_and_version_of_the_file() -> None:
    # A frozen value: when it changes, every result that users have is orphaned. Then raise
    # SCHEMA_VERSION on purpose, and this value with it.
    assert run_name(resolve({"seed": 3})) == "rat_bptt-1271733acbb4"


def test_a_scale_names_no_run() -> None:
    config = resolve({"seed": 3})
    assert identity(replace(config, scale="cpu")) == identity(config)


def test_a_setting_that_is_added_renames_no_run_where_nothing_changes() -> None:
    added = [("colored_noise", str, setting("pink", "of the noise", before="white"))]
    later = make_dataclass("Later", added, bases=(RunConfig,), frozen=True)
    config = resolve({"seed": 3})
    unchanged, changed = (later(**vars(config), colored_noise=c) for c in ("white", "pink"))
    assert identity(unchanged) == identity(config) != identity(changed)
    assert experiment_identity(unchanged) == experiment_identity(config)
    assert experiment_identity(changed) != experiment_identity(config)
    assert values_before(later) == {**values_before(), "colored_noise": "white"}


@pytest.mark.parametrize(
    ("old", "message"),
    [
        ("conditioner=none", "it is called clipping now"),
        ("clipping=ema_clip", "did you mean ema?"),
        ("full_batch=3", "it is called full_train_batch_size now"),
        ("bases=3", "it is called basis_images now"),
        ("boost_factor=1", "it is called boost_beta now"),
    ],
)
def test_an_old_name_is_refused_with_the_new_one(old: str, message: str) -> None:
    with pytest.raises(UserError, match=re.escape(message)):
        parse([old], RunConfig)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"windw_size": 3}, "did you mean window_size?"),
        ({"window_size": "long"}, "window_size=long"),
        ({"window_size": 300}, "window_size=300 is longer than unroll_length=250"),
        ({"window_size": 0}, "window_size=0 must be at least 1"),
        ({"method": "rat_btt"}, "unknown method 'rat_btt'"),
        ({"method": "dm"}, "method=dm is an objective: give objective=dm"),
        (
            {"dataset": "digits", "objective": "rfad", "objective_options": {"depth": 4}},
            "depth=4: images of 8x8 cannot be halved so often",
        ),
        ({"method": "no.such.module:Method"}, "cannot be imported"),
        ({"method_options": {"patience": 3}}, "unknown key 'method_options.patience'"),
        ({"method": "forward_window", "method_options": {"patiense": 3}}, "patience?"),
        ({"method": "forward_window", "method_options": {"patience": 0}}, "patience=0"),
        ({"dataset": "cifar"}, "did you mean cifar10?"),
        ({"ipc": 0}, "ipc=0 must be at least 1"),
        ({"width": 0}, "width=0 must be at least 1 for arch=convnet"),
        ({"arch": "wide_convnet", "depth": 0}, "depth=0 must be at least 1 for arch=wide_convnet"),
        ({"inner_lr": 0}, "inner_lr=0 must be positive"),
        ({"clip_decay": 1}, "clip_decay=1 must lie in [0, 1)"),
        ({"inner_ipc": 11}, "inner_ipc=11 is more than ipc=10"),
        ({"parameterization": "linear", "basis_images": 174}, "budget of 307200: that of ipc=10"),
        ({"parameterization": "linear", "decoded_ipc": 10**6}, "no base of 768 floats fits"),
        ({"basis_downsample": 0}, "basis_downsample=0 must be at least 1"),
        ({"parameterization": "linear", "basis_downsample": 3}, "not divide images of 32x32"),
        ({"parameterization": "linear", "image_size": 9}, "=2 does not divide images of 9x9"),
        ({"parameterization": "linear", "basis_downsample": 32}, "bases of a single pixel"),
        ({"parameterization": "linear", "init": "real"}, "init=noise"),
        ({"parameterization": "linear", "inner_ipc": 101}, "more than decoded_ipc=100"),
        ({"parameterization": "linear", "boost_block": 5}, "boost_block"),
        ({"boost_block": 3}, "ipc=10 is not a multiple of boost_block=3"),
        ({"boost_block": 20}, "ipc=10 is not a multiple of boost_block=20"),
        ({"boost_block": 1, "outer_steps": 9}, "too few for 10 blocks"),
        ({"boost_block": 5, "boost_beta": 1.5}, "boost_beta=1.5 must lie in [0, 1]"),
        ({"variance_samples": 1}, "variance_samples=1 must be at least 2"),
        ({"variance_samples": 30, "target_batch": 20}, "target_batch=20"),
        ({"evaluation_steps": []}, "evaluation_steps"),
        ({"full_train_batch_size": 0}, "full_train_batch_size=0 must be at least 1"),
        ({"full_train_steps": [3, 0]}, "full_train_steps=0 must be at least 1"),
        ({"transfer_to": ["vgg1"]}, "transfer_to=vgg1 is not one of convnet"),
        ({"transfer_to": ["vgg1"]}, "did you mean vgg11?"),
        ({"transfer_to": ["convnet"]}, "transfer_to=convnet is the same as arch"),
        ({"transfer_to": ["vgg11", "vgg11"]}, "transfer_to=vgg11 is given more than once"),
        ({"arch": "vgg11", "transfer_to": ["convnet"]}, "arch=vgg11 has none"),
        (
            {"dataset": "digits", "depth": 2, "transfer_to": ["wide_convnet", "vgg11"]},
            "transfer_to=vgg11 needs images of at least 32x32, and those of digits have 8x8",
        ),
        ({"validation_fraction": 0}, "selection=test"),
        ({"outer_steps": None}, "outer_steps=None"),
    ],
)
def test_an_impossible_setting_is_refused_in_the_user_s_words(
    settings: dict[str, object], message: str
) -> None:
    with pytest.raises(UserError) as caught:
        resolve(settings)
    assert message in str(caught.value)


def test_a_network_of_one_size_has_one_identity_whatever_a_scale_says_of_others() -> None:
    config = resolve({"arch": "resnet18", "width": 16})
    assert (config.width, config.depth) == (0, 0)
    assert identity(config) == identity(resolve({"arch": "resnet18", "depth": 5}))
    assert resolve(asdict(config)) == config  # as it is read back from a run's folder
    assert identity(config) != identity(resolve({"arch": "vgg11"}))
    assert identity(resolve({"width": 16})) != identity(resolve({}))


def test_what_is_clipped_names_no_run_without_learned_labels() -> None:
    plain = resolve({"seed": 3})
    assert plain.clipped == "all"
    assert run_name(plain) == run_name(resolve({"seed": 3, "clipped": "images"}))
    unclipped = {"learn_labels": True, "clipping": "none"}
    assert identity(resolve(unclipped)) == identity(resolve({**unclipped, "clipped": "all"}))


def test_with_learned_labels_the_images_alone_are_clipped_unless_the_setting_says_otherwise() -> (
    None
):
    learned = resolve({"learn_labels": True})
    before = resolve({"learn_labels": True, "clipped": "all"})
    assert learned.clipped == "images"
    assert identity(learned) != identity(before)
    # What a run's folder holds that was made before the setting existed.
    stated = {key: value for key, value in asdict(before).items() if key != "clipped"}
    assert identity(RunConfig(**{**values_before(), **stated})) == identity(before)


def test_biases_as_published_rename_no_run_and_left_out_ones_make_another() -> None:
    config = resolve({"seed": 3})
    assert config.conv_bias
    assert run_name(resolve({"seed": 3, "conv_bias": True})) == run_name(config)
    assert run_name(config) == "rat_bptt-1271733acbb4"  # its name before there was the setting
    stated = {key: value for key, value in asdict(config).items() if key != "conv_bias"}
    assert RunConfig(**{**values_before(), **stated}) == config  # a folder made before
    assert identity(resolve({"seed": 3, "conv_bias": False})) != identity(config)


def test_a_network_without_biases_to_leave_out_has_one_identity() -> None:
    resnet = {"arch": "resnet18", "image_size": 32}
    assert resolve({**resnet, "conv_bias": False}) == resolve(resnet)
    # The setting stays where a network that the set is tested on has biases.
    to_another = {**resnet, "conv_bias": False, "transfer_to": ["vgg11"]}
    assert not on_network(resolve(to_another), "vgg11").conv_bias
    convnet = resolve({"conv_bias": False, "transfer_to": ["resnet18", "vgg11"]})
    assert not on_network(convnet, "vgg11").conv_bias
    stated = {**asdict(convnet), "arch": "resnet18", "transfer_to": []}
    assert on_network(convnet, "resnet18") == resolve(stated)


@pytest.mark.parametrize("key", ["width", "depth"])
def test_a_size_asked_for_by_name_is_refused_where_the_network_has_none(key: str) -> None:
    with pytest.raises(
        UserError, match=f"{key}=2: arch=vgg11 has only one size; {key} is for conv"
    ):
        single_run("cpu", {"arch": "vgg11", key: 2})
    assert single_run("cpu", {"arch": "vgg11"}).depth == 0
    assert single_run("quick", {"arch": "wide_convnet", key: 2}).width > 0


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_a_network_is_refused_for_images_that_it_cannot_hold_and_for_no_larger_ones(
    arch: str,
) -> None:
    other = "wide_convnet" if arch == "convnet" else "convnet"
    base = {"dataset": "digits", "depth": 2, "arch": other}

    def builds(side: int) -> bool:
        shape = (1, side, side)
        try:
            networks.build_network(arch, image_shape=shape, classes=2, width=1, depth=2)
        except ValueError:
            return False
        return True

    def accepted(side: int) -> bool:
        try:
            resolve({**base, "image_size": side, "transfer_to": [arch]})
        except UserError:
            with pytest.raises(UserError, match=f"arch={arch}.* needs images of at least"):
                resolve({**base, "image_size": side, "arch": arch})
            return False
        resolve({**base, "image_size": side, "arch": arch})
        return True

    least = 4 if arch in SIZED_ARCHITECTURES else SMALLEST_SIDES[arch]
    for side in (least - 1, least):
        assert accepted(side) == builds(side) == (side == least)


def test_another_network_is_tested_with_the_same_settings_and_a_size_where_it_has_one() -> None:
    config = resolve({"transfer_to": ["vgg11", "wide_convnet"], "scores": True, "inner_lr": 0.5})
    wide, vgg = on_network(config, "wide_convnet"), on_network(config, "vgg11")
    assert (wide.width, wide.depth, vgg.width, vgg.depth) == (128, 3, 0, 0)
    assert replace(wide, arch="convnet") == replace(config, transfer_to=[], scores=False)
    assert vgg.inner_lr == 0.5


def test_a_user_s_own_method_is_named_by_its_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own_methods.py").write_text(
        "from methods import StatelessMethod, Window\n"
        "class First(StatelessMethod):\n"
        "    def __init__(self, unroll_length, window_size, skip=1):\n"
        "        super().__init__(unroll_length, window_size)\n"
        "    def next_window(self, step, rng):\n"
        "        return Window(0, self.window_size)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    config = resolve({"method": "own_methods:First"})
    assert config.method_options == {"skip": 1}
    assert run_name(config).startswith("First-")


def test_text_becomes_values_of_the_right_type() -> None:
    given = parse(
        ["ipc=3", "inner_lr=1e-2", "zca=false", "evaluation_steps=[1,2]", "method_options.a=b"],
        RunConfig,
    )
    config = typed(RunConfig, given)
    assert (config.ipc, config.inner_lr, config.zca) == (3, 0.01, False)
    assert config.evaluation_steps == [1, 2]
    assert config.method_options == {"a": "b"}


@pytest.mark.parametrize("argument", ["ipc", "=3", "--ipc=3", "ip=3", "evaluation_steps=[1,"])
def test_an_argument_that_is_no_setting_is_refused(argument: str) -> None:
    with pytest.raises(UserError):
        parse([argument], RunConfig)


def test_help_lists_every_key_with_its_default_and_meaning() -> None:
    text = help_text("usage", RunConfig)
    for item in fields(RunConfig):
        assert f"  {item.name}=" in text
        assert item.metadata["help"] in text


def test_where_the_variance_is_measured_to_the_end_or_never_its_end_makes_no_other_run() -> None:
    for settings in ({"variance_every": 0}, {"outer_steps": 500}, {"outer_steps": 300}):
        assert resolve({**settings, "variance_until": 500}) == resolve(settings)
    longer = {"outer_steps": 501, "variance_every": 25}
    assert identity(resolve({**longer, "variance_until": 500})) != identity(resolve(longer))
