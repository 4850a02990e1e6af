"""Tables with known explanations: the stated attributions are the Shapley values of the stated function."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import logit
from sklearn.metrics import roc_auc_score

from compendium.xai import explain, nets, synthetic


@pytest.mark.parametrize("kind", synthetic.TABLES)
def test_attributions_are_shapley_values_of_the_function(kind):
    """By permutations from the baseline 0: exact for these functions, which have interactions of two at most."""
    table = synthetic.TABLES[kind](12, seed=3)
    score = lambda x: logit(table.predict(x)[:, 1])
    d = table.x.shape[1]
    zero = score(np.zeros((1, d)))
    np.testing.assert_allclose(table.attribution.sum(1), score(table.x) - zero, atol=1e-6)
    # A feature's Shapley value with interactions of two: the mean of coming first and coming last.
    for j in range(d):
        only, but = np.zeros_like(table.x), table.x.copy()
        only[:, j], but[:, j] = table.x[:, j], 0
        exact = ((score(only) - zero) + (score(table.x) - score(but))) / 2
        np.testing.assert_allclose(table.attribution[:, j], exact, atol=1e-6)


@pytest.mark.parametrize("kind", synthetic.TABLES)
def test_flags_columns_and_labels_are_as_described(kind):
    table = synthetic.TABLES[kind](20_000, seed=0)
    np.testing.assert_allclose(table.x.mean(0), 0, atol=0.04)
    np.testing.assert_allclose(table.x.std(0), 1, atol=0.04)
    assert 0.4 < table.y.mean() < 0.6
    assert ((table.predict(table.x)[:, 1] > 0.5) == table.y).mean() > 0.78
    np.testing.assert_array_equal(np.abs(table.attribution).max(0) > 0, table.relevant)
    # Dependence on y: a difference in mean or in mean size between the classes, alone or (interactions) of a product.
    apart = lambda z: np.abs(z[table.y == 1].mean(0) - z[table.y == 0].mean(0))
    alone = np.maximum(apart(table.x), apart(np.abs(table.x))) > 0.08
    if kind == "interaction":
        assert not alone.any()
        i, j = np.flatnonzero(table.relevant)[[0, 1]]
        pairs = apart((table.x[:, :, None] * table.x[:, None, :]).reshape(len(table.x), -1)).reshape(8, 8) > 0.2
        np.testing.assert_array_equal(pairs.any(0), table.associated)
        assert i != j
    else:
        np.testing.assert_array_equal(alone, table.associated)
    assert len(table.names) == len(set(table.names)) == table.x.shape[1]


def test_copies_and_suppressors_are_where_both_notions_differ():
    copies, suppressor = synthetic.copies(5000, 1), synthetic.suppressor(5000, 1)
    differ = [n for n, r, a in zip(copies.names, copies.relevant, copies.associated, strict=True) if r != a]
    assert sorted(differ) == ["copy of x0", "copy of x0 (2)", "copy of x1"]
    j, original = copies.names.index("copy of x0"), copies.names.index("x0")
    assert np.corrcoef(copies.x[:, j], copies.x[:, original])[0, 1] > 0.9
    j = suppressor.names.index("noise")
    assert suppressor.relevant[j]
    assert not suppressor.associated[j]
    assert abs(np.corrcoef(suppressor.x[:, j], suppressor.y)[0, 1]) < 0.05


def test_seeds_change_the_table_and_nothing_else_does():
    a, b, c = synthetic.linear(50, 1), synthetic.linear(50, 1), synthetic.linear(50, 2)
    np.testing.assert_array_equal(a.x, b.x)
    assert not np.array_equal(a.x, c.x)
    assert {tuple(synthetic.linear(5, s).relevant) for s in range(6)} != {tuple(a.relevant)}  # columns are shuffled


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 9), st.booleans())
def test_auroc_is_scikit_learns(seed, d, signed):
    rng = np.random.default_rng(seed)
    A, relevant = rng.integers(-3, 4, size=(4, d)), rng.random((4, d)) < 0.5
    found = synthetic.auroc(A, relevant, signed=signed)
    for value, a, yes in zip(found, A, relevant, strict=True):
        if yes.all() or not yes.any():
            assert np.isnan(value)
        else:
            assert value == pytest.approx(roc_auc_score(yes, a if signed else np.abs(a)))


def test_pointing_game():
    relevant = np.array([True, False, False, False])
    A = np.array([[-3, 1, 2, 0], [1, 3, 0, 0], [2, -2, 0, 1], [0, 0, 0, 0.0]])
    np.testing.assert_allclose(synthetic.pointing(A, relevant), [1, 0, 0.5, 0.25])
    np.testing.assert_allclose(synthetic.pointing(A, relevant, signed=True), [0, 0, 1, 0.25])
    for bad in (A[:, :3], A[0], np.full_like(A, np.nan)):
        with pytest.raises(ValueError, match="attributions"):
            synthetic.pointing(bad, relevant)


# Nets ------------------------------------------------------------------------------------------------------------


def test_a_net_learns_is_plain_and_is_repeatable():
    table = synthetic.linear(600, seed=0)
    shifted = table.x * 10 + 50  # its standardisation is inside
    net = nets.mlp(shifted[:400], table.y[:400], hidden=(32,), epochs=15)
    assert [type(m).__name__ for m in net] == ["Linear", "ReLU", "Linear"]
    assert not net.training
    accuracy = (explain.predicted(net, shifted[400:]) == table.y[400:]).mean()
    assert accuracy > 0.78
    state = torch.random.get_rng_state()
    again = nets.mlp(shifted[:400], table.y[:400], hidden=(32,), epochs=15)
    assert torch.equal(state, torch.random.get_rng_state())
    assert all(torch.equal(a, b) for a, b in zip(net.parameters(), again.parameters(), strict=True))


def test_nets_refuse_what_they_cannot_learn_from():
    x = np.zeros((4, 2))
    with pytest.raises(ValueError, match="missing values"):
        nets.mlp(x * np.nan, [0, 1, 0, 1])
    with pytest.raises(ValueError, match=r"class numbers 0 \.\. K-1"):
        nets.mlp(x, [1, 2, 1, 2])
