"""The storage of images that are cut into parts (`idc`) and of bases and hallucinators (`haba`),
and their settings."""

from typing import Any

import pytest

from bench.config.grid import single_run
from bench.config.identity import images_per_class, run_name
from bench.config.resolve import resolve
from bench.config.storage_budget import nominal_budget
from bench.system.errors import UserError

IDC, HABA, LINEAR = ({"parameterization": kind} for kind in ("idc", "haba", "linear"))


def test_the_budget_counts_what_the_published_commands_of_haba_store() -> None:
    budget = nominal_budget("cifar10", 0, 10, False)
    assert budget.haba(0, 1, False) == 5568
    assert budget.haba(0, 1, True) == 5514
    for bases, ipc in ((1, 2), (10, 11), (50, 51)):  # with five hallucinators
        takes = budget.haba(bases, 5, False)
        assert takes == bases * 30720 + 27840
        assert (ipc - 1) * 30720 < takes <= ipc * 30720
        assert nominal_budget("cifar10", 0, ipc, False).haba_bases(0, 5, False) == bases


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {**HABA, "dataset": "cifar10", "ipc": 1},
            "parameterization=haba with haba_hallucinators=5 and haba_bases=1 takes 58560 floats,"
            " more than the budget of 30720: that of ipc=1 for 10 classes of images of 3072"
            " floats; beside one base per class, not one hallucinator of 5568 floats fits",
        ),
        (
            {**HABA, "dataset": "cifar10", "ipc": 1} | {"haba_single_channel": True},
            "beside one base per class, haba_hallucinators=3 fits, of 5514 floats each",
        ),
        ({**HABA, "ipc": 1}, "not one hallucinator of 92 floats fits"),
        ({**HABA, "ipc": 3, "haba_bases": 3}, "; haba_bases=2 fits"),
        ({**HABA, "ipc": 2, "haba_hallucinators": 7}, "hallucinators=6 fits"),
        ({**HABA, "ipc": 9, "image_size": 2, "depth": 1}, "have 2x2 pixels"),
        (
            {**IDC, "idc_factor": 3},
            "idc_factor=3 does not divide images of 8x8",
        ),
        ({**IDC, "idc_factor": 8}, "leaves parts of a single pixel"),
        ({**IDC, "idc_factor": 1}, "idc_factor=1 must be at least 2"),
        ({**IDC, "inner_ipc": 5}, "inner_ipc=5 is more than the 4 images per"),
        ({**IDC, "boost_block": 1}, "parameterization=idc does not learn any"),
        (
            {**HABA, "ipc": 2, "boost_block": 1},
            "parameterization=haba does not learn any",
        ),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as refusal:
        single_run("quick", settings)
    assert message in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_what_makes_no_difference_has_one_value() -> None:
    pixels = resolve({"seed": 3})
    unread = {"idc_factor": 4, "haba_hallucinators": 2, "haba_bases": 3}
    assert resolve({"seed": 3, **unread}) == pixels
    assert run_name(pixels) == "rat_bptt-1271733acbb4"  # its name before there were the settings
    assert resolve({**LINEAR, **unread}) == resolve(LINEAR)
    of_linear = {"basis_images": 4, "basis_downsample": 1, "decoded_ipc": 3}
    assert resolve({**IDC, **of_linear, "haba_bases": 1}) == resolve(IDC)
    assert resolve({**HABA, **of_linear, "idc_factor": 4}) == resolve(HABA)
    assert resolve(HABA).haba_bases == 9
    assert resolve({**HABA, "haba_bases": 9}) == resolve(HABA)
    assert resolve(vars(resolve(HABA))) == resolve(HABA)
    assert images_per_class(resolve(HABA)) == 45
    assert images_per_class(resolve({**IDC, "idc_factor": 4})) == 160
    gray = {**HABA, "dataset": "digits", "depth": 2}
    assert resolve({**gray, "haba_single_channel": True}) == resolve(gray)
    names = {run_name(resolve(each)) for each in (IDC, {**IDC, "idc_factor": 4}, HABA, LINEAR, {})}
    assert len(names) == 5
