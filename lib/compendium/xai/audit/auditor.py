"""How well an auditor with some rungs of the ladder does: AUROC with intervals, and gains."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy.stats import rankdata

from compendium import inputs
from compendium.xai.audit.rungs import SCORES, TRUTHS, ladder


def auc(score, truth) -> float:
    """Probability that a suppressed model scores above an erased one; ties count half.

    Raises ValueError for scores that are not finite, truths that are not True/False, and one kind of model only.
    """
    if np.shape(score) == np.shape(truth):
        inputs.same_rows(score=score, truth=truth)
    score, truth = np.asarray(inputs.vector(score, "score"), float), inputs.binary(truth, "truth")
    if score.shape != truth.shape or not np.isfinite(score).all():
        raise ValueError(f"one finite score a model needed: {score.shape} scores, {truth.shape} truths")
    if truth.all() or not truth.any():
        raise ValueError("all models are of one kind: an AUC needs suppressed ones and erased ones")
    ranks = rankdata(score)
    n, m = truth.sum(), (~truth).sum()
    return float((ranks[truth].sum() - n * (n + 1) / 2) / (n * m))


def _compared(frame: pd.DataFrame, score: str, truth: str, group) -> tuple[np.ndarray, np.ndarray]:
    """How often a suppressed model of group i scores above an erased one of group j, and out of how many: (g, g)."""
    value, known = frame[score].to_numpy(float), inputs.binary(frame[truth], truth)
    auc(value, known)  # refuses what cannot be judged
    if frame[group].isna().any(axis=None):
        raise ValueError(f"{group} has missing values: a model of no group cannot be resampled with it")
    belongs = np.eye(frame.groupby(group).ngroups)[frame.groupby(group).ngroup()]
    above = (value[known][:, None] > value[~known]) + 0.5 * (value[known][:, None] == value[~known])
    return belongs[known].T @ above @ belongs[~known], belongs[known].T @ np.ones_like(above) @ belongs[~known]


def _drawn_pairs(groups: int, resamples: int, seed: int) -> np.ndarray:
    """How often each pair of groups is met in each resample: (resamples, g, g).

    Two draws of one group are not compared with each other: they would count comparisons within a group, which are
    easier, more often than the data do, and lift every AUC.
    """
    rng = np.random.default_rng(seed)
    times = rng.multinomial(groups, np.full(groups, 1 / groups), size=resamples).astype(float)
    met = times[:, :, None] * times[:, None, :]
    own = np.arange(groups)
    met[:, own, own] = 0
    share = met.sum((1, 2), keepdims=True)[:, :, 0] / (groups * (groups - 1))  # comparisons within stay as frequent
    met[:, own, own] = times * share
    return met


def interval(drawn: np.ndarray) -> tuple[float, float]:
    drawn = drawn[np.isfinite(drawn)]
    return tuple(map(float, np.percentile(drawn, [2.5, 97.5]))) if len(drawn) else (np.nan, np.nan)


def auc_interval(
    frame: pd.DataFrame,
    score: str,
    truth: str = "suppressed",
    *,
    group: str | list[str] = "seed",
    resamples: int = 1000,
    seed: int = 0,
) -> tuple[float, float, float]:
    """AUC and its 95 % percentile interval; whole groups are resampled (models of one seed share a world)."""
    wins, of = _compared(frame, score, truth, group)
    value = wins.sum() / of.sum()
    if len(wins) < 2:
        return float(value), np.nan, np.nan
    met = _drawn_pairs(len(wins), resamples, seed)
    with np.errstate(invalid="ignore"):  # a draw may hold one kind only
        return float(value), *interval((met * wins).sum((1, 2)) / (met * of).sum((1, 2)))


def audit(
    frame: pd.DataFrame,
    columns: Sequence[str],
    *,
    truth: str = "suppressed",
    unseen: str | None = "mechanism",
    folds: int = 4,
    strength: float = 1.0,
) -> pd.Series:
    """Log-odds that each model is suppressed, by a logistic regression that has seen neither its seed nor its kind.

    Seeds are cut into `folds`; a model is judged by a regression fitted to the other folds and, with `unseen`, to rows
    of other values in that column (hiding mechanisms it has not met). None: its mechanism was met, in other seeds.
    Raises ValueError when fewer than two seeds, or one mechanism, leave nothing to learn from.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    seeds = np.sort(frame.seed.unique())
    if len(seeds) < 2 or (unseen and frame[unseen].nunique() < 2):
        raise ValueError(
            "an auditor must not be judged on what it was fitted to: give two seeds and two kinds, or more"
        )
    inputs.binary(frame[truth], truth)
    fold = frame.seed.map({s: i % min(folds, len(seeds)) for i, s in enumerate(seeds)})
    kinds = frame[unseen] if unseen else pd.Series("", index=frame.index)
    found = pd.Series(np.nan, index=frame.index)
    for f in fold.unique():
        for kind in kinds.unique():
            test, fit = (fold == f) & (kinds == kind), (fold != f) & ((kinds != kind) | (unseen is None))
            if test.any():
                model = make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=2000))
                model.fit(frame.loc[fit, columns], frame.loc[fit, truth])
                found[test] = model.decision_function(frame.loc[test, columns])
    return found


def climb(frame: pd.DataFrame, *, truth: str = "suppressed", resamples: int = 1000) -> pd.DataFrame:
    """The audit ladder: AUC of each rung, all mechanisms together and one by one, by three kinds of auditor.

    auditor: "fixed score" (SCORES, nothing fitted), "trained, unseen mechanism", "trained, seen mechanism" (both on all
    columns up to the rung, judged on other seeds). The last rows are what the truth itself can be read from: TRUTHS.
    """
    rows = []

    def add(scored, evidence, auditor):
        for mechanism in ("all", *scored.mechanism.unique()):
            part = scored if mechanism == "all" else scored[scored.mechanism == mechanism]
            value, low, high = auc_interval(part, "score", truth, resamples=resamples)
            rows.append(
                {
                    "evidence": evidence,
                    "auditor": auditor,
                    "mechanism": mechanism,
                    "auc": value,
                    "low": low,
                    "high": high,
                    "models": len(part),
                }
            )

    for name, columns in ladder().items():
        add(frame.assign(score=frame[SCORES[name]]), name, "fixed score")
        for auditor, unseen in (("trained, unseen mechanism", "mechanism"), ("trained, seen mechanism", None)):
            add(frame.assign(score=audit(frame, columns, truth=truth, unseen=unseen)), name, auditor)
    for name in TRUTHS:
        add(frame.assign(score=frame[name]), name, "truth")
    return pd.DataFrame(rows)


def gain(
    frame: pd.DataFrame, less: str, more: str, truth: str = "suppressed", *, resamples: int = 1000, seed: int = 0
) -> tuple[float, float, float]:
    """AUC of the score `more` minus that of `less`, on the same models; interval by resampling seeds."""
    wins, of = _compared(frame, more, truth, "seed")
    wins = wins - _compared(frame, less, truth, "seed")[0]
    met = _drawn_pairs(len(wins), resamples, seed)
    with np.errstate(invalid="ignore"):
        drawn = (met * wins).sum((1, 2)) / (met * of).sum((1, 2))
    return float(wins.sum() / of.sum()), *interval(drawn)
