"""Do the model's outputs follow the attributions? Correlation, curves, infidelity, monotonicity."""

import numpy as np
from scipy.stats import rankdata

from compendium.xai import tables
from compendium.xai.metrics.masking import FRACTIONS, checked, masked, own
from compendium.xai.metrics.stability import row_scale


def _ranks(A) -> np.ndarray:
    """(n, d) place of each feature in its row, 0 for the largest attribution; ties in column order."""
    return (-A).argsort(1, kind="stable").argsort(1)


def correlation(a, b) -> np.ndarray:
    """(n,) Pearson's correlation over columns; nan in rows where either side is constant, up to rounding."""
    size = [np.abs(side).max(1) for side in (a, b)]
    a, b = a - a.mean(1, keepdims=True), b - b.mean(1, keepdims=True)
    flat = (np.ptp(a, axis=1) <= 1e-12 * size[0]) | (np.ptp(b, axis=1) <= 1e-12 * size[1])
    with np.errstate(invalid="ignore", divide="ignore"):
        r = (a * b).sum(1) / np.sqrt((a * a).sum(1) * (b * b).sum(1))
    return np.where(flat, np.nan, r)


def _subsets(d: int, size: int | None, samples: int, seed: int) -> np.ndarray:
    """(samples, d) bool: random sets of `size` features (None: a fifth, at least one); of one feature, each once."""
    size = max(1, round(d / 5)) if size is None else size
    if not 1 <= size <= d:
        raise ValueError(f"subset must be between 1 and the {d} features, got {size}")
    if size == 1:
        return np.eye(d, dtype=bool)
    return np.random.default_rng(seed).random((samples, d)).argsort(1).argsort(1) < size


def faithfulness_correlation(predict, X, A, target, baseline, *, seed=0, subset: int | None = None, samples: int = 100):
    """subset: features in a set, a fifth of them by default; 1 compares single features, each once."""
    X, A, target, baseline = checked(predict, X, A, target, baseline)
    chosen = _subsets(X.shape[1], subset, samples, seed)
    drops = own(predict, X, target)[:, None] - masked(predict, X, ~chosen[None], target, baseline)
    return correlation(A @ chosen.T, drops)


def _curve(predict, X, A, target, baseline, steps: int, keep_top: bool) -> np.ndarray:
    """(n, points) f with the top 0, ..., d features removed, or with only these kept; at most `steps` + 1 points."""
    X, A, target, baseline = checked(predict, X, A, target, baseline)
    d = X.shape[1]
    k = np.unique(np.linspace(0, d, min(d, steps) + 1).round().astype(int))
    top = _ranks(A)[:, None] < k[:, None]
    return masked(predict, X, top if keep_top else ~top, target, baseline)


def deletion_curve(predict, X, A, target, baseline, *, steps: int = 50) -> np.ndarray:
    """(n, points) f as features go, largest attribution first: from all to none in equal steps of features."""
    return _curve(predict, X, A, target, baseline, steps, keep_top=False)


def insertion_curve(predict, X, A, target, baseline, *, steps: int = 50) -> np.ndarray:
    """(n, points) f as features come back, largest attribution first: from none to all."""
    return _curve(predict, X, A, target, baseline, steps, keep_top=True)


def _area(curve) -> np.ndarray:
    """Trapezoids over a share from 0 to 1."""
    return (curve[:, :-1] + curve[:, 1:]).mean(1) / 2


def deletion(predict, X, A, target, baseline, *, seed=0, steps: int = 50):
    return _area(deletion_curve(predict, X, A, target, baseline, steps=steps))


def insertion(predict, X, A, target, baseline, *, seed=0, steps: int = 50):
    return _area(insertion_curve(predict, X, A, target, baseline, steps=steps))


def _top(d: int, fractions) -> np.ndarray:
    """Numbers of features, rounded half up, at least one."""
    return np.maximum(1, np.floor(np.asarray(fractions) * d + 0.5)).astype(int)


def comprehensiveness(predict, X, A, target, baseline, *, seed=0, fractions=FRACTIONS):
    X, A, target, baseline = checked(predict, X, A, target, baseline)
    keep = _ranks(A)[:, None] >= _top(X.shape[1], fractions)[:, None]
    return own(predict, X, target) - masked(predict, X, keep, target, baseline).mean(1)


def sufficiency(predict, X, A, target, baseline, *, seed=0, fractions=FRACTIONS):
    X, A, target, baseline = checked(predict, X, A, target, baseline)
    keep = _ranks(A)[:, None] < _top(X.shape[1], fractions)[:, None]
    return own(predict, X, target) - masked(predict, X, keep, target, baseline).mean(1)


def infidelity(
    predict,
    X,
    A,
    target,
    baseline,
    *,
    seed=0,
    samples: int = 200,
    kind: str = "removal",
    noise: float = 0.1,
    scale=None,
):
    """kind: "removal": S holds each feature with chance 1/2, and a is a contribution; "noise": inputs move by normal
    noise of `noise` times `scale` (d,), by default X's standard deviations, and a is a slope."""
    scale = None if scale is None else tables.beside(scale, X, "scale")
    X, A, target, baseline = checked(predict, X, A, target, baseline)
    rng, d = np.random.default_rng(seed), X.shape[1]
    if kind == "removal":
        chosen = rng.random((samples, d)) < 0.5
        said = A @ chosen.T
        after = masked(predict, X, ~chosen[None], target, baseline)
    elif kind == "noise":
        moves = rng.normal(size=(samples, d)) * noise * row_scale(X, scale)
        said = A @ moves.T
        everything = np.ones((1, 1, d), bool)
        after = np.stack([masked(predict, X - m, everything, target, baseline)[:, 0] for m in moves], 1)
    else:
        raise ValueError(f"unknown kind {kind!r}: choose removal or noise")
    drops = own(predict, X, target)[:, None] - after
    power = (said * said).mean(1)
    stretch = np.where(power > 0, (said * drops).mean(1) / np.where(power > 0, power, 1), 0).clip(0)
    return ((stretch[:, None] * said - drops) ** 2).mean(1)


def monotonicity(predict, X, A, target, baseline, *, seed=0):
    """Features come in from the baseline one by one; a feature's effect is the size of the change when it comes."""
    X, A, target, baseline = checked(predict, X, A, target, baseline)
    d = X.shape[1]
    place = np.abs(A).argsort(1, kind="stable").argsort(1)  # 0 for the least
    f = masked(predict, X, place[:, None] < np.arange(d + 1)[:, None], target, baseline)
    effect = np.take_along_axis(np.abs(np.diff(f, axis=1)), place, 1)  # of each feature, in feature order
    effect[effect <= 1e-12 * np.abs(f).max(1, keepdims=True)] = 0  # rounding is no effect, and must not be ranked
    return correlation(rankdata(np.abs(A), axis=1), rankdata(effect, axis=1))


def completeness_gap(predict, X, A, target, baseline, *, seed=0):
    X, A, target, baseline = checked(predict, X, A, target, baseline)
    nothing = masked(predict, X, np.zeros((1, 1, X.shape[1]), bool), target, baseline)[:, 0]
    return np.abs(A.sum(1) - (own(predict, X, target) - nothing))
