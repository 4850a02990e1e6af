"""Encoding: scales from context rows only, by definition and against scikit-learn."""

import numpy as np
import pytest
from scipy import stats as sps
from sklearn.preprocessing import StandardScaler

from compendium.tabular.encode import SLOTS, Encoder, place


def encoder(nominal, kind="standard"):
    return Encoder(np.array(nominal, bool), kind=kind, rng=np.random.default_rng(0))


def test_standard_is_scikit_learns_within_three_deviations():
    x = np.random.default_rng(0).normal(5, 3, (50, 4))
    found = encoder([0] * 4).fit(x).transform(x)
    theirs = StandardScaler().fit_transform(x)
    inside = np.abs(theirs) < 3
    np.testing.assert_allclose(found[inside], theirs[inside], rtol=1e-5)
    far = encoder([0]).fit(x[:, :1]).transform(np.array([[5.0 + 3e6]]))
    assert 3 < far[0, 0] < 25  # logarithmic


def test_ranks_are_normal_scores():
    x = np.exp(np.random.default_rng(0).normal(size=(99, 1)))
    found = encoder([0], "ranks").fit(x).transform(x)[:, 0]
    expected = sps.norm.ppf(sps.rankdata(x[:, 0]) / 100)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    np.testing.assert_allclose(encoder([0], "ranks").fit(x).transform(np.log(x)).std(), 1, atol=0.6)
    tied = encoder([0], "ranks").fit(np.array([[0.0], [0.0], [1.0]])).transform(np.array([[0.0], [0.5], [1.0]]))[:, 0]
    assert tied[0] < tied[1] < tied[2]


@pytest.mark.parametrize("kind", ["standard", "ranks"])
def test_rows_to_predict_change_nothing(kind):
    rng = np.random.default_rng(0)
    x, new = rng.normal(size=(30, 3)), rng.normal(10, 100, size=(20, 3))
    made = encoder([0, 0, 0], kind).fit(x)
    together = made.transform(np.concatenate([x, new]))
    np.testing.assert_array_equal(together[:30], made.transform(x))
    np.testing.assert_array_equal(together[30:], made.transform(new))


def test_missing_stays_missing_and_constants_go():
    x = np.array([[1.0, 7.0, np.nan, 2.0], [np.nan, 7.0, np.nan, 4.0], [3.0, 7.0, np.nan, 6.0]])
    found = encoder([0] * 4).fit(x).transform(x)
    assert found.shape == (3, 2)
    assert np.isnan(found[1, 0])
    np.testing.assert_allclose(found[[0, 2], 0], [-1, 1])
    assert encoder([0]).fit(x[:, 2:3]).transform(x[:, 2:3]).shape == (3, 0)


def test_huge_and_tiny_values_do_not_overflow():
    x = np.array([[1e300, 1e-300], [-1e300, 2e-300], [5e299, 3e-300]])
    assert np.isfinite(encoder([0, 0]).fit(x).transform(x)).all()


def test_levels_become_columns_or_numbers():
    rng = np.random.default_rng(0)
    few = rng.integers(4, size=(200, 1)).astype(float)
    made = encoder([1]).fit(few)
    found = made.transform(few)
    assert found.shape == (200, 4)
    assert ((found > 0).sum(1) == 1).all()
    np.testing.assert_allclose(found.std(0), 1, atol=0.15)
    many = rng.integers(30, size=(200, 1)).astype(float)
    assert encoder([1]).fit(many).transform(many).shape == (200, 1)
    two = rng.integers(2, size=(200, 1)).astype(float)
    np.testing.assert_allclose(np.abs(encoder([1]).fit(two).transform(two)), 1)
    wide = rng.integers(4, size=(200, 20)).astype(float)  # 80 levels do not fit in 64 slots
    assert encoder([1] * 20).fit(wide).transform(wide).shape == (200, 20)


def test_unseen_levels_are_missing():
    made = encoder([1]).fit(np.array([[0.0], [1.0], [2.0]]))
    assert np.isnan(made.transform(np.array([[9.0], [np.nan]]))).all()


def test_places():
    z = np.random.default_rng(0).normal(size=(5, 7)).astype(np.float32)
    out = place(z, np.random.default_rng(1))
    assert out.shape == (5, SLOTS)
    assert ((out != 0).sum(1) == 7).all()
    np.testing.assert_allclose(np.sort(out[0][out[0] != 0]), np.sort(z[0]) * np.sqrt(SLOTS / 7), rtol=1e-6)
    wide = np.arange(1, 151, dtype=np.float32)[None]  # three groups
    seen = [set(np.round(place(wide, np.random.default_rng(k), part=k)[0]).astype(int)) for k in range(3)]
    assert set.union(*seen) - {0} == set(range(1, 151))
    assert place(z[:, :0], np.random.default_rng(0)).any() == 0
