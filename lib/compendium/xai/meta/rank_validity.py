"""Does a metric rank explanations as the truth does? A ladder of known quality, and Kendall's tau."""

import numpy as np
import pandas as pd

from compendium.xai.meta.gating import CONTROL, GIVEN, impostors, known_case, mean, scorer
from compendium.xai.meta.hiding import compare
from compendium.xai.meta.manipulation import fabricate, won
from compendium.xai.metrics import BETTER, METRICS, agreement, faithfulness, kendall_w
from compendium.xai.synthetic import TABLES, auroc


def ladder(A, steps=(0, 0.2, 0.4, 0.6, 0.8, 1), *, seed: int = 0) -> dict[float, np.ndarray]:
    """The exact attributions with a known share of noise of the same size: step 0 is exact, 1 nothing but noise."""
    A = np.asarray(A, float)
    drawn = np.random.default_rng(seed).normal(size=A.shape) * A.std()
    return {step: (1 - step) * A + step * drawn for step in steps}


def closeness(A, exact) -> float:
    """Mean over rows of Pearson's correlation with the exact attributions; a row without variation counts as 0."""
    return float(np.nan_to_num(faithfulness.correlation(np.asarray(A, float), np.asarray(exact, float))).mean())


def ladder_validity(kinds=tuple(TABLES), *, names=(*GIVEN, CONTROL), seeds=(0, 1, 2), rows: int = 40) -> pd.DataFrame:
    """One row a metric, table and seed: Kendall's tau between its order of the ladder's steps and the true order."""
    found = []
    for kind in kinds:
        for seed in seeds:
            predict, X, exact, target, *_ = known_case(kind, rows=rows, seed=seed)
            steps = ladder(exact, seed=seed)
            for name in names:
                score = scorer(name, predict, X, target, np.zeros(X.shape[1]), seed)
                value = [mean(score(A)) for A in steps.values()]
                found.append({"metric": name, "table": kind, "seed": seed, "tau": tau([-s for s in steps], value)})
    return pd.DataFrame(found)


def tau(a, b) -> float:
    """Kendall's tau of two lists of scores; no order in one of them is no agreement: 0. Missing scores are left out."""
    a, b = np.asarray(a, float), np.asarray(b, float)
    known = np.isfinite(a) & np.isfinite(b)
    if known.sum() < 2:
        return np.nan
    return float(np.nan_to_num(agreement(a[known], b[known])))


def validity(table: pd.DataFrame, truth: pd.Series) -> pd.Series:
    """Kendall's tau of each metric (column of scores, more is better) with the truth, over methods (rows)."""
    if set(table.index) != set(truth.index):
        raise ValueError(f"scores are of {sorted(table.index)} and the truth of {sorted(truth.index)}")
    return pd.Series({name: tau(table[name], truth[table.index]) for name in table})


def climbs(
    kinds=("linear", "additive", "interaction"), *, names=GIVEN, seeds=(0, 1, 2), rows: int = 20, rounds: int = 40
) -> pd.DataFrame:
    """One row a metric, table, seed and denial: how far a wrong explanation made by `meta.fabricate` gets.

    It denies `everything` that matters, or only `the strongest` column of each row. `won`: 0 is the score of a random
    explanation (the exact one's numbers, shuffled), 1 that of the exact one, nan where that one is not clearly ahead;
    `beats`: the share of rows where the wrong one scores above the exact one. All are scored under another seed than
    was climbed.
    """
    found = []
    for kind in kinds:
        for seed in seeds:
            predict, X, exact, target, relevant, _ = known_case(kind, rows=rows, seed=seed)
            zero, shuffled = np.zeros(X.shape[1]), impostors(exact, seed)["random"]
            strongest = np.arange(X.shape[1]) == np.abs(exact).argmax(1)[:, None]
            for name in names:
                score = scorer(name, predict, X, target, zero, seed + 1000)
                least, most = score(shuffled), score(exact)
                ahead = compare([most, least])[0, 1] == 1
                for denied, columns in (("everything", relevant), ("the strongest", strongest)):
                    wrong = fabricate(
                        METRICS[name], predict, X, target, zero, columns, better=BETTER[name], rounds=rounds, seed=seed
                    )
                    value = score(wrong)
                    found.append(
                        {
                            "metric": name,
                            "table": kind,
                            "seed": seed,
                            "denied": denied,
                            "won": won(mean(value), mean(least), mean(most)) if ahead else np.nan,
                            "wrong": mean(value),
                            "random": mean(least),
                            "exact": mean(most),
                            "beats": float(np.mean(value > most + 1e-9)),
                            "auroc": mean(auroc(wrong, relevant)),
                        }
                    )
    return pd.DataFrame(found)


def concordance(table: pd.DataFrame) -> float:
    """Kendall's W of metrics (columns) over methods (rows); metrics that do not score every method are left out."""
    return kendall_w(table.dropna(axis=1).to_numpy().T)


def tau_matrix(table: pd.DataFrame) -> pd.DataFrame:
    """Kendall's tau between each two metrics (columns) over methods (rows)."""
    return pd.DataFrame({a: {b: tau(table[a], table[b]) for b in table} for a in table})
