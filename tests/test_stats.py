"""Intervals and paired tests take one list of values; answers are right or wrong by value, whatever their type."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats as sps

from compendium import stats

VALUES = np.random.default_rng(0).normal(2, 1, 9)
BEFORE, AFTER = np.random.default_rng(0).integers(2, size=(2, 40))
INTERVALS = (stats.t_interval, lambda v, **more: stats.bootstrap_interval(v, resamples=200, **more))


@pytest.mark.parametrize("interval", INTERVALS)
@pytest.mark.parametrize(
    "change",
    [
        list,
        pd.Series,
        lambda v: v[:, None],
        lambda v: v.astype(object),
        lambda v: pd.array(v, dtype="Float64"),
        lambda v: pd.DataFrame({"v": v}),
        lambda v: pd.Series(v, index=v),
    ],
)
def test_values_in_every_type_have_one_interval(interval, change):
    assert interval(change(VALUES)) == interval(VALUES)


@pytest.mark.parametrize("interval", INTERVALS)
@pytest.mark.parametrize(
    "bad", [VALUES.reshape(3, 3), 1.0, np.ones((2, 2, 1)), pd.DataFrame({"a": [1, 2], "b": [3, 5]})]
)
def test_tables_have_no_interval(interval, bad):
    """Nine values in three rows used to be taken for three."""
    with pytest.raises(ValueError, match="values must hold one value a row"):
        interval(bad)


@pytest.mark.parametrize("interval", INTERVALS)
@pytest.mark.parametrize("bad", [pd.to_datetime(["2020", "2021"]), pd.to_timedelta([1, 2]), VALUES + 1j, ["1", "2"]])
def test_only_numbers_have_an_interval(interval, bad):
    with pytest.raises(ValueError, match="values must be numbers"):
        interval(bad)


@pytest.mark.parametrize("interval", INTERVALS)
@pytest.mark.parametrize("bad", [[], [1.0, np.nan, 2.0], [None, 1.0], pd.array([1, pd.NA, 3], dtype="Int64")])
def test_missing_values_give_nan(interval, bad, recwarn):
    assert np.isnan(interval(bad)).all()
    assert not len(recwarn)


@pytest.mark.parametrize("interval", INTERVALS)
@pytest.mark.parametrize("level", [0, 1, 95])
def test_levels_are_shares(interval, level):
    with pytest.raises(ValueError, match="level must lie between 0 and 1"):
        interval(VALUES, level=level)


@pytest.mark.parametrize(
    "change",
    [
        lambda v: v == 1,
        lambda v: v.astype(float),
        lambda v: pd.Series(v, dtype="boolean"),
        lambda v: list(map(bool, v)),
        lambda v: v[:, None],
        lambda v: v.astype(object),
        lambda v: pd.Series(v).astype("category"),
    ],
)
def test_answers_in_every_type_are_one(change):
    assert stats.mcnemar(change(BEFORE), change(AFTER)) == stats.mcnemar(BEFORE == 1, AFTER == 1)


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=40))
def test_mcnemar_is_the_sign_test_of_the_items_that_changed(pairs):
    before, after = (np.array(of) for of in zip(*pairs, strict=True))
    lost, won = int((before & ~after).sum()), int((~before & after).sum())
    expected = sps.binomtest(lost, lost + won).pvalue if lost + won else 1.0
    assert stats.mcnemar(before.astype(int), after) == pytest.approx(expected)


@pytest.mark.parametrize(
    "change",
    [
        lambda v: np.where(v, "right", "wrong"),
        lambda v: 2 * v - 1,
        lambda v: v + 1,
        lambda v: 0.1 + 0.8 * v,
        lambda v: v.astype(str),
        lambda v: np.where(v, np.nan, 0),
        lambda v: np.where(v, True, None),
    ],
)
def test_answers_that_are_none_are_refused(change):
    """Text, any of it, used to count as right: p = 1 for every pair."""
    for pair in ((change(BEFORE), AFTER), (BEFORE, change(AFTER))):
        with pytest.raises(ValueError, match=r"True/False|missing"):
            stats.mcnemar(*pair)


def test_answers_to_other_items_are_refused():
    with pytest.raises(ValueError, match="indexed differently"):
        stats.mcnemar(pd.Series(BEFORE), pd.Series(AFTER)[::-1])
    with pytest.raises(ValueError, match="paired answers"):
        stats.mcnemar(BEFORE, AFTER[1:])
