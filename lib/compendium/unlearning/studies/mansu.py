"""Notebook 02_unlearning/05_mansu: what a component of MANSU is worth, in the one run that has the ablations."""

import numpy as np
import pandas as pd

from compendium import facts
from compendium.stats import Estimate

RUN = ("country_capital, Europe", 0)  # domain and seed


def scores(answers: pd.DataFrame, method: str) -> list[np.ndarray]:
    """By fact of RUN: known in full precision, known in NF4, near and far facts kept."""
    part = answers[(answers.domain == RUN[0]) & (answers.seed == RUN[1]) & (answers.method == method)]
    return [
        part[(part.kind == kind) & (part.weights == weights)].groupby(["relation", "subject"]).correct.mean().to_numpy()
        for kind, weights in (("forget", "float32"), ("forget", "nf4"), ("near", "float32"), ("far", "float32"))
    ]


def compared(answers: pd.DataFrame, other: str, *, resamples: int = 2000) -> Estimate:
    """MANSU's score minus that of `other`: retained minus known of what should go, as NF4 leaves it; over facts."""
    rng = np.random.default_rng(0)
    both = list(zip(scores(answers, "MANSU"), scores(answers, other), strict=True))
    every = [np.arange(len(ours))[None] for ours, _ in both]
    drawn = [rng.integers(len(ours), size=(resamples, len(ours))) for ours, _ in both]
    drawn[1] = drawn[0]  # the same facts, asked twice

    def difference(chosen):
        found = []
        for which in (0, 1):
            known, stored, near, far = (pair[which][rows].mean(axis=1) for pair, rows in zip(both, chosen, strict=True))
            found.append((near + far) / 2 - np.maximum(np.maximum(known, stored), facts.CHANCE))
        return found[0] - found[1]

    low, high = np.percentile(difference(drawn), [2.5, 97.5])
    return Estimate(difference(every).item(), float(low), float(high), 1, "run")
