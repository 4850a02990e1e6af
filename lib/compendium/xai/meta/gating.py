"""Does a metric tell explanations from noise, and the right class from a wrong one?"""

import zlib
from collections.abc import Callable

import numpy as np
import pandas as pd

from compendium import stats
from compendium.xai.explain import predictor
from compendium.xai.metrics import BETTER, METRICS, SENSITIVITIES
from compendium.xai.synthetic import TABLES

GIVEN = tuple(name for name in METRICS if name not in SENSITIVITIES)  # judge an explanation as it is given


def noise(predict, X, A, target, baseline, *, seed=0) -> np.ndarray:
    """The control: a random number for each row, the same for the same rows, explanations and seed."""
    told = b"".join(np.ascontiguousarray(of, float).tobytes() for of in (X, A))
    return np.random.default_rng([seed, zlib.crc32(told)]).random(len(A))


CONTROL = "control: random numbers"


def oriented(metric: str) -> Callable:
    """The metric with more is better."""
    if metric == CONTROL:
        return noise
    return lambda *args, **options: BETTER[metric] * METRICS[metric](*args, **options)


def scorer(metric: str, predict, X, target, baseline, seed: int) -> Callable:
    """A -> (n,) scores, more is better."""
    return lambda A: np.asarray(oriented(metric)(predict, X, A, target, baseline, seed=seed), float)


def mean(values) -> float:
    values = np.asarray(values, float)
    return float(np.nanmean(values)) if np.isfinite(values).any() else np.nan


def reversed_order(A, by=None) -> np.ndarray:
    """Each row's values dealt out in reverse: the largest where the least was. by: (n, d) order by this instead."""
    A = np.asarray(A, float)
    order = np.argsort(A if by is None else by, axis=1, kind="stable")
    found = np.empty_like(A)
    np.put_along_axis(found, order, np.take_along_axis(A, order[:, ::-1], 1), 1)
    return found


def impostors(A, seed: int = 0) -> dict[str, np.ndarray]:
    """Explanations made of an exact one's own numbers: itself, shuffled in each row, and two ways of reversing it.

    All have the same values in every row (up to sign, when sizes are reversed), so only their places can be judged.
    """
    A = np.asarray(A, float)
    return {
        "oracle": A,
        "random": np.random.default_rng(seed).permuted(A, axis=1),
        "reversed": reversed_order(A),
        "sizes reversed": np.sign(np.where(A == 0, 1, A)) * reversed_order(np.abs(A)),
    }


def known_case(kind: str, *, rows: int = 40, seed: int = 0):
    """`(predict, X, exact, target, relevant, table)` of a table of `synthetic`: log-odds, and their exact attribution.

    Rows are explained for the class that is predicted.
    """
    if kind not in TABLES:
        raise ValueError(f"unknown table {kind!r}: choose one of {', '.join(TABLES)}")
    table = TABLES[kind](1000, seed)
    X, predict = table.x[:rows], predictor(table.predict, "logit")
    target = predict(X).argmax(1)
    return predict, X, table.attribution[:rows] * (2 * target - 1)[:, None], target, table.relevant, table


def gate(kinds=tuple(TABLES), *, names=(*GIVEN, CONTROL), seeds=(0, 1, 2), rows: int = 40) -> pd.DataFrame:
    """One row a metric, table and seed: mean scores (more is better) of `impostors`, and whether the gate is passed.

    `first`: oracle > random; `passes`: also random > the worse of the reversed ones. By chance, `first` in half of the
    cases and `passes` in a quarter. The baseline is 0, against which the exact attribution is defined.
    """
    found = []
    for kind in kinds:
        for seed in seeds:
            predict, X, exact, target, *_ = known_case(kind, rows=rows, seed=seed)
            for name in names:
                score = scorer(name, predict, X, target, np.zeros(X.shape[1]), seed)
                value = {who: mean(score(A)) for who, A in impostors(exact, seed).items()}
                found.append({"metric": name, "table": kind, "seed": seed, **value, **passes(value)})
    return pd.DataFrame(found)


def passes(value: dict[str, float]) -> dict[str, bool]:
    """The rule of the gate for one set of mean scores; differences below a billionth are ties, and ties fail."""
    slack = 1e-9 * max(1.0, *(abs(v) for v in value.values() if np.isfinite(v)), 1.0)
    first = value["oracle"] > value["random"] + slack
    return {
        "first": bool(first),
        "passes": bool(first and value["random"] > min(value["reversed"], value["sizes reversed"]) + slack),
    }


def passing(found: pd.DataFrame, column: str = "passes") -> pd.DataFrame:
    """One row a metric: share of tables and seeds that pass, with Wilson's interval."""
    rows = []
    for name, of in found.groupby("metric", sort=False):
        low, high = stats.share_interval(int(of[column].sum()), len(of))
        rows.append({"metric": name, "share": of[column].mean(), "low": low, "high": high, "cases": len(of)})
    return pd.DataFrame(rows)
