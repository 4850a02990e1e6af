"""Predictions of any model by one signature: (n, d) -> (n, K) float64."""

from collections.abc import Callable

import numpy as np
import pandas as pd

from compendium.xai import tables
from compendium.xai.calls import (
    Function,
    evaluating,
    is_function,
    is_net,
    is_shares,
    log_odds,
    scores,
    sharper,
    to_tensor,
)
from compendium.xai.endings import resolved

ROWS_AT_ONCE = 8192  # rows in one call of a model
OUTPUTS = ("probability", "logit")
_ASKED = 256  # rows on which two ways of asking a model are compared


def predictor(model, output: str = "probability") -> Callable[[np.ndarray], np.ndarray]:
    """`predict(X)`: (n, d) -> (n, K) float64, in chunks of rows; K = 1 for regressors. See `explain` for `output`.

    model: a torch net, a scikit-learn classifier or regressor, a function of X, or one of these with its kind `stated`.
    What nets and functions of one output give is settled at the first call, by its rows. Raises ValueError for outputs
    that are not (rows, classes), not finite or not certain in their meaning, and for frames with other columns than the
    model's.
    """
    if output not in OUTPUTS:
        raise ValueError(f"unknown output {output!r}: choose one of {', '.join(OUTPUTS)}")
    settled = is_net(model) or is_function(model)
    raw = None if settled else _raw(model, output)
    known = tables.names(model)

    def predict(X) -> np.ndarray:
        nonlocal raw
        if not isinstance(X, np.ndarray):
            tables.same(X, known, "the model was fitted on", "X")
            X = tables.numbers(X)
        X = np.asarray(X, float)
        if raw is None:
            raw = _raw(resolved(model, X) if len(X) else model, output)
        parts = [np.asarray(raw(X[i : i + ROWS_AT_ONCE]), float) for i in range(0, max(len(X), 1), ROWS_AT_ONCE)]
        p = np.concatenate(parts)
        p = p[:, None] if p.ndim == 1 else p
        if p.ndim != 2 or len(p) != len(X):
            raise ValueError(f"the model gave {p.shape} for {len(X)} rows: it must give (rows, classes)")
        if not np.isfinite(p).all():
            raise ValueError("the model gave missing or infinite predictions")
        return p

    return predict


def same_predictions(model, given, X: np.ndarray) -> None:
    """Raise ValueError if a model takes a frame for something else than the numbers in it, as it does where categories
    were nominal when it was fitted. given: what the caller passed; X: the same as an array."""
    if not isinstance(given, pd.DataFrame) or not hasattr(model, "predict"):
        return
    ask = model.predict if is_regressor(model) else model.predict_proba
    try:
        own = np.asarray(ask(given[:_ASKED]), float)
    except Exception:  # a model of arrays: it is asked with arrays only
        return
    if not np.allclose(own, np.asarray(ask(_framed(model)(X[:_ASKED])), float), rtol=1e-5, atol=1e-6):
        raise ValueError(
            f"{type(model).__name__} predicts something else for the columns of X as plain numbers, so it reads some "
            "as categories: explain it by a function of X that gives them their type, and pass numbers"
        )


def _raw(model, output: str) -> Callable:
    if is_net(model):
        return lambda X: net_output(model, X, output)
    if isinstance(model, Function):
        return model.raw if output == "logit" else model
    if is_function(model):
        return lambda X: log_odds(model(X)) if output == "logit" else model(X)
    frame = _framed(model)
    if is_regressor(model):
        return lambda X: _single(model, model.predict(frame(X)))
    tables.classes(model)
    if not hasattr(model, "predict_proba"):
        raise ValueError(
            f"{type(model).__name__} has no probabilities: wrap it in CalibratedClassifierCV, or pass a function of X"
        )
    if output == "logit" and _has_margin(model):
        return lambda X: _both_classes(model.decision_function(frame(X)))
    if output == "logit":
        return lambda X: log_odds(_one_label(model, model.predict_proba(frame(X))))
    return lambda X: _one_label(model, model.predict_proba(frame(X)))


def _single(model, p) -> np.ndarray:
    p = np.asarray(p)
    if p.ndim == 2 and p.shape[1] > 1:
        raise ValueError(
            f"{type(model).__name__} predicts {p.shape[1]} values a row: explain one at a time, by a function of X "
            "such as lambda X: model.predict(X)[:, 0]"
        )
    return p


def _one_label(model, p) -> np.ndarray:
    several = isinstance(p, list) or np.ndim(p) != 2
    if several or (np.isfinite(p).all() and not is_shares(np.asarray(p, float), 1e-3)):
        raise ValueError(
            f"{type(model).__name__} gives probabilities that do not sum to 1, as models of several labels do: explain "
            "one at a time, by a function of X"
        )
    return p


def _both_classes(margin) -> np.ndarray:
    return np.stack([-margin, margin], 1) if margin.ndim == 1 else margin


def is_regressor(model) -> bool:
    """Whether a model with `predict` says that it predicts numbers. Raises ValueError if it says nothing of itself."""
    from sklearn.base import is_regressor

    if not hasattr(model, "predict"):
        return False
    try:
        return is_regressor(model)
    except AttributeError:  # no tags: Keras, native boosters, other libraries
        kind = getattr(model, "_estimator_type", None)
        if kind is None and not (hasattr(model, "predict_proba") and hasattr(model, "classes_")):
            raise ValueError(
                f"{type(model).__name__} does not say whether it predicts classes or values: pass a function of X that "
                "returns probabilities (n, K), or values with kind='value', such as lambda X: model.predict(X)"
            ) from None
        return kind == "regressor"


def last_step(model):
    return model[-1] if hasattr(model, "steps") else model


def _has_margin(model) -> bool:
    """Whether probabilities are the sigmoid or softmax of `decision_function`."""
    from sklearn.ensemble import GradientBoostingClassifier, HistGradientBoostingClassifier
    from sklearn.linear_model import LogisticRegression

    model = last_step(model)
    if isinstance(model, GradientBoostingClassifier) and model.loss != "log_loss":
        return False
    return isinstance(model, (LogisticRegression, HistGradientBoostingClassifier, GradientBoostingClassifier))


def _framed(model) -> Callable:
    """Models that were fitted on a data frame get one, with its column names."""
    names = getattr(model, "feature_names_in_", None)
    return (lambda X: X) if names is None else (lambda X: pd.DataFrame(X, columns=names))


def net_output(net, X, output: str) -> np.ndarray:
    """(n, K) float64 of a net in standard form."""
    import torch

    with torch.no_grad(), evaluating(net):
        z = scores(net(to_tensor(X, net))).double()
    if z.ndim == 2 and z.shape[1] > 1 and output == "probability":
        z = (sharper(net) * z).softmax(-1)
    return z.cpu().numpy()
