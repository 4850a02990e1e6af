"""Do attributions change when a row hardly does? Max, mean and relative sensitivity."""

import numpy as np

from compendium.xai import tables
from compendium.xai.metrics.masking import checked


def row_scale(X, scale) -> np.ndarray:
    if scale is None:
        if len(X) < 2:
            raise ValueError(
                "one row has no spread: pass scale=, the features' standard deviations in the training rows"
            )
        scale = X.std(0)
    scale = np.asarray(scale, float)
    if scale.shape != X.shape[1:] or not (scale >= 0).all():
        raise ValueError(f"scale must be (d,) and not negative, got {scale.shape} for X {X.shape}")
    return scale


def distances(predict, X, A, target, baseline, *, explain, seed=0, radius: float = 0.1, draws: int = 8, scale=None):
    """(n, draws) Euclidean distances of explanations of nearby inputs from A.

    explain: X (n, d) -> (n, d), for the same rows, classes and seed as A. Each feature moves by up to `radius` times
    `scale` (d,), by default X's standard deviations. The noise depends on `seed` alone: all explainers see the same.
    """
    scale = None if scale is None else tables.beside(scale, X, "scale")
    X, A, target, baseline = checked(predict, X, A, target, baseline)
    rng, size = np.random.default_rng(seed), radius * row_scale(X, scale)
    found = []
    for _ in range(draws):
        near = np.asarray(explain(X + rng.uniform(-1, 1, X.shape) * size), float)
        if near.shape != A.shape:
            raise ValueError(f"explain must return {A.shape} for X of that shape, got {near.shape}")
        found.append(np.linalg.norm(near - A, axis=1))
    return np.stack(found, 1)


def max_sensitivity(predict, X, A, target, baseline, *, explain, seed=0, **options):
    return distances(predict, X, A, target, baseline, explain=explain, seed=seed, **options).max(1)


def mean_sensitivity(predict, X, A, target, baseline, *, explain, seed=0, **options):
    return distances(predict, X, A, target, baseline, explain=explain, seed=seed, **options).mean(1)


def relative_sensitivity(predict, X, A, target, baseline, *, explain, seed=0, **options):
    """nan where A is 0 in all features."""
    far = max_sensitivity(predict, X, A, target, baseline, explain=explain, seed=seed, **options)
    length = np.linalg.norm(np.asarray(A, float), axis=1)
    return np.where(length > 0, far / np.where(length > 0, length, 1), np.nan)


def sensitivities(predict, X, A, target, baseline, *, explain, seed=0, **options) -> dict[str, np.ndarray]:
    """All three from one set of explanations, by name."""
    far = distances(predict, X, A, target, baseline, explain=explain, seed=seed, **options)
    length = np.linalg.norm(np.asarray(A, float), axis=1)
    relative = np.where(length > 0, far.max(1) / np.where(length > 0, length, 1), np.nan)
    return {"max sensitivity": far.max(1), "mean sensitivity": far.mean(1), "relative sensitivity": relative}
