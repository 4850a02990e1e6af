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


def test_estimates_are_their_intervals():
    values = [0.2, 0.4, np.nan, 0.9]
    found = stats.mean(values, "seeds")
    assert found[:3] == pytest.approx((0.5, *stats.t_interval([0.2, 0.4, 0.9])))
    assert found[3:] == (3, "seeds")
    assert stats.mean_share([0.9, 1.0, 1.0, 0.95], "seeds").high == 1.0
    assert stats.mean_share([-0.9, -1.0, -1.0], "seeds").low == -1.0
    assert stats.resampled_mean(values, "facts")[1:3] == stats.bootstrap_interval([0.2, 0.4, 0.9])
    assert stats.share(7, 10, "facts")[:3] == pytest.approx((0.7, 0.396775, 0.892209), abs=1e-5)
    assert np.isnan(stats.mean([], "seeds").value)


def test_shares_have_wilsons_or_the_exact_interval():
    assert stats.share_interval(8, 10) == pytest.approx((0.490162, 0.943318), abs=1e-5)
    assert stats.share_interval(7, 7, exact=True) == pytest.approx((0.025 ** (1 / 7), 1.0))
    assert np.isnan(stats.share_interval(0, 0)).all()
    for wrong in ((0.7, 10), (11, 10), (-1, 3)):
        with pytest.raises(ValueError, match="numbers of hits"):
            stats.share_interval(*wrong)


ENDS = st.floats(-1, 1)


@given(ENDS, ENDS, ENDS, st.integers(1, 12))
def test_a_verdict_follows_from_interval_bar_and_side(a, b, bar, n):
    low, high = sorted((a, b))
    one = stats.Estimate((low + high) / 2, low, high, n, "seeds")
    above, below = stats.verdict(one, bar), stats.verdict(one, bar, stats.BELOW)
    if n < stats.LEAST:
        assert above == below == stats.UNTESTABLE
    elif low <= bar <= high:
        assert above == below == stats.UNDECIDED
    else:
        assert {above, below} == {stats.SUPPORTED, stats.CONTRADICTED}
        assert (above == stats.SUPPORTED) == (low > bar)
    mirrored = stats.Estimate(-one.value, -high, -low, n, "seeds")
    assert stats.verdict(mirrored, -bar, stats.BELOW) == above


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(-0.05, 0.05, "supported"), (-0.2, 0.05, "undecided"), (0.11, 0.2, "contradicted"), (-0.2, 0.2, "undecided")],
)
def test_an_equivalence_has_two_bars(low, high, expected):
    one = stats.Estimate(0.0, low, high, 9, "seeds")
    assert stats.verdict(one, (-0.1, 0.1), stats.WITHIN) == expected


@pytest.mark.parametrize(("bar", "side"), [(0.0, "over"), ((0, 1), "above"), (0.0, "within"), ((1, 0), "within")])
def test_bars_fit_their_side(bar, side):
    with pytest.raises(ValueError, match=r"side is|bar is"):
        stats.verdict(stats.Estimate(0, -1, 1, 9, "seeds"), bar, side)


def test_power_is_that_of_the_one_sided_t_test():
    values = np.random.default_rng(3).normal(0.2, 1, 12)
    spread = values.std(ddof=1)
    one = stats.mean(values, "seeds")
    # noncentral t: the interval's lower end is above 0 when the t statistic passes its 97.5 % point
    exact = sps.nct.sf(sps.t.ppf(0.975, 11), 11, 0.8 / spread * np.sqrt(12))
    assert stats.power(one, 0.8) == pytest.approx(exact, abs=0.03)
    assert stats.power(one, 0.8) == stats.power(one, 0.8)
    assert np.isnan(stats.power(one._replace(low=None), 0.8))
