"""Models as functions of a batch: what is asked of them, and what kind their outputs are."""

from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import pandas as pd

KINDS = ("logits", "probabilities", "log-probabilities", "value")


_SAME = {"logit": "logits", "probability": "probabilities", "values": "value"}


@dataclass(frozen=True)
class Stated:
    """A torch net or a function with what its outputs mean; taken wherever the model is."""

    model: Callable
    kind: str


def stated(model, kind: str) -> Stated:
    """The model with its outputs declared to be of this kind; see above. Raises ValueError for unknown kinds."""
    kind = _SAME.get(kind, kind)
    if kind not in KINDS:
        raise ValueError(f"unknown kind {kind!r} of outputs: choose one of {', '.join(KINDS)}")
    if not (is_net(model) or is_function(model)):
        raise ValueError(f"kind is for torch nets and functions: {type(model).__name__} says itself what it gives")
    return Stated(getattr(model, "model", model) if isinstance(model, Stated) else model, kind)


class Function:
    """A function of X with its kind settled: called, it gives (n, K) probabilities or (n, 1) values."""

    def __init__(self, function: Callable, kind: str):
        self.function, self.kind = function, kind

    def raw(self, X) -> np.ndarray:
        """(n, K) scores: -s and s of a single one, log-odds of probabilities."""
        z = columns(self.function(X), len(X))
        if self.kind == "value":
            return z
        if self.kind == "logits":
            return z if z.shape[1] > 1 else np.concatenate([-z, z], 1)
        return log_odds(self(X))

    def __call__(self, X) -> np.ndarray:
        from scipy.special import expit, softmax

        z = columns(self.function(X), len(X))
        if self.kind == "value":
            return z
        if self.kind == "logits":
            return softmax(z, 1) if z.shape[1] > 1 else np.concatenate([expit(-z), expit(z)], 1)
        p = np.exp(z) if self.kind == "log-probabilities" else z
        p = p if p.shape[1] > 1 else np.concatenate([1 - p, p], 1)
        if not is_shares(p, 1e-3):
            raise ValueError(f"the model's {self.kind} must be within 0 and 1 and sum to 1 in every row")
        return p


def columns(z, n: int) -> np.ndarray:
    if isinstance(z, (pd.DataFrame, pd.Series)):
        z = z.to_numpy()
    try:
        z = np.asarray(z.detach().cpu() if hasattr(z, "detach") else z, float)
    except (TypeError, ValueError) as wrong:
        raise ValueError(
            "the model gives no numbers: it must give probabilities (rows, classes), not labels"
        ) from wrong
    z = z[:, None] if z.ndim == 1 else z
    if z.ndim != 2 or len(z) != n:
        raise ValueError(f"the model gave {z.shape} for {n} rows: it must give (rows, classes)")
    return z


def log_odds(p) -> np.ndarray:
    p = np.asarray(p, float)
    if p.ndim < 2 or p.shape[1] == 1:  # a regressor
        return p
    p = p.clip(1e-9, 1 - 1e-9)
    return np.log(p) - np.log1p(-p)


def is_shares(p: np.ndarray, tolerance: float) -> bool:
    """Whether all rows are at least 0 and sum to 1."""
    return bool((p >= -tolerance).all() and (np.abs(p.sum(1) - 1) <= tolerance).all())


def sharper(net) -> float:
    """What raw scores are multiplied by before the softmax."""
    from compendium.xai.layers import Settled

    return net.sharper if isinstance(net, Settled) else 1.0


def is_net(model) -> bool:
    import torch

    return isinstance(getattr(model, "model", model) if isinstance(model, Stated) else model, torch.nn.Module)


def is_function(model) -> bool:
    if isinstance(model, Stated):
        return not is_net(model)
    return callable(model) and not hasattr(model, "predict") and not is_net(model)


@contextmanager
def evaluating(net):
    """Dropout and the like off, and every module back to its own mode."""
    modes = [(module, module.training) for module in net.modules()]
    net.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


def to_tensor(X, net):
    import torch

    like = next(net.parameters(), torch.zeros(()))
    return torch.tensor(np.asarray(X, float)).to(like)


def scores(out):
    """The tensor in a net's output: itself, or its `logits`. Raises ValueError for other containers."""
    import torch

    if isinstance(out, torch.Tensor):
        return out
    found = out.get("logits") if hasattr(out, "get") else getattr(out, "logits", None)
    if isinstance(found, torch.Tensor):
        return found
    raise ValueError(
        f"the net returns {type(out).__name__}, not a tensor or something with `logits`: pass a net, or a function of "
        "X, that returns the output to explain"
    )
