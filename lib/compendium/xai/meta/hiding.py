"""Hiding a column from an explainer by a scaffold (Slack et al., 2020), and who falls for it."""

from collections.abc import Callable

import numpy as np
import pandas as pd
import torch
from scipy import stats as sps
from torch import nn

from compendium.xai import nets, tables
from compendium.xai.metrics import BETTER, METRICS, TRUTHFUL


def one_column(column: int, x, *, slope: float = 4.0) -> nn.Sequential:
    """A network of two classes that decides by one column alone: class 1 above its mean in `x`."""
    x = np.asarray(x, float)
    if not 0 <= column < x.shape[1]:
        raise ValueError(f"column {column} is not in a table of {x.shape[1]} columns")
    scale = x[:, column].std()
    if scale == 0:
        raise ValueError(f"column {column} is constant: no decision can depend on it")
    weight = np.zeros((2, x.shape[1]))
    weight[:, column] = [-slope / 2 / scale, slope / 2 / scale]
    return nets.linear(weight, -weight[:, column] * x[:, column].mean())


class _Recorder(nn.Module):
    """A model that writes down every row it is asked about."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model, self.rows = model, []

    def forward(self, x):
        self.rows.append(x.detach().cpu().numpy().astype(float))
        return self.model(x)


def unknown(rows, real) -> np.ndarray:
    """The different rows of `rows` that are no row of `real`; equal means to five digits."""
    key = lambda x: np.round(np.asarray(x, float), 5) + 0.0  # no minus zero
    rows = np.asarray(rows, float)
    rows = rows[np.unique(key(rows), axis=0, return_index=True)[1]]
    known = {row.tobytes() for row in key(real)}
    return rows[[row.tobytes() not in known for row in key(rows)]]


def queries(explain: Callable, model: nn.Module, X, target, real) -> np.ndarray:
    """(m, d) what `explain(model, X, target)` asks a model about beside rows of `real`."""
    recorder = _Recorder(model).eval()
    explain(recorder, X, target)
    return unknown(np.concatenate(recorder.rows), real)


class Detector:
    """A random forest that tells real rows from those that explainers make up.

    real, made: (n, d), (m, d). It sees the columns and how far each is from its linear prediction by the others, in
    standard deviations of that error. `threshold` is the score that the share `keep` of real rows reaches out of bag.
    """

    def __init__(self, real, made, *, keep: float = 0.95, trees: int = 50, ratio: float = 2.0, seed: int = 0):
        from sklearn.ensemble import RandomForestClassifier

        real, made = np.asarray(real, float), np.asarray(made, float)
        if len(made) == 0 or not 0 < keep < 1:
            raise ValueError(f"a detector needs made-up rows (got {len(made)}) and 0 < keep < 1 (got {keep})")
        rng = np.random.default_rng(seed)
        made = made[rng.permutation(len(made))[: int(ratio * len(real))]]  # far more would drown the real rows
        scale = real.std(0)
        self.mean, self.scale = real.mean(0), np.where(scale == 0, 1.0, scale)
        # With P the inverse covariance, predicting column j by the others errs by (P z)_j / P_jj, of variance 1 / P_jj.
        covariance = np.cov((real - self.mean) / self.scale, rowvar=False).reshape(real.shape[1], -1)
        precision = np.linalg.inv(covariance + 1e-3 * np.eye(real.shape[1]))
        self.errors = precision / np.sqrt(np.diag(precision))
        self.forest = RandomForestClassifier(
            trees, oob_score=True, class_weight="balanced", min_samples_leaf=2, random_state=seed
        ).fit(self._seen(np.concatenate([real, made])), np.repeat([1, 0], [len(real), len(made)]))
        self.threshold = float(np.quantile(self.forest.oob_decision_function_[: len(real), 1], 1 - keep))

    def _seen(self, x) -> np.ndarray:
        z = (np.asarray(x, float) - self.mean) / self.scale
        errors = np.abs(z @ self.errors)
        return np.concatenate([z, errors, errors.max(1, keepdims=True), (errors**2).sum(1, keepdims=True)], 1)

    def score(self, x) -> np.ndarray:
        """(n,) how much a row looks real, 0 to 1."""
        return self.forest.predict_proba(self._seen(x))[:, 1]

    def __call__(self, x) -> np.ndarray:
        """(n,) bool: taken for real."""
        return self.score(x) >= self.threshold


class Scaffold(nn.Module):
    """`biased` on rows that `is_real` (a callable, (n, d) -> (n,) bool) takes for real, `innocent` on all others.

    The gate is a step, so gradients are those of the branch taken.
    """

    def __init__(self, biased: nn.Module, innocent: nn.Module, is_real: Callable):
        super().__init__()
        self.biased, self.innocent, self.is_real = biased, innocent, is_real

    def forward(self, x):
        real = torch.from_numpy(np.asarray(self.is_real(x.detach().cpu().numpy()), bool)).to(x.device)
        return torch.where(real[:, None], self.biased(x), self.innocent(x))


def _decisions(model: nn.Module, x) -> np.ndarray:
    with torch.no_grad():
        return model(torch.as_tensor(np.asarray(x, float))).argmax(1).numpy()


def scaffold(
    x,
    hidden: int,
    shown: int,
    explainers: dict[str, Callable],
    *,
    teach: int = 60,
    seed: int = 0,
    blind: bool = False,
    **detector,
) -> Scaffold:
    """A model that decides by column `hidden` on rows like x and shows column `shown` to `explainers`.

    x: (n, d) training rows. explainers: by name, `(model, X, target) -> (n, d)`; what each asks about `teach` of the
    rows, in equal numbers, is what the detector learns from. blind: the control, a detector taught with shuffled rows.
    """
    rng = np.random.default_rng(seed)
    x = tables.table(x, "x")
    biased = one_column(hidden, x)
    some = x[rng.permutation(len(x))[:teach]]
    asked = [queries(explain, biased, some, _decisions(biased, some), x) for explain in explainers.values()]
    asked = [rows for rows in asked if len(rows)]
    if not asked:
        raise ValueError("no explainer asked about a row that is not in the table: there is nothing to detect")
    least = max(1, int(2 * len(x) / len(asked)))
    made = np.concatenate([rows[rng.permutation(len(rows))[:least]] for rows in asked])
    real = x
    if blind:
        mixed = rng.permutation(np.concatenate([x, made]))
        real, made = mixed[: len(x)], mixed[len(x) :]
    return Scaffold(biased, one_column(shown, x), Detector(real, made, seed=seed, **detector)).eval()


def attack(
    x, x_new, hidden: int, shown: int, explainers: dict[str, Callable], *, rows: int = 20, seed: int = 0, **options
) -> tuple[pd.DataFrame, dict[str, nn.Module]]:
    """Explain a biased model as it is, inside a scaffold, and inside a blind one: `(table, models)`.

    x: rows the owner has; x_new: held-out rows, the first `rows` explained. One row of the table a model and explainer:
    `hidden` and `shown`, share of rows whose largest |attribution| is that column's; `fidelity`, share of held-out rows
    with the biased model's decision; `passed`, share of them taken for real; `auc` of the detector on held-out rows
    against what the explainer asks about them.
    """
    from sklearn.metrics import roc_auc_score

    tables.same(x_new, tables.named(x), "of x", "x_new")
    x, x_new = tables.table(x, "x"), tables.table(x_new, "x_new")
    models = {"biased": one_column(hidden, x).eval()}
    models["scaffold"] = scaffold(x, hidden, shown, explainers, seed=seed, **options)
    models["blind scaffold"] = scaffold(x, hidden, shown, explainers, seed=seed, blind=True, **options)
    truth = _decisions(models["biased"], x_new)
    found = []
    for kind, model in models.items():
        gate = getattr(model, "is_real", None)
        for name, explain in explainers.items():
            recorder = _Recorder(model).eval()
            top = np.abs(explain(recorder, x_new[:rows], truth[:rows])).argmax(1)
            asked = unknown(np.concatenate(recorder.rows), np.concatenate([x, x_new]))
            auc = np.nan
            if gate is not None and len(asked):
                asked = asked[np.random.default_rng(seed).permutation(len(asked))[:2000]]
                auc = roc_auc_score(
                    np.repeat([1, 0], [len(x_new), len(asked)]), gate.score(np.concatenate([x_new, asked]))
                )
            found.append(
                {
                    "model": kind,
                    "explainer": name,
                    "hidden": np.mean(top == hidden),
                    "shown": np.mean(top == shown),
                    "fidelity": np.mean(_decisions(model, x_new) == truth),
                    "passed": 1.0 if gate is None else np.mean(gate(x_new)),
                    "auc": auc,
                }
            )
    return pd.DataFrame(found), models


def preference(predict, X, A, B, target, baseline, names=TRUTHFUL, *, seed: int = 0) -> dict[str, float]:
    """By metric, the share of rows that score explanation B above A; a tie or a missing score counts half."""
    found = {}
    for name in names:
        a, b = (BETTER[name] * METRICS[name](predict, X, of, target, baseline, seed=seed) for of in (A, B))
        gap = np.nan_to_num(b - a)
        even = np.abs(gap) <= 1e-9 * np.maximum(1, np.nan_to_num(np.abs(a)))
        found[name] = float(np.where(even, 0.5, gap > 0).mean())
    return found


def compare(values) -> np.ndarray:
    """(m, m) of -1, 0, 1: whether a method (row) is clearly better than another (column), clearly worse, or neither.

    values: (m, n) scores of m methods on the same n rows, more is better. Clear: the 95 % t-interval of the mean of
    paired differences leaves out 0.
    """
    values = np.asarray(values, float)
    difference = values[:, None] - values[None]
    n = np.isfinite(difference).sum(-1)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = np.nansum(difference, -1) / n
        variance = np.nansum((difference - mean[..., None]) ** 2, -1) / (n - 1)
        half = sps.t.ppf(0.975, np.maximum(n - 1, 1)) * np.sqrt(variance / n)
        return np.where(np.abs(mean) > half, np.sign(mean), 0).astype(int) * (n > 1)
