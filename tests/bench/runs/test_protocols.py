"""Evaluations by the protocol of others."""

import json
from pathlib import Path

import pytest

from bench.config.grid import single_run
from bench.config.protocol import PROTOCOLS, ProtocolOptions
from bench.system.errors import UserError
from tests.conftest import Command

FEW = ["evaluation_networks=1", "evaluation_steps=[3]"]


@pytest.mark.parametrize("name", [path.stem for path in PROTOCOLS.glob("*.yaml")])
@pytest.mark.parametrize("scale", ["quick", "cpu", "paper"])
def test_a_protocol_holds_for_every_scale_and_says_all_of_the_training(
    name: str, scale: str
) -> None:
    settings = ProtocolOptions(name).settings()
    config = single_run(scale, settings)
    assert {key: getattr(config, key) for key in settings} == settings
    assert {"inner_optimizer", "inner_lr", "evaluation_steps", "augment_evaluation"} <= set(
        settings
    )


def test_dc_trains_152_epochs_of_301_at_the_first_learning_rate() -> None:
    """In the published code: `for ep in range(Epoch + 1)` with Epoch 300, where the learning rate
    falls after the training of epoch `Epoch // 2 + 1`."""
    settings = ProtocolOptions("dc").settings()
    falls_after = 300 // 2 + 1
    assert settings["inner_decay_steps"] == [len(range(falls_after + 1))]
    assert settings["evaluation_steps"] == [len(range(300 + 1))]


def test_the_protocol_is_printed_and_stored_with_the_result(
    command: Command, tiny_evaluation: list[str], tmp_path: Path
) -> None:
    done = command("bench.evaluate", "distilled=real_images", "protocol=dc", *tiny_evaluation, *FEW)
    assert done.returncode == 0, done.stderr
    words = "sgd, lr 0.01, momentum 0.9, weight decay 0.0005, times 0.1 at steps 152"
    told = "(protocol dc, but evaluation_steps=[3])"
    assert f"training: {words}, augmentation none {told}" in done.stdout
    (path,) = (tmp_path / "results" / "evaluations").iterdir()
    record = json.loads(path.read_text())
    assert record["protocol"] == "protocol dc, but evaluation_steps=[3]"
    assert record["config"]["inner_momentum"] == 0.9
    assert record["config"]["zca"] is False


def test_a_set_of_ours_keeps_its_whitening(
    command: Command, tiny: list[str], tmp_path: Path
) -> None:
    assert command("bench.run", *tiny).returncode == 0
    (run,) = (tmp_path / "results" / "runs").iterdir()
    for name in ("evaluate", "scores"):
        done = command(f"bench.{name}", f"distilled={run}", "protocol=dsa", *FEW)
        assert done.returncode == 0, done.stderr
        assert (
            "augmentation dsa_each_no_flip (protocol dsa, but evaluation_steps=[3])" in done.stdout
        )


@pytest.mark.parametrize("name", [path.stem for path in PROTOCOLS.glob("*.yaml")])
def test_batches_hold_all_images_of_any_run(
    name: str, command: Command, tiny: list[str], tmp_path: Path
) -> None:
    assert command("bench.run", *tiny, "ipc=2", "inner_ipc=1", "inner_classes=5").returncode == 0
    (run,) = (tmp_path / "results" / "runs").iterdir()
    done = command("bench.evaluate", f"distilled={run}", f"protocol={name}", *FEW)
    assert done.returncode == 0, done.stderr
    assert f"(protocol {name}, but evaluation_steps=[3])" in done.stdout
    (path,) = (tmp_path / "results" / "evaluations").iterdir()
    config = json.loads(path.read_text())["config"]
    assert (config["inner_ipc"], config["inner_classes"]) == (0, 0)


def test_more_images_than_the_authors_have_in_a_batch_are_noted(
    command: Command, tiny_evaluation: list[str], tmp_path: Path
) -> None:
    words = ["distilled=real_images", "protocol=dc", *tiny_evaluation, *FEW]
    done = command("bench.evaluate", *words, "ipc=26")
    assert done.returncode == 0, done.stderr
    note = (
        "the authors of protocol=dc train on 260 images in 2 batches an epoch, here an epoch is"
        " one step on all of them: 2 times fewer updates"
    )
    assert f"note: {note}" in done.stdout
    (path,) = (tmp_path / "results" / "evaluations").iterdir()
    assert json.loads(path.read_text())["notes"] == [note]
    assert ProtocolOptions("dc").notes(256) == ()
    assert ProtocolOptions("").notes(1000) == ()


def test_digits_are_not_mirrored_and_other_images_are() -> None:
    options = ProtocolOptions("mtt")
    assert options.settings("digits")["augment_evaluation"] == "dsa_each_no_flip"
    assert options.settings("cifar10")["augment_evaluation"] == "dsa_each"
    assert ProtocolOptions("dc").settings("digits")["augment_evaluation"] == "none"


def test_a_protocol_of_the_user(tmp_path: Path) -> None:
    path = tmp_path / "ours.yaml"
    path.write_text("inner_lr: 0.5\nevaluation_steps: [7]\n")
    options = ProtocolOptions(str(path))
    assert options.settings() == {"inner_lr": 0.5, "evaluation_steps": [7]}
    assert options.text({"inner_lr": 0.5}) == f"protocol {path}"
    path.write_text("inner_lrr: 0.5\n")
    with pytest.raises(UserError, match="inner_lr"):
        options.settings()


def test_an_unknown_protocol_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(UserError, match="there is no protocol 'dm'; known: dc, dsa"):
        ProtocolOptions("dm").settings()
