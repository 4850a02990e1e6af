"""Explainers that only ask: LIME (Ribeiro et al., 2016), occlusion, and random numbers as a control."""

import numpy as np

from compendium.xai.explain.preparation import background_rows, baseline_row, check, wrapped
from compendium.xai.predictions import ROWS_AT_ONCE, predictor


@wrapped
def lime(
    model,
    X,
    target,
    *,
    background=None,
    seed=0,
    output="probability",
    baseline=None,
    samples: int = 1000,
    discretize: bool = False,
) -> np.ndarray:
    """Slopes of a ridge regression fitted near x, times x - baseline (the mean): contributions, like the others'.

    discretize: the package's default instead: features become "in the same quarter of the background as x", and the
    number is that indicator's coefficient, an effect against being in any other quarter.
    """
    from lime.lime_tabular import LimeTabularExplainer

    X, target = check(model, X, target)
    rows, d = background_rows(background, X), X.shape[1]
    away = X - baseline_row(baseline, background, X)
    predict = predictor(model, output)
    explainer = LimeTabularExplainer(
        rows, mode="regression", discretize_continuous=discretize, feature_selection="none", random_state=seed
    )
    found = np.empty(X.shape)
    for i, (x, t) in enumerate(zip(X, target, strict=True)):
        explainer.random_state.seed(seed)
        function = lambda z, t=t: predict(z)[:, t]
        explained = explainer.explain_instance(x, function, num_features=d, num_samples=samples)
        order, weights = zip(*explained.local_exp[1], strict=True)  # largest first, under label 1 in this mode
        found[i, list(order)] = weights
    # Without bins, lime fits on columns divided by their standard deviation.
    return found if discretize else found / explainer.scaler.scale_ * away


@wrapped
def occlusion(model, X, target, *, background=None, seed=0, output="probability", baseline=None) -> np.ndarray:
    """The drop when one feature alone is set to its baseline; captum's feature ablation, all features in one batch."""
    import torch
    from captum.attr import FeatureAblation

    X, target = check(model, X, target)
    start = baseline_row(baseline, background, X)
    predict = predictor(model, output)
    explainer = FeatureAblation(lambda x: torch.from_numpy(predict(x.numpy())))
    found = explainer.attribute(
        torch.from_numpy(X),
        baselines=torch.from_numpy(start.copy()),
        target=torch.from_numpy(target),
        perturbations_per_eval=max(1, min(X.shape[1], ROWS_AT_ONCE // len(X))),
    )
    return found.numpy()


@wrapped
def random(model, X, target, *, background=None, seed=0, output="probability", baseline=None) -> np.ndarray:
    """Normal noise: what any explanation must beat."""
    X, _ = check(model, X, target)
    return np.random.default_rng(seed).normal(size=X.shape)
