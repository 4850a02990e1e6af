"""The prior: seeded, of the promised shapes, learnable, and honest about noise."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.metrics import roc_auc_score

from compendium import models
from compendium.tabular import prior


@pytest.fixture(scope="module")
def drawn():
    models.set_threads(1)
    return prior.sample(np.random.default_rng(0), tables=150, rows=120)


def test_same_seed_same_tables(drawn):
    again = prior.sample(np.random.default_rng(0), tables=150, rows=120)
    other = prior.sample(np.random.default_rng(1), tables=150, rows=120)
    for table, same in zip(drawn, again, strict=True):
        np.testing.assert_array_equal(table.x, same.x)
        np.testing.assert_array_equal(table.y, same.y)
    assert any(table.x.shape != changed.x.shape for table, changed in zip(drawn, other, strict=True))


def test_tables_are_what_they_promise(drawn):
    for x, nominal, y in drawn:
        assert x.shape == (120, len(nominal))
        assert 2 <= x.shape[1] <= prior.WIDTH
        assert np.isfinite(x[~np.isnan(x)]).all()
        assert 0 <= y.min() <= y.max() < prior.MOST_CLASSES
        codes = x[:, nominal]
        assert ((codes == np.round(codes)) | np.isnan(codes)).all()


def test_variety(drawn):
    """Over many tables: two classes and more, equal and rare, nominal columns, missing values; and tables without."""
    counts = [np.bincount(table.y) for table in drawn]
    assert 0.3 < np.mean([len(c) == 2 for c in counts]) < 0.8
    assert any(len(c) >= 8 for c in counts)
    share = [c.min() / c.sum() for c in counts if len(c) == 2]
    assert min(share) < 0.1
    assert max(share) > 0.4
    for of in (lambda t: t.nominal.any(), lambda t: np.isnan(t.x).any()):
        assert 0.03 < np.mean([of(t) for t in drawn]) < 0.9


@pytest.mark.parametrize("family", prior.FAMILIES)
def test_every_family_can_be_learnt(family):
    """Boosting beats chance on most tables, and is not perfect on all."""
    models.set_threads(1)
    scores = []
    for x, _, y in prior.sample(np.random.default_rng(2), tables=12, rows=400, families={family: 1.0}, classes=2):
        if min(np.bincount(y[:250], minlength=2)) > 5 and len(np.unique(y[250:])) == 2:
            made = HistGradientBoostingClassifier(max_iter=20, random_state=0).fit(x[:250], y[:250])
            scores.append(roc_auc_score(y[250:], made.predict_proba(x[250:])[:, 1]))
    assert np.mean(scores) > 0.6
    assert min(scores) < 0.95


def test_inputs_are_standardised():
    x = prior.inputs(prior._Draw(0), 20, 300)
    torch.testing.assert_close(x.mean(1), torch.zeros(20, prior.WIDTH), atol=1e-5, rtol=0)
    torch.testing.assert_close(x.square().mean(1), torch.ones(20, prior.WIDTH), atol=1e-3, rtol=0)


def test_classes_by_quantile_follow_the_score():
    draw = prior._Draw(0)
    scores = draw.normal(6, 500, prior.MOST_CLASSES)
    y = prior.label(draw, scores, torch.full((6,), 3), by_quantile=torch.ones(6, dtype=torch.bool))
    for score, classes in zip(scores[..., 0], y, strict=True):
        means = [score[classes == k].mean() for k in classes.unique()]
        assert all(a < b for a, b in pairwise(means))


def test_bad_arguments():
    with pytest.raises(ValueError, match="unknown family 'forest'"):
        prior.sample(np.random.default_rng(0), tables=1, rows=9, families={"forest": 1})
    with pytest.raises(ValueError, match="at least 2"):
        prior.sample(np.random.default_rng(0), tables=1, rows=1)
