"""Estimates with intervals, and the verdicts that follow: the same ones everywhere. scipy and statsmodels do the work.

gain = mean(after - before, unit="seeds")        # Estimate(value, low, high, n, unit)
verdict(gain, bar=0.0, side=ABOVE)           # supported, contradicted, undecided, not testable
"""

import math
from typing import NamedTuple

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


class Estimate(NamedTuple):
    """A measured number. low, high: of its 95 % interval, None where there is none. n: how many independent units were
    resampled for it, of the kind `unit`, such as "seeds" or "data sets"."""

    value: float
    low: float | None
    high: float | None
    n: int
    unit: str


def mean(values, unit: str) -> Estimate:
    """The mean over few independent units, with Student's t interval (`t_interval`); missing values are left out."""
    values = np.asarray(values, float)
    values = values[~np.isnan(values)]
    return Estimate(float(values.mean()) if len(values) else math.nan, *t_interval(values), len(values), unit)


def mean_share(values, unit: str, least: float | None = None) -> Estimate:
    """`mean` of shares or of rank correlations, whose interval is cut where theirs ends: at `least` and at 1.

    least: -1 for correlations and for differences of shares, 0 for shares; None takes -1 if a value is negative.
    """
    found = mean(values, unit)
    if least is None:
        least = -1.0 if np.nanmin(np.asarray(values, float), initial=0.0) < 0 else 0.0
    return found._replace(low=float(np.clip(found.low, least, 1)), high=float(np.clip(found.high, least, 1)))


def resampled_mean(values, unit: str, *, seed: int = 0) -> Estimate:
    """The mean over many independent units, with the percentile bootstrap interval; missing values are left out."""
    values = np.asarray(values, float)
    values = values[~np.isnan(values)]
    found = float(values.mean()) if len(values) else math.nan
    return Estimate(found, *bootstrap_interval(values, seed=seed), len(values), unit)


def share_interval(count: int, n: int, *, exact: bool = False, level: float = 0.95) -> tuple[float, float]:
    """Interval of a share: Wilson's, or Clopper and Pearson's exact one, which covers at least the level; nan for n 0.

    Raises ValueError unless both are whole numbers, count at most n.
    """
    if count != int(count) or n != int(n) or not 0 <= count <= n:
        raise ValueError(f"{count} of {n}: numbers of hits and of items needed, the share is their quotient")
    if n == 0:
        return (math.nan, math.nan)
    found = sps.binomtest(int(count), int(n)).proportion_ci(level, "exact" if exact else "wilson")
    return (float(found.low), float(found.high))


def share(count: int, n: int, unit: str, *, exact: bool = False) -> Estimate:
    """A share of n independent units, with `share_interval`."""
    return Estimate(count / n if n else math.nan, *share_interval(count, n, exact=exact), n, unit)


SUPPORTED, CONTRADICTED, UNDECIDED, UNTESTABLE = "supported", "contradicted", "undecided", "not testable"
VERDICTS = (SUPPORTED, CONTRADICTED, UNDECIDED, UNTESTABLE)
ABOVE, BELOW, WITHIN = "above", "below", "within"
LEAST = 6  # independent units without which nothing is decided


def verdict(estimate: Estimate, bar: float | tuple[float, float], side: str = ABOVE) -> str:
    """What an interval says of the claim that the truth lies above or below the bar, or within two (equivalence).

    Supported: the whole interval lies on the claim's side. Contradicted: all of it lies on the other side. Undecided:
    it contains a bar. Not testable: fewer than LEAST units, or no interval. Raises ValueError for another side, or a
    bar that does not fit it.
    """
    if side not in (ABOVE, BELOW, WITHIN):
        raise ValueError(f"side is {side!r}: choose {ABOVE}, {BELOW} or {WITHIN}")
    bars = (bar,) if isinstance(bar, int | float) else tuple(bar)
    if len(bars) != 1 + (side == WITHIN) or not all(math.isfinite(b) for b in bars) or list(bars) != sorted(bars):
        raise ValueError(f"bar is {bar!r}: it must be {'two rising numbers' if side == WITHIN else 'one number'}")
    low, high = (math.nan if end is None else end for end in (estimate.low, estimate.high))
    if estimate.n < LEAST or math.isnan(low) or math.isnan(high):
        return UNTESTABLE
    if side == WITHIN:
        inside, outside = bars[0] < low and high < bars[1], high < bars[0] or low > bars[1]
    else:
        inside, outside = (low > bar, high < bar) if side == ABOVE else (high < bar, low > bar)
    return SUPPORTED if inside else CONTRADICTED if outside else UNDECIDED


def power(estimate: Estimate, margin: float, *, seed: int = 0, draws: int = 4000) -> float:
    """The chance that `verdict` says supported when the truth lies `margin` beyond the bar, with as many units that
    vary as these do: by simulation of normal units, whose spread follows from the interval. nan without an interval."""
    if estimate.n < 2 or estimate.low is None or math.isnan(estimate.low) or not margin > 0:
        return math.nan
    width = sps.t.ppf(0.975, estimate.n - 1) / math.sqrt(estimate.n)
    spread = (estimate.high - estimate.low) / 2 / width
    drawn = np.random.default_rng(seed).normal(margin, spread, (draws, estimate.n))
    return float((drawn.mean(1) - width * drawn.std(1, ddof=1) > 0).mean()) if spread > 0 else 1.0
