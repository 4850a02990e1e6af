"""Scores of explanations: one number a row, for one fixed class, from predictions under masks.

    values = METRICS["deletion"](predict, X, A, target, baseline, seed=0)      # (n,)

predict: (n, d) -> (n, K), such as `explain.predictor(model)`; X (n, d); A (n, d), signed, in feature order; target: one
class or one a row, and it stays that class whatever a masked input is predicted as; baseline: what a removed feature
becomes. f is the prediction of the target, x without S the row with the features of S removed.

| metric | definition | better |
|---|---|---|
| faithfulness correlation | Pearson, over random sets S, of sum of a in S with f(x) - f(x without S) (Bhatt et al. 2020) | high |
| deletion | area under f as features go, largest a first (Petsiuk et al. 2018) | low |
| insertion | area under f as features come back, largest a first | high |
| comprehensiveness | f(x) - f(x without the top), mean over top 1, 5, 10, 20, 50 % (DeYoung et al. 2020) | high |
| sufficiency | f(x) - f(the top alone), same mean and sign as theirs | low |
| infidelity | mean over S of (b sum of a in S - drop)^2, b >= 0 the best stretch (Yeh et al. 2019) | low |
| monotonicity | Spearman of abs(a) with the size of the change as features come in by it, least first (after Arya et al. 2019) | high |
| completeness gap | abs(sum a - (f(x) - f(nothing kept))) (Sundararajan et al. 2017) | low |
| max, mean sensitivity | largest, mean distance of explanations of nearby inputs from a (Yeh et al. 2019) | low |
| relative sensitivity | max sensitivity / length of a | low |
| complexity | entropy of abs(a) / sum abs(a), nats (Bhatt et al. 2020) | low |
| sparseness | Gini index of abs(a) (Chalasani et al. 2020) | high |

The first eight ask the model (`TRUTHFUL`) and can tell a right explanation from a wrong one. The others cannot: a
constant explanation is perfectly insensitive, one feature picked at random is perfectly simple.

Definitions that matter. "Top" is by signed a, so what supports the class goes first. Yeh's stretch b makes methods of
different scale comparable; theirs may be negative, which would forgive an explanation with all signs wrong, ours may
not. A correlation where one side does not vary is nan (the model does not react, or all attributions are equal), and
areas and drops are what they are: a constant model has drops of 0. Ties in a are removed in column order. Noise does
not score 0 in monotonicity where predictions saturate (features that come late change little): read it beside noise.

Baselines (`baselines`): zero and mean are one row; marginal averages predictions over rows of the background;
conditional fills removed features with their normal expectation given the kept ones, and stays near the data. Masks go
to the model in large batches: n rows and s masks are n s rows at once, cut to `AT_ONCE` numbers.
"""  # noqa: E501

from collections.abc import Callable

import numpy as np
import pandas as pd
from scipy.stats import kendalltau, rankdata

from compendium import inputs
from compendium.xai import tables
from compendium.xai.outputs import Stated
from compendium.xai.tables import table, targets

AT_ONCE = 4_000_000  # numbers in one batch of masked inputs
FRACTIONS = (0.01, 0.05, 0.1, 0.2, 0.5)


# Baselines -------------------------------------------------------------------------------------------------------


class Conditional:
    """Removed features become their expectation given the kept ones, under a normal distribution of the background."""

    def __init__(self, background, shrink: float = 1e-3):
        rows = table(background, "background")
        self.mean = rows.mean(0)
        self.covariance = np.atleast_2d(np.cov(rows, rowvar=False)) if len(rows) > 1 else np.zeros((rows.shape[1],) * 2)
        own = np.diag(self.covariance)
        self.covariance = self.covariance + np.diag(shrink * own + np.where(own > 0, 0.0, 1.0))

    def fill(self, X: np.ndarray, keep: np.ndarray) -> np.ndarray:
        """X (r, d), keep (r, s, d) -> (r, s, d)."""
        masks, which = np.unique(keep.reshape(-1, keep.shape[-1]), axis=0, return_inverse=True)
        away = np.broadcast_to((X - self.mean)[:, None], keep.shape).reshape(-1, keep.shape[-1])
        filled = np.empty(away.shape)
        # Kept block of the covariance, identity elsewhere: one solve a mask, of equal shape for all masks.
        both = masks[:, :, None] & masks[:, None, :]
        blocks = np.where(both, self.covariance, np.eye(len(self.mean)))
        across = np.where(masks[:, None, :] & ~masks[:, :, None], self.covariance, 0.0)  # removed x kept
        maps = np.linalg.solve(blocks, across.transpose(0, 2, 1)).transpose(0, 2, 1)  # (masks, d, d)
        which = which.ravel()
        for start in range(0, len(away), 4096):
            part = slice(start, start + 4096)
            filled[part] = np.einsum("rij,rj->ri", maps[which[part]], away[part])
        filled = (filled + self.mean).reshape(keep.shape)
        return np.where(keep, X[:, None], filled)


def baselines(kind: str, background, X, seed: int = 0, draws: int = 20):
    """What removed features become: "zero" or "mean" (d,); "marginal" (draws, n, d), rows of the background, over which
    predictions are averaged; "conditional" a `Conditional`. Every metric takes each of them."""
    tables.same(background, tables.named(X), "of X", "background")
    rows, X = table(background, "background"), table(X)
    if rows.shape[1] != X.shape[1]:
        raise ValueError(f"the background has {rows.shape[1]} features and X {X.shape[1]}")
    if kind == "zero":
        return np.zeros(X.shape[1])
    if kind == "mean":
        return rows.mean(0)
    if kind == "marginal":  # the same draws for every row: rows differ in X only
        drawn = rows[np.random.default_rng(seed).integers(len(rows), size=draws)]
        return np.broadcast_to(drawn[:, None], (draws, *X.shape))
    if kind == "conditional":
        return Conditional(rows)
    raise ValueError(f"unknown kind {kind!r}: choose zero, mean, marginal or conditional")


# Predictions under masks -----------------------------------------------------------------------------------------


def checked(predict, X, A, target, baseline):
    """`(X, A, target (n,), baseline)` with shapes that fit. Raises ValueError that says what does not.

    Frames of attributions, and a baseline that is a frame or a series, must have the columns of X in its order.
    """
    A = tables.beside(A, X, "attributions")
    if not isinstance(baseline, Conditional):
        baseline = tables.beside(baseline, X, "the baseline")
    target, X = tables.numbered(target, None, X), table(X)
    if A.shape != X.shape:
        raise ValueError(
            f"attributions have shape {A.shape} and X {X.shape}: give each feature of each row a number, in X's order"
        )
    if not np.isfinite(A).all():
        raise ValueError("attributions contain missing or infinite values")
    if np.ndim(first := predict(X[:1])) != 2:
        raise ValueError("predict must give (rows, outputs): use explain.predictor(model)")
    target = targets(target, len(X), np.shape(first)[1])
    if not isinstance(baseline, Conditional):
        fits = baseline.shape in {X.shape, X.shape[1:]} or (baseline.ndim == 3 and baseline.shape[1:] == X.shape)
        if not fits or not np.isfinite(baseline).all():
            raise ValueError(
                f"the baseline must be (d,), (n, d), (draws, n, d) for X {X.shape}, or made by `baselines`; "
                f"without missing values: got {baseline.shape}"
            )
        baseline = np.broadcast_to(baseline, (*baseline.shape[: baseline.ndim - 2], *X.shape))
        baseline = baseline if baseline.ndim == 3 else baseline[None]
    return X, A, target, baseline


def masked(predict, X, keep, target, baseline) -> np.ndarray:
    """(n, s) predictions of each row's target with only the features in keep (n, s, d) bool kept.

    Arguments as `checked` returns them; keep may be (1, s, d), the same masks for all rows. Averaged over draws.
    """
    n, d = X.shape
    keep = np.broadcast_to(keep, (n, *keep.shape[1:]))
    s = keep.shape[1]
    draws = 1 if isinstance(baseline, Conditional) else len(baseline)
    found = np.empty((n, s))
    rows, steps = max(1, AT_ONCE // (s * d * draws)), max(1, AT_ONCE // (d * draws))
    for i in range(0, n, rows):
        for j in range(0, s, steps):
            r, mask = slice(i, i + rows), keep[i : i + rows, j : j + steps]
            if isinstance(baseline, Conditional):
                inputs = baseline.fill(X[r], mask)[None]
            else:  # (draws, rows, masks, d)
                inputs = np.where(mask, X[r, None], baseline[:, r, None])
            p = np.asarray(predict(inputs.reshape(-1, d)), float).reshape(*inputs.shape[:-1], -1)
            found[r, j : j + steps] = np.take_along_axis(p, target[None, r, None, None], -1)[..., 0].mean(0)
    return found


def _own(predict, X, target) -> np.ndarray:
    """(n,) f(x)."""
    return np.asarray(predict(X), float)[np.arange(len(X)), target]


def _ranks(A) -> np.ndarray:
    """(n, d) place of each feature in its row, 0 for the largest attribution; ties in column order."""
    return (-A).argsort(1, kind="stable").argsort(1)


def _correlation(a, b) -> np.ndarray:
    """(n,) Pearson's correlation over columns; nan in rows where either side is constant, up to rounding."""
    size = [np.abs(side).max(1) for side in (a, b)]
    a, b = a - a.mean(1, keepdims=True), b - b.mean(1, keepdims=True)
    flat = (np.ptp(a, axis=1) <= 1e-12 * size[0]) | (np.ptp(b, axis=1) <= 1e-12 * size[1])
    with np.errstate(invalid="ignore", divide="ignore"):
        r = (a * b).sum(1) / np.sqrt((a * a).sum(1) * (b * b).sum(1))
    return np.where(flat, np.nan, r)


def _subsets(d: int, size: int | None, samples: int, seed: int) -> np.ndarray:
    """(samples, d) bool: random sets of `size` features (None: a fifth, at least one); of one feature, each once."""
    size = max(1, round(d / 5)) if size is None else size
    if not 1 <= size <= d:
        raise ValueError(f"subset must be between 1 and the {d} features, got {size}")
    if size == 1:
        return np.eye(d, dtype=bool)
    return np.random.default_rng(seed).random((samples, d)).argsort(1).argsort(1) < size


# Faithfulness ----------------------------------------------------------------------------------------------------


def faithfulness_correlation(predict, X, A, target, baseline, *, seed=0, subset: int | None = None, samples: int = 100):
    """subset: features in a set, a fifth of them by default; 1 compares single features, each once."""
    X, A, target, baseline = checked(predict, X, A, target, baseline)
    chosen = _subsets(X.shape[1], subset, samples, seed)
    drops = _own(predict, X, target)[:, None] - masked(predict, X, ~chosen[None], target, baseline)
    return _correlation(A @ chosen.T, drops)


def _curve(predict, X, A, target, baseline, steps: int, keep_top: bool) -> np.ndarray:
    """(n, points) f with the top 0, ..., d features removed, or with only these kept; at most `steps` + 1 points."""
    X, A, target, baseline = checked(predict, X, A, target, baseline)
    d = X.shape[1]
    k = np.unique(np.linspace(0, d, min(d, steps) + 1).round().astype(int))
    top = _ranks(A)[:, None] < k[:, None]
    return masked(predict, X, top if keep_top else ~top, target, baseline)


def deletion_curve(predict, X, A, target, baseline, *, steps: int = 50) -> np.ndarray:
    """(n, points) f as features go, largest attribution first: from all to none in equal steps of features."""
    return _curve(predict, X, A, target, baseline, steps, keep_top=False)


def insertion_curve(predict, X, A, target, baseline, *, steps: int = 50) -> np.ndarray:
    """(n, points) f as features come back, largest attribution first: from none to all."""
    return _curve(predict, X, A, target, baseline, steps, keep_top=True)


def _area(curve) -> np.ndarray:
    """Trapezoids over a share from 0 to 1."""
    return (curve[:, :-1] + curve[:, 1:]).mean(1) / 2


def deletion(predict, X, A, target, baseline, *, seed=0, steps: int = 50):
    return _area(deletion_curve(predict, X, A, target, baseline, steps=steps))


def insertion(predict, X, A, target, baseline, *, seed=0, steps: int = 50):
    return _area(insertion_curve(predict, X, A, target, baseline, steps=steps))


def _top(d: int, fractions) -> np.ndarray:
    """Numbers of features, rounded half up, at least one."""
    return np.maximum(1, np.floor(np.asarray(fractions) * d + 0.5)).astype(int)


def comprehensiveness(predict, X, A, target, baseline, *, seed=0, fractions=FRACTIONS):
    X, A, target, baseline = checked(predict, X, A, target, baseline)
    keep = _ranks(A)[:, None] >= _top(X.shape[1], fractions)[:, None]
    return _own(predict, X, target) - masked(predict, X, keep, target, baseline).mean(1)


def sufficiency(predict, X, A, target, baseline, *, seed=0, fractions=FRACTIONS):
    X, A, target, baseline = checked(predict, X, A, target, baseline)
    keep = _ranks(A)[:, None] < _top(X.shape[1], fractions)[:, None]
    return _own(predict, X, target) - masked(predict, X, keep, target, baseline).mean(1)


def infidelity(predict, X, A, target, baseline, *, seed=0, samples: int = 200, kind: str = "removal",
               noise: float = 0.1, scale=None):  # fmt: skip
    """kind: "removal": S holds each feature with chance 1/2, and a is a contribution; "noise": inputs move by normal
    noise of `noise` times `scale` (d,), by default X's standard deviations, and a is a slope."""
    scale = None if scale is None else tables.beside(scale, X, "scale")
    X, A, target, baseline = checked(predict, X, A, target, baseline)
    rng, d = np.random.default_rng(seed), X.shape[1]
    if kind == "removal":
        chosen = rng.random((samples, d)) < 0.5
        said = A @ chosen.T
        after = masked(predict, X, ~chosen[None], target, baseline)
    elif kind == "noise":
        moves = rng.normal(size=(samples, d)) * noise * _scale(X, scale)
        said = A @ moves.T
        everything = np.ones((1, 1, d), bool)
        after = np.stack([masked(predict, X - m, everything, target, baseline)[:, 0] for m in moves], 1)
    else:
        raise ValueError(f"unknown kind {kind!r}: choose removal or noise")
    drops = _own(predict, X, target)[:, None] - after
    power = (said * said).mean(1)
    stretch = np.where(power > 0, (said * drops).mean(1) / np.where(power > 0, power, 1), 0).clip(0)
    return ((stretch[:, None] * said - drops) ** 2).mean(1)


def monotonicity(predict, X, A, target, baseline, *, seed=0):
    """Features come in from the baseline one by one; a feature's effect is the size of the change when it comes."""
    X, A, target, baseline = checked(predict, X, A, target, baseline)
    d = X.shape[1]
    place = np.abs(A).argsort(1, kind="stable").argsort(1)  # 0 for the least
    f = masked(predict, X, place[:, None] < np.arange(d + 1)[:, None], target, baseline)
    effect = np.take_along_axis(np.abs(np.diff(f, axis=1)), place, 1)  # of each feature, in feature order
    effect[effect <= 1e-12 * np.abs(f).max(1, keepdims=True)] = 0  # rounding is no effect, and must not be ranked
    return _correlation(rankdata(np.abs(A), axis=1), rankdata(effect, axis=1))


def completeness_gap(predict, X, A, target, baseline, *, seed=0):
    X, A, target, baseline = checked(predict, X, A, target, baseline)
    nothing = masked(predict, X, np.zeros((1, 1, X.shape[1]), bool), target, baseline)[:, 0]
    return np.abs(A.sum(1) - (_own(predict, X, target) - nothing))


# Stability -------------------------------------------------------------------------------------------------------


def _scale(X, scale) -> np.ndarray:
    if scale is None:
        if len(X) < 2:
            raise ValueError(
                "one row has no spread: pass scale=, the features' standard deviations in the training rows"
            )
        scale = X.std(0)
    scale = np.asarray(scale, float)
    if scale.shape != X.shape[1:] or not (scale >= 0).all():
        raise ValueError(f"scale must be (d,) and not negative, got {scale.shape} for X {X.shape}")
    return scale


def distances(predict, X, A, target, baseline, *, explain, seed=0, radius: float = 0.1, draws: int = 8, scale=None):
    """(n, draws) Euclidean distances of explanations of nearby inputs from A.

    explain: X (n, d) -> (n, d), for the same rows, classes and seed as A. Each feature moves by up to `radius` times
    `scale` (d,), by default X's standard deviations. The noise depends on `seed` alone: all explainers see the same.
    """
    scale = None if scale is None else tables.beside(scale, X, "scale")
    X, A, target, baseline = checked(predict, X, A, target, baseline)
    rng, size = np.random.default_rng(seed), radius * _scale(X, scale)
    found = []
    for _ in range(draws):
        near = np.asarray(explain(X + rng.uniform(-1, 1, X.shape) * size), float)
        if near.shape != A.shape:
            raise ValueError(f"explain must return {A.shape} for X of that shape, got {near.shape}")
        found.append(np.linalg.norm(near - A, axis=1))
    return np.stack(found, 1)


def max_sensitivity(predict, X, A, target, baseline, *, explain, seed=0, **options):
    return distances(predict, X, A, target, baseline, explain=explain, seed=seed, **options).max(1)


def mean_sensitivity(predict, X, A, target, baseline, *, explain, seed=0, **options):
    return distances(predict, X, A, target, baseline, explain=explain, seed=seed, **options).mean(1)


def relative_sensitivity(predict, X, A, target, baseline, *, explain, seed=0, **options):
    """nan where A is 0 in all features."""
    far = max_sensitivity(predict, X, A, target, baseline, explain=explain, seed=seed, **options)
    length = np.linalg.norm(np.asarray(A, float), axis=1)
    return np.where(length > 0, far / np.where(length > 0, length, 1), np.nan)


def sensitivities(predict, X, A, target, baseline, *, explain, seed=0, **options) -> dict[str, np.ndarray]:
    """All three from one set of explanations, by name."""
    far = distances(predict, X, A, target, baseline, explain=explain, seed=seed, **options)
    length = np.linalg.norm(np.asarray(A, float), axis=1)
    relative = np.where(length > 0, far.max(1) / np.where(length > 0, length, 1), np.nan)
    return dict(zip(SENSITIVITIES, (far.max(1), far.mean(1), relative), strict=True))


# Form ------------------------------------------------------------------------------------------------------------


def complexity(predict, X, A, target, baseline, *, seed=0):
    """From 0 (one feature) to ln d (all alike); 0 where A is 0 in all features."""
    X, A, target, baseline = checked(predict, X, A, target, baseline)
    total = np.abs(A).sum(1, keepdims=True)
    p = np.abs(A) / np.where(total > 0, total, 1)
    return -(p * np.log(np.where(p > 0, p, 1))).sum(1)


def sparseness(predict, X, A, target, baseline, *, seed=0):
    """From 0 (all alike) to 1 - 1/d (one feature); 0 where A is 0 in all features."""
    X, A, target, baseline = checked(predict, X, A, target, baseline)
    a, d = np.sort(np.abs(A), axis=1), A.shape[1]
    total = a.sum(1)
    return ((2 * np.arange(1, d + 1) - d - 1) * a).sum(1) / (d * np.where(total > 0, total, 1))


METRICS: dict[str, Callable[..., np.ndarray]] = {
    "faithfulness correlation": faithfulness_correlation,
    "deletion": deletion,
    "insertion": insertion,
    "comprehensiveness": comprehensiveness,
    "sufficiency": sufficiency,
    "infidelity": infidelity,
    "monotonicity": monotonicity,
    "completeness gap": completeness_gap,
    "max sensitivity": max_sensitivity,
    "mean sensitivity": mean_sensitivity,
    "relative sensitivity": relative_sensitivity,
    "complexity": complexity,
    "sparseness": sparseness,
}
TRUTHFUL = tuple(METRICS)[:8]  # ask the model
SENSITIVITIES = ("max sensitivity", "mean sensitivity", "relative sensitivity")  # need explain=
_HIGH = ("faithfulness correlation", "insertion", "comprehensiveness", "monotonicity", "sparseness")
BETTER: dict[str, int] = {name: 1 if name in _HIGH else -1 for name in METRICS}


# Randomisation ---------------------------------------------------------------------------------------------------


def mprt(model, X, target, explain, *, mode: str = "cascading", seed: int = 0, **options) -> pd.DataFrame:
    """Model parameter randomisation test (Adebayo et al. 2018): a row an instance, a column a layer, from the output.

    Values are Spearman correlations of |attribution| before and after the layer's weights, and in mode "cascading"
    those of all layers after it, are redrawn from a normal distribution of the same mean and spread. An explanation
    that stays the same (near 1) does not depend on what the model has learnt. nan where all attributions are equal.
    explain: an explainer of `explain`, called with `options`; model: a torch net, left as it was.
    """
    from copy import deepcopy

    import torch

    if mode not in ("cascading", "independent"):
        raise ValueError(f"unknown mode {mode!r}: choose cascading or independent")
    as_stated = (lambda net: Stated(net, model.kind)) if isinstance(model, Stated) else (lambda net: net)
    net = model.model if isinstance(model, Stated) else model
    if not isinstance(net, torch.nn.Module):
        raise ValueError("only torch nets have layers to randomise")
    before = rankdata(np.abs(explain(model, X, target, seed=seed, **options)), axis=1)
    names = [name for name, m in net.named_modules() if any(True for _ in m.parameters(recurse=False))]
    generator, found, changed = torch.Generator().manual_seed(seed), {}, deepcopy(net)
    for name in reversed(names):
        if mode == "independent":
            changed = deepcopy(net)
        with torch.no_grad():
            for weight in changed.get_submodule(name).parameters(recurse=False):
                spread = weight.std() if weight.numel() > 1 else weight.abs().mean()
                drawn = torch.randn(weight.shape, generator=generator).to(weight)
                weight.copy_(weight.mean() + spread * drawn)
        after = rankdata(np.abs(explain(as_stated(changed), X, target, seed=seed, **options)), axis=1)
        found[name] = _correlation(before, after)
    return pd.DataFrame(found)


# Agreement -------------------------------------------------------------------------------------------------------


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
