"""The spot check: it makes drawn units again, and a number that was changed by hand is found when its unit is drawn."""

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from compendium import check, units


def squares(i):
    return {"squares": pd.DataFrame({"i": [i, i], "value": [i**2 / 7, -(i**3) / 7], "name": ["a", "b"]})}


def many(i):
    return {"many": pd.DataFrame({"value": [i + 0.5] * 40})}


@pytest.fixture
def sweep(tmp_path):
    made = units.Sweep(squares, [{"i": i} for i in range(8)], tmp_path / "out", "tests")
    units.run(made, progress=False)
    return made


def test_untouched_tables_agree(sweep):
    said = []
    assert check.check({"stage": sweep}, seed="0", minutes=1, say=said.append) == {"stage": []}
    assert len(said) == 9
    assert said[-1].startswith("48 of 48 cells of all units were made again (100.0%)")


@pytest.mark.parametrize("seed", ["0", "1", "2"])
def test_a_planted_wrong_number_is_found(sweep, seed):
    path = sweep.out / "squares.csv"
    path.write_text(path.read_text().replace("5.14286", "5.15286"))
    found = check.check({"stage": sweep}, seed=seed, minutes=1, say=lambda _: None)["stage"]
    assert found == ["unit 7, squares, row 1, value: '5.15286' is stored, '5.14286' was made"]


def test_at_least_one_unit_is_drawn_and_the_draw_follows_the_seed(sweep):
    drawn = []
    for seed in ("0", "0", "1", "2", "3"):
        said = []
        check.check({"stage": sweep}, seed=seed, minutes=0, say=said.append)
        assert len(said) == 2
        drawn.append(said[0])
    assert drawn[0].split(":")[0] == drawn[1].split(":")[0]
    assert len({line.split(":")[0] for line in drawn}) > 1


def test_rows_and_units_that_lack_are_found(sweep):
    path = sweep.out / "units.json"
    path.write_text(path.read_text().replace("[2, 4]", "[2, 3]"))
    found = check.check({"stage": sweep}, seed="0", minutes=1, say=lambda _: None)["stage"]
    assert found == ["unit 2, squares: 1 rows are stored, 2 were made"]
    more = units.Sweep(squares, [{"i": i} for i in range(9)], sweep.out, "tests")
    assert "holds other units" in check.check({"stage": more}, seed="0", minutes=1, say=lambda _: None)["stage"][0]


def test_accepting_changes_keys_and_no_row(sweep, monkeypatch):
    before = (sweep.out / "squares.csv").read_bytes()
    monkeypatch.setattr(units.dependencies, "code", lambda name: "moved")
    assert not set(units.read_rows(sweep.out)) & {sweep.key(unit) for unit in sweep.units}
    check.accept(sweep)
    assert list(units.read_rows(sweep.out)) == [sweep.key(unit) for unit in sweep.units]
    assert (sweep.out / "squares.csv").read_bytes() == before


@given(st.floats(1e-6, 1e6), st.floats(-1, 1))
def test_what_agrees(value, shift):
    text, other = f"{value:.6g}", f"{value * (1 + 1e-3 * shift):.6g}"
    assert check.agrees(text, text)
    if abs(shift) < 0.09:
        assert check.agrees(text, other)
    shown = max(check._last_digit(text), check._last_digit(other))
    if abs(float(text) - float(other)) > max(2e-4 * abs(value), 1.1 * shown, 2e-9):
        assert not check.agrees(text, other)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("", "", True),
        ("", "0", False),
        ("a", "b", False),
        ("nan", "1", False),
        ("0.502", "0.503", True),
        ("0.5", "0.6", False),
        ("0.25", "0.26", False),
        ("1", "0", False),
        ("0.502", "0.504", False),
        ("True", "False", False),
        ("1e-17", "3e-17", True),
    ],
)
def test_cells(one, other, same):
    assert check.agrees(one, other) == same


def test_every_stage_of_units_is_found():
    names = set(check.sweeps(["03-grid", "04-comparison"]))
    assert names == {"03-grid", "04-comparison"}
    with pytest.raises(ValueError, match="'04-comparisn' is no stage of units"):
        check.sweeps(["04-comparisn"])


@pytest.mark.parametrize(("wrong", "agrees"), [(1, True), (8, False)])
def test_units_of_another_processor_may_differ_in_few_cells(tmp_path, monkeypatch, wrong, agrees):
    made = units.Sweep(many, [{"i": 0}], tmp_path / "out", "tests")
    units.run(made, progress=False)
    path, said = made.out / "many.csv", []
    path.write_text(path.read_text().replace("0.5", "0.9", wrong))
    assert check.check({"stage": made}, seed="0", minutes=1, say=said.append)["stage"]  # on the same one: a mistake
    monkeypatch.setattr(units, "processor", lambda: "another")
    found = check.check({"stage": made}, seed="0", minutes=1, say=said.append)["stage"]
    assert (found == []) == agrees
    assert f"{wrong} differ (made on " in said[-2]


def test_accepting_keeps_the_processor(sweep, monkeypatch):
    before = [rows.made_on for rows in units.read_rows(sweep.out).values()]
    monkeypatch.setattr(units, "processor", lambda: "another")
    check.accept(sweep)
    assert [rows.made_on for rows in units.read_rows(sweep.out).values()] == before == [before[0]] * 8
