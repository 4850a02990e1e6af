"""`xai.report` on models of a user's own: complete, right way round, and clear when something is wrong."""

import matplotlib

matplotlib.use("Agg")

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from torch import nn

from compendium import models, xai
from compendium.xai import explain, metrics, nets, synthetic

models.set_threads(1)
TABLE = synthetic.linear(300, seed=0)
FEW, REST = TABLE.x[:16], TABLE.x[16:]


def test_scores_are_the_means_of_the_metrics_and_the_figure_shows_them():
    model = LogisticRegression().fit(TABLE.x, TABLE.y)
    found = xai.report(model, FEW, y=TABLE.y[:16], background=REST, explainers=["shap", "random"], seed=1)
    assert set(found.scores.explainer) == {"shap", "random"}
    assert set(found.scores.metric) == set(metrics.METRICS)
    assert ((found.scores.low <= found.scores["mean"]) & (found.scores["mean"] <= found.scores.high)).all()
    assert found.accuracy == pytest.approx(model.score(FEW, TABLE.y[:16]))
    np.testing.assert_array_equal(found.target, model.predict(FEW))
    A = explain.shap_values(model, FEW, found.target, background=REST, seed=1)
    np.testing.assert_allclose(found.attributions["shap"], A)
    drop = metrics.deletion(explain.predictor(model), FEW, A, found.target, REST.mean(0))
    assert found.table().loc["shap", "deletion"] == pytest.approx(drop.mean())
    ranks = found.ranks()
    asked = [m for m in metrics.TRUTHFUL if m != "sufficiency"]
    assert (ranks.loc["shap", asked] == 1).all()  # the right way round for high and for low
    fig = found.figure()
    texts = [t.get_text() for t in fig.axes[0].texts]
    assert len(texts) == 2 * len(metrics.METRICS)
    assert any(t.startswith(f"{drop.mean():.2g}\n") for t in texts)
    text = found.to_markdown()
    assert text.count("\n| ") == 3
    assert f"Accuracy of the model: {found.accuracy:.3f}" in text
    assert "**" in text
    assert "deletion ↓" in text
    assert "insertion ↑" in text


def test_default_explainers_are_those_that_can():
    names = ["deletion"]
    boosting = HistGradientBoostingClassifier(max_iter=5).fit(TABLE.x, TABLE.y)
    assert set(xai.report(boosting, FEW, metrics=names).attributions) == {"shap", "lime", "occlusion", "random"}
    net = xai.report(nets.mlp(REST, TABLE.y[16:], hidden=(8,), epochs=3), FEW[:4], background=REST, metrics=names)
    assert set(net.attributions) == set(xai.summary.DEFAULT)
    assert net.failed == {}


def test_an_explainer_that_fails_is_left_out_with_a_warning_unless_asked_for():
    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.Bilinear(8, 8, 2)

        def forward(self, x):
            return self.inner(x, x)

    torch.manual_seed(0)
    model = Odd()
    with pytest.warns(UserWarning, match="contrastive relevance is left out"):
        found = xai.report(model, FEW[:4], background=REST, metrics=["deletion"])
    assert "contrastive relevance" in found.failed
    assert "Left out: contrastive relevance" in found.to_markdown()
    with pytest.raises(Exception):  # noqa: B017, PT011
        xai.report(model, FEW[:4], background=REST, metrics=["deletion"], explainers=["contrastive relevance"])


def test_frames_functions_own_explainers_and_one_row():
    frame = pd.DataFrame(TABLE.x, columns=TABLE.names)
    model = LogisticRegression().fit(frame, TABLE.y)
    exact = lambda model, X, target, *, background, seed, output: X * model.coef_
    found = xai.report(
        model, frame[:1], background=frame, target=1, output="logit", explainers={"exact": exact}, baseline="zero"
    )
    values = found.scores.set_index("metric")["mean"]
    assert values["completeness gap"] == pytest.approx(0, abs=1e-9)
    assert values["faithfulness correlation"] == pytest.approx(1)
    plain = xai.report(TABLE.predict, FEW, explainers="occlusion", metrics=["insertion"], baseline="conditional")
    assert plain.scores.shape == (1, 6)


def test_constant_models_give_gaps_not_errors():
    flat = lambda x: np.full((len(x), 2), 0.5)
    found = xai.report(flat, FEW, explainers=["occlusion", "random"])
    table = found.table()
    assert np.isnan(table.loc["random", "faithfulness correlation"])
    assert table.loc["random", "comprehensiveness"] == 0
    assert "–" in found.to_markdown()
    found.figure()


def test_errors():
    with pytest.raises(ValueError, match="unknown metrics"):
        xai.report(TABLE.predict, FEW, metrics=["accuracy"])
    with pytest.raises(ValueError, match="unknown explainer"):
        xai.report(TABLE.predict, FEW, explainers=["guess"])
    with pytest.raises(ValueError, match="cannot explain"):
        xai.report(TABLE.predict, FEW, explainers=["gradient"])
    with pytest.raises(ValueError, match="pass background="):
        xai.report(TABLE.predict, FEW[:1])
    with pytest.raises(ValueError, match="missing or infinite"):
        xai.report(TABLE.predict, FEW * np.nan)
    with pytest.raises(AttributeError):
        _ = xai.nothing
