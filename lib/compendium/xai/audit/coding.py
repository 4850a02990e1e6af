"""Agreement of two coders of the audit instruments: Cohen's kappa and its kin."""

import numpy as np
import pandas as pd

from compendium import inputs
from compendium.xai.audit.instruments import ACCESS, LEVELS, LISTS, VERIFIERS, swap

# Agreement of two coders


def kappa(a, b, weights: str | None = None, labels=None) -> float:
    """Cohen's kappa of two codings of the same items: 1 - observed / expected disagreement.

    weights: None counts any difference as 1; "linear" as the distance of the labels' places in `labels`, which should
    then hold the whole scale in order (default: the sorted labels that occur). nan where it is undefined: both coders
    gave one and the same label throughout. Raises ValueError for codings of other items, and for labels that are
    missing, or of two types, such as 1 and "1".
    """
    if np.ndim(a) != 1 or np.shape(a) != np.shape(b) or len(a) == 0:
        raise ValueError(f"two codings of the same items needed: shapes {np.shape(a)} and {np.shape(b)}")
    inputs.same_rows(a=a, b=b)
    a, b = inputs.vector(a, "a"), inputs.vector(b, "b")
    given = [*a.tolist(), *b.tolist()]
    if pd.isna(np.array(given, object)).any():
        raise ValueError("a label is missing: drop the items that a coder left out, or give them a label of their own")
    if 0 < sum(isinstance(label, str) for label in given) < len(given):
        raise ValueError("labels are text in part and numbers in part: give both codings in one type")
    if weights not in (None, "linear"):
        raise ValueError(f"unknown weights {weights!r}: None or 'linear'")
    if weights and labels is None and any(isinstance(label, str) for label in given):
        raise ValueError("linear weights need labels=, the whole scale in order: letters would order the text")
    labels = np.unique(np.concatenate([a, b])) if labels is None else inputs.vector(labels, "labels")
    if len(set(labels.tolist())) < len(labels):
        raise ValueError("a label stands twice in labels: each has one place on the scale")
    if odd := sorted(set(np.concatenate([a, b]).tolist()) - set(labels.tolist())):
        raise ValueError(f"label {odd[0]!r} occurs and is not in labels")
    places = {label: place for place, label in enumerate(labels.tolist())}
    i, j = (np.array([places[label] for label in codes.tolist()]) for codes in (a, b))
    return _kappa(i, j, len(labels), weights)


def _kappa(i: np.ndarray, j: np.ndarray, k: int, weights: str | None) -> float:
    """The same for places of labels, 0 .. k-1."""
    together = np.bincount(k * i + j, minlength=k * k).reshape(k, k) / len(i)
    steps = np.abs(np.subtract.outer(np.arange(k), np.arange(k)))
    cost = steps if weights == "linear" else steps > 0
    expected = (cost * np.outer(together.sum(1), together.sum(0))).sum()
    return float(1 - (cost * together).sum() / expected) if expected > 0 else np.nan


def _marks(lists, codes) -> np.ndarray:
    """(items, codes) 0 or 1. Raises ValueError for an item that is no list, and for a code that is not in `codes`."""
    for found in lists:
        if isinstance(found, str) or not hasattr(found, "__iter__"):
            raise ValueError(f"a coding gives each item a list of codes, got {found!r}: split it first")
        if odd := [code for code in found if code not in codes]:
            raise ValueError(f"code {odd[0]!r} occurs and is not in codes")
    return np.array([[code in found for code in codes] for found in lists], int)


def multi_label(a, b, codes) -> pd.DataFrame:
    """Codings that give each item a list: one row a code, how often each coder gave it, agreement, kappa.

    kappa is nan for a code that both gave never, or always: it has nothing to say on whether they agree.
    """
    codes = list(codes)
    inputs.same_rows(a=a, b=b)
    x, y = _marks(a, codes), _marks(b, codes)
    if x.shape != y.shape:
        raise ValueError(f"two codings of the same items needed: {len(x)} and {len(y)}")
    rows = [
        {
            "code": code,
            "first": int(p.sum()),
            "second": int(q.sum()),
            "agreement": float((p == q).mean()),
            "kappa": _kappa(p, q, 2, None),
        }
        for code, p, q in zip(codes, x.T, y.T, strict=True)
    ]
    return pd.DataFrame(rows)


def agreement(table: pd.DataFrame, other: pd.DataFrame, *, seed: int = 0, resamples: int = 2000) -> pd.DataFrame:
    """Kappa of two codings, one row a field: field, measure, agreement (share of equal codes), kappa, low, high.

    Intervals resample instruments. Lists: the mean over codes that have a kappa. Levels: plain and linear weights.
    The last two rows are of what follows from the codes, and what the conclusions rest on: gap and fragile.
    """
    n, other = len(table), swap(table, other)  # in the table's order, with gap and fragile
    fields = []
    for column, codes in LISTS.items():
        x, y = _marks(table[column], codes), _marks(other[column], codes)
        mean = lambda rows, x=x, y=y: _mean([_kappa(p, q, 2, None) for p, q in zip(x[rows].T, y[rows].T, strict=True)])
        fields.append((column, "mean over codes", float((x == y).mean()), mean))
    for column in (*ACCESS, "verifier"):
        scale = list(range(len(LEVELS))) if column in ACCESS else list(VERIFIERS)
        i, j = (np.array([scale.index(v) for v in codes[column]]) for codes in (table, other))
        k = len(scale)
        for weights in (None, "linear") if column in ACCESS else (None,):
            of = lambda rows, i=i, j=j, k=k, w=weights: _kappa(i[rows], j[rows], k, w)
            fields.append((column, "linear" if weights else "plain", float((i == j).mean()), of))
    for column, measure, k in (("gap", "linear", 2 * len(LEVELS) - 1), ("fragile", "plain", 2)):
        lowest = 1 - len(LEVELS) if column == "gap" else 0
        i, j = (codes[column].to_numpy(int) - lowest for codes in (table, other))
        of = lambda rows, i=i, j=j, k=k, w=measure: _kappa(i[rows], j[rows], k, w)
        fields.append((column, measure, float((i == j).mean()), of))
    draws = np.random.default_rng(seed).integers(n, size=(resamples, n))
    rows = []
    for column, measure, share, of in fields:
        values = np.array([of(rows_drawn) for rows_drawn in draws])
        low, high = np.nanpercentile(values, [2.5, 97.5])
        rows.append(
            {
                "field": column,
                "measure": measure,
                "agreement": share,
                "kappa": of(np.arange(n)),
                "low": low,
                "high": high,
            }
        )
    return pd.DataFrame(rows)


def _mean(values) -> float:
    known = [v for v in values if not np.isnan(v)]
    return float(np.mean(known)) if known else np.nan
