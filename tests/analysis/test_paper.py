"""The paper's numbers: that none is left out or invented."""

from statistics import fmean

import pytest

from analysis.paper import ABSENT, content, number, paper_table

METHODS = [
    *("BPTT", "KIP", "RFAD", "FRePO (wide)", "FRePO", "RCIG (wide)", "RCIG", "DSA", "DM", "MTT"),
    *("FTD", "RaT-BPTT", "RaT-BPTT, transfer to wide"),
]
COLUMNS = [
    *(("cifar10", ipc) for ipc in (1, 10, 50)),
    *(("cifar100", ipc) for ipc in (1, 10, 50)),
    *(("cub200", ipc) for ipc in (1, 10)),
    *(("tiny_imagenet", ipc) for ipc in (1, 10)),
    ("average",),
]


def test_table_1_has_each_method_dataset_and_ipc_as_a_number_or_as_not_reported() -> None:
    rows = paper_table("table1").rows
    assert [row.method for row in rows] == METHODS
    for row in rows:
        assert list(row.numbers) == COLUMNS
        values = row.numbers.values()
        assert {value.absent for value in values if value.mean is None} <= {"not reported"}
        known = [value for value in values if value.mean is not None]
        assert all(0 < (value.mean or 0) < 100 and value.std is not None for value in known)
    absent = sum(value.mean is None for row in rows for value in row.numbers.values())
    assert absent == 33  # the dashes of the table, counted in the text


def test_the_averages_of_table_1_are_those_of_its_columns() -> None:
    # A slip of the pen in any full row shows here; the paper itself rounds by up to 0.12.
    full = [row for row in paper_table("table1").rows if row.numbers[("average",)].mean is not None]
    assert len(full) == 6
    for row in full:
        means = [value.mean or 0.0 for value in row.numbers.values()]
        assert fmean(means[:-1]) == pytest.approx(means[-1], abs=0.13), row.method


def test_the_other_tables_are_complete() -> None:
    sizes = {
        name: sum(len(row.numbers) for row in paper_table(name).rows)
        for name in ("table2", "parameterization", "inner_optimizer", "efficiency")
    }
    assert sizes == {"table2": 6, "parameterization": 10, "inner_optimizer": 2, "efficiency": 6}
    for name in sizes:
        for row in paper_table(name).rows:
            assert all(value.mean is not None for value in row.numbers.values())


def test_no_reading_of_a_figure_is_invented() -> None:
    for entry in content()["figures"]:
        assert ("source" in entry and "medians" in entry) != (entry.get("reading") == "unreadable")


@pytest.mark.parametrize("text", ["", "-", "49.1±", "about 49", "±0.6"])
def test_what_is_neither_a_number_nor_said_to_be_absent_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="neither"):
        number(text)


def test_numbers_are_read_with_their_spread() -> None:
    assert (number("49.1±0.6").mean, number("49.1±0.6").std) == (49.1, 0.6)
    assert str(number("49.1±0.6")) == "49.1 ± 0.6"
    assert (number(22).mean, number(22).std) == (22.0, None)
    for text in ABSENT:
        assert (number(text).mean, str(number(text))) == (None, text)
