"""Intervals and paired tests, the same ones everywhere. scipy and statsmodels do the work."""

import numpy as np
from scipy import stats as sps


def t_interval(values, level: float = 0.95) -> tuple[float, float]:
    """Student-t interval of the mean over few independent repeats, such as seeds. nan for fewer than two."""
    values = np.asarray(values, float)
    if len(values) < 2:
        return (np.nan, np.nan)
    half = sps.t.ppf((1 + level) / 2, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values))
    return (values.mean() - half, values.mean() + half)


def bootstrap_interval(values, *, seed: int = 0, level: float = 0.95, resamples: int = 2000) -> tuple[float, float]:
    """Percentile bootstrap interval of the mean over items; for a paired difference, pass the differences."""
    values = np.asarray(values, float)
    if len(values) < 2 or np.ptp(values) == 0:
        return (float(values.mean()), float(values.mean()))
    result = sps.bootstrap(
        (values,), np.mean, n_resamples=resamples, confidence_level=level, method="percentile",
        rng=np.random.default_rng(seed), vectorized=True,
    )  # fmt: skip
    return tuple(map(float, result.confidence_interval))


def mcnemar(before, after) -> float:
    """Exact McNemar p-value that two sets of right/wrong answers to the same items differ in their error rate."""
    from statsmodels.stats.contingency_tables import mcnemar

    before, after = np.asarray(before, bool), np.asarray(after, bool)
    if before.shape != after.shape:
        raise ValueError(f"paired answers needed: {before.shape} against {after.shape}")
    table = [[(before & after).sum(), (before & ~after).sum()], [(~before & after).sum(), (~before & ~after).sum()]]
    return float(mcnemar(table, exact=True).pvalue)
