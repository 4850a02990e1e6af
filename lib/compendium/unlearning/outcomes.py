"""What the runs say: tables of stage 02-unlearned, read and brought to one row per domain, seed and method."""

from pathlib import Path

import numpy as np
import pandas as pd

from compendium import units
from compendium.paths import UNLEARNING
from compendium.stats import Estimate


def read(name: str, where: Path = UNLEARNING / "unlearned") -> pd.DataFrame:
    """One of the tables answers, facts and relearning, of all domains and seeds. Raises FileNotFoundError."""
    return units.read(where, again="dvc repro 02-unlearned")[name]


def table(answers: pd.DataFrame, edited: pd.DataFrame) -> pd.DataFrame:
    """One row a domain, seed and method: what was measured of it, beside the untouched model of the same run.

    forget, near, far: shares of right answers; "near change", "far change", "retained change" (mean of the two): minus
    the untouched model's; "nf4 gap" and so on: forgotten facts that a format brings back (right answers in it minus in
    full precision); "perplexity ratio"; and the columns of `edited`, the table facts.csv.
    """
    key = ["domain", "seed", "method"]
    wide = answers.pivot_table("correct", key, ["kind", "weights"], sort=False)
    found = pd.DataFrame({kind: wide[kind, "float32"] for kind in ("forget", "near", "far")})
    untouched = found.xs("none", level="method")
    for kind in ("near", "far"):
        found[f"{kind} change"] = found[kind] - untouched[kind].reindex(found.index.droplevel("method")).to_numpy()
    found["retained change"] = (found["near change"] + found["far change"]) / 2
    for fmt in wide["forget"].columns.drop("float32"):
        found[f"{fmt} gap"] = wide["forget", fmt] - wide["forget", "float32"]
    found = found.reset_index().merge(edited, on=key)
    base = found[found.method == "none"].set_index(["domain", "seed"]).perplexity
    found["perplexity ratio"] = found.perplexity / base.reindex(pd.MultiIndex.from_frame(found[key[:2]])).to_numpy()
    return found


def shares(answers: pd.DataFrame, method: str, kinds, weights: str = "float32") -> pd.Series:
    """Share of right answers by domain, seed, relation and subject: one value a fact, the mean over its wordings."""
    part = answers[(answers.method == method) & (answers.weights == weights) & answers.kind.isin(kinds)]
    return part.groupby(["domain", "seed", "relation", "subject"]).correct.mean()


def changes(answers: pd.DataFrame, method: str, kinds) -> pd.Series:
    """`shares` of a method minus the untouched model's, where the method ran."""
    return (shares(answers, method, kinds) - shares(answers, "none", kinds)).dropna()


def gaps(answers: pd.DataFrame, method: str, fmt: str) -> pd.Series:
    """`shares` of the facts to forget in a storage format minus in full precision, where both were asked."""
    return (shares(answers, method, ["forget"], fmt) - shares(answers, method, ["forget"])).dropna()


def pooled_gaps(answers: pd.DataFrame, runs: pd.DataFrame, fmt: str) -> pd.Series:
    """`gaps` of several methods in those `runs` (columns domain, seed, method), by fact: the mean over methods."""
    found = []
    for method, part in runs.groupby("method"):
        gap = gaps(answers, method, fmt)
        same = pd.MultiIndex.from_frame(part[["domain", "seed"]])
        found.append(gap[gap.index.droplevel(["relation", "subject"]).isin(same)])
    return pd.concat(found).groupby(level=[0, 1, 2, 3]).mean()


def interval(values: pd.Series, *, seed: int = 0, resamples: int = 2000) -> Estimate:
    """Mean over domains (of the mean over facts and seeds), and its 95 % percentile bootstrap interval over runs.

    values: as `shares` gives them. A draw resamples seeds and facts, the same facts in all seeds of a domain: answers
    to one fact in several runs are no independent evidence. With three seeds the interval is rather too narrow.
    """
    rng = np.random.default_rng(seed)
    means, drawn, runs = [], [], 0
    for _, part in values.groupby("domain"):
        grid = part.unstack("seed").to_numpy()  # (facts, seeds), nan where a run did not ask
        facts = rng.integers(len(grid), size=(resamples, len(grid), 1))
        seeds = rng.integers(grid.shape[1], size=(resamples, 1, grid.shape[1]))
        means.append(np.nanmean(grid))
        drawn.append(np.nanmean(grid[facts, seeds], axis=(1, 2)))
        runs += grid.shape[1]
    low, high = np.nanpercentile(np.mean(drawn, axis=0), [2.5, 97.5])
    return Estimate(float(np.mean(means)), float(low), float(high), runs, "runs")
