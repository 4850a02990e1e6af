"""The scaffold against the models it is made of, flips and ranks against hand cases, the climb against what it may not."""

from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from compendium.xai import meta, metrics
from compendium.xai.explain import EXPLAINERS, predictor


@pytest.fixture(scope="module")
def table():
    """Rows on a thin sheet: eight columns made of three, so that mixed rows stand out."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(400, 3)) @ rng.normal(size=(3, 8)) + 0.1 * rng.normal(size=(400, 8))
    return x[:300], x[300:]


@pytest.fixture(scope="module")
def explain(table):
    few = table[0][:5]
    return {
        "kernel shap": partial(EXPLAINERS["kernel shap"], background=few, samples=60),
        "lime": partial(EXPLAINERS["lime"], background=table[0], samples=100),
    }


@pytest.fixture(scope="module")
def attacked(table, explain):
    return meta.attack(table[0], table[1][:20], 2, 5, explain, teach=30, trees=50)


def test_one_column_is_the_logistic_curve_of_that_column(table):
    x = table[0]
    net = meta.one_column(3, x, slope=2.0)
    z = (x[:, 3] - x[:, 3].mean()) / x[:, 3].std()
    np.testing.assert_allclose(predictor(net)(x)[:, 1], 1 / (1 + np.exp(-2 * z)), atol=1e-9)
    with pytest.raises(ValueError, match="not in a table"):
        meta.one_column(8, x)
    with pytest.raises(ValueError, match="constant"):
        meta.one_column(0, np.zeros((4, 2)))


def test_unknown_leaves_out_known_rows_and_repeats():
    rows = np.array([[1.0, 2], [3, 4], [1, 2], [5, 6], [-0.0, 0]])
    np.testing.assert_array_equal(meta.unknown(rows, [[3.0, 4]]), [[0, 0], [1, 2], [5, 6]])
    assert meta.unknown(rows, rows).shape == (0, 2)


def test_queries_are_rows_that_the_explainer_makes_up(table):
    x, baseline = table[0], table[0].mean(0)
    model, target = meta.one_column(0, x), np.ones(3, int)
    asked = meta.queries(partial(EXPLAINERS["occlusion"], baseline=baseline), model, x[:3], target, x)
    expected = [np.where(np.arange(8) == j, baseline, row) for row in x[:3] for j in range(8)]
    assert len(asked) == 24
    np.testing.assert_allclose(np.sort(asked, 0), np.sort(expected, 0), atol=1e-12)


def test_detector_keeps_the_share_asked_for_and_finds_mixed_rows(table):
    x, new = table
    rng = np.random.default_rng(1)
    mixed = rng.permuted(np.repeat(x, 2, 0), axis=0)  # columns shuffled each by itself
    detector = meta.Detector(x, mixed, keep=0.9, trees=50)
    assert abs(detector(new).mean() - 0.9) < 0.1
    assert detector(rng.permuted(new, axis=0)).mean() < 0.3
    with pytest.raises(ValueError, match="made-up rows"):
        meta.Detector(x, np.empty((0, 8)))


def test_detector_sees_the_error_of_linear_prediction(table):
    """(P z)_j / sqrt(P_jj) is the residual of column j on the others over its standard deviation."""
    x = table[0]
    detector = meta.Detector(x, x + 1, trees=5)
    z = (x - x.mean(0)) / x.std(0)
    others = np.delete(z, 4, axis=1)
    weight = np.linalg.solve(others.T @ others + 0.3 * np.eye(7), others.T @ z[:, 4])
    residual = np.abs(z[:, 4] - others @ weight)
    assert np.corrcoef(detector._seen(x)[:, 8 + 4], residual)[0, 1] > 0.999


def test_scaffold_is_one_model_or_the_other(table):
    x = torch.from_numpy(table[0])
    biased, innocent = meta.one_column(0, table[0]), meta.one_column(1, table[0])
    gate = lambda rows: rows[:, 2] > 0
    model = meta.Scaffold(biased, innocent, gate)
    chosen = gate(table[0])
    np.testing.assert_array_equal(model(x)[chosen], biased(x)[chosen])
    np.testing.assert_array_equal(model(x)[~chosen], innocent(x)[~chosen])
    rows = x.clone().requires_grad_()
    model(rows)[:, 1].sum().backward()
    assert (rows.grad[chosen][:, 0] != 0).all()
    assert (rows.grad[chosen][:, 1] == 0).all()


def test_scaffold_decides_as_the_biased_model_and_hides_its_column(attacked):
    found, models = attacked
    of = lambda kind: found[found.model == kind].set_index("explainer")
    assert (of("biased").hidden >= 0.9).all()
    assert (of("biased").fidelity == 1).all()
    assert (of("scaffold").fidelity >= 0.95).all()
    assert (of("scaffold").hidden <= 0.2).all()
    assert (of("scaffold").auc > 0.9).all()
    assert (of("blind scaffold").hidden > of("scaffold").hidden + 0.3).all(), "the detector is what does it"
    assert set(models) == {"biased", "scaffold", "blind scaffold"}


def test_scaffold_equals_the_biased_model_where_the_gate_is_open(attacked, table):
    _, models = attacked
    new = table[1]
    model = models["scaffold"]
    passed = model.is_real(new)
    np.testing.assert_allclose(predictor(model)(new)[passed], predictor(models["biased"])(new)[passed])
    assert passed.mean() > 0.85


def test_a_scaffold_needs_something_to_detect(table):
    with pytest.raises(ValueError, match="nothing to detect"):
        meta.scaffold(table[0], 0, 1, {"gradient": EXPLAINERS["gradient"]}, teach=5)


def test_preference_of_right_over_wrong(table):
    x = table[1][:20]
    predict = predictor(meta.one_column(0, table[0]))
    right, wrong = np.eye(8)[[0] * 20], np.eye(8)[[1] * 20]
    target = predict(x).argmax(1)
    found = meta.preference(predict, x, right, wrong, target, table[0].mean(0), ("deletion", "comprehensiveness"))
    assert max(found.values()) == 0
    back = meta.preference(predict, x, wrong, right, target, table[0].mean(0), ("deletion",))
    assert back["deletion"] == 1
    same = meta.preference(predict, x, right, right, target, table[0].mean(0))
    assert set(same.values()) == {0.5}


def test_compare_by_hand():
    rng = np.random.default_rng(0)
    base = rng.normal(size=40)
    found = meta.compare([base, base + 1 + 0.01 * rng.normal(size=40), base + rng.normal(size=40)])
    np.testing.assert_array_equal(found, -found.T)
    assert found[1, 0] == 1
    assert found[0, 2] == 0
    assert meta.compare([[1.0, 1], [1, 1]]).tolist() == [[0, 0], [0, 0]]


def evaluate(*, shift=0.0, swap=False):
    """Three methods on four rows: a best by far, b and c close together."""
    a, b, c = np.array([9.0, 9.1, 9.2, 9.1]), np.array([2.0, 2.1, 2.2, 2.1]), np.array([1.0, 1.0, 1.1, 1.1]) + shift
    return {"m": {"a": a, "b": c if swap else b, "c": b if swap else c}, "fixed": {"a": a, "b": b, "c": a - 8}}


KNOBS = {
    "shift": {"little": {"shift": 0.1}, "much": {"shift": 5.0}},
    "swap": {"yes": {"swap": True}},
    "none": {"same": {}},
}


def test_tamper_by_hand():
    found = meta.tamper(evaluate, KNOBS)
    assert len(found) == 2 * 3 * (3 + 2 + 2)
    table = meta.ranges(found).set_index(["metric", "knob", "method"])
    assert (table.low <= table.default).all()
    assert (table.default <= table.high).all()
    assert table.loc[("m", "shift", "c"), "high"] == pytest.approx(6.05)
    assert (table.loc["fixed"].spread == 0).all()
    flipped = meta.flips(found).set_index(["metric", "knob"])
    assert flipped.loc[("m", "shift"), "flipped"] == pytest.approx(1 / 3)  # b and c of three pairs
    assert flipped.loc[("m", "swap"), "clear"] == pytest.approx(1 / 3)
    assert flipped.loc[("m", "none"), "flipped"] == 0
    assert flipped.loc[("m", "any knob"), "flipped"] == pytest.approx(1 / 3)
    assert flipped.loc[("m", "any knob"), "decided"] == 1
    assert (flipped.loc["fixed"].flipped == 0).all()
    rank = meta.ranks(found).set_index(["metric", "method"])
    assert rank.loc[("m", "c")].tolist() == [3, 2, 3]
    assert rank.loc[("m", "a")].tolist() == [1, 1, 1]


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6))
def test_ranges_contain_the_default_and_clear_flips_are_flips(seed):
    def scores(number=0):
        rng = np.random.default_rng([seed, number])
        return {"m": {name: rng.normal(size=5) for name in "abcd"}}

    found = meta.tamper(scores, {"number": {str(k): {"number": k} for k in (1, 2)}})
    table = meta.ranges(found)
    assert ((table.low <= table.default) & (table.default <= table.high)).all()
    rank = meta.ranks(found)
    assert ((rank.best <= rank.default) & (rank.default <= rank.worst)).all()
    flipped = meta.flips(found)
    assert (flipped.clear <= flipped.flipped).all()
    assert flipped.set_index("knob").flipped.is_monotonic_increasing


@pytest.mark.parametrize("name", ["sum to 1", "times 10"])
def test_rewritings_of_scale_leave_the_form_metrics_alone(name):
    A = np.random.default_rng(0).normal(size=(6, 5))
    predict = lambda x: np.zeros((len(x), 2))
    of = lambda A, metric: metrics.METRICS[metric](predict, np.zeros((6, 5)), A, 0, np.zeros(5))
    for metric in ("complexity", "sparseness"):
        np.testing.assert_allclose(of(meta.REWRITINGS[name](A), metric), of(A, metric))
    for write in meta.REWRITINGS.values():
        np.testing.assert_array_equal(np.abs(write(A)).argsort(1), np.abs(A).argsort(1))


def linear_case():
    weight = np.array([3.0, -2, 0, 0, 0])
    predict = lambda x: np.stack([-(x @ weight), x @ weight], 1)
    x = np.random.default_rng(0).normal(size=(12, 5))
    target = predict(x).argmax(1)
    return predict, x, x * weight * (2 * target - 1)[:, None], target, weight != 0


@pytest.mark.parametrize("name", ["deletion", "faithfulness correlation", "complexity", "completeness gap"])
def test_fabricated_explanations_deny_what_matters_and_climb(name):
    predict, x, _exact, target, relevant = linear_case()
    make = partial(
        meta.fabricate, metrics.METRICS[name], predict, x, target, np.zeros(5), relevant, better=metrics.BETTER[name]
    )
    score = lambda A: (
        metrics.BETTER[name] * np.nan_to_num(metrics.METRICS[name](predict, x, A, target, np.zeros(5)), nan=-9)
    )
    short, long = make(rounds=0), make(rounds=30)
    assert (long[:, relevant] == 0).all()
    assert (long[:, ~relevant] > 0).all()
    assert (score(long) >= score(short)).all()
    assert score(long).mean() > score(short).mean() or name in ("deletion", "complexity")


def test_a_wrong_explanation_wins_form_and_loses_deletion():
    predict, x, exact, target, relevant = linear_case()
    for name, wins in (("complexity", True), ("sparseness", True), ("deletion", False), ("monotonicity", False)):
        score = lambda A, name=name: metrics.BETTER[name] * metrics.METRICS[name](predict, x, A, target, np.zeros(5))
        wrong = meta.fabricate(
            metrics.METRICS[name], predict, x, target, np.zeros(5), relevant, better=metrics.BETTER[name], rounds=10
        )
        assert (np.nanmean(score(wrong)) > np.nanmean(score(exact))) == wins


def test_fabricate_needs_something_to_deny():
    predict, x, _, target, _ = linear_case()
    with pytest.raises(ValueError, match="at least one column"):
        meta.fabricate(metrics.deletion, predict, x, target, np.zeros(5), np.ones(5, bool))


def test_won_by_hand():
    assert meta.won(1.5, 1.0, 2.0) == 0.5
    assert meta.won(0.0, 1.0, 2.0) == -1
    assert np.isnan(meta.won(1.0, 2.0, 2.0))
    assert isinstance(meta.tamper(evaluate, {}), pd.DataFrame)
