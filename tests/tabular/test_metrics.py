"""Metrics against hand cases, scikit-learn and fairlearn; ranks against published tables and scipy."""

from fractions import Fraction

import numpy as np
import pandas as pd
import pytest
from fairlearn import metrics as fair
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as sps
from sklearn import metrics as skm
from sklearn.calibration import calibration_curve
from sklearn.neighbors import KNeighborsClassifier

from compendium.tabular import metrics

# Four rows, two classes: confidences .9 right, .8 wrong, .6 right, .6 wrong.
Y = np.array([1, 0, 0, 1])
P = np.array([[0.1, 0.9], [0.2, 0.8], [0.6, 0.4], [0.6, 0.4]])


def random_case(classes, rows=400, seed=0):
    rng = np.random.default_rng(seed)
    p = rng.dirichlet(np.ones(classes), rows)
    return np.array([rng.choice(classes, p=row) for row in p]), p


def test_by_hand():
    assert metrics.brier(Y, P) == pytest.approx((0.02 + 1.28 + 0.32 + 0.72) / 4)
    assert metrics.log_loss(Y, P) == pytest.approx(-np.log([0.9, 0.2, 0.6, 0.4]).mean())
    # Bins of width 1/5: (.4, .6] holds two rows, (.6, .8] one, (.8, 1] one.
    table = metrics.reliability(Y, P, bins=5)
    assert table.n.tolist() == [2, 1, 1]
    assert table.accuracy.tolist() == [0.5, 0.0, 1.0]
    assert metrics.ece(Y, P, bins=5) == pytest.approx((2 * 0.1 + 0.8 + 0.1) / 4)
    assert metrics.mce(Y, P, bins=5, least=1) == pytest.approx(0.8)
    assert metrics.mce(Y, P, bins=5, least=2) == pytest.approx(0.1)
    assert np.isnan(metrics.mce(Y, P, bins=5, least=3))
    # Two bins of equal mass: the tied rows (.6, .6), then .8 and .9.
    assert metrics.ece(Y, P, bins=2, kind="mass") == pytest.approx((2 * 0.1 + 2 * 0.35) / 4)


def test_certain_and_right_is_perfect_and_certain_and_wrong_is_worst():
    right, wrong = np.eye(3)[[0, 1, 2]], np.eye(3)[[1, 2, 0]]
    y = np.arange(3)
    assert [metrics.brier(y, right), metrics.ece(y, right)] == [0, 0]
    assert [metrics.brier(y, wrong), metrics.ece(y, wrong)] == [2, 1]


@pytest.mark.parametrize("classes", [2, 3, 7])
def test_equal_to_scikit_learn(classes):
    y, p = random_case(classes)
    assert metrics.log_loss(y, p) == pytest.approx(skm.log_loss(y, p, labels=range(classes)))
    assert metrics.scores(y, p)["accuracy"] == pytest.approx(skm.accuracy_score(y, p.argmax(1)))
    theirs = skm.roc_auc_score(y, p[:, 1]) if classes == 2 else skm.roc_auc_score(y, p, multi_class="ovr")
    assert metrics.auc(y, p) == pytest.approx(theirs)
    if classes == 2:
        assert metrics.brier(y, p) == pytest.approx(2 * skm.brier_score_loss(y, p[:, 1]))
    else:
        assert metrics.brier(y, p) == pytest.approx(skm.brier_score_loss(y, p, scale_by_half=False))


@pytest.mark.parametrize(("kind", "theirs"), [("width", "uniform"), ("mass", "quantile")])
def test_reliability_is_scikit_learns_curve(kind, theirs):
    y, p = random_case(4, rows=900)
    right, confidence = p.argmax(1) == y, p.max(1)
    table = metrics.reliability(y, p, bins=9, kind=kind)
    accuracy, mean = calibration_curve(right, confidence, n_bins=9, strategy=theirs)
    np.testing.assert_allclose(table.accuracy, accuracy, atol=0.02)  # a row at a bin's edge may fall on either side
    np.testing.assert_allclose(table.confidence, mean, atol=0.02)


def test_calibrated_probabilities_have_small_ece():
    y, p = random_case(3, rows=20_000)
    assert metrics.ece(y, p) < 0.02
    assert metrics.ece(y, p**3 / (p**3).sum(1, keepdims=True)) > 0.1


@pytest.mark.parametrize("bad", [P * 2, P[:3], -P, P[:, :1]])
def test_bad_probabilities_are_refused(bad):
    with pytest.raises(ValueError, match="probabilities"):
        metrics.brier(Y, bad)
    with pytest.raises(ValueError, match="class numbers"):
        metrics.brier(Y + 1, P)


def test_fairness_by_hand_and_by_fairlearn():
    # Group a: 3 positives of which 2 predicted, 2 negatives of which 1; group b: 2 of which 0, 2 of which 1.
    y = np.array([1, 1, 1, 0, 0, 1, 1, 0, 0], bool)
    predicted = np.array([1, 1, 0, 1, 0, 0, 0, 1, 0], bool)
    group = np.array(list("aaaaabbbb"))
    table = metrics.fairness(y, predicted, group).set_index("metric")
    np.testing.assert_allclose(table.value, [3 / 5 - 1 / 4, 2 / 3, 2 / 3])
    assert table.smallest.tolist() == [4, 2, 2]
    assert ((table.low <= table.value) & (table.value <= table.high)).all()
    counts = np.array([[[1, 1], [1, 2]], [[1, 1], [2, 0]]])
    np.testing.assert_allclose(metrics.differences(counts), table.value)


def test_the_resampled_formula_is_fairlearns_on_random_cases():
    rng = np.random.default_rng(0)
    for _ in range(20):
        y, predicted, group = rng.random(200) < 0.4, rng.random(200) < 0.5, rng.integers(3, size=200)
        cells = np.bincount(4 * group + 2 * y + predicted, minlength=12).reshape(3, 2, 2)
        theirs = [
            function(y, predicted, sensitive_features=group)
            for function in (
                fair.demographic_parity_difference,
                fair.equal_opportunity_difference,
                fair.equalized_odds_difference,
            )
        ]
        np.testing.assert_allclose(metrics.differences(cells), theirs)
        assert theirs[2] >= theirs[1]


def test_one_answer_for_all_is_fair_and_one_group_is_refused():
    y, group = np.arange(40) % 2 == 0, np.arange(40) % 4 < 2
    assert metrics.fairness(y, np.ones(40, bool), group).value.tolist() == [0, 0, 0]
    with pytest.raises(ValueError, match="there is one"):
        metrics.fairness(y, y, np.zeros(40))
    gone = metrics.fairness(np.arange(4) < 2, np.ones(4, bool), np.array(list("aabb"))).set_index("metric")
    assert np.isnan(gone.value["EOpD"])  # group b has no positives
    assert gone.value["SPD"] == 0


def test_ranks_and_tests():
    rng = np.random.default_rng(0)
    base = rng.random(30)
    table = pd.DataFrame({"good": base + 0.1, "same": base + 0.001 * rng.normal(size=30), "base": base})
    found = metrics.ranks(table)
    assert found.mean.index[0] == "good"
    assert found.mean["good"] == 1
    assert found.friedman == pytest.approx(sps.friedmanchisquare(*table.to_numpy().T).pvalue)
    pairs = found.pairs.set_index(["better", "worse"])
    assert (pairs.loc["good"].p_holm < 0.001).all()
    assert metrics.cliques(found) == [tuple(sorted(["same", "base"], key=found.mean.get))]
    # Holm: the smallest of three p-values is tripled.
    assert pairs.p_holm.min() == pytest.approx(3 * pairs.p.min())


@pytest.mark.parametrize(("methods", "q"), [(2, 1.960), (4, 2.569), (10, 3.164)])
def test_nemenyi_constants_are_those_published(methods, q):
    """Demsar 2006, table 5 (a), to its three digits."""
    assert metrics.nemenyi(methods, 14) == pytest.approx(q * np.sqrt(methods * (methods + 1) / (6 * 14)), abs=1e-3)


def test_ranks_refuse_gaps():
    with pytest.raises(ValueError, match="score"):
        metrics.ranks(pd.DataFrame({"a": [1.0, np.nan, 2.0], "b": [1.0, 2.0, 3.0]}))


# What comes in: labels by value, columns by name, rows side by side

NAMES = ["maybe", "no", "yes"]


@pytest.mark.parametrize(
    "change",
    [
        lambda y: y[:, None],
        lambda y: y.astype(float),
        lambda y: y.astype(np.uint8),
        lambda y: list(map(int, y)),
        lambda y: pd.Series(y, dtype="Int64"),
        lambda y: pd.Series(y).astype("category"),
        lambda y: pd.DataFrame({"y": y}),
        lambda y: y.astype(object),
        lambda y: [Fraction(int(k)) for k in y],
    ],
)
@pytest.mark.parametrize("classes", [2, 3])
def test_class_numbers_in_every_type_have_one_score(change, classes):
    """A column (rows, 1) used to give a Brier score of .99 for .17."""
    y, p = random_case(classes, rows=60)
    assert metrics.scores(change(y), p) == metrics.scores(y, p)
    pd.testing.assert_frame_equal(metrics.reliability(change(y), p), metrics.reliability(y, p))
    if classes == 2:
        assert metrics.scores(y == 1, p) == metrics.scores(y, p)


@pytest.mark.parametrize(
    "bad",
    [
        ["no", "yes", "no", "yes"],
        [0.5, 0, 1, 1],
        [np.nan, 0, 1, 1],
        [None, 0, 1, 1],
        [np.inf, 0, 1, 1],
        [-1, 0, 1, 1],
        ["0", "0", "1", "1"],
        [[1, 0]] * 4,
        [1 + 0j, 0, 0, 1],
        [2, 1, 1, 2],
        np.ma.array([1, 0, 0, 1], mask=[1, 0, 0, 0]),
    ],
)
@pytest.mark.parametrize(
    "metric",
    [metrics.brier, metrics.log_loss, metrics.auc, metrics.reliability, metrics.ece, metrics.mce, metrics.scores],
)
def test_labels_that_are_no_class_numbers_are_refused(metric, bad):
    with pytest.raises(ValueError, match=r"class numbers|one value a row"):
        metric(bad, P)


@pytest.mark.parametrize("bad", [P[:, 1], np.log(P), np.where(P > 0.8, np.nan, P), P[:, :, None]])
def test_what_is_no_probability_of_each_class_is_refused(bad):
    with pytest.raises(ValueError, match="probabilities"):
        metrics.scores(Y, bad)


@pytest.mark.parametrize("order", [[0, 1, 2], [2, 0, 1], [1, 0, 2]])
@pytest.mark.parametrize("named", [NAMES, [1, 2, 3], [0.0, 5.0, 7.5], [0, 1, 2]])
def test_named_columns_may_come_in_any_order(order, named):
    y, p = random_case(3, rows=80)
    expected = metrics.scores(y, p)
    frame = pd.DataFrame(p, columns=named).iloc[:, order]
    labels = np.array(named)[y]
    assert metrics.scores(labels, frame) == pytest.approx(expected, nan_ok=True)
    assert metrics.auc(pd.Series(labels), frame) == pytest.approx(expected["auc"])
    if named != [0, 1, 2]:
        with pytest.raises(ValueError, match="no class"):
            metrics.scores(["other", *labels[1:]], frame)
    with pytest.raises(ValueError, match="more than once"):
        metrics.scores(labels, frame.set_axis(["a", "a", "b"], axis=1))


def test_rows_are_known_by_their_index():
    y, p = random_case(2, rows=20)
    series, frame = pd.Series(y), pd.DataFrame(p)
    assert metrics.brier(series, frame) == metrics.brier(y, p)
    for one, other in ((series[::-1], frame), (series, frame.set_axis(range(5, 25)))):
        with pytest.raises(ValueError, match="indexed differently"):
            metrics.brier(one, other)
    group = pd.Series(np.where(y == p.argmax(1), "a", "b"))
    with pytest.raises(ValueError, match="indexed differently"):
        metrics.fairness(series, pd.Series(p.argmax(1)), group[::-1])
    with pytest.raises(ValueError, match="as many rows"):
        metrics.fairness(series, p.argmax(1), group[1:])


FAIR_Y, FAIR_P, FAIR_G = (np.random.default_rng(k).integers(2, size=60) for k in range(3))


@pytest.mark.parametrize(
    "change",
    [
        lambda v: v,
        lambda v: v.astype(float),
        lambda v: list(v == 1),
        lambda v: pd.Series(v, dtype="boolean"),
        lambda v: v[:, None],
        lambda v: v.astype(object),
        lambda v: pd.Series(v, dtype="Int8"),
    ],
)
def test_decisions_in_every_type_are_one_decision(change):
    expected = metrics.fairness(FAIR_Y == 1, FAIR_P == 1, FAIR_G, resamples=50)
    found = metrics.fairness(change(FAIR_Y), change(FAIR_P), change(FAIR_G), resamples=50)
    pd.testing.assert_frame_equal(found, expected)
    assert expected.value[0] > 0


@pytest.mark.parametrize(
    "change",
    [
        lambda v: np.where(v, "yes", "no"),
        lambda v: 2 * v - 1,
        lambda v: v + 1,
        lambda v: 0.2 + 0.6 * v,
        lambda v: np.where(v, 1, np.nan),
        lambda v: pd.Series(v == 1, dtype="boolean").where(v == 1),
        lambda v: v.astype(str),
        lambda v: np.where(v, True, None),
        lambda v: np.c_[1 - v, v],
        lambda v: pd.Categorical(np.where(v, "yes", "no")),
    ],
)
def test_decisions_that_are_none_are_refused(change):
    """Every non-empty text and every number but 0 is true for Python: "perfectly fair"."""
    for y, predicted in ((change(FAIR_Y), FAIR_P), (FAIR_Y, change(FAIR_P))):
        with pytest.raises(ValueError, match=r"True/False|missing|one value a row") as refusal:
            metrics.fairness(y, predicted, FAIR_G)
        assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("gone", [np.nan, None, pd.NA, pd.NaT])
def test_missing_groups_are_no_group(gone):
    group = pd.Series(np.where(FAIR_G, "a", "b"), dtype=object)
    group[:7] = gone
    with pytest.raises(ValueError, match="group has missing values"):
        metrics.fairness(FAIR_Y, FAIR_P, group)


def test_equal_groups_are_one_group():
    text = np.where(FAIR_G, "a", "b")
    expected = metrics.fairness(FAIR_Y, FAIR_P, text, resamples=50)
    padded = [f" {g}" if i % 2 else g for i, g in enumerate(text)]
    pd.testing.assert_frame_equal(metrics.fairness(FAIR_Y, FAIR_P, padded, resamples=50), expected)
    mixed = pd.Series([float(g) if i % 2 else int(g) for i, g in enumerate(FAIR_G)], dtype=object)
    numbers = metrics.fairness(FAIR_Y, FAIR_P, FAIR_G, resamples=50)
    pd.testing.assert_frame_equal(metrics.fairness(FAIR_Y, FAIR_P, mixed, resamples=50), numbers)
    with pytest.raises(ValueError, match="read alike"):
        metrics.fairness(FAIR_Y, FAIR_P, pd.Series(["1", 1, *FAIR_G[2:]], dtype=object))


@settings(max_examples=8, deadline=None)
@given(st.permutations(range(60)), st.permutations(["w", "x", "y", "z"]), st.integers(2, 4))
def test_names_of_groups_and_order_of_rows_change_no_value(order, names, groups):
    group = np.random.default_rng(groups).integers(groups, size=60)
    value = metrics.fairness(FAIR_Y, FAIR_P, group, resamples=2).value
    renamed = np.array(names)[group]
    again = metrics.fairness(FAIR_Y[order], FAIR_P[order], renamed[order], resamples=2).value
    np.testing.assert_allclose(again, value)


def test_counts_of_another_shape_are_refused():
    with pytest.raises(ValueError, match=r"\(\.\.\., groups, 2, 2\)"):
        metrics.differences(np.ones((3, 2)))
    with pytest.raises(ValueError, match="bins must be"):
        metrics.ece(Y, P, bins=0)


def test_ranks_take_methods_by_name():
    table = pd.DataFrame(np.random.default_rng(0).random((12, 3)), columns=list("abc"))
    found, again = metrics.ranks(table), metrics.ranks(table[["c", "a", "b"]])
    pd.testing.assert_series_equal(found.mean, again.mean)
    pd.testing.assert_frame_equal(found.pairs, again.pairs)
    with pytest.raises(ValueError, match="'a' comes twice"):
        metrics.ranks(table[["a", "b", "a"]])
    with pytest.raises(ValueError, match="'a' are no numbers"):
        metrics.ranks(table.assign(a=table.a.astype(str)))


@pytest.mark.parametrize("bins", [0, 2.5, np.nan, "15"])
def test_bins_are_counted(bins):
    with pytest.raises(ValueError, match="bins must be a whole number"):
        metrics.ece([0, 1], [[0.6, 0.4], [0.2, 0.8]], bins=bins)


def test_infinite_scores_have_no_ranks():
    with pytest.raises(ValueError, match="a score is infinite"):
        metrics.ranks(pd.DataFrame({"a": [1.0, 2, np.inf], "b": [2.0, 3, 4]}))


def test_classes_that_a_model_was_not_shown_have_probability_zero():
    x, y = np.arange(6.0)[:, None], np.array([0, 0, 2, 2, 3, 3])
    model = KNeighborsClassifier(1).fit(x, y)
    p = metrics.predicted(model, x, 5)
    np.testing.assert_array_equal(p, np.eye(5)[y])
    assert metrics.brier(y, p) == 0
