"""What users hand to explainers and metrics: columns by name, labels by value, numbers by type; right or refused."""

import warnings
from decimal import Decimal

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_breast_cancer
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import r2_score
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from compendium import models, xai
from compendium.xai import explain, images, meta, metrics, nets, synthetic, tables
from compendium.xai import relevance as backward

models.set_threads(1)
DATA = load_breast_cancer(as_frame=True)
NAMES = list(DATA.data.columns[:4])
FRAME = (DATA.data[NAMES] - DATA.data[NAMES].mean()) / DATA.data[NAMES].std()
FEW, REST, Y, Y_REST = FRAME[:12], FRAME[12:212], DATA.target[:12], DATA.target[12:212]
FOREST = RandomForestClassifier(10, max_depth=4, random_state=0).fit(REST, Y_REST)
RIGHT = FOREST.score(FEW, Y)


def found(model=FOREST, X=FEW, y=Y, background=REST, **options):
    return xai.report(model, X, y=y, background=background, explainers=["occlusion"], metrics=["deletion"], **options)


# Columns ---------------------------------------------------------------------------------------------------------


@settings(max_examples=8, deadline=None)
@given(st.permutations(NAMES))
def test_columns_in_another_order_are_refused_or_change_nothing(order):
    right = explain.occlusion(FOREST, FEW, 1, background=REST)
    for X, rows in ((FEW[order], REST[order]), (FEW[order], REST), (FEW, REST[order])):
        if order == NAMES:
            np.testing.assert_array_equal(explain.occlusion(FOREST, X, 1, background=rows), right)
            continue
        with pytest.raises(ValueError, match="in another order"):
            explain.occlusion(FOREST, X, 1, background=rows)
        with pytest.raises(ValueError, match="in another order"):
            found(X=X, background=rows)


@pytest.mark.parametrize("name", explain.EXPLAINERS)
def test_every_explainer_compares_names(name):
    """Nets have no names, but X, background and baseline do."""
    model = nets.mlp(REST, Y_REST, hidden=(6,), epochs=2)
    if name == "tree shap":
        model = RandomForestClassifier(2, max_depth=2).fit(REST.to_numpy(), Y_REST)
    turned = REST[NAMES[::-1]]
    with pytest.raises(ValueError, match="columns of background are those of X in another order"):
        explain.EXPLAINERS[name](model, FEW, 1, background=turned)
    with pytest.raises(ValueError, match="columns of the baseline are those of X in another order"):
        explain.EXPLAINERS[name](model, FEW, 1, background=REST, baseline=turned.mean())
    a = explain.EXPLAINERS[name](model, FEW, 1, background=REST, baseline=REST.mean())
    b = explain.EXPLAINERS[name](model, FEW.to_numpy(), 1, background=REST.to_numpy(), baseline=REST.mean().to_numpy())
    np.testing.assert_array_equal(a, b)


def test_other_places_compare_names():
    turned = FEW[NAMES[::-1]]
    for ask in (
        explain.predictor(FOREST),
        lambda X: explain.predicted(FOREST, X),
        lambda X: explain.check(FOREST, X, 0),
    ):
        with pytest.raises(ValueError, match="model was fitted on in another order"):
            ask(turned)
    with pytest.raises(ValueError, match=r"lacks \['mean radius'\] and has \['radius'\]"):
        found(X=FEW.rename(columns={NAMES[0]: "radius"}))
    with pytest.raises(ValueError, match="numbers 0 to 3 in another order"):
        found(FOREST.__class__(2).fit(REST.to_numpy(), Y_REST), pd.DataFrame(FEW.to_numpy())[[3, 2, 1, 0]])
    predict = explain.predictor(FOREST)
    A = pd.DataFrame(explain.occlusion(FOREST, FEW, 1, background=REST), FEW.index, NAMES)
    mean = REST.mean()
    for name, metric in metrics.METRICS.items():
        options = {"explain": lambda X: A.to_numpy()} if name in metrics.SENSITIVITIES else {}
        a = metric(predict, FEW, A, 1, mean, **options)
        np.testing.assert_array_equal(a, metric(predict, FEW.to_numpy(), A.to_numpy(), 1, mean.to_numpy(), **options))
        with pytest.raises(ValueError, match="columns of attributions"):
            metric(predict, FEW, A[NAMES[::-1]], 1, mean, **options)
        with pytest.raises(ValueError, match="indexed differently"):
            metric(predict, FEW, A[::-1], 1, mean, **options)
        with pytest.raises(ValueError, match="columns of the baseline"):
            metric(predict, FEW, A, 1, mean[::-1], **options)
    with pytest.raises(ValueError, match="columns of background"):
        metrics.baselines("mean", REST[NAMES[::-1]], FEW)
    with pytest.raises(ValueError, match="columns of scale"):
        metrics.distances(predict, FEW, A, 1, mean, explain=lambda X: A, scale=mean.abs()[::-1])
    with pytest.raises(ValueError, match="columns of background"):
        meta.Case(predict, FEW, REST[NAMES[::-1]], {})
    with pytest.raises(ValueError, match="columns of relevant"):
        synthetic.auroc(A, pd.Series([True, False, False, True], NAMES[::-1]))
    with pytest.raises(ValueError, match="columns of x_new"):
        meta.attack(REST, turned, 0, 1, {})
    with pytest.raises(ValueError, match="indexed differently"):
        metrics.agreement(mean, mean[::-1])


@pytest.mark.parametrize("where", ["feature_names_", "feature_name_"])
def test_names_of_other_libraries_count(where):
    class Booster:
        _estimator_type, classes_ = "classifier", np.array([0, 1])
        predict, predict_proba = None, staticmethod(lambda X: FOREST.predict_proba(pd.DataFrame(X, columns=NAMES)))

    model = Booster()
    setattr(model, where, NAMES)
    model.predict = lambda X: model.predict_proba(X).argmax(1)
    assert found(model).accuracy == RIGHT
    with pytest.raises(ValueError, match="in another order"):
        found(model, FEW[NAMES[::-1]])
    setattr(model, where, ["0", "1", "2", "3"])  # made up for an array
    assert found(model).accuracy == RIGHT


# Types of numbers ------------------------------------------------------------------------------------------------

SAME = {
    "list": lambda f: f.to_numpy().tolist(), "objects": lambda f: f.astype(object),
    "Decimal": lambda f: f.map(lambda v: Decimal(repr(float(v)))), "nullable": lambda f: f.astype("Float64"),
    "matrix": lambda f: np.matrix(f.to_numpy()), "masked nowhere": lambda f: np.ma.masked_invalid(f.to_numpy()),
    "category of numbers": lambda f: f.astype({NAMES[0]: "category"}),
    "tensor": lambda f: __import__("torch").tensor(f.to_numpy()),
}  # fmt: skip
REFUSED = {
    "text": (lambda f: f.astype(str), "holds the text"), "text array": (lambda f: f.to_numpy().astype(str), "the text"),
    "dates": (lambda f: f.assign(**{NAMES[1]: pd.Timestamp("2020")}), f"{NAMES[1]}.* holds dates"),
    "spans": (lambda f: f.map(lambda v: pd.Timedelta(v, "D")), "holds dates or times"),
    "complex": (lambda f: f.to_numpy() + 1j, "complex"), "nested": (lambda f: f.map(lambda v: [v]), "holds list"),
    "masked": (lambda f: np.ma.masked_greater(f.to_numpy(), 0), "masked values"),
    "structured": (lambda f: f.to_records(index=False), "structured array"),
    "missing": (lambda f: f.astype("Float64").mask(f > 1), "missing or infinite"),
    "None": (lambda f: f.astype(object).where(f < 1, None), "missing or infinite"),
    "sparse": (lambda f: __import__("scipy.sparse").sparse.csr_matrix(f.to_numpy()), "toarray"),
    "ragged": (lambda f: [[1.0, 2], [3.0]], "differ in length"), "images": (lambda f: np.zeros((2, 1, 3, 3)), "images"),
}  # fmt: skip


@pytest.mark.parametrize("kind", SAME)
def test_numbers_in_any_dress_are_the_same_numbers(kind):
    model = RandomForestClassifier(10, max_depth=4, random_state=0).fit(REST.to_numpy(), Y_REST)
    np.testing.assert_array_equal(tables.table(SAME[kind](FEW)), FEW.to_numpy())
    a = explain.occlusion(model, SAME[kind](FEW), 1, background=REST.to_numpy())
    np.testing.assert_array_equal(a, explain.occlusion(model, FEW.to_numpy(), 1, background=REST.to_numpy()))


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_no_number_is_refused_in_one_line(kind):
    make, message = REFUSED[kind]
    for ask in (lambda: explain.occlusion(FOREST, make(FEW), 1, background=REST), lambda: found(X=make(FEW), y=None)):
        with pytest.raises(ValueError, match=message) as refused:
            ask()
        assert "\n" not in str(refused.value)


def test_categories_count_by_value_and_models_that_read_types_are_noticed():
    frame = pd.DataFrame({"a": pd.Categorical([30, 10, 20] * 20), "b": np.linspace(0, 1, 60)})
    np.testing.assert_array_equal(tables.table(frame)[:3, 0], [30, 10, 20])
    y = (frame.a.astype(int) == 10).astype(int)
    model = HistGradientBoostingClassifier(categorical_features="from_dtype", max_iter=5, min_samples_leaf=2)
    model.fit(frame, y)
    assert found(model, frame[:12], y[:12], frame).accuracy == model.score(frame[:12], y[:12]) == 1
    A = explain.shap_values(model, frame[:4], 1, background=frame, output="logit")  # sets of categories have no order
    predict = explain.predictor(model, "logit")
    rows = explain.background_rows(frame, tables.table(frame[:4]), 50, 0)
    np.testing.assert_allclose(A.sum(1), predict(frame[:4])[:, 1] - predict(rows)[:, 1].mean(), atol=1e-6)

    class ByType(LogisticRegression):
        def predict_proba(self, X):
            p = super().predict_proba(X.astype(float))
            return p if X.dtypes.iloc[0] == np.float64 else p[:, ::-1]

    with pytest.raises(ValueError, match="as plain numbers"):
        found(ByType().fit(frame.astype(float), y), frame[:12], y[:12], frame)


# Labels ----------------------------------------------------------------------------------------------------------

LABELS = {
    "text": np.array(["malignant", "benign"]),
    "1 and 2": np.array([1, 2]),
    "-1 and 1": np.array([-1, 1]),
    "bool": np.array([False, True]),
    "floats": np.array([0.0, 1.0]),
    "objects": np.array(["x", "y"], object),
}


@pytest.mark.parametrize("kind", LABELS)
def test_labels_are_found_by_value(kind):
    labels = LABELS[kind]
    model = RandomForestClassifier(10, max_depth=4, random_state=0).fit(REST, labels[Y_REST])
    right = model.score(FEW, labels[Y])
    for y in (
        labels[Y],
        labels[Y][:, None],
        pd.Series(labels[Y], FEW.index),
        list(labels[Y]),
        pd.Categorical(labels[Y]),
    ):
        run = found(model, y=y)
        assert run.accuracy == run.score == right
        assert run.score_name == "Accuracy"
    for y, message in (
        (pd.Series(labels[Y], FEW.index[::-1]), "indexed differently"),
        (labels[Y][:5], "X has 12, y has 5"),
        (np.array(["other"] * 12), "no class of the model"),
        (np.stack([labels[Y]] * 2, 1), "one value a row"),
    ):
        with pytest.raises(ValueError, match=message):
            found(model, y=y)


def test_targets_by_label():
    model = RandomForestClassifier(5, random_state=0).fit(REST, LABELS["text"][Y_REST])
    number = list(model.classes_).index("malignant")
    np.testing.assert_array_equal(found(model, y=None, target="malignant").target, number)
    A = explain.kernel_shap(model, FEW[:2], "malignant", background=REST[:9])
    np.testing.assert_array_equal(A, explain.kernel_shap(model, FEW[:2], number, background=REST[:9]))
    with pytest.raises(ValueError, match="'all', which is no class"):
        found(model, y=None, target="all")
    with pytest.raises(ValueError, match="indexed differently"):
        found(model, y=None, target=pd.Series(LABELS["text"][Y], FEW.index[::-1]))
    for target in ("malignant", ["malignant"] * 12):
        with pytest.raises(ValueError, match="has no labels of classes"):
            found(nets.mlp(REST, Y_REST, hidden=(4,), epochs=1), y=None, target=target)
    with pytest.raises(ValueError, match="class numbers, which count from 0"):
        found(RandomForestClassifier(2).fit(REST, 1 + Y_REST), y=None, target=2)


def test_regressors_are_scored_by_r2():
    y = np.exp(FRAME[NAMES[0]])
    for model in (Ridge(), make_pipeline(StandardScaler(), Ridge())):
        model.fit(REST, y[12:212])
        run = found(model, y=y[:12])
        assert run.score == pytest.approx(r2_score(y[:12], model.predict(FEW)))
        assert run.score_name == "R2"
        assert np.isnan(run.accuracy)
        assert f"R2 of the model: {run.score:.3f}" in run.to_markdown()
        assert "Accuracy" not in run.to_markdown()
    with pytest.raises(ValueError, match="missing"):
        found(model, y=np.full(12, np.nan))


def test_models_of_several_outputs_are_refused():
    two = np.stack([Y_REST, 1 - Y_REST], 1)
    with warnings.catch_warnings(action="ignore"):
        several = (
            Ridge().fit(REST, two),
            RandomForestClassifier(2).fit(REST, two),
            MLPClassifier(max_iter=3).fit(REST, two),
        )
    for model in several:
        for ask in (lambda: found(model, y=None), lambda: explain.shap_values(model, FEW, 0, background=REST)):  # noqa: B023
            with pytest.raises(ValueError, match="explain one at a time"):
                ask()


def test_labels_and_flags_elsewhere():
    for bad in (["a", "b"] * 6, [1, 2] * 6):
        with pytest.raises(ValueError, match="labels must be class numbers"):
            nets.mlp(FEW, bad)
    with pytest.raises(ValueError, match="indexed differently"):
        nets.mlp(FEW, Y[::-1])
    pictures = np.zeros((4, 1, 8, 8), np.float32)
    for bad in (["a", "b"] * 2, [1, 2] * 2, [0.5, 1] * 2):
        with pytest.raises(ValueError, match="labels must be class numbers"):
            images.cnn(pictures, bad)
    net = images.untrained(1, 8, 3)
    for target, message in ((0.5, "class number"), ("a", "class number"), ([0, 1], "one a row"), (3, "outputs 0 to 2")):
        with pytest.raises(ValueError, match=message):
            images.gradient(net, pictures, target)
        with pytest.raises(ValueError, match=message):
            backward.relevance(net, pictures, target)
    with pytest.raises(ValueError, match="y must be True/False or 0/1"):
        meta.additive_net(FEW, ["no", "yes"] * 6)
    assert synthetic.pointing([[3.0, 1]], [1, 0])[0] == 1
    for wrong in (["no", "yes"], [0.2, 0.9], [1, 2]):
        with pytest.raises(ValueError, match="True/False or 0/1"):
            synthetic.auroc([[3.0, 1]], wrong)
    with pytest.raises(ValueError, match="True/False or 0/1"):
        images.auroc(np.ones((1, 2, 2)), np.full((1, 2, 2), 0.5))


class WithoutClasses(Ridge):
    """As CatBoost's regressors are."""

    classes_ = ()


def test_an_empty_list_of_classes_is_none():
    y = 2 * FRAME[NAMES[0]]
    model = WithoutClasses().fit(REST, y[REST.index])
    result = found(model, y=y[FEW.index])
    assert (result.score_name, result.score) == ("R2", model.score(FEW, y[FEW.index]))
    with pytest.raises(ValueError, match="no labels of classes"):
        found(model, y=None, target="a")
    with pytest.raises(ValueError, match="y holds the text 'a', and the model predicts values"):
        found(model, y=["a"] * len(FEW))


def test_baselines_with_rows_in_another_order_are_refused():
    explainer = explain.EXPLAINERS["occlusion"]
    right = explainer(FOREST, FEW, 1, baseline=REST[: len(FEW)].to_numpy())
    assert (explainer(FOREST, FEW, 1, baseline=REST[: len(FEW)].set_axis(FEW.index)) == right).all()
    with pytest.raises(ValueError, match="indexed differently"):
        explainer(FOREST, FEW, 1, baseline=FEW[::-1])
