"""Predictions under masks: what replaces a column, and what every metric checks of its input."""

import numpy as np

from compendium.xai import tables
from compendium.xai.tables import table, targets

AT_ONCE = 4_000_000  # numbers in one batch of masked inputs


FRACTIONS = (0.01, 0.05, 0.1, 0.2, 0.5)


class Conditional:
    """Removed features become their expectation given the kept ones, under a normal distribution of the background."""

    def __init__(self, background, shrink: float = 1e-3):
        rows = table(background, "background")
        self.mean = rows.mean(0)
        self.covariance = np.atleast_2d(np.cov(rows, rowvar=False)) if len(rows) > 1 else np.zeros((rows.shape[1],) * 2)
        own = np.diag(self.covariance)
        self.covariance = self.covariance + np.diag(shrink * own + np.where(own > 0, 0.0, 1.0))

    def fill(self, X: np.ndarray, keep: np.ndarray) -> np.ndarray:
        """X (r, d), keep (r, s, d) -> (r, s, d)."""
        masks, which = np.unique(keep.reshape(-1, keep.shape[-1]), axis=0, return_inverse=True)
        away = np.broadcast_to((X - self.mean)[:, None], keep.shape).reshape(-1, keep.shape[-1])
        filled = np.empty(away.shape)
        # Kept block of the covariance, identity elsewhere: one solve a mask, of equal shape for all masks.
        both = masks[:, :, None] & masks[:, None, :]
        blocks = np.where(both, self.covariance, np.eye(len(self.mean)))
        across = np.where(masks[:, None, :] & ~masks[:, :, None], self.covariance, 0.0)  # removed x kept
        maps = np.linalg.solve(blocks, across.transpose(0, 2, 1)).transpose(0, 2, 1)  # (masks, d, d)
        which = which.ravel()
        for start in range(0, len(away), 4096):
            part = slice(start, start + 4096)
            filled[part] = np.einsum("rij,rj->ri", maps[which[part]], away[part])
        filled = (filled + self.mean).reshape(keep.shape)
        return np.where(keep, X[:, None], filled)


def baselines(kind: str, background, X, seed: int = 0, draws: int = 20):
    """What removed features become: "zero" or "mean" (d,); "marginal" (draws, n, d), rows of the background, over which
    predictions are averaged; "conditional" a `Conditional`. Every metric takes each of them."""
    tables.same(background, tables.named(X), "of X", "background")
    rows, X = table(background, "background"), table(X)
    if rows.shape[1] != X.shape[1]:
        raise ValueError(f"the background has {rows.shape[1]} features and X {X.shape[1]}")
    if kind == "zero":
        return np.zeros(X.shape[1])
    if kind == "mean":
        return rows.mean(0)
    if kind == "marginal":  # the same draws for every row: rows differ in X only
        drawn = rows[np.random.default_rng(seed).integers(len(rows), size=draws)]
        return np.broadcast_to(drawn[:, None], (draws, *X.shape))
    if kind == "conditional":
        return Conditional(rows)
    raise ValueError(f"unknown kind {kind!r}: choose zero, mean, marginal or conditional")


def checked(predict, X, A, target, baseline):
    """`(X, A, target (n,), baseline)` with shapes that fit. Raises ValueError that says what does not.

    Frames of attributions, and a baseline that is a frame or a series, must have the columns of X in its order.
    """
    A = tables.beside(A, X, "attributions")
    if not isinstance(baseline, Conditional):
        baseline = tables.beside(baseline, X, "the baseline")
    target, X = tables.numbered(target, None, X), table(X)
    if A.shape != X.shape:
        raise ValueError(
            f"attributions have shape {A.shape} and X {X.shape}: give each feature of each row a number, in X's order"
        )
    if not np.isfinite(A).all():
        raise ValueError("attributions contain missing or infinite values")
    if np.ndim(first := predict(X[:1])) != 2:
        raise ValueError("predict must give (rows, outputs): use explain.predictor(model)")
    target = targets(target, len(X), np.shape(first)[1])
    if not isinstance(baseline, Conditional):
        fits = baseline.shape in {X.shape, X.shape[1:]} or (baseline.ndim == 3 and baseline.shape[1:] == X.shape)
        if not fits or not np.isfinite(baseline).all():
            raise ValueError(
                f"the baseline must be (d,), (n, d), (draws, n, d) for X {X.shape}, or made by `baselines`; "
                f"without missing values: got {baseline.shape}"
            )
        baseline = np.broadcast_to(baseline, (*baseline.shape[: baseline.ndim - 2], *X.shape))
        baseline = baseline if baseline.ndim == 3 else baseline[None]
    return X, A, target, baseline


def masked(predict, X, keep, target, baseline) -> np.ndarray:
    """(n, s) predictions of each row's target with only the features in keep (n, s, d) bool kept.

    Arguments as `checked` returns them; keep may be (1, s, d), the same masks for all rows. Averaged over draws.
    """
    n, d = X.shape
    keep = np.broadcast_to(keep, (n, *keep.shape[1:]))
    s = keep.shape[1]
    draws = 1 if isinstance(baseline, Conditional) else len(baseline)
    found = np.empty((n, s))
    rows, steps = max(1, AT_ONCE // (s * d * draws)), max(1, AT_ONCE // (d * draws))
    for i in range(0, n, rows):
        for j in range(0, s, steps):
            r, mask = slice(i, i + rows), keep[i : i + rows, j : j + steps]
            if isinstance(baseline, Conditional):
                inputs = baseline.fill(X[r], mask)[None]
            else:  # (draws, rows, masks, d)
                inputs = np.where(mask, X[r, None], baseline[:, r, None])
            p = np.asarray(predict(inputs.reshape(-1, d)), float).reshape(*inputs.shape[:-1], -1)
            found[r, j : j + steps] = np.take_along_axis(p, target[None, r, None, None], -1)[..., 0].mean(0)
    return found


def own(predict, X, target) -> np.ndarray:
    """(n,) f(x)."""
    return np.asarray(predict(X), float)[np.arange(len(X)), target]
