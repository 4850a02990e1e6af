"""Stage 05-tabular_explainers-units, for notebook 02_tabular_explainers: explainers of tables.

python -m compendium.xai tabular_explainers notebooks/05_xai/explained_tables.yaml
"""

from functools import partial
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import rankdata
from sklearn import datasets
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits

from compendium import models, settings, units
from compendium.paths import XAI
from compendium.xai import explain, metrics, nets, summary, synthetic
from compendium.xai.metrics import faithfulness

OUT = XAI / "tabular_explainers"
SETS = {"wine": datasets.load_wine, "breast_cancer": datasets.load_breast_cancer, "digits": datasets.load_digits}
OF_NET = ["shap", "lime", "integrated gradients", "input x gradient", "gradient", "occlusion", "contrastive relevance"]
ASKED = [
    "faithfulness correlation",
    "deletion",
    "insertion",
    "comprehensiveness",
    "sufficiency",
    "infidelity",
    "monotonicity",
    "relative sensitivity",
    "complexity",
    "sparseness",
]
SWITCHED = ("deletion", "insertion", "comprehensiveness", "faithfulness correlation")  # under every baseline
AGAIN = ", other draws"  # after a baseline's name: the same one drawn anew, the control
BASELINES = ("zero", "mean", "marginal", "conditional", f"marginal{AGAIN}")


def options(samples: int) -> dict[str, dict]:
    """What explainers are called with, by name; samples: coalitions of Kernel SHAP, a third of LIME's points."""
    return {"shap": {"samples": samples, "most": 20}, "lime": {"samples": 3 * samples}}


def fitted(name: str, x, y, seed: int):
    """A model of a table: "network", "boosting" or "logistic"."""
    if name == "network":
        return nets.mlp(x, y, seed=seed, epochs=40, weight_decay=0.01)
    if name == "boosting":
        return HistGradientBoostingClassifier(max_iter=60, random_state=seed).fit(x, y)
    return LogisticRegression(max_iter=2000).fit(x, y)


def no_model(x, y, X) -> np.ndarray:
    """(n, d) correlation of each column with the label, times a row's distance from the mean: no model."""
    spread = np.where(x.std(0) > 0, x.std(0), 1)
    correlation = (x - x.mean(0)).T @ (y - y.mean()) / len(y) / spread / max(y.std(), 1e-9)
    return (X - x.mean(0)) / spread * correlation


def ranked(a, b) -> np.ndarray:
    """(n,) rank correlation of two explanations of each row."""
    return faithfulness.correlation(rankdata(a, axis=1), rankdata(b, axis=1))


def known(kind: str, seed: int, *, rows: int, asked: int, samples: int) -> dict[str, pd.DataFrame]:
    """`recovery`: do explanations find the columns that made the labels, of the score and of three models?"""
    table = synthetic.TABLES[kind](rows + 400, seed)
    x, y, X = table.x[:rows], table.y[:rows], table.x[rows : rows + asked]
    of_model = {"the score": table.predict, **{n: fitted(n, x, y, seed) for n in ("logistic", "boosting", "network")}}
    found = []
    for model_name, model in of_model.items():
        accuracy = (explain.predicted(model, table.x[rows:]) == table.y[rows:]).mean()
        A = {
            name: explain.EXPLAINERS[name](model, X, 1, background=x, seed=seed, **options(samples).get(name, {}))
            for name in OF_NET
            if explain.able(name, model)
        }
        A |= {"no model": no_model(x, y, X), "random": explain.random(model, X, 1, seed=seed)}
        for name, a in A.items():
            row = {"kind": kind, "seed": seed, "model": model_name, "explainer": name, "accuracy": accuracy}
            row["used"] = np.nanmean(synthetic.auroc(a, table.relevant))
            row["associated"] = np.nanmean(synthetic.auroc(a, table.associated))
            row["rank correlation"] = np.mean(ranked(a, table.attribution[rows : rows + asked]))
            found.append(row)
    return {"recovery": pd.DataFrame(found)}


def real(name: str, seed: int, *, asked: int, samples: int) -> dict[str, pd.DataFrame]:
    """A network of a real table: `agreement` of explainers, their `scores`, the same under other `baselines`, with
    attributions given in the wrong `order`, and what each costs (`cost`, rows asked for one that is explained)."""
    data, labels = SETS[name](return_X_y=True)
    order = np.random.default_rng(seed).permutation(len(data))
    held, train = order[:asked], order[asked:]
    x, X, key, tuned = data[train], data[held], {"set": name, "seed": seed}, options(samples)
    net = nets.mlp(x, labels[train], seed=seed, epochs=40, weight_decay=0.01)
    functions = {n: partial(explain.EXPLAINERS[n], **tuned.get(n, {})) for n in [*OF_NET, "random"]}
    run = summary.report(net, X, background=x, explainers=functions, metrics=ASKED, seed=seed, draws=2)
    predict, target, A = explain.predictor(net), run.target, run.attributions

    again = functions["shap"](net, X, target, background=x, seed=seed + 100)
    both = A | {"shap, other background": again}
    agreement = []
    for a, b in [*combinations(OF_NET, 2), ("shap", "shap, other background"), ("shap", "random")]:
        first = (np.abs(both[a]).argmax(1) == np.abs(both[b]).argmax(1)).mean()
        agreement.append(
            {**key, "a": a, "b": b, "correlation": np.nanmean(ranked(both[a], both[b])), "same first": first}
        )

    switched = []
    for kind in BASELINES:
        fill = metrics.baselines(kind.removesuffix(AGAIN), x, X, seed + 100 * kind.endswith(AGAIN))
        for metric in SWITCHED:
            for explainer in OF_NET:
                value = metrics.METRICS[metric](predict, X, A[explainer], target, fill, seed=seed)
                said = {"baseline": kind, "metric": metric, "explainer": explainer, "score": np.nanmean(value)}
                switched.append(key | said)

    wrong = []
    for explainer in [*OF_NET, "random"]:
        a = A[explainer]
        for label, used in (("in order", a), ("sorted", np.take_along_axis(a, (-np.abs(a)).argsort(1), 1))):
            value = metrics.faithfulness_correlation(predict, X, used, target, x.mean(0), subset=1)
            wrong.append({**key, "explainer": explainer, "attributions": label, "score": np.nanmean(value)})

    asked_of, cost = [0], []
    hook = net.register_forward_hook(lambda module, given, output: asked_of.append(len(given[0])))
    for explainer in OF_NET:
        asked_of.clear()
        functions[explainer](net, X, target, background=x, seed=0)
        cost.append({**key, "explainer": explainer, "rows asked": sum(asked_of) / len(X)})
    hook.remove()
    made = {"agreement": agreement, "baselines": switched, "order": wrong, "cost": cost}
    return {"scores": run.scores.assign(**key)} | {table: pd.DataFrame(rows) for table, rows in made.items()}


PARTS = {"known": known, "real": real}


def one(*, part: str, threads: int = 1, **given) -> dict[str, pd.DataFrame]:
    """The tables of one unit: `known` or `real` with what it takes."""
    models.set_threads(threads)
    with threadpool_limits(threads):  # boosting has its own threads
        return PARTS[part](**given)


def planned(*, kinds: list[str], sets: list[str], seeds: list[int], rows: int, asked: int, samples: int) -> list[dict]:
    """The arguments of `one` for every known table, real table and seed. rows: to train on, of a known table; asked:
    rows to explain. Raises ValueError for an unknown table."""
    for given, there in ((kinds, synthetic.TABLES), (sets, SETS)):
        if strange := [name for name in given if name not in there]:
            raise ValueError(f"unknown table {strange[0]!r}: choose among {', '.join(there)}")
    same = {"asked": asked, "samples": samples}
    made = [{"part": "known", "kind": kind, "seed": seed, "rows": rows, **same} for kind in kinds for seed in seeds]
    return made + [{"part": "real", "name": name, "seed": seed, **same} for name in sets for seed in seeds]


def sweep(given: dict, *, out: Path | None = None) -> units.Sweep:
    """All units of settings as `planned` takes them; out: `OUT` unless given. Raises ValueError as `planned` does."""
    settings.check(given, planned, where="the settings of the explained tables")
    return units.Sweep(one, planned(**given), OUT if out is None else Path(out), "xai tabular_explainers")


def tables(**given) -> dict[str, pd.DataFrame]:
    """The tables of a few units made here and now; given: as `planned` takes them."""
    return units.run(units.Sweep(one, planned(**given), None, "xai tabular_explainers"))
