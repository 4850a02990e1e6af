"""Tree SHAP by ranks: Shapley values by enumeration and by kernel SHAP, where single precision would go astray."""

from itertools import combinations
from math import factorial

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import ensemble, tree
from sklearn.datasets import load_diabetes, load_iris
from sklearn.linear_model import LogisticRegression

from compendium import models
from compendium.xai import explain, trees

models.set_threads(1)
X, Y = load_diabetes(return_X_y=True)
ROWS, BACKGROUND = X[:4], X[100:106]
REGRESSORS = (
    tree.DecisionTreeRegressor(random_state=0),
    ensemble.RandomForestRegressor(20, random_state=0),
    ensemble.ExtraTreesRegressor(20, random_state=0),
    ensemble.GradientBoostingRegressor(n_estimators=20),
    ensemble.GradientBoostingRegressor(n_estimators=20, loss="huber"),
    ensemble.HistGradientBoostingRegressor(max_iter=20),
)
CLASSIFIERS = (
    tree.DecisionTreeClassifier(random_state=0),
    ensemble.RandomForestClassifier(20, random_state=0),
    ensemble.ExtraTreesClassifier(20, random_state=0),
    ensemble.GradientBoostingClassifier(n_estimators=8),
    ensemble.GradientBoostingClassifier(n_estimators=8, init="zero"),
    ensemble.HistGradientBoostingClassifier(max_iter=8),
)
named = lambda model: type(model).__name__


def brute(predict, x, target, background):
    d, value = len(x), {}
    subsets = [kept for size in range(d + 1) for kept in combinations(range(d), size)]
    mixed = np.repeat(background[None], len(subsets), 0)
    for i, kept in enumerate(subsets):
        mixed[i][:, list(kept)] = x[list(kept)]
    p = predict(mixed.reshape(-1, d))[:, target].reshape(len(subsets), -1).mean(1)
    value = dict(zip(subsets, p, strict=True))
    phi = np.zeros(d)
    for kept in subsets:
        for j in set(range(d)) - set(kept):
            weight = factorial(len(kept)) * factorial(d - len(kept) - 1) / factorial(d)
            phi[j] += weight * (value[tuple(sorted((*kept, j)))] - value[kept])
    return phi


@pytest.mark.parametrize("model", REGRESSORS, ids=named)
def test_regression_on_the_diabetes_data(model):
    """Sums were missed by up to 2.2 of 346 here."""
    model.fit(X[50:], Y[50:])
    predict = explain.predictor(model)
    A = explain.shap_values(model, ROWS, 0, background=X[50:])
    rows = explain.background_rows(X[50:], ROWS, explain.MOST_BACKGROUND, 0)
    np.testing.assert_allclose(A.sum(1), predict(ROWS)[:, 0] - predict(rows).mean(), atol=2e-5)
    exact = [brute(predict, x, 0, BACKGROUND) for x in ROWS[:1]]
    np.testing.assert_allclose(explain.tree_shap(model, ROWS[:1], 0, background=BACKGROUND), exact, atol=1e-5)


@pytest.mark.parametrize("model", CLASSIFIERS, ids=named)
@pytest.mark.parametrize("classes", [2, 3])
def test_classification_of_flowers(model, classes):
    x, y = load_iris(return_X_y=True)
    y = np.minimum(y, classes - 1)
    model.fit(x, y)
    asked = 0
    for output in explain.OUTPUTS:
        if not explain.able("tree shap", model, output):
            continue
        asked += 1
        predict = explain.predictor(model, output)
        rows, few, t = x[::30], x[[3, 70, 120]], np.array([0, 1, classes - 1])
        A = explain.tree_shap(model, few, t, background=rows, output=output)
        if trees.is_boosted(model) and output == "probability":  # stretched raw scores: complete
            gap = A.sum(1) - predict(few)[range(3), t] + predict(rows).mean(0)[t]
            np.testing.assert_allclose(gap, 0, atol=1e-6)
        else:
            np.testing.assert_allclose(A, [brute(predict, *of, rows) for of in zip(few, t, strict=True)], atol=1e-6)
    assert asked == (2 if trees.is_boosted(model) and classes == 2 else 1)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.integers(-8, 8), st.integers(0, 12), st.sampled_from([0, 1, 3, 5]))
def test_values_on_and_beside_thresholds(seed, scale, closeness, which):
    """Few different values, from far apart to closer than single precision tells: thresholds are among and beside them."""
    rng = np.random.default_rng(seed)
    x = (1 + rng.integers(0, 5, (40, 3)) * 10.0**-closeness) * 10.0**scale
    model = type(REGRESSORS[which])(**{"min_samples_leaf": 2} if which == 5 else {"max_depth": 4})
    if which != 0:
        model.set_params(**{"max_iter" if which == 5 else "n_estimators": 3})
    model.fit(x, rng.normal(size=40))
    predict, rows = explain.predictor(model), x[:4]
    asked = np.concatenate([x[4:6], x[6:7] * (1 + 1e-13), x[7:8] * (1 - 1e-13)])
    found = explain.tree_shap(model, asked, 0, background=rows)
    np.testing.assert_allclose(found, [brute(predict, q, 0, rows) for q in asked], atol=1e-6)


def test_what_trees_cannot_give_goes_to_kernel_shap():
    y = Y > 140
    beyond = (
        ensemble.GradientBoostingClassifier(n_estimators=3, init=LogisticRegression()).fit(X[:, :4], y),
        ensemble.GradientBoostingClassifier(n_estimators=3, loss="exponential").fit(X[:, :4], y),
        ensemble.HistGradientBoostingRegressor(max_iter=3, loss="poisson").fit(X[:, :4], Y),
    )
    for model in beyond:
        assert not explain.able("tree shap", model, "logit")
        few, rows, predict = X[:2, :4], X[50:56, :4], explain.predictor(model, "logit")
        t = predict(few).shape[1] - 1
        A = explain.shap_values(model, few, t, background=rows, output="logit")
        np.testing.assert_allclose(A, [brute(predict, x, t, rows) for x in few], atol=1e-6)
    deep = ensemble.RandomForestRegressor(1, bootstrap=False).fit(np.arange(20_000.0)[:, None], np.arange(20_000.0))
    assert not explain.able("tree shap", deep)  # more nodes than shap can number


def test_one_baseline_for_all_rows():
    model = ensemble.RandomForestRegressor(3, random_state=0).fit(X, Y)
    several = np.stack([X[9], X[10]])
    for name in ("kernel shap", "tree shap"):
        with pytest.raises(ValueError, match="one baseline"):
            explain.EXPLAINERS[name](model, X[:2], 0, baseline=several)
    frame = pd.DataFrame(X, columns=[f"c{j}" for j in range(10)])
    model = ensemble.GradientBoostingClassifier(n_estimators=3).fit(frame, Y > 140)
    assert explain.tree_shap(model, frame[:2], 1, background=frame).shape == (2, 10)
