"""Shapley values of a table's columns by shap (Lundberg and Lee, 2017)."""

import warnings
from contextlib import contextmanager

import numpy as np

from compendium.xai import additivity, trees
from compendium.xai.additivity import SUMS
from compendium.xai.calls import evaluating, sharper, to_tensor
from compendium.xai.explain.preparation import (
    MOST_BACKGROUND,
    applies,
    as_rows,
    check,
    for_target,
    need,
    restarting,
    wrapped,
)
from compendium.xai.predictions import is_regressor, net_output, predictor


@wrapped
def kernel_shap(
    model,
    X,
    target,
    *,
    background=None,
    seed=0,
    output="probability",
    baseline=None,
    samples: int | str = "auto",
    most: int = MOST_BACKGROUND,
) -> np.ndarray:
    """Shapley values of any model; exact up to 11 features, as all coalitions fit in the default 2 d + 2048 samples.

    A baseline, if given as (d,), is the whole background. Costs samples x background rows of predictions a row.
    """
    import shap

    X, target = check(model, X, target)
    rows = as_rows(baseline, background, X, most, seed)
    explainer = shap.KernelExplainer(predictor(model, output), rows)
    found = []
    for x in X:
        with restarting(seed):
            found.append(explainer.shap_values(x[None], nsamples=samples, l1_reg=False, silent=True)[0])
    return for_target(np.stack(found), target)


@wrapped
def tree_shap(
    model, X, target, *, background=None, seed=0, output="probability", baseline=None, most: int = MOST_BACKGROUND
) -> np.ndarray:
    """Shapley values of tree ensembles for the background (interventional, never path-dependent); see `trees`.

    Exact for forests, regressors and raw scores. For probabilities of boosted trees shap takes the values of the raw
    score and stretches them, for each background row, to sum to the difference in probability: complete, but not the
    Shapley values of the probability (off by up to 0.02 in our test). Raises ValueError where sums do not come out at
    the predictions.
    """
    X, target = check(model, X, target)
    need("tree shap", model, output)
    rows = as_rows(baseline, background, X, most, seed)
    stretched = output == "probability" and trees.is_boosted(model) and not is_regressor(model)
    found = trees.shapley(model, X, rows, probability=stretched)
    if found.ndim == 2 and not is_regressor(model):  # of class 1
        found = np.stack([-found, found], -1)
    found = for_target(found, target)
    predict = predictor(model, output)
    at, to = predict(X)[np.arange(len(X)), target], predict(rows).mean(0)[target]
    additivity.check("tree shap", found, at, to, 1e-5, "use kernel shap")
    return found


@wrapped
def deep_shap(
    model, X, target, *, background=None, seed=0, output="probability", baseline=None, most: int = MOST_BACKGROUND
) -> np.ndarray:
    """DeepLift averaged over background rows, by shap. Torch nets only."""
    import shap
    from torch import nn

    X, target = check(model, X, target)
    need("deep shap", model, output)
    precise("deep shap", model)
    rows = as_rows(baseline, background, X, most, seed)
    with evaluating(model), _no_hooks_left(model):
        p = net_output(model, X, output)
        net = model
        if output == "probability" and p.shape[-1] > 1:
            scaled = [] if sharper(model) == 1 else [_times(sharper(model), p.shape[-1], model)]
            net = nn.Sequential(model, *scaled, nn.Softmax(-1)).eval()
        explainer = shap.DeepExplainer(net, to_tensor(rows, model))
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "unrecognized nn.Module")  # the sums are checked below
            found = additivity.hooked(explainer.shap_values, to_tensor(X, model), check_additivity=False)
        found = np.asarray(found, float)
    found = for_target(found if found.ndim > 2 or p.shape[-1] > 1 else found[..., None], target)
    at, to = p[np.arange(len(X)), target], net_output(model, rows, output).mean(0)[target]
    additivity.check("deep shap", found, at, to, SUMS, additivity.MODULES)
    return found


def _times(factor: float, K: int, net):
    """The layer z -> factor z, for shap, which has rules for layers only."""
    import torch
    from torch import nn

    like = next(net.parameters(), torch.zeros(()))
    layer = nn.utils.skip_init(nn.Linear, K, K, bias=False, dtype=like.dtype, device=like.device)  # draws nothing
    with torch.no_grad():
        layer.weight.copy_(factor * torch.eye(K))
    return layer.requires_grad_(False)


@contextmanager
def _no_hooks_left(net):
    """Hooks, notes and parameters that shap has put on modules are gone afterwards, also where it fails half way."""
    own = lambda m: (m._forward_hooks, m._backward_hooks, m._parameters, vars(m))
    before = [(module, [set(kept) for kept in own(module)]) for module in net.modules()]
    try:
        yield
    finally:
        for module, kept in before:
            for found, names in zip(own(module), kept, strict=True):
                for name in set(found) - names:
                    del found[name]


def precise(name: str, net) -> None:
    import torch

    dtype = next(net.parameters(), torch.zeros(())).dtype
    if dtype in (torch.float16, torch.bfloat16):
        raise ValueError(f"{name} needs finer numbers than the net's {dtype}: pass net.float(), or use kernel shap")


@wrapped
def shap_values(model, X, target, *, background=None, seed=0, output="probability", baseline=None, **options):
    """Tree shap where it is exact (see there), else kernel shap."""
    exact = applies("tree shap", model, output) and (output == "logit" or trees.is_forest(model) or is_regressor(model))
    function = tree_shap if exact else kernel_shap
    return function(model, X, target, background=background, seed=seed, output=output, baseline=baseline, **options)
