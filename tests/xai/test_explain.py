"""Explainers against closed forms, Shapley values by enumeration, and each other; their contract and their errors."""

from itertools import combinations
from math import factorial

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.datasets import load_iris
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor, RandomForestClassifier
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC
from torch import nn

from compendium import models
from compendium.xai import explain, metrics, nets, synthetic
from compendium.xai.explain import EXPLAINERS

models.set_threads(1)
RNG = np.random.default_rng(0)
X = RNG.normal(size=(400, 4)) * [1, 2, 1, 0.5] + [0, 1, 0, 3]
Y = (X[:, 0] * X[:, 1] + X[:, 2] > 0).astype(int)
THREE = np.digitize(X[:, 0] + 0.5 * X[:, 1], [-0.5, 1])
BACKGROUND, ROWS = X[:12], X[12:18]
MADE = {}


def made(name):
    """Models, fitted when first asked for."""
    fit = {
        "forest": lambda: RandomForestClassifier(12, max_depth=5, random_state=0).fit(X, THREE),
        "boosting": lambda: HistGradientBoostingClassifier(max_iter=12, random_state=0).fit(X, Y),
        "boosting of three": lambda: HistGradientBoostingClassifier(max_iter=5, random_state=0).fit(X, THREE),
        "boosted regression": lambda: HistGradientBoostingRegressor(max_iter=8, random_state=0).fit(X, X[:, 0] ** 2),
        "logistic": lambda: make_pipeline(StandardScaler(), LogisticRegression()).fit(X, Y),
        "logistic of three": lambda: LogisticRegression(max_iter=500).fit(X, THREE),
        "ridge": lambda: Ridge().fit(X, X[:, 0] - X[:, 3]),
        "net": lambda: nets.mlp(X, THREE, hidden=(12, 12), epochs=8),
        "function": lambda: lambda x: np.stack([np.tanh(x[:, 0] * x[:, 1]), x[:, 2]], 1) * 0.2 + 0.3,
    }
    if name not in MADE:
        MADE[name] = fit[name]()
    return MADE[name]


ALL = (
    "forest",
    "boosting",
    "boosting of three",
    "boosted regression",
    "logistic",
    "logistic of three",
    "ridge",
    "net",
    "function",
)


def brute_shapley(predict, x, target, background):
    """Every subset, every background row: the definition."""
    d = len(x)
    value = {}
    for size in range(d + 1):
        for kept in combinations(range(d), size):
            mixed = background.copy()
            mixed[:, list(kept)] = x[list(kept)]
            value[kept] = predict(mixed)[:, target].mean()
    phi = np.zeros(d)
    for kept in value:
        for j in set(range(d)) - set(kept):
            weight = factorial(len(kept)) * factorial(d - len(kept) - 1) / factorial(d)
            phi[j] += weight * (value[tuple(sorted((*kept, j)))] - value[kept])
    return phi


# Closed forms ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["shap", "kernel shap", "integrated gradients", "deeplift", "occlusion"])
def test_on_a_linear_logit_everybody_gives_the_closed_form(name):
    model = made("logistic")
    weight = model[-1].coef_[0] / model[0].scale_
    target = np.array([0, 1, 1, 0, 1, 0])
    exact = np.where(target, 1, -1)[:, None] * weight * (ROWS - BACKGROUND.mean(0))
    found = EXPLAINERS[name](model, ROWS, target, background=BACKGROUND, output="logit")
    np.testing.assert_allclose(found, exact, atol=1e-6)
    net = nets.linear(np.stack([-weight, weight]))
    np.testing.assert_allclose(
        EXPLAINERS[name](net, ROWS, target, background=BACKGROUND, output="logit"), exact, atol=1e-6
    )


def test_slopes_of_a_linear_model():
    weight = RNG.normal(size=(3, 4))
    net, target = nets.linear(weight), np.array([0, 1, 2, 2, 1, 0])
    for name in ("gradient", "smoothgrad"):
        found = EXPLAINERS[name](net, ROWS, target, background=BACKGROUND, output="logit")
        np.testing.assert_allclose(found, weight[target], atol=1e-9)
    found = explain.input_x_gradient(net, ROWS, target, output="logit")
    np.testing.assert_allclose(found, weight[target] * ROWS, atol=1e-9)
    deep = explain.deep_shap(net, ROWS, target, background=BACKGROUND, output="logit")
    np.testing.assert_allclose(deep, weight[target] * (ROWS - BACKGROUND.mean(0)), atol=1e-5)


def test_lime_keeps_sign_size_and_order_on_a_linear_model():
    weight = np.array([0.3, -0.02, 0.1, 0.0])
    model = lambda x: np.stack([1 - x @ weight, x @ weight], 1)
    exact = weight * (ROWS - BACKGROUND.mean(0))
    found = explain.lime(model, ROWS, 1, background=BACKGROUND, samples=3000)
    np.testing.assert_allclose(found, exact, atol=0.02 * np.abs(exact).max())
    np.testing.assert_allclose(explain.lime(model, ROWS, 0, background=BACKGROUND, samples=3000), -found, atol=1e-9)
    binned = explain.lime(model, np.array([[5.0, 1, 0, 3]]), 1, background=X, discretize=True)[0]
    assert np.abs(binned).argmax() == 0
    assert binned[0] > 0


@pytest.mark.parametrize("name", ["forest", "boosting", "boosted regression", "net", "function", "logistic of three"])
def test_shapley_values_are_those_of_the_definition(name):
    model = made(name)
    predict = explain.predictor(model)
    K = predict(ROWS).shape[1]
    target = np.arange(len(ROWS)) % K
    exact = [brute_shapley(predict, x, t, BACKGROUND) for x, t in zip(ROWS, target, strict=True)]
    for explainer in ("kernel shap", "tree shap", "shap"):
        if explain.able(explainer, model) and (name, explainer) != ("boosting", "tree shap"):
            found = EXPLAINERS[explainer](model, ROWS, target, background=BACKGROUND)
            np.testing.assert_allclose(found, exact, atol=1e-6)


@pytest.mark.parametrize("name", ["boosting", "boosting of three"])
def test_tree_shap_of_raw_scores(name):
    predict = explain.predictor(made(name), "logit")
    exact = [brute_shapley(predict, x, 1, BACKGROUND) for x in ROWS]
    found = explain.tree_shap(made(name), ROWS, 1, background=BACKGROUND, output="logit")
    np.testing.assert_allclose(found, exact, atol=1e-5)


def test_tree_shap_of_boosted_probabilities_is_stretched_raw_scores():
    """Not Shapley values of the probability, though they sum to it: what the docstring says they are."""
    model = made("boosting")
    raw, p = (explain.predictor(model, output) for output in ("logit", "probability"))
    exact = []
    for x in ROWS:
        parts = []
        for b in BACKGROUND[:, None]:
            more = lambda f: (f(x[None]) - f(b))[0, 1]  # noqa: B023
            parts.append(brute_shapley(raw, x, 1, b) * (more(p) / more(raw) if abs(more(raw)) > 1e-12 else 0))
        exact.append(np.mean(parts, 0))
    found = explain.tree_shap(model, ROWS, 1, background=BACKGROUND)
    np.testing.assert_allclose(found, exact, atol=1e-6)
    true = [brute_shapley(p, x, 1, BACKGROUND) for x in ROWS]
    assert np.abs(found - true).max() > 0.005


def test_plain_shap_of_these_boosted_trees_does_not_add_up():
    """Why values are rounded down first: thresholds equal values of the table. If this fails, shap has repaired it."""
    import shap

    table = synthetic.linear(500, 0)
    model = HistGradientBoostingClassifier(max_iter=30, random_state=0).fit(table.x, table.y)
    rows, few = table.x[:50], table.x[50:70]
    plain = shap.TreeExplainer(model, rows, feature_perturbation="interventional", model_output="raw")
    gap = lambda a, b: np.abs(a.sum(1) - model.decision_function(few) + model.decision_function(rows).mean()).max() > b
    assert gap(plain.shap_values(few, check_additivity=False), 0.1)
    assert not gap(explain.tree_shap(model, few, 1, background=rows, output="logit"), 1e-5)


def test_smoothgrad_is_the_mean_of_slopes_nearby():
    net = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2)).double().requires_grad_(False)
    exact = np.mean(
        [
            explain.gradient(net, ROWS + 0.15 * BACKGROUND.std(0) * z, 1, output="logit")
            for z in RNG.normal(size=(400, 1, 4))
        ],
        0,
    )
    found = explain.smoothgrad(net, ROWS, 1, background=BACKGROUND, output="logit", samples=400)
    np.testing.assert_allclose(found, exact, atol=0.02)


# The contract ----------------------------------------------------------------------------------------------------

SUMS = ("shap", "kernel shap", "tree shap", "deep shap")


@pytest.mark.parametrize("output", explain.OUTPUTS)
@pytest.mark.parametrize("name", ALL)
def test_contract(name, output):
    """Shape, finite, repeatable, one row as in a batch, complete where promised, and an error where not able."""
    model = made(name)
    predict = explain.predictor(model, output)
    few, target = ROWS[:3], np.arange(3) % predict(ROWS).shape[1]
    mean, marginal = BACKGROUND.mean(0), np.broadcast_to(BACKGROUND[:, None], (12, 3, 4))
    for explainer, function in EXPLAINERS.items():
        options = dict(background=BACKGROUND, output=output, seed=3)
        if not explain.able(explainer, model, output):
            with pytest.raises(ValueError, match="cannot explain"):
                function(model, few, target, **options)
            continue
        state = np.random.get_state()[1].copy()  # noqa: NPY002
        A = function(model, few, target, **options)
        assert A.shape == few.shape
        assert A.dtype == float
        assert np.isfinite(A).all()
        np.testing.assert_array_equal(state, np.random.get_state()[1])  # noqa: NPY002
        if explainer not in ("random", "smoothgrad"):  # their noise is drawn for the whole batch
            alone = function(model, few[1:2], int(target[1]), **options)
            np.testing.assert_allclose(alone[0], A[1], atol=1e-5)
        gap = lambda baseline: metrics.completeness_gap(predict, few, A, target, baseline).max()  # noqa: B023
        if explainer in SUMS:
            assert gap(marginal) < 1e-5
        elif explainer in ("integrated gradients", "deeplift"):
            assert gap(mean) < (1e-5 if explainer == "deeplift" else 0.02)


def test_what_is_explained_is_the_class_asked_for():
    """The class decides, row by row: with two classes, the other class's explanation is the negative."""
    for name in ("boosting", "logistic"):
        for explainer in ("shap", "lime", "occlusion"):
            ones, zeros = (
                EXPLAINERS[explainer](made(name), ROWS[:2], t, background=BACKGROUND) for t in (1, np.zeros(2, int))
            )
            np.testing.assert_allclose(ones, -zeros, atol=1e-9)
    each = explain.gradient(made("net"), ROWS, np.array([2, 0, 1, 1, 0, 2]))
    for i, t in enumerate([2, 0, 1, 1, 0, 2]):
        np.testing.assert_allclose(each[i], explain.gradient(made("net"), ROWS, t)[i])


def test_a_baseline_given_is_the_baseline():
    start = np.array([0.5, 1, -1, 2])
    predict = explain.predictor(made("net"))
    for name in ("kernel shap", "deep shap", "integrated gradients", "deeplift"):
        A = EXPLAINERS[name](made("net"), ROWS, 2, baseline=start)
        np.testing.assert_allclose(A.sum(1), (predict(ROWS) - predict(start[None]))[:, 2], atol=0.01)


def test_the_net_is_left_as_it_was():
    net = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Dropout(0.5), nn.Linear(6, 2))
    net.train()
    before = [p.detach().clone() for p in net.parameters()]
    for name in ("integrated gradients", "deeplift", "deep shap", "gradient", "occlusion"):
        a, b = (EXPLAINERS[name](net, ROWS, 1, background=BACKGROUND) for _ in range(2))
        np.testing.assert_allclose(a, b, atol=1e-7)  # without dropout
    assert net.training
    assert all((p == q).all() and p.grad is None for p, q in zip(net.parameters(), before, strict=True))


def test_predictor_gives_the_models_own_numbers():
    frame = pd.DataFrame(X, columns=list("abcd"))
    named = LogisticRegression().fit(frame, Y)
    np.testing.assert_allclose(explain.predictor(named)(X), named.predict_proba(frame))
    margin = named.decision_function(frame)
    np.testing.assert_allclose(explain.predictor(named, "logit")(X), np.stack([-margin, margin], 1))
    p = explain.predictor(made("forest"))(X)
    np.testing.assert_allclose(
        explain.predictor(made("forest"), "logit")(X[:5]),
        np.log(p[:5].clip(1e-9, 1 - 1e-9) / (1 - p[:5].clip(1e-9, 1 - 1e-9))),
    )
    with torch.no_grad():
        z = made("net")(torch.tensor(X, dtype=torch.float32))
    np.testing.assert_allclose(explain.predictor(made("net"))(X), z.softmax(-1), atol=1e-6)
    assert explain.predictor(made("ridge"))(X).shape == (400, 1)
    assert explain.predictor(lambda x: x[:, 0])(X).shape == (400, 1)
    np.testing.assert_array_equal(explain.predicted(made("forest"), X[:9]), p[:9].argmax(1))


def test_a_table_network_is_explained_like_any_classifier():
    from compendium.tabular.pfn import Network, PFNClassifier, Shape

    torch.manual_seed(0)
    small = Network(Shape(width=16, layers=1, heads=2, hidden=16)).eval()
    x, y = load_iris(return_X_y=True)
    model = PFNClassifier(small, members=1).fit(x[::5], y[::5])
    A = explain.shap_values(model, x[1:3], 1, background=x[::30])
    predict = explain.predictor(model)
    np.testing.assert_allclose(A.sum(1), predict(x[1:3])[:, 1] - predict(x[::30])[:, 1].mean(), atol=1e-5)
    assert explain.occlusion(model, x[:2], 0, background=x).shape == (2, 4)
    assert not explain.able("integrated gradients", model)


# Errors ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("explainer", EXPLAINERS)
def test_bad_input_is_refused_by_every_explainer(explainer):
    model = made("forest" if explainer == "tree shap" else "net")
    function = EXPLAINERS[explainer]
    for x, target, message in (
        (np.where(ROWS > 3, np.nan, ROWS), 0, "missing or infinite values in"),
        (ROWS[0], 0, "must be a table"),
        (ROWS[:0], 0, "must be a table"),
        (np.array([["a", "b", "c", "d"]]), 0, "must be numbers"),
        (ROWS, 3, "among the model's outputs 0 to 2"),
        (ROWS, -1, "among the model's outputs"),
        (ROWS, [0, 1], "one class number or one a row"),
        (ROWS, 1.5, "class number"),
    ):
        with pytest.raises(ValueError, match=message):
            function(model, x, target, background=BACKGROUND)


def test_other_errors_say_what_to_do():
    with pytest.raises(ValueError, match="pass background="):
        explain.shap_values(made("net"), ROWS[:1], 0)
    with pytest.raises(ValueError, match="background has 3 features and X 4"):
        explain.lime(made("net"), ROWS, 0, background=BACKGROUND[:, :3])
    with pytest.raises(ValueError, match="does not take rows of 3 features"):
        explain.occlusion(made("net"), ROWS[:, :3], 0)
    with pytest.raises(ValueError, match="baseline must be"):
        explain.integrated_gradients(made("net"), ROWS, 0, baseline=np.zeros(3))
    with pytest.raises(ValueError, match="CalibratedClassifierCV"):
        explain.predictor(LinearSVC().fit(X, Y))
    with pytest.raises(ValueError, match="choose one of probability, logit"):
        explain.predictor(made("net"), "margin")
    with pytest.raises(ValueError, match="missing or infinite predictions"):
        explain.predictor(lambda x: x * np.nan)(X)
    with pytest.raises(ValueError, match="must give"):
        explain.predictor(lambda x: x[:2])(X)
    with pytest.raises(ValueError, match="unknown explainer"):
        explain.able("guess", made("net"))
