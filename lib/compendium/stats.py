"""Intervals and paired tests, the same ones everywhere. scipy and statsmodels do the work."""

import numpy as np
from scipy import stats as sps

from compendium import inputs


def t_interval(values, level: float = 0.95) -> tuple[float, float]:
    """Student-t interval of the mean over few independent repeats, such as seeds.

    nan for fewer than two, or where a value is nan. Raises ValueError for values that are no list of numbers.
    """
    values = _values(values, level)
    if len(values) < 2:
        return (np.nan, np.nan)
    half = sps.t.ppf((1 + level) / 2, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values))
    return (values.mean() - half, values.mean() + half)


def bootstrap_interval(values, *, seed: int = 0, level: float = 0.95, resamples: int = 2000) -> tuple[float, float]:
    """Percentile bootstrap interval of the mean over items; for a paired difference, pass the differences.

    nan for no values, or where a value is nan. Raises ValueError for values that are no list of numbers.
    """
    values = _values(values, level)
    if len(values) == 0 or np.isnan(values).any():
        return (np.nan, np.nan)
    if len(values) < 2 or np.ptp(values) == 0:
        return (float(values.mean()), float(values.mean()))
    result = sps.bootstrap(
        (values,),
        np.mean,
        n_resamples=resamples,
        confidence_level=level,
        method="percentile",
        rng=np.random.default_rng(seed),
        vectorized=True,
    )
    return tuple(map(float, result.confidence_interval))


def mcnemar(before, after) -> float:
    """Exact McNemar p-value that two sets of right/wrong answers to the same items differ in their error rate.

    before, after: True/False or 0/1, one an item. Raises ValueError for others, such as text, and for other items.
    """
    from statsmodels.stats.contingency_tables import mcnemar

    if np.shape(before) != np.shape(after):
        raise ValueError(f"paired answers needed: {np.shape(before)} against {np.shape(after)}")
    inputs.same_rows(before=before, after=after)
    before, after = inputs.binary(before, "before"), inputs.binary(after, "after")
    table = [[(before & after).sum(), (before & ~after).sum()], [(~before & after).sum(), (~before & ~after).sum()]]
    return float(mcnemar(table, exact=True).pvalue)


def _values(values, level: float) -> np.ndarray:
    if not 0 < level < 1:
        raise ValueError(f"level must lie between 0 and 1, such as 0.95, got {level}")
    return inputs.numbers(values, "values")
