"""How far explainers agree in their order of columns: Kendall's W."""

import numpy as np
from scipy.stats import kendalltau, rankdata

from compendium import inputs


def kendall_w(ranks) -> float:
    """Concordance of several judges' ranks (judges, items), 0 to 1, corrected for ties.

    Scores will do: they are ranked within each judge. nan if nobody tells any items apart.
    """
    ranks = np.asarray(ranks, float)
    if ranks.ndim != 2 or min(ranks.shape) < 2 or not np.isfinite(ranks).all():
        raise ValueError("expected ranks (judges, items) of at least two by two, none missing")
    ranks = rankdata(ranks, axis=1)
    m, k = ranks.shape
    spread = ((ranks.sum(0) - m * (k + 1) / 2) ** 2).sum()
    ties = sum((c**3 - c).sum() for c in (np.unique(row, return_counts=True)[1] for row in ranks))
    most = m**2 * (k**3 - k) - m * ties
    return float(12 * spread / most) if most > 0 else np.nan


def agreement(scores_a, scores_b) -> float:
    """Kendall's tau-b of two lists of scores, -1 to 1; nan if one of them is constant. Series must be indexed alike."""
    inputs.same_rows(scores_a=scores_a, scores_b=scores_b)
    return float(kendalltau(scores_a, scores_b).statistic)
