"""Metrics of explanations against loops over single rows, known orders on linear ground truth, and their symmetries."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as sps

from compendium.xai import explain, metrics, nets, synthetic
from compendium.xai.metrics import faithfulness, masking

RNG = np.random.default_rng(0)
WEIGHTS = RNG.normal(size=(5, 3))


def predict(X):
    """Three classes, not linear, not additive."""
    z = np.tanh(X) @ WEIGHTS + (X[:, :1] * X[:, 1:2]) * [1.0, -1, 0.5]
    e = np.exp(z - z.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


X = RNG.normal(size=(7, 5))
A = RNG.normal(size=(7, 5))
TARGET = np.array([0, 1, 2, 0, 1, 2, 0])
BACKGROUND = RNG.normal(size=(30, 5)) @ RNG.normal(size=(5, 5)) + 1
KINDS = ("zero", "mean", "marginal", "conditional")


def f(i, x):
    return float(predict(x[None])[0, TARGET[i]])


def without(i, removed, baseline):
    """Prediction of row i without some features, the slow way: one row, one draw at a time."""
    removed = list(removed)
    kept = [j for j in range(5) if j not in removed]
    if isinstance(baseline, metrics.Conditional):
        x, m, c = X[i].copy(), baseline.mean, baseline.covariance
        if removed:
            away = np.linalg.solve(c[np.ix_(kept, kept)], X[i, kept] - m[kept]) if kept else np.zeros(0)
            x[removed] = m[removed] + c[np.ix_(removed, kept)] @ away
        return f(i, x)
    draws = np.broadcast_to(baseline, (*np.shape(baseline)[:-2], *X.shape)).reshape(-1, *X.shape)
    found = []
    for draw in draws:
        x = X[i].copy()
        x[removed] = draw[i, removed]
        found.append(f(i, x))
    return np.mean(found)


def slow(name, i, baseline):
    a, d = A[i], 5
    order = sorted(range(d), key=lambda j: -a[j])
    if name in ("faithfulness correlation", "infidelity"):
        if name == "infidelity":
            sets = [np.flatnonzero(r) for r in np.random.default_rng(3).random((200, d)) < 0.5]
        else:
            sets = [np.flatnonzero(r) for r in faithfulness._subsets(d, 2, 100, 3)]
        said = [sum(a[j] for j in s) for s in sets]
        drops = [f(i, X[i]) - without(i, s, baseline) for s in sets]
        if name == "faithfulness correlation":
            return sps.pearsonr(said, drops).statistic
        best = max(0, np.dot(said, drops) / np.dot(said, said))
        return np.mean([(best * u - v) ** 2 for u, v in zip(said, drops, strict=True)])
    if name == "deletion":
        return np.trapezoid([without(i, order[:k], baseline) for k in range(d + 1)], dx=1 / d)
    if name == "insertion":
        return np.trapezoid([without(i, order[k:], baseline) for k in range(d + 1)], dx=1 / d)
    if name in ("comprehensiveness", "sufficiency"):
        tops = [1, 1, 1, 1, 3]  # of five features: 1, 5, 10, 20 and 50 %
        part = (lambda k: order[:k]) if name == "comprehensiveness" else (lambda k: order[k:])
        return np.mean([f(i, X[i]) - without(i, part(k), baseline) for k in tops])
    if name == "monotonicity":
        rising, effects = sorted(range(d), key=lambda j: abs(a[j])), np.zeros(d)
        for k, j in enumerate(rising):
            effects[j] = abs(without(i, rising[k + 1 :], baseline) - without(i, rising[k:], baseline))
        return sps.spearmanr(np.abs(a), effects).statistic
    if name == "completeness gap":
        return abs(a.sum() - (f(i, X[i]) - without(i, range(d), baseline)))
    p = np.abs(a) / np.abs(a).sum()
    if name == "complexity":
        return sps.entropy(p)
    if name == "sparseness":  # Gini: mean absolute difference over twice the mean
        return np.abs(p[:, None] - p[None]).mean() / (2 * p.mean())
    raise AssertionError(name)


def call(name, *, x=X, a=A, target=TARGET, baseline=None, model=predict, **options):
    baseline = np.zeros(x.shape[1]) if baseline is None else baseline
    return metrics.METRICS[name](model, x, a, target, baseline, **options)


ALONE = [name for name in metrics.METRICS if name not in metrics.SENSITIVITIES]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ALONE)
def test_equal_to_a_loop_over_rows(name, kind):
    baseline = metrics.baselines(kind, BACKGROUND, X, seed=1, draws=4)
    options = {"subset": 2} if name == "faithfulness correlation" else {}
    found = call(name, baseline=baseline, seed=3, **options)
    np.testing.assert_allclose(found, [slow(name, i, baseline) for i in range(len(X))], rtol=1e-9, atol=1e-12)


def test_sensitivity_is_a_loop_over_draws():
    explained = lambda x: np.sin(2 * x)
    scale, seen = BACKGROUND.std(0), []
    explain_ = lambda x: (seen.append(x), explained(x))[1]
    a = explained(X)
    values = {n: call(n, a=a, explain=explain_, scale=scale, seed=5, draws=4) for n in metrics.SENSITIVITIES}
    assert len(seen) == 12
    np.testing.assert_array_equal(seen[:4], seen[4:8])  # common random numbers
    assert (np.abs(np.array(seen) - X) <= 0.1 * scale).all()
    far = np.array([[np.sqrt(((explained(x)[i] - a[i]) ** 2).sum()) for x in seen[:4]] for i in range(len(X))])
    np.testing.assert_allclose(values["max sensitivity"], far.max(1))
    np.testing.assert_allclose(values["mean sensitivity"], far.mean(1))
    np.testing.assert_allclose(values["relative sensitivity"], far.max(1) / np.sqrt((a**2).sum(1)))
    together = metrics.sensitivities(predict, X, a, TARGET, 0 * X, explain=explained, scale=scale, seed=5, draws=4)
    for name, value in together.items():
        np.testing.assert_array_equal(value, values[name])


def test_noise_infidelity_of_the_gradient_is_zero_on_a_linear_model():
    w = np.array([1.0, -2, 0.5, 0, 3])
    linear = lambda x: np.stack([-(x @ w), x @ w], 1)
    slopes = np.where(np.arange(7)[:, None] % 2, w, -w)
    exact = call("infidelity", a=slopes, target=np.arange(7) % 2, model=linear, kind="noise")
    assert exact.max() < 1e-20
    wrong = call("infidelity", a=slopes * X, target=np.arange(7) % 2, model=linear, kind="noise")
    assert wrong.min() > 1e-4  # contributions are not slopes: this kind is not for them


# The gate: right beats random beats upside down ------------------------------------------------------------------

TABLE = synthetic.linear(400, seed=1)
LOGIT = explain.predictor(TABLE.predict, "logit")


def oracle_and_worse():
    """Exact attributions of both classes, noise of the same size, and the exact ones upside down."""
    target = (np.arange(400) % 2).astype(int)
    right = TABLE.attribution * np.where(target, 1, -1)[:, None]
    noise = np.random.default_rng(2).normal(size=right.shape) * right.std()
    return target, right, noise


def upside_down(name, a):
    """Signs turned; where only sizes count, the largest becomes the smallest."""
    if name != "monotonicity":
        return -a
    size = np.sort(np.abs(a), 1)
    return np.take_along_axis(size[:, ::-1], np.abs(a).argsort(1).argsort(1), 1)


# The exact attribution is of the log-odds: it does not sum to a probability, so that gap is not asked for.
@pytest.mark.parametrize(
    ("name", "model"),
    [(name, LOGIT) for name in metrics.TRUTHFUL] + [(name, TABLE.predict) for name in metrics.TRUTHFUL[:-1]],
)
def test_oracle_beats_random_beats_reversed(name, model):
    target, right, noise = oracle_and_worse()
    value = lambda a: np.nanmean(call(name, x=TABLE.x, a=a, target=target, model=model)) * metrics.BETTER[name]
    assert value(right) > value(noise) + 0.01 * abs(value(noise))
    assert value(noise) > value(upside_down(name, right))
    if model is LOGIT and name in ("faithfulness correlation", "infidelity", "completeness gap", "monotonicity"):
        best = 1 if metrics.BETTER[name] == 1 else 0
        np.testing.assert_allclose(call(name, x=TABLE.x, a=right, target=target, model=model), best, atol=1e-6)


@pytest.mark.parametrize("name", metrics.TRUTHFUL)
def test_noise_mixed_in_makes_every_metric_worse(name):
    target, right, noise = oracle_and_worse()
    values = [
        np.nanmean(call(name, x=TABLE.x, a=(1 - t) * right + t * noise, target=target, model=LOGIT))
        for t in (0, 0.25, 0.5, 0.75, 1)
    ]
    assert (np.diff(values) * metrics.BETTER[name] < 0).all()


def test_metrics_of_form_cannot_tell_right_from_wrong():
    _, right, _ = oracle_and_worse()
    shuffled = right[:, ::-1]
    for name in ("complexity", "sparseness"):
        value = lambda a: call(name, x=TABLE.x, a=a, target=1, model=TABLE.predict)  # noqa: B023
        np.testing.assert_allclose(value(right), value(shuffled))


# Symmetries ------------------------------------------------------------------------------------------------------

ORDER = np.array([3, 0, 4, 1, 2])
BACK = ORDER.argsort()


@pytest.mark.parametrize("kind", ["mean", "conditional"])
@pytest.mark.parametrize("name", ALONE)
def test_columns_may_come_in_any_order(name, kind):
    moved = lambda x: predict(x[:, BACK])
    options = {"faithfulness correlation": {"subset": 1}, "infidelity": {"samples": 4000}}.get(name, {})
    before = call(name, baseline=metrics.baselines(kind, BACKGROUND, X), **options)
    after = metrics.METRICS[name](
        moved, X[:, ORDER], A[:, ORDER], TARGET, metrics.baselines(kind, BACKGROUND[:, ORDER], X[:, ORDER]), **options
    )
    loose = name == "infidelity"  # its random sets are others
    np.testing.assert_allclose(after, before, rtol=0.1 if loose else 1e-9, atol=1e-3 if loose else 1e-9)


def test_a_misaligned_explanation_is_caught():
    """Sorted by size, as some packages return it: the numbers are there, at the wrong features."""
    target, right, _ = oracle_and_worse()
    by_size = np.take_along_axis(right, (-np.abs(right)).argsort(1), 1)
    score = lambda a: call("faithfulness correlation", x=TABLE.x, a=a, target=target, model=LOGIT).mean()
    assert score(right) > 0.999
    assert score(by_size) < 0.4


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 6), st.integers(1, 4))
def test_deleting_is_inserting_backwards(seed, d, n):
    rng = np.random.default_rng(seed)
    x, a, w = rng.normal(size=(n, d)), rng.normal(size=(n, d)), rng.normal(size=(d, 3))
    model = lambda z: np.tanh(z @ w)
    target = rng.integers(3, size=n)
    down = metrics.deletion_curve(model, x, a, target, np.ones(d))
    up = metrics.insertion_curve(model, x, -a, target, np.ones(d))
    np.testing.assert_allclose(down, up[:, ::-1])
    np.testing.assert_allclose(down[:, 0], model(x)[np.arange(n), target])


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(-100, 100), min_size=2, max_size=8), st.floats(0.01, 100))
def test_form_does_not_depend_on_scale_and_sign(values, factor):
    a = np.array([values])
    x, model = np.zeros_like(a), lambda z: np.zeros((len(z), 2))
    for name in ("complexity", "sparseness"):
        one, two = (call(name, x=x, a=b, target=0, model=model)[0] for b in (a, -a * factor))
        assert one == pytest.approx(two, abs=1e-9)
    if np.abs(a).max() > 0:
        assert -1e-9 <= call("complexity", x=x, a=a, target=0, model=model)[0] <= np.log(a.shape[1]) + 1e-9
        assert -1e-9 <= call("sparseness", x=x, a=a, target=0, model=model)[0] <= 1 - 1 / a.shape[1] + 1e-9


def test_one_feature_and_all_alike_are_the_ends_of_form():
    one, alike = np.eye(4)[:1], np.ones((1, 4))
    value = lambda name, a: call(name, x=np.zeros((1, 4)), a=a, target=0, model=lambda z: np.zeros((len(z), 1)))[0]
    assert [value("complexity", one), value("complexity", alike)] == pytest.approx([0, np.log(4)])
    assert [value("sparseness", one), value("sparseness", alike)] == pytest.approx([0.75, 0])
    assert [value("complexity", 0 * one), value("sparseness", 0 * one)] == [0, 0]


def test_chunks_do_not_matter(monkeypatch):
    marginal = metrics.baselines("marginal", BACKGROUND, X)
    whole = {(n, k): call(n, baseline=b) for n in metrics.TRUTHFUL for k, b in (("m", marginal), ("z", np.zeros(5)))}
    for size in (1, 300, 5000):
        monkeypatch.setattr(masking, "AT_ONCE", size)
        for (name, kind), value in whole.items():
            if size > 1 or name in ("deletion", "monotonicity"):
                again = call(name, baseline=marginal if kind == "m" else np.zeros(5))
                np.testing.assert_allclose(again, value, rtol=1e-10)


def test_the_class_stays_the_same_when_the_prediction_flips():
    """Removing the feature that decides flips the prediction: the drop is of the explained class."""
    model = lambda x: np.stack([1 - x[:, 0], x[:, 0]], 1)
    x, a = np.array([[0.9, 0.0]]), np.array([[1.0, 0.0]])
    assert call("comprehensiveness", x=x, a=a, target=1, model=model)[0] == pytest.approx(0.9)  # new winner: 1.0 > 0.9


# Edges -----------------------------------------------------------------------------------------------------------


def test_a_constant_model_has_defined_scores():
    flat = lambda x: np.full((len(x), 3), 1 / 3)
    value = {name: call(name, model=flat) for name in metrics.TRUTHFUL}
    assert np.isnan(value["faithfulness correlation"]).all()
    assert np.isnan(value["monotonicity"]).all()
    for name in ("comprehensiveness", "sufficiency", "infidelity"):
        np.testing.assert_allclose(value[name], 0, atol=1e-15)
    for name in ("deletion", "insertion"):
        np.testing.assert_allclose(value[name], 1 / 3)
    assert np.isnan(call("faithfulness correlation", a=np.ones_like(A), subset=2)).all()  # sums do not vary


def test_one_row_works_and_is_the_same_as_in_a_batch():
    for name in ALONE:
        alone = metrics.METRICS[name](predict, X[:1], A[:1], int(TARGET[0]), np.zeros(5), seed=4)
        np.testing.assert_allclose(alone, call(name, seed=4)[:1], rtol=1e-10)


def test_bad_input_is_refused_by_every_metric():
    for name in metrics.METRICS:
        options = {"explain": lambda x: x} if name in metrics.SENSITIVITIES else {}
        for bad, message in (
            ({"a": A[:, :4]}, "attributions have shape"),
            ({"a": A[:3]}, "attributions have shape"),
            ({"a": A * np.nan}, "attributions contain missing"),
            ({"x": np.where(X > 1, np.nan, X)}, "missing or infinite values in"),
            ({"x": X[0], "baseline": np.zeros(5)}, "must be a table"),
            ({"target": 3}, "among the model's outputs 0 to 2"),
            ({"target": -1}, "among the model's outputs"),
            ({"target": 0.5}, "class number"),
            ({"target": [0, 1]}, "one class number or one a row"),
            ({"baseline": np.zeros(4)}, "baseline must be"),
            ({"baseline": np.full(5, np.nan)}, "baseline must be"),
        ):
            with pytest.raises(ValueError, match=message):
                call(name, **options, **bad)


def test_other_bad_settings_are_refused():
    with pytest.raises(ValueError, match="subset must be between 1 and the 5"):
        call("faithfulness correlation", subset=6)
    with pytest.raises(ValueError, match="choose removal or noise"):
        call("infidelity", kind="other")
    with pytest.raises(ValueError, match="pass scale="):
        metrics.max_sensitivity(predict, X[:1], A[:1], 0, np.zeros(5), explain=lambda x: x)
    with pytest.raises(ValueError, match="explain must return"):
        call("max sensitivity", explain=lambda x: x[:, :2])
    with pytest.raises(ValueError, match="choose zero, mean"):
        metrics.baselines("median", BACKGROUND, X)
    with pytest.raises(ValueError, match="background has 5 features and X 4"):
        metrics.baselines("zero", BACKGROUND, X[:, :4])


def test_conditional_stays_near_correlated_data_and_copes_with_constant_columns():
    rng = np.random.default_rng(0)
    z = rng.normal(size=(500, 1))
    rows = np.concatenate([z, z + 0.1 * rng.normal(size=z.shape), np.ones_like(z)], 1)
    x = np.array([[2.0, 2.1, 1.0]])
    filled = metrics.Conditional(rows).fill(x, np.array([[[True, False, False], [False, False, False]]]))
    assert filled[0, 0] == pytest.approx([2, 2, 1], abs=0.05)
    assert filled[0, 1] == pytest.approx(rows.mean(0))


# Randomisation and agreement -------------------------------------------------------------------------------------


def test_randomised_layers_change_gradients_and_not_what_ignores_the_model():
    table = synthetic.linear(200, seed=0)
    net = nets.mlp(table.x, table.y, hidden=(16, 16), epochs=8)
    before = [p.clone() for p in net.parameters()]
    for mode in ("cascading", "independent"):
        found = metrics.mprt(net, table.x[:20], 1, explain.gradient, mode=mode)
        assert list(found) == ["4", "2", "0"]
        assert found.to_numpy().max() < 0.999
        assert found.to_numpy().mean() < 0.7
        ignoring = metrics.mprt(net, table.x[:20], 1, explain.random, mode=mode)
        np.testing.assert_allclose(ignoring, 1)
    assert all((a == b).all() for a, b in zip(before, net.parameters(), strict=True))
    again = metrics.mprt(net, table.x[:20], 1, explain.gradient, mode="independent")
    assert again.equals(metrics.mprt(net, table.x[:20], 1, explain.gradient, mode="independent"))
    with pytest.raises(ValueError, match="cascading or independent"):
        metrics.mprt(net, table.x, 1, explain.gradient, mode="other")
    with pytest.raises(ValueError, match="torch nets"):
        metrics.mprt(table.predict, table.x, 1, explain.gradient)


@pytest.mark.parametrize("tied", [False, True])
def test_kendall_w_is_friedmans_statistic_rescaled(tied):
    rng = np.random.default_rng(1)
    scores = rng.integers(4, size=(6, 5)) if tied else rng.random((6, 5))
    friedman = sps.friedmanchisquare(*scores.T).statistic
    assert metrics.kendall_w(scores) == pytest.approx(friedman / (6 * (5 - 1)))


def test_kendall_w_and_tau_at_their_ends():
    assert metrics.kendall_w([[1, 2, 3]] * 4) == pytest.approx(1)
    assert metrics.kendall_w([[1, 2, 3], [3, 2, 1]]) == pytest.approx(0)
    assert np.isnan(metrics.kendall_w([[1, 1, 1], [2, 2, 2]]))
    assert metrics.agreement([1, 2, 3], [10, 20, 30]) == 1
    assert metrics.agreement([1, 2, 3], [3, 2, 1]) == -1
    with pytest.raises(ValueError, match="at least two by two"):
        metrics.kendall_w([[1, 2, 3]])
