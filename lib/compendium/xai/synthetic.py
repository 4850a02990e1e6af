"""Tables whose explanation is known, because we wrote the function that made the labels.

A table is drawn from a score s(x), and y is 1 with probability sigmoid(s). `predict` is that probability, the best
classifier there can be, and `attribution` its exact explanation: the Shapley values of the log-odds of class 1 against
the baseline 0, which is the mean of every column. They sum to s(x) - s(0) in every row, and integrated gradients from
0 gives the same numbers for all kinds here.

| kind | score | what it tests |
|---|---|---|
| linear | weighted columns | everybody should succeed |
| additive | a curve of each column | explanations that assume straight lines |
| interaction | products of pairs, no column matters alone | methods that change one column at a time |
| copies | two columns, three more are noisy copies of them | which of several twins gets the credit |
| irrelevant | three columns of thirty | noise in explanations |
| suppressor | a column minus the noise in it, which is a column too | is a column relevant that is needed but tells nothing about y? (Haufe et al. 2014; Wilming et al. 2022) |

Two notions of relevance come with a table, and they differ where it hurts: `relevant` marks the columns that the
function uses, `associated` those that depend on y. A copy is associated and not used; a suppressor is used and not
associated. A model that was *trained* on the table need not be that function: it may well use copies. Columns are in
random order, so that no method gains from preferring the first.
"""  # noqa: E501

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy.special import expit
from scipy.stats import rankdata

from compendium.xai import tables


class Table(NamedTuple):
    x: np.ndarray  # (n, d), every column with mean 0 and variance 1 in the population
    y: np.ndarray  # (n,) 0 or 1
    predict: Callable  # (m, d) -> (m, 2) probabilities of the classes: the generating function itself
    attribution: np.ndarray  # (n, d) exact, of the log-odds of class 1 against the baseline 0; class 0: times -1
    relevant: np.ndarray  # (d,) bool: used by the function
    associated: np.ndarray  # (d,) bool: not independent of y
    names: list[str]


def _made(x, score, attribution, relevant, associated, names, rng) -> Table:
    """Draw labels and shuffle columns. score: (m, d) -> (m,); attribution: (m, d) -> (m, d), both in the old order."""
    order = rng.permutation(x.shape[1])
    back = order.argsort()
    p = lambda rows: expit(score(np.asarray(rows, float)[:, back]))
    predict = lambda rows: np.stack([1 - p(rows), p(rows)], 1)
    flag = lambda columns: np.isin(np.arange(x.shape[1]), columns)[order]
    y = (rng.random(len(x)) < expit(score(x))).astype(int)
    ordered = [names[j] for j in order]
    return Table(x[:, order], y, predict, attribution(x)[:, order], flag(relevant), flag(associated), ordered)


def _named(d: int, **special) -> list[str]:
    return [special.get(f"x{j}", f"x{j}") for j in range(d)]


def _weighted(n, seed, weights) -> Table:
    rng = np.random.default_rng(seed)
    weights = np.asarray(weights, float)
    used = np.flatnonzero(weights)
    x = rng.normal(size=(n, len(weights)))
    return _made(x, lambda z: z @ weights, lambda z: z * weights, used, used, _named(len(weights)), rng)


def linear(n: int = 500, seed: int = 0) -> Table:
    """Four of eight columns, weights 3, -2, 1.5, -1."""
    return _weighted(n, seed, [3, -2, 1.5, -1, 0, 0, 0, 0])


def irrelevant(n: int = 500, seed: int = 0) -> Table:
    """Three of thirty columns, weights 3, -2, 1.5."""
    return _weighted(n, seed, [3, -2, 1.5] + [0] * 27)


def additive(n: int = 500, seed: int = 0) -> Table:
    """A curve of each of four columns: a wave, a fold, a step, a cube."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 8))
    parts = lambda z: np.stack(
        [2.5 * np.sin(1.5 * z[:, 0]), 2.5 * np.abs(z[:, 1]), 2 * np.tanh(3 * z[:, 2]), 0.5 * z[:, 3] ** 3]
        + [np.zeros(len(z))] * 4,
        1,
    )
    return _made(x, lambda z: parts(z).sum(1) - 2, parts, range(4), range(4), _named(8), rng)


def interaction(n: int = 500, seed: int = 0) -> Table:
    """3 x0 x1 + 3 x2 x3 of eight columns: each column alone tells nothing about y. Each pair shares its product."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 8))

    def attribution(z):
        half = 1.5 * np.stack([z[:, 0] * z[:, 1], z[:, 2] * z[:, 3]], 1)
        return np.concatenate([half.repeat(2, 1), np.zeros((len(z), 4))], 1)

    return _made(x, lambda z: attribution(z).sum(1), attribution, range(4), range(4), _named(8), rng)


def copies(n: int = 500, seed: int = 0, noise: float = 0.3) -> Table:
    """3 x0 - 2 x1 of eight columns; two columns are noisy copies of x0 and one of x1."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 8))
    x[:, 2:5] = (x[:, [0, 0, 1]] + noise * x[:, 2:5]) / np.sqrt(1 + noise**2)
    weights = np.array([3.0, -2, 0, 0, 0, 0, 0, 0])
    names = _named(8, x2="copy of x0", x3="copy of x0 (2)", x4="copy of x1")
    return _made(x, lambda z: z @ weights, lambda z: z * weights, range(2), range(5), names, rng)


def suppressor(n: int = 500, seed: int = 0) -> Table:
    """x0 is signal plus noise and x1 that noise: their difference is the signal. x2 counts as well; eight columns."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 8))
    x[:, 0] = (x[:, 0] + x[:, 1]) / np.sqrt(2)
    weights = np.array([2 * np.sqrt(2), -2, 1.5, 0, 0, 0, 0, 0])  # 2 (signal + noise) - 2 noise + 1.5 x2
    names = _named(8, x0="signal + noise", x1="noise")
    return _made(x, lambda z: z @ weights, lambda z: z * weights, range(3), [0, 2], names, rng)


TABLES: dict[str, Callable[..., Table]] = {
    "linear": linear,
    "additive": additive,
    "interaction": interaction,
    "copies": copies,
    "irrelevant": irrelevant,
    "suppressor": suppressor,
}


def _aligned(A, relevant) -> tuple[np.ndarray, np.ndarray]:
    tables.same(relevant, tables.named(A), "of the attributions", "relevant")
    A, relevant = tables.numbers(A, "attributions"), tables.flags(relevant, "relevant")
    if A.ndim != 2 or relevant.shape not in {A.shape, A.shape[1:]}:
        raise ValueError(
            f"expected attributions (n, d) and their relevance (d,) or (n, d): {A.shape}, {relevant.shape}"
        )
    if not np.isfinite(A).all():
        raise ValueError("attributions contain missing or infinite values")
    return A, np.broadcast_to(relevant, A.shape)


def auroc(A, relevant, *, signed: bool = False) -> np.ndarray:
    """(n,) chance that a relevant feature of a row has a larger |attribution| than one that is not; ties count half.

    relevant: (d,) or (n, d) bool; signed: compare attributions and not their sizes. 0.5 is chance, 1 best; nan in
    rows where all features are relevant or none is.
    """
    A, relevant = _aligned(A, relevant)
    ranks = rankdata(A if signed else np.abs(A), axis=1)
    yes = relevant.sum(1)
    no = A.shape[1] - yes
    with np.errstate(invalid="ignore", divide="ignore"):
        return ((ranks * relevant).sum(1) - yes * (yes + 1) / 2) / (yes * no)


def pointing(A, relevant, *, signed: bool = False) -> np.ndarray:
    """(n,) the pointing game: 1 where the feature of largest |attribution| is relevant; ties share the point.

    A row without any attribution is all ties, so it scores the share of relevant features, which is chance.
    """
    A, relevant = _aligned(A, relevant)
    size = A if signed else np.abs(A)
    top = size == size.max(1, keepdims=True)
    return (top & relevant).sum(1) / top.sum(1)
