"""Models of credit and of health records that hide what they use, and what their explanations show."""

from collections.abc import Callable
from functools import partial

import numpy as np
import pandas as pd

from compendium.xai.explain import EXPLAINERS, predictor
from compendium.xai.meta.cases import COMPARED, additive_net, contributions, explainers
from compendium.xai.meta.hiding import attack, preference
from compendium.xai.meta.requirements import DOMAINS, Setting
from compendium.xai.metrics import TRUTHFUL, baselines


def numbers(name: str) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """`(x, y, names)` of a table of `tabular.suite`: standardised columns, nominal ones as codes first; y is text."""
    from compendium.tabular import suite

    data = suite.load(name)
    columns = [data.x[c].cat.codes if isinstance(data.x[c].dtype, pd.CategoricalDtype) else data.x[c] for c in data.x]
    x = np.stack([np.asarray(c, float) for c in columns], 1)
    whole = np.isfinite(x).all(1)
    x, y = x[whole], data.y[whole]
    scale = x.std(0)
    return (x - x.mean(0)) / np.where(scale > 0, scale, 1), y, list(map(str, data.x.columns))


# What is hidden behind what, as column numbers: a person's age, a person's sex, and for want of either a measurement.
SECRETS = {"breast_cancer": (21, 14), "german": (12, 18), "heart": (1, 5)}


def secret(name: str, *, seed: int = 0, rows: int = 20, teach: int = 30, samples: int = 200):
    """`(attack, preferences)` of `meta.attack` on a real table: explainers, and metrics asked by a scaffold.

    preferences: one row a model, baseline and metric: share of rows where the explanation "it was the shown column"
    scores above the true "it was the hidden column", and, as a control, where "it was" some third column does.
    """
    x, *_ = numbers(name)
    hidden, shown = SECRETS[name]
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(x))
    new, known = x[order[: len(x) // 4]], x[order[len(x) // 4 :]]
    few = known[:10]
    options = {
        "kernel shap": {"background": few, "samples": samples},
        "lime": {"background": known, "samples": samples},
        "integrated gradients": {"background": known, "steps": 32, "tolerance": np.inf},  # a scaffold's gate jumps
        "occlusion": {"background": known},
        "gradient": {"background": known},
    }
    found, models = attack(
        known,
        new,
        hidden,
        shown,
        {m: partial(EXPLAINERS[m], **o) for m, o in options.items()},
        rows=rows,
        seed=seed,
        teach=teach,
    )
    X, third = new[:rows], next(j for j in range(x.shape[1]) if j not in (hidden, shown))
    only = lambda column: np.zeros_like(X) + np.eye(x.shape[1])[column]
    told = []
    names = [metric for metric in TRUTHFUL if metric != "completeness gap"]  # which would need a size, not a column
    for kind in ("biased", "scaffold"):
        predict = predictor(models[kind])
        target = predict(X).argmax(1)
        for baseline in ("mean", "conditional"):
            filled = baselines(baseline, known, X, seed)
            for who, column in (("shown", shown), ("third", third)):
                share = preference(predict, X, only(hidden), only(column), target, filled, names, seed=seed)
                told += [
                    {"model": kind, "baseline": baseline, "metric": m, "told": who, "share": v}
                    for m, v in share.items()
                ]
    return found.assign(table=name, seed=seed), pd.DataFrame(told).assign(table=name, seed=seed)


def domain(name: str, *, rows: int = 20, seed: int = 0, methods=COMPARED, reference: int = 20) -> pd.DataFrame:
    """One row a method and requirement of a domain: the measured value and whether it is enough.

    The model is an additive network that cannot use the `unused` columns; explained are held-out rows with bad news.
    `oracle` is the exact explanation, the control. reference: rows in the background of a call.
    """
    spec = DOMAINS[name]
    x, y, names = numbers(spec.table)
    names = list(spec.names) or names
    y = (y == spec.adverse).astype(int)
    unused, changeable = np.isin(names, spec.unused), np.isin(names, spec.changeable)
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(x))
    test, train = order[: len(x) // 3], order[len(x) // 3 :]
    net = additive_net(x[train], y[train], use=~unused, seed=seed)
    predict = predictor(net, "logit")
    bad = test[predict(x[test])[:, 1] > 0][:rows]
    X = x[bad]
    continuous = np.array([len(np.unique(column)) > 10 for column in x.T])
    near = X + 0.05 * continuous * rng.normal(size=X.shape)  # columns are standardised
    exact = contributions(net, X, x[train], 1)

    def explain(method):
        def call(rows, number):
            some = np.random.default_rng([seed, number]).choice(train, reference, replace=False)
            return explainers(net, x[some], (method,))[method](rows, np.ones(len(rows), int), number)

        return call

    able_ones = {m: explain(m) for m in explainers(net, x[train], methods)}
    found = []
    for method, call in {"oracle": lambda rows, number: contributions(net, rows, x[train], 1), **able_ones}.items():
        kept = _remembered(call)
        case = Setting(kept, X, near, exact, ~unused, changeable)
        for key, need in spec.requirements.items():
            value = need.measure(case)
            found.append(
                {
                    "domain": name,
                    "method": method,
                    "requirement": key,
                    "value": value,
                    "least": need.least,
                    "met": bool(value >= need.least),
                    "seed": seed,
                }
            )
    return pd.DataFrame(found)


def _remembered(explain: Callable) -> Callable:
    """Explain the same rows with the same seed once."""
    kept = {}

    def call(X, seed):
        key = X.tobytes(), seed
        if key not in kept:
            kept[key] = explain(X, seed)
        return kept[key]

    return call
