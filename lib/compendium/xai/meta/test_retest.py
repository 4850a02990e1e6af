"""Does a metric say the same twice? Intraclass correlation over repeats."""

import numpy as np
import pandas as pd

from compendium.xai.meta.gating import mean
from compendium.xai.meta.rank_validity import tau


def icc(values) -> float:
    """Intraclass correlation ICC(2,1) of values (items, repeats): absolute agreement of single repeats.

    Shrout & Fleiss 1979. 1: repeats are identical; 0: items differ no more than repeats do; nan if nothing varies.
    """
    values = np.asarray(values, float)
    if values.ndim != 2 or min(values.shape) < 2 or not np.isfinite(values).all():
        raise ValueError("expected values (items, repeats) of at least two by two, none missing")
    n, k = values.shape
    mean = values.mean()
    between = k * ((values.mean(1) - mean) ** 2).sum() / (n - 1)
    repeats = n * ((values.mean(0) - mean) ** 2).sum() / (k - 1)
    rest = ((values - values.mean(1, keepdims=True) - values.mean(0) + mean) ** 2).sum() / ((n - 1) * (k - 1))
    bottom = between + (k - 1) * rest + k * (repeats - rest) / n
    return float((between - rest) / bottom) if bottom > 1e-30 else np.nan


def retest(found: pd.DataFrame) -> pd.DataFrame:
    """One row a metric and knob of `meta.tamper`: mean Kendall's tau between the orders of methods under any two
    choices (the default among them), and ICC of the scores over choices."""
    rows = []
    for (metric, knob), of in found.groupby(["metric", "knob"], sort=False):
        table = of.pivot_table(index="method", columns="choice", values="score", sort=False).dropna(axis=1, how="all")
        if table.shape[1] < 2:
            continue
        columns = table.to_numpy().T
        taus = [tau(a, b) for i, a in enumerate(columns) for b in columns[i + 1 :]]
        whole = table.dropna()
        rows.append(
            {"metric": metric, "knob": knob, "tau": mean(taus), "icc": icc(whole) if len(whole) > 1 else np.nan}
        )
    return pd.DataFrame(rows)
