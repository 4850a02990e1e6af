"""Notebook 02_unlearning/07_structural_erasure: what CAD says of erasure beyond forgetting and the update's size."""

import numpy as np
import pandas as pd


def partial(frame: pd.DataFrame, x: str, y: str, given: tuple[str, ...]) -> float:
    """Spearman's correlation of x and y, with the ranks of the columns `given` regressed out of both."""
    a, b = frame[[x, y]].rank().to_numpy().T
    if given:
        g = np.column_stack([np.ones(len(frame)), frame[list(given)].rank().to_numpy()])
        a, b = (v - g @ np.linalg.lstsq(g, v, rcond=None)[0] for v in (a, b))
    return float(np.corrcoef(a, b)[0, 1]) if a.std() > 1e-9 and b.std() > 1e-9 else np.nan


def interval(frame: pd.DataFrame, *arguments, resamples: int) -> tuple[float, float]:
    """95 % bootstrap interval of `partial`, resampling methods within domains with all their seeds."""
    rng = np.random.default_rng(0)
    parts = [part for _, part in frame.groupby(["domain", "method"])]
    drawn = [
        partial(pd.concat([parts[i] for i in rng.integers(len(parts), size=len(parts))]), *arguments)
        for _ in range(resamples)
    ]
    return tuple(map(float, np.nanpercentile(drawn, [2.5, 97.5])))


def correlations(frame: pd.DataFrame, *, resamples: int) -> pd.DataFrame:
    """`partial` of both kinds of CAD with both criteria, with forgetting and size taken out or not; one per row."""
    rows = []
    for measure in ("CAD, nodes", "CAD, edges"):
        for criterion in ("relearned to", "probe AUC"):
            for given in ((), ("forget",), ("size",), ("forget", "size")):
                low, high = interval(frame, measure, criterion, given, resamples=resamples)
                key = {"measure": measure, "criterion": criterion, "taken out": " and ".join(given) or "nothing"}
                rho = partial(frame, measure, criterion, given)
                rows.append(key | {"rho": rho, "low": low, "high": high, "checkpoints": len(frame)})
    return pd.DataFrame(rows)
