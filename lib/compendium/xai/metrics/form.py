"""What an explanation looks like, whatever the model does: complexity and sparseness."""

import numpy as np

from compendium.xai.metrics.masking import checked


def complexity(predict, X, A, target, baseline, *, seed=0):
    """From 0 (one feature) to ln d (all alike); 0 where A is 0 in all features."""
    X, A, target, baseline = checked(predict, X, A, target, baseline)
    total = np.abs(A).sum(1, keepdims=True)
    p = np.abs(A) / np.where(total > 0, total, 1)
    return -(p * np.log(np.where(p > 0, p, 1))).sum(1)


def sparseness(predict, X, A, target, baseline, *, seed=0):
    """From 0 (all alike) to 1 - 1/d (one feature); 0 where A is 0 in all features."""
    X, A, target, baseline = checked(predict, X, A, target, baseline)
    a, d = np.sort(np.abs(A), axis=1), A.shape[1]
    total = a.sum(1)
    return ((2 * np.arange(1, d + 1) - d - 1) * a).sum(1) / (d * np.where(total > 0, total, 1))
