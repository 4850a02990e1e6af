"""Gate, ladder, agreement and retest against closed forms; requirements against explanations made to meet or miss them."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as sps

from compendium import stats
from compendium.xai import meta, metrics
from compendium.xai.explain import EXPLAINERS, predictor
from compendium.xai.meta import requirements


def test_reversed_order_by_hand():
    A = np.array([[3.0, -1, 2, 0]])
    assert meta.reversed_order(A).tolist() == [[-1, 3, 0, 2]]
    made = meta.impostors(A)
    assert np.abs(made["sizes reversed"]).tolist() == [[0, 2, 1, 3]]
    for B in made.values():
        np.testing.assert_allclose(np.sort(np.abs(B)), np.sort(np.abs(A)))


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6))
def test_reversing_twice_is_nothing_and_once_is_tau_minus_one(seed):
    A = np.random.default_rng(seed).normal(size=(4, 6))
    np.testing.assert_array_equal(meta.reversed_order(meta.reversed_order(A)), A)
    assert all(metrics.agreement(a, b) == pytest.approx(-1) for a, b in zip(A, meta.reversed_order(A), strict=True))


def test_known_case_is_exact():
    """The attribution of the predicted class sums to its log-odds over those at 0."""
    for kind in ("linear", "additive", "interaction"):
        predict, X, exact, target, *_ = meta.known_case(kind, rows=15, seed=1)
        own = predict(X)[np.arange(15), target] - predict(np.zeros_like(X))[np.arange(15), target]
        np.testing.assert_allclose(exact.sum(1), own, atol=1e-6)
        assert (target == predict(X).argmax(1)).all()
    with pytest.raises(ValueError, match="unknown table"):
        meta.known_case("nonsense")


def test_gate_passes_metrics_that_ask_the_model_and_fails_those_that_do_not():
    found = meta.gate(("linear", "additive"), seeds=(0, 1), rows=25)
    share = meta.passing(found).set_index("metric").share
    asks = [name for name in metrics.TRUTHFUL if name != "completeness gap"]  # sums only: any order will do
    assert (share[asks] == 1).all()
    assert (share[["complexity", "sparseness", "completeness gap"]] == 0).all()


def test_gate_fails_with_the_sign_of_a_metric_flipped(monkeypatch):
    monkeypatch.setitem(metrics.BETTER, "deletion", 1)
    found = meta.gate(("linear",), names=("deletion", "insertion"), seeds=(0, 1), rows=25)
    share = meta.passing(found).set_index("metric").share
    assert share["deletion"] == 0
    assert share["insertion"] == 1


@pytest.mark.parametrize(
    ("value", "first", "passes"),
    [
        ((3, 2, 1, 1), True, True),
        ((3, 2, 2.5, 1), True, True),
        ((3, 2, 2, 2), True, False),
        ((1, 2, 0, 0), False, False),
    ],
)
def test_rule_of_the_gate(value, first, passes):
    names = ("oracle", "random", "reversed", "sizes reversed")
    assert meta.passes(dict(zip(names, value, strict=True))) == {"first": first, "passes": passes}


def test_random_numbers_pass_the_gate_by_chance_only():
    names = ("oracle", "random", "reversed", "sizes reversed")
    drawn = np.random.default_rng(0).random((4000, 4))
    found = pd.DataFrame([meta.passes(dict(zip(names, row, strict=True))) for row in drawn])
    assert found["first"].mean() == pytest.approx(1 / 2, abs=0.03)
    assert found["passes"].mean() == pytest.approx(1 / 4, abs=0.03)


def test_noise_depends_on_rows_explanation_and_seed_only():
    X, A = np.random.default_rng(0).normal(size=(2, 5, 3))
    first = meta.noise(None, X, A, 0, None, seed=1)
    np.testing.assert_array_equal(first, meta.noise(min, X.copy(), A.copy(), 1, X, seed=1))
    assert (first != meta.noise(None, X, A, 0, None, seed=2)).all()
    assert (first != meta.noise(None, X, A + 1e-9, 0, None, seed=1)).all()
    assert (first != meta.noise(None, X + 1, A, 0, None, seed=1)).all()


def test_share_interval_is_wilsons():
    low, high = stats.share_interval(8, 10)
    z, p, n = sps.norm.ppf(0.975), 0.8, 10
    centre = (p + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * np.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    assert (low, high) == pytest.approx((centre - half, centre + half))
    assert np.isnan(stats.share_interval(0, 0)).all()


def test_ladder_goes_from_exact_to_noise():
    A = np.random.default_rng(0).normal(size=(50, 6))
    steps = meta.ladder(A, seed=3)
    np.testing.assert_array_equal(steps[0], A)
    near = [meta.closeness(B, A) for B in steps.values()]
    assert near[0] == pytest.approx(1)
    assert near == sorted(near, reverse=True)
    assert abs(near[-1]) < 0.15
    assert meta.closeness(np.ones_like(A), A) == 0


def test_metrics_fall_as_noise_is_mixed_in():
    found = meta.ladder_validity(("linear",), names=("deletion", "infidelity"), seeds=(0, 1), rows=30)
    assert (found.tau > 0.8).all()


def test_validity_of_the_truth_itself_and_its_reverse():
    truth = pd.Series({"a": 1.0, "b": 0.5, "c": 0.2, "d": 0.1})
    table = pd.DataFrame(
        {"same": truth, "reverse": -truth, "flat": 0 * truth, "one swap": [1.0, 0.2, 0.5, 0.1]}, truth.index
    )
    found = meta.validity(table, truth)
    np.testing.assert_allclose(found, [1, -1, 0, 4 / 6])
    with pytest.raises(ValueError, match="scores are of"):
        meta.validity(table, truth[:3])
    taus = meta.tau_matrix(table)
    np.testing.assert_allclose(taus, taus.T)
    assert taus.loc["same", "same"] == 1
    assert meta.concordance(table[["same", "same", "same"]]) == pytest.approx(1)
    assert meta.concordance(table[["same", "reverse"]]) == pytest.approx(0)


def test_icc_by_hand():
    """Shrout & Fleiss 1979, table 2: six targets, four judges, ICC(2,1) = 0.29."""
    ratings = [[9, 2, 5, 8], [6, 1, 3, 2], [8, 4, 6, 8], [7, 1, 2, 6], [10, 5, 6, 9], [6, 2, 4, 7]]
    assert meta.icc(ratings) == pytest.approx(0.29, abs=0.005)
    assert meta.icc(np.arange(5)[:, None] * np.ones(3)) == pytest.approx(1)
    assert np.isnan(meta.icc(np.ones((3, 3))))
    with pytest.raises(ValueError, match="items, repeats"):
        meta.icc([[1.0, 2]])


def test_retest_of_orders_that_stay_and_turn():
    def scores(turn=False):
        a, b = np.full(4, 2.0), np.full(4, 1.0)
        return {
            "stays": {"a": a, "b": b, "c": b - 1},
            "turns": {"a": b if turn else a, "b": a if turn else b, "c": 0 * a},
        }

    found = meta.retest(meta.tamper(scores, {"knob": {"turned": {"turn": True}}})).set_index("metric")
    assert found.tau["stays"] == pytest.approx(1)
    assert found.icc["stays"] == pytest.approx(1)
    assert found.tau["turns"] == pytest.approx(1 / 3)  # two of three pairs keep their order
    assert found.icc["turns"] == pytest.approx(0.6)  # of (2, 1), (1, 2), (0, 0), by hand


def made_case(names=None):
    weight = np.array([2.0, -1, 0])
    rng = np.random.default_rng(0)
    X, background = rng.normal(size=(10, 3)), rng.normal(size=(30, 3))
    predict = lambda x: np.stack([-(x @ weight), x @ weight], 1)
    calls = []

    def exact(x, target, seed):
        calls.append(len(x))
        return x * weight * (2 * target - 1)[:, None]

    wrong = lambda x, target, seed: np.random.default_rng(seed).normal(size=x.shape)
    return meta.Case(predict, X, background, {"exact": exact, "wrong": wrong}, names=names), calls


def test_case_scores_are_the_metrics_and_are_kept():
    case, calls = made_case()
    found = case(baseline="zero", seed=3)
    target = case.predict(case.X).argmax(1)
    A = case.X * [2, -1, 0] * (2 * target - 1)[:, None]
    np.testing.assert_allclose(
        found["deletion"]["exact"], -metrics.deletion(case.predict, case.X, A, target, np.zeros(3))
    )
    near = metrics.max_sensitivity(
        case.predict,
        case.X,
        A,
        target,
        np.zeros(3),
        seed=3,
        draws=3,
        scale=case.background.std(0),
        explain=lambda X: X * [2, -1, 0] * (2 * target - 1)[:, None],
    )
    np.testing.assert_allclose(found["max sensitivity"]["exact"], -near)
    before = len(calls)
    case(baseline="mean", seed=3)
    assert len(calls) == before, "another baseline needs no new explanation"
    half = case(baseline="zero", seed=3, rows=np.arange(5))
    np.testing.assert_array_equal(half["deletion"]["exact"], found["deletion"]["exact"][:5])


def test_case_settings_change_what_they_should():
    case, _ = made_case()
    usual, longer = case(), case(writing={"exact": lambda A: 10 * A})
    np.testing.assert_allclose(longer["max sensitivity"]["exact"], 10 * usual["max sensitivity"]["exact"])
    np.testing.assert_allclose(longer["deletion"]["exact"], usual["deletion"]["exact"])
    np.testing.assert_array_equal(longer["max sensitivity"]["wrong"], usual["max sensitivity"]["wrong"])
    other = case(options={"comprehensiveness": {"fractions": (1.0,)}})
    assert not np.allclose(other["comprehensiveness"]["exact"], usual["comprehensiveness"]["exact"])
    np.testing.assert_array_equal(other["deletion"]["exact"], usual["deletion"]["exact"])
    assert (case.target(1) == 1).all()
    table = case.table(baseline="zero")
    assert table.loc["exact", "completeness gap"] == pytest.approx(0, abs=1e-9)
    assert table.loc["exact", "faithfulness correlation"] > table.loc["wrong", "faithfulness correlation"]


def test_an_explanation_that_ignores_the_input_wins_the_sensitivities():
    case, _ = made_case(names=("max sensitivity", "mean sensitivity", "relative sensitivity"))
    table = case.table()
    assert (table.loc["wrong"] == 0).all()
    assert (table.loc["exact"] < 0).all()


def test_every_knob_can_be_turned():
    case, _ = made_case()
    found = meta.tamper(case, meta.knobs(case, seeds=1, draws=1))
    flipped = meta.flips(found)
    assert set(flipped.knob) == {*meta.knobs(case), "any knob"}
    assert np.isfinite(flipped.flipped).all()


def test_a_trained_case_knows_good_from_random():
    case, truth = meta.trained_case("linear", rows=10, methods=("integrated gradients", "occlusion", "random"))
    assert truth.loc["integrated gradients", "closeness"] > 0.85
    assert abs(truth.loc["random", "closeness"]) < 0.5
    assert (truth.fit > 0.9).all()
    logits = case.predict(case.X)
    np.testing.assert_allclose(logits.sum(1), 0, atol=1e-5)
    found = meta.validity(case.table(), truth.closeness)
    assert found["deletion"] == pytest.approx(1, abs=0.7)


def test_climbs_win_form_only():
    found = meta.climbs(("linear",), names=("deletion", "complexity"), seeds=(0,), rows=12, rounds=8)
    all_denied = found[found.denied == "everything"].set_index("metric")
    assert all_denied.loc["deletion", "won"] < 0.2
    assert all_denied.loc["complexity", "beats"] == 1
    assert (all_denied.auroc == 0).all()


def test_additive_net_is_additive_and_its_contributions_are_shapley_values():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(300, 5))
    y = (x[:, 0] + x[:, 1] ** 2 - 1 + 0.3 * rng.normal(size=300) > 0).astype(int)
    use = np.array([True, True, True, True, False])
    net = meta.additive_net(x, y, use=use, steps=150)
    p = predictor(net)(x)
    assert ((p[:, 1] > 0.5) == y).mean() > 0.9
    found = meta.contributions(net, x[:6], x[:40])
    kernel = EXPLAINERS["kernel shap"](net, x[:6], 1, background=x[:40], output="logit")
    np.testing.assert_allclose(found, kernel, atol=1e-6)
    assert (found[:, 4] == 0).all()


def setting(explain):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(30, 6))
    exact = X * [3, 2, 1, 1, 0, 0]
    return meta.Setting(
        explain, X, X + 0.01, exact, np.array([1, 1, 1, 1, 0, 0], bool), np.array([1, 0, 0, 0, 0, 0], bool)
    )


def test_requirements_are_met_by_the_exact_explanation_and_missed_by_wrong_ones():
    right = setting(lambda X, seed: X * [3, 2, 1, 1, 0, 0])
    for measure in (
        meta.reasons_repeated,
        meta.reasons_used,
        meta.reasons_true,
        meta.strongest_found,
        meta.direction_right,
        meta.order_repeated,
    ):
        assert measure(right) == pytest.approx(1)
    assert meta.reasons_after_error(right) > 0.9
    assert meta.order_after_error(right) > 0.95
    wrong = setting(lambda X, seed: np.abs(X) * [0, 0, 0, 1, 1, 5])  # two of three are not used
    assert meta.reasons_used(wrong) < 0.1
    assert meta.reasons_true(wrong) < 0.4
    assert meta.strongest_found(wrong) < 0.5
    assert meta.reasons_changeable(wrong) == 0
    unsteady = setting(lambda X, seed: np.random.default_rng(seed).normal(size=X.shape))
    assert meta.reasons_repeated(unsteady) < 0.7
    assert meta.order_repeated(unsteady) < 0.3


def test_reasons_are_positive_and_at_most_four():
    found = requirements._reasons(np.array([[5.0, 4, 3, 2, 1], [1, -5, 0, 0, 0], [0, 0, 0, 0, 0]]))
    assert found.tolist() == [[True] * 4 + [False], [True] + [False] * 4, [False] * 5]


def test_domain_on_a_set_of_scikit_learn():
    found = meta.domain("breast cancer", rows=6, methods=("integrated gradients", "random"))
    met = found.pivot_table(index="method", columns="requirement", values="met")
    assert met.loc["oracle"].all()
    assert not met.loc["random", "strongest found"]
    assert set(found.requirement) == set(meta.HEALTH)


def test_domains_name_columns_that_exist():
    for spec in meta.DOMAINS.values():
        assert set(spec.unused) | set(spec.changeable) <= set(spec.names)
        assert not set(spec.unused) & set(spec.changeable)
        assert all(0 < need.least <= 1 and need.text for need in spec.requirements.values())
