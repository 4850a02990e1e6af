"""Turning the knobs of a metric until the wanted explainer wins, and writing the same explanation otherwise."""

from collections.abc import Callable

import numpy as np
import pandas as pd
from scipy import stats as sps

from compendium.xai import tables
from compendium.xai.meta.hiding import compare


def tamper(evaluate: Callable, knobs: dict[str, dict]) -> pd.DataFrame:
    """Every choice of every knob, one at a time, and all of them beside the default.

    evaluate: `(**setting) -> {metric: {method: (n,) scores, more is better}}`. knobs: knob -> choice -> setting, a dict
    of keywords of `evaluate`. One row a metric, knob, choice and method, with the per-row scores in `scores`; the
    default is part of every knob, under the choice "default".
    """
    rows = []

    def add(knob, choice, found):
        for metric, methods in found.items():
            for method, scores in methods.items():
                scores = np.asarray(scores, float)
                mean = np.nanmean(scores) if np.isfinite(scores).any() else np.nan
                rows.append(
                    {
                        "metric": metric,
                        "knob": knob,
                        "choice": choice,
                        "method": method,
                        "score": mean,
                        "scores": scores,
                    }
                )

    usual = evaluate()
    for knob, choices in knobs.items():
        add(knob, "default", usual)
        for choice, setting in choices.items():
            add(knob, choice, evaluate(**setting))
    return pd.DataFrame(rows)


def ranges(found: pd.DataFrame) -> pd.DataFrame:
    """One row a metric, knob and method: lowest, default and highest score over the choices of `tamper`.

    `spread` is high - low in units of the standard deviation between methods at the default.
    """
    usual = found[found.choice == "default"].groupby(["metric", "knob", "method"], sort=False).score.first()
    table = found.groupby(["metric", "knob", "method"], sort=False).score.agg(low="min", high="max")
    table.insert(1, "default", usual)
    between = usual.groupby(level=["metric", "knob"]).transform("std")
    table["spread"] = (table.high - table.low) / between.where(between > 0)
    return table.reset_index()


def flips(found: pd.DataFrame) -> pd.DataFrame:
    """One row a metric and knob, and one for `any knob`: which share of pairs of methods can be made to swap.

    `flipped`: pairs whose mean scores stand in strict order at the default and in the opposite one for some choice;
    `clear`: pairs for which both orders are clear (see `compare`); both as shares of all pairs. `decided` is the share
    of pairs whose order is clear at the default.
    """
    rows = []
    for metric, part in found.groupby("metric", sort=False):
        methods = list(dict.fromkeys(part.method))
        usual = part[part.choice == "default"].drop_duplicates("method").set_index("method").loc[methods]
        sign = lambda table: np.sign(np.subtract.outer(*[table.score.to_numpy()] * 2))
        before, sure = sign(usual), compare(np.stack(usual.scores))
        upper = np.triu_indices(len(methods), 1)
        any_flip, any_clear = np.zeros_like(sure, bool), np.zeros_like(sure, bool)
        for knob, of in part.groupby("knob", sort=False):
            flip, clear = np.zeros_like(sure, bool), np.zeros_like(sure, bool)
            for _, one in of[of.choice != "default"].groupby("choice", sort=False):
                table = one.set_index("method").loc[methods]
                flip |= before * sign(table) < 0
                clear |= sure * compare(np.stack(table.scores)) < 0
            any_flip, any_clear = any_flip | flip, any_clear | clear
            rows.append((metric, knob, flip[upper].mean(), clear[upper].mean(), np.mean(sure[upper] != 0)))
        rows.append((metric, "any knob", any_flip[upper].mean(), any_clear[upper].mean(), np.mean(sure[upper] != 0)))
    return pd.DataFrame(rows, columns=["metric", "knob", "flipped", "clear", "decided"])


def ranks(found: pd.DataFrame) -> pd.DataFrame:
    """One row a metric and method: its rank at the default, and the best and worst over all choices; 1 is best."""
    rank = found.groupby(["metric", "knob", "choice"], sort=False).score.rank(ascending=False)
    found = found.assign(rank=rank)
    table = found.groupby(["metric", "method"], sort=False)["rank"].agg(best="min", worst="max")
    usual = found[found.choice == "default"].groupby(["metric", "method"], sort=False)["rank"].first()
    return table.assign(default=usual).reset_index()[["metric", "method", "default", "best", "worst"]]


# Conventions of writing one and the same explanation; the order of a row's attributions by size stays what it was.
REWRITINGS: dict[str, Callable] = {
    "sum to 1": lambda A: A / np.maximum(np.abs(A).sum(1, keepdims=True), 1e-12),
    "times 10": lambda A: 10 * A,
    "signed ranks": lambda A: np.sign(A) * sps.rankdata(np.abs(A), axis=1) / A.shape[1],
    "sizes": np.abs,
}


def _wrong(A, relevant) -> np.ndarray:
    """Nothing for relevant columns, and for each other column at least 1 % of the row's largest."""
    A = np.abs(A) * ~relevant
    return np.where(relevant, 0.0, np.maximum(A, 0.01 * A.max(1, keepdims=True) + 1e-12))


def fabricate(
    metric: Callable,
    predict,
    X,
    target,
    baseline,
    relevant,
    *,
    better: int = 1,
    rounds: int = 40,
    seed: int = 0,
    **options,
) -> np.ndarray:
    """(n, d) attributions that deny what is relevant and score as high as a hill climb gets them.

    relevant: (d,) or (n, d) bool, what must not be found: it gets 0 and everything else more, so that AUROC and
    pointing game are 0. Each row climbs by itself, from the best of: all others equal, one of them, random sizes.
    """
    tables.same(relevant, tables.named(X), "of X", "relevant")
    X = tables.table(X)
    relevant = np.broadcast_to(tables.flags(relevant, "relevant"), X.shape)
    if relevant.all(1).any() or not relevant.any(1).all():
        raise ValueError("a wrong explanation needs at least one column that matters and one that does not in each row")
    rng = np.random.default_rng(seed)
    score = lambda A: (
        better * np.nan_to_num(metric(predict, X, A, target, baseline, seed=seed, **options), nan=-better * np.inf)
    )
    best = _wrong(np.ones_like(X), relevant)
    value = score(best)

    def keep(new):
        nonlocal best, value
        found = score(new)
        up = found > value
        best, value = np.where(up[:, None], new, best), np.where(up, found, value)

    for column in range(X.shape[1]):
        keep(_wrong(np.eye(X.shape[1])[column] + np.zeros_like(X), relevant))
    for k in range(rounds):
        if k % 4 == 0:
            new = rng.lognormal(size=X.shape)
        else:
            new = best * rng.lognormal(sigma=1.0, size=X.shape) ** (rng.random(X.shape) < 0.3)
        keep(_wrong(new, relevant))
    return best


def won(wrong: float, random: float, exact: float) -> float:
    """How far a wrong explanation gets from a random (0) to the exact one (1); nan where the exact one is not ahead."""
    return float((wrong - random) / (exact - random)) if exact > random + 1e-9 * max(1, abs(exact)) else np.nan
