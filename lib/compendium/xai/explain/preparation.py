"""What explainers need to know of a model: its inputs, its net, a background and a baseline."""

from collections.abc import Callable
from contextlib import contextmanager
from functools import wraps

import numpy as np

from compendium.xai import tables, trees
from compendium.xai.calls import is_net, sharper
from compendium.xai.endings import resolved
from compendium.xai.predictions import is_regressor, predictor
from compendium.xai.tables import table, targets

MOST_BACKGROUND = 50  # rows that kernel, tree and deep shap average over


def _linear(model):
    """`(weight (K, d), bias (K,), factor)` of a linear scikit-learn model, or None.

    Raw scores are X weight' + bias; probabilities the softmax of `factor` times these (1/2 for two classes, whose
    scores are -s and s), or the scores themselves for a regressor (None).
    """
    from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge
    from sklearn.preprocessing import StandardScaler

    *before, last = [step for _, step in model.steps] if hasattr(model, "steps") else [model]
    if not isinstance(last, (LogisticRegression, LinearRegression, Ridge)):
        return None
    weight = np.atleast_2d(last.coef_).astype(float)
    bias = np.broadcast_to(np.asarray(last.intercept_, float), (len(weight),)).copy()
    factor = None if is_regressor(last) else 1.0
    if factor and len(weight) == 1:
        weight, bias, factor = np.concatenate([-weight, weight]), np.concatenate([-bias, bias]), 0.5
    for step in reversed(before):
        if not isinstance(step, StandardScaler):
            return None
        scale = np.ones(weight.shape[1]) if step.scale_ is None else step.scale_
        weight = weight / scale
        if step.mean_ is not None:
            bias = bias - weight @ step.mean_
    return weight, bias, factor


def net_behind(model):
    """`(net giving raw scores, factor before the softmax or None)`; None if the model has no gradient."""
    from compendium.xai import nets

    if is_net(model):
        return model, sharper(model)
    if (found := _linear(model)) is None:
        return None
    weight, bias, factor = found
    return nets.linear(weight, bias), factor


def differentiable(model, output: str):
    """`(net, function of tensors (n, d) -> (n, K) that is explained)`."""
    net, factor = net_behind(model)
    if output == "logit" or factor is None:
        return net, net

    def probability(x):
        z = net(x)
        return (factor * z).softmax(-1) if z.shape[1] > 1 else z

    return net, probability


def check(model, X, target) -> tuple[np.ndarray, np.ndarray]:
    """`(X (n, d) float64, target (n,))`, after checking both against the model. Raises ValueError."""
    tables.agreed(model, X)
    target, X = tables.numbered(target, model, X), table(X)
    K = predictor(resolved(model, X))(X[:1]).shape[1]
    return X, targets(target, len(X), K)


def predicted(model, X) -> np.ndarray:
    """(n,) the number of the class that the model predicts, the usual target; 0 for regressors."""
    tables.agreed(model, X)
    return predictor(model)(table(X)).argmax(1)


def wrapped(function: Callable) -> Callable:
    """An explainer that takes frames, labels as targets and models as users have them.

    Columns of all frames are compared by name, target labels become class numbers, and what the model's outputs mean is
    settled once; the function then sees arrays and a model in standard form. torch's generator is afterwards as it was.
    """
    import torch

    @wraps(function)
    def explain(model, X, target, *, background=None, baseline=None, **options):
        tables.agreed(model, X, background, baseline)
        target = tables.numbered(target, model, X)
        if baseline is not None:
            baseline = tables.beside(baseline, X, "the baseline")
        X = table(X)
        if background is not None:
            background = table(background, "background")
        model = resolved(model, X, background)
        with torch.random.fork_rng(devices=[]):
            return function(model, X, target, background=background, baseline=baseline, **options)

    return explain


def background_rows(background, X, most: int | None = None, seed: int = 0) -> np.ndarray:
    """Rows to compare with: those given, else X itself; at most `most` of them, drawn without replacement."""
    if background is None:
        if len(X) < 2:
            raise ValueError("one row cannot be its own background: pass background=, such as the training rows")
        background = X
    rows = table(background, "background")
    if rows.shape[1] != X.shape[1]:
        raise ValueError(f"the background has {rows.shape[1]} features and X {X.shape[1]}")
    if most is not None and len(rows) > most:
        rows = rows[np.sort(np.random.default_rng(seed).choice(len(rows), most, replace=False))]
    return rows


def baseline_row(baseline, background, X) -> np.ndarray:
    """(n, d): what was given, (d,) or (n, d), else the mean of the background."""
    if baseline is None:
        baseline = background_rows(background, X).mean(0)
    baseline = np.asarray(baseline, float)
    if baseline.shape not in {X.shape, X.shape[1:]} or not np.isfinite(baseline).all():
        raise ValueError(f"the baseline must be (d,) or as X {X.shape}, without missing values; got {baseline.shape}")
    return np.broadcast_to(baseline, X.shape)


def as_rows(baseline, background, X, most: int, seed: int) -> np.ndarray:
    """(m, d): the background, or the one baseline (d,) that was given for all rows."""
    if baseline is None:
        return background_rows(background, X, most, seed)
    baseline = baseline_row(baseline, None, X)
    if (baseline != baseline[0]).any():
        raise ValueError("Shapley values take one baseline (d,) for all rows, or a background")
    return baseline[:1]


def need(name: str, model, output: str) -> None:
    if not applies(name, model, output):
        raise ValueError(
            f"{name} cannot explain the {output} of {type(model).__name__}; kernel shap can explain any model"
        )


@contextmanager
def restarting(seed: int):
    """numpy's and torch's global generators start from `seed`, and go back to where they were."""
    import torch

    state = np.random.get_state()  # noqa: NPY002 - shap draws from it
    try:
        with torch.random.fork_rng(devices=[]):
            np.random.seed(seed)  # noqa: NPY002
            torch.manual_seed(seed)
            yield
    finally:
        np.random.set_state(state)  # noqa: NPY002


def for_target(values: np.ndarray, target: np.ndarray) -> np.ndarray:
    """(n, d, K) -> (n, d) of each row's target; (n, d) stays."""
    return values if values.ndim == 2 else values[np.arange(len(values)), :, target]


_GRADIENT = ("integrated gradients", "input x gradient", "gradient", "smoothgrad", "deeplift")


_NET = ("deep shap", "relevance", "contrastive relevance")


def applies(name: str, model, output: str) -> bool:
    if name in _NET:
        return is_net(model)
    if name in _GRADIENT:
        return net_behind(model) is not None
    return trees.able(model, output) if name == "tree shap" else True
