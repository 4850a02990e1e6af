"""Who judges the metrics? Four questions to ask a score of explanations before believing it.

1. **Gate** (`gate`): does it rank the exact explanation of a known function above a shuffled one, and that above a
   reversed one? "Reversed" is the worse of two: the largest value where the least belongs, by value and by size.
2. **Validity** (`ladder`, `validity`): does its ranking of explanations agree with their distance from the truth? For
   the exact explanation with more and more noise, where the true order is ours; and for real methods, whose true order
   is their mean correlation with the exact attributions. Kendall's tau: 1 the same order, 0 no relation.
3. **Agreement** (`concordance`, `tau_matrix`): do metrics agree with each other? Kendall's W: 0 not at all, 1 fully.
   They may agree and all be wrong, which is why 2 comes first.
4. **Test-retest** (`retest`): does the order of methods survive another seed, baseline, or draw of rows?

Every one is asked as well of `noise`, a metric that gives each explanation a random number. `Case` is one model with
its methods, on which every metric can be evaluated under any setting; it is what `tamper.tamper` turns the knobs of.

`DOMAINS` turns "context-specific" into data: requirements that an explanation must meet for one use, credit decisions
or screening, each a measure and a least value. **The requirements and their values are ours**, meant to be argued with
and replaced; no regulator set them. They are tested on real tables with a model whose exact explanation is known,
because it is additive (`additive_net`), and the exact explanation has to meet them too, else they ask the impossible.

The position paper (arXiv 2502.04695) states the problem in words; the tests are our reading of it.
"""

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.stats import rankdata

from compendium import finite, inputs
from compendium.xai import metrics as scores_of
from compendium.xai import tables
from compendium.xai.explain import EXPLAINERS, able, predictor
from compendium.xai.metrics import BETTER, METRICS, SENSITIVITIES, TRUTHFUL, agreement, baselines, kendall_w
from compendium.xai.tamper import REWRITINGS, attack, compare, fabricate, flips, preference, ranges, ranks, tamper, won
from compendium.xai.truth import TABLES, auroc

GIVEN = tuple(name for name in METRICS if name not in SENSITIVITIES)  # judge an explanation as it is given


def noise(predict, X, A, target, baseline, *, seed=0) -> np.ndarray:
    """The control: a random number for each row, the same for the same rows, explanations and seed."""
    told = b"".join(np.ascontiguousarray(of, float).tobytes() for of in (X, A))
    return np.random.default_rng([seed, zlib.crc32(told)]).random(len(A))


CONTROL = "control: random numbers"


def _oriented(metric: str) -> Callable:
    """The metric with more is better."""
    if metric == CONTROL:
        return noise
    return lambda *args, **options: BETTER[metric] * METRICS[metric](*args, **options)


def _scorer(metric: str, predict, X, target, baseline, seed: int) -> Callable:
    """A -> (n,) scores, more is better."""
    return lambda A: np.asarray(_oriented(metric)(predict, X, A, target, baseline, seed=seed), float)


def _mean(values) -> float:
    values = np.asarray(values, float)
    return float(np.nanmean(values)) if np.isfinite(values).any() else np.nan


def share_interval(yes: int, of: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share."""
    from statsmodels.stats.proportion import proportion_confint

    return tuple(map(float, proportion_confint(yes, of, method="wilson"))) if of else (np.nan, np.nan)


# 1. Gate ---------------------------------------------------------------------------------------------------------


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
    """`(predict, X, exact, target, relevant, table)` of a table of `truth`: log-odds, and their exact attribution.

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
                score = _scorer(name, predict, X, target, np.zeros(X.shape[1]), seed)
                value = {who: _mean(score(A)) for who, A in impostors(exact, seed).items()}
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
        low, high = share_interval(int(of[column].sum()), len(of))
        rows.append({"metric": name, "share": of[column].mean(), "low": low, "high": high, "cases": len(of)})
    return pd.DataFrame(rows)


# 2. Validity -----------------------------------------------------------------------------------------------------


def ladder(A, steps=(0, 0.2, 0.4, 0.6, 0.8, 1), *, seed: int = 0) -> dict[float, np.ndarray]:
    """The exact attributions with a known share of noise of the same size: step 0 is exact, 1 nothing but noise."""
    A = np.asarray(A, float)
    drawn = np.random.default_rng(seed).normal(size=A.shape) * A.std()
    return {step: (1 - step) * A + step * drawn for step in steps}


def closeness(A, exact) -> float:
    """Mean over rows of Pearson's correlation with the exact attributions; a row without variation counts as 0."""
    return float(np.nan_to_num(scores_of._correlation(np.asarray(A, float), np.asarray(exact, float))).mean())


def ladder_validity(kinds=tuple(TABLES), *, names=(*GIVEN, CONTROL), seeds=(0, 1, 2), rows: int = 40) -> pd.DataFrame:
    """One row a metric, table and seed: Kendall's tau between its order of the ladder's steps and the true order."""
    found = []
    for kind in kinds:
        for seed in seeds:
            predict, X, exact, target, *_ = known_case(kind, rows=rows, seed=seed)
            steps = ladder(exact, seed=seed)
            for name in names:
                score = _scorer(name, predict, X, target, np.zeros(X.shape[1]), seed)
                value = [_mean(score(A)) for A in steps.values()]
                found.append({"metric": name, "table": kind, "seed": seed, "tau": _tau([-s for s in steps], value)})
    return pd.DataFrame(found)


def _tau(a, b) -> float:
    """Kendall's tau of two lists of scores; no order in one of them is no agreement: 0. Missing scores are left out."""
    a, b = np.asarray(a, float), np.asarray(b, float)
    known = np.isfinite(a) & np.isfinite(b)
    if known.sum() < 2:
        return np.nan
    return float(np.nan_to_num(agreement(a[known], b[known])))


def validity(table: pd.DataFrame, truth: pd.Series) -> pd.Series:
    """Kendall's tau of each metric (column of scores, more is better) with the truth, over methods (rows)."""
    if set(table.index) != set(truth.index):
        raise ValueError(f"scores are of {sorted(table.index)} and the truth of {sorted(truth.index)}")
    return pd.Series({name: _tau(table[name], truth[table.index]) for name in table})


def climbs(
    kinds=("linear", "additive", "interaction"), *, names=GIVEN, seeds=(0, 1, 2), rows: int = 20, rounds: int = 40
) -> pd.DataFrame:
    """One row a metric, table, seed and denial: how far a wrong explanation made by `tamper.fabricate` gets.

    It denies `everything` that matters, or only `the strongest` column of each row. `won`: 0 is the score of a random
    explanation (the exact one's numbers, shuffled), 1 that of the exact one, nan where that one is not clearly ahead;
    `beats`: the share of rows where the wrong one scores above the exact one. All are scored under another seed than
    was climbed.
    """
    found = []
    for kind in kinds:
        for seed in seeds:
            predict, X, exact, target, relevant, _ = known_case(kind, rows=rows, seed=seed)
            zero, shuffled = np.zeros(X.shape[1]), impostors(exact, seed)["random"]
            strongest = np.arange(X.shape[1]) == np.abs(exact).argmax(1)[:, None]
            for name in names:
                score = _scorer(name, predict, X, target, zero, seed + 1000)
                least, most = score(shuffled), score(exact)
                ahead = compare([most, least])[0, 1] == 1
                for denied, columns in (("everything", relevant), ("the strongest", strongest)):
                    wrong = fabricate(
                        METRICS[name], predict, X, target, zero, columns, better=BETTER[name], rounds=rounds, seed=seed
                    )
                    value = score(wrong)
                    found.append(
                        {
                            "metric": name, "table": kind, "seed": seed, "denied": denied,
                            "won": won(_mean(value), _mean(least), _mean(most)) if ahead else np.nan,
                            "wrong": _mean(value), "random": _mean(least), "exact": _mean(most),
                            "beats": float(np.mean(value > most + 1e-9)), "auroc": _mean(auroc(wrong, relevant)),
                        }
                    )  # fmt: skip
    return pd.DataFrame(found)


# 3. Agreement ----------------------------------------------------------------------------------------------------


def concordance(table: pd.DataFrame) -> float:
    """Kendall's W of metrics (columns) over methods (rows); metrics that do not score every method are left out."""
    return kendall_w(table.dropna(axis=1).to_numpy().T)


def tau_matrix(table: pd.DataFrame) -> pd.DataFrame:
    """Kendall's tau between each two metrics (columns) over methods (rows)."""
    return pd.DataFrame({a: {b: _tau(table[a], table[b]) for b in table} for a in table})


# 4. Test-retest --------------------------------------------------------------------------------------------------


def icc(values) -> float:
    """Intraclass correlation ICC(2,1) of values (items, repeats): absolute agreement of single repeats.

    Shrout & Fleiss 1979. 1: repeats are identical; 0: items differ no more than repeats do; nan if nothing varies.
    """
    values = np.asarray(values, float)
    if values.ndim != 2 or min(values.shape) < 2 or not np.isfinite(values).all():
        raise ValueError("expected values (items, repeats) of at least two by two, none missing")
    n, k = values.shape
    mean = values.mean()
    between = k * ((values.mean(1) - mean) ** 2).sum() / (n - 1)
    repeats = n * ((values.mean(0) - mean) ** 2).sum() / (k - 1)
    rest = ((values - values.mean(1, keepdims=True) - values.mean(0) + mean) ** 2).sum() / ((n - 1) * (k - 1))
    bottom = between + (k - 1) * rest + k * (repeats - rest) / n
    return float((between - rest) / bottom) if bottom > 1e-30 else np.nan


def retest(found: pd.DataFrame) -> pd.DataFrame:
    """One row a metric and knob of `tamper.tamper`: mean Kendall's tau between the orders of methods under any two
    choices (the default among them), and ICC of the scores over choices."""
    rows = []
    for (metric, knob), of in found.groupby(["metric", "knob"], sort=False):
        table = of.pivot_table(index="method", columns="choice", values="score", sort=False).dropna(axis=1, how="all")
        if table.shape[1] < 2:
            continue
        columns = table.to_numpy().T
        taus = [_tau(a, b) for i, a in enumerate(columns) for b in columns[i + 1 :]]
        whole = table.dropna()
        rows.append(
            {"metric": metric, "knob": knob, "tau": _mean(taus), "icc": icc(whole) if len(whole) > 1 else np.nan}
        )
    return pd.DataFrame(rows)


# A model and its methods -----------------------------------------------------------------------------------------


class Case:
    """One model, rows to explain, and methods to compare; calling it evaluates metrics under a setting.

    explain: by method, `(X, target, seed) -> (n, d)`. Scores are per row and more is better, the sensitivities of a
    method included. Explanations and scores are kept, so that turning one knob costs only what it changes.

    Settings: baseline: a kind of `metrics.baselines`; seed: of the methods and of the metric; target: "predicted" or a
    class for all rows; rows: which rows count; writing: method -> function of its attributions; options: metric ->
    keywords.
    """

    def __init__(self, predict: Callable, X, background, explain: dict[str, Callable], *, names=None, draws: int = 3):
        tables.same(background, tables.named(X), "of X", "background")
        self.predict, self.X, self.explain = predict, tables.table(X), explain
        self.background = tables.table(background, "background")
        self.names = (*METRICS, CONTROL) if names is None else tuple(names)
        self.draws, self._explained, self._scores = draws, {}, {}
        self.scale = self.background.std(0)

    def explained(self, method: str, *, target="predicted", seed: int = 0, X=None) -> np.ndarray:
        """(n, d) the method's explanation of X, by default the case's rows."""
        classes = self.target(target)  # of the case's rows: those of inputs nearby are theirs
        X = self.X if X is None else X
        key = method, str(target), seed, X.tobytes()
        if key not in self._explained:
            self._explained[key] = self.explain[method](X, classes, seed)
        return self._explained[key]

    def target(self, target) -> np.ndarray:
        """(n,) classes."""
        if isinstance(target, str):
            return self.predict(self.X).argmax(1)
        return np.full(len(self.X), target)

    def __call__(self, *, baseline="mean", seed=0, target="predicted", rows=None, writing=None, options=None) -> dict:
        rows = slice(None) if rows is None else rows
        writing, options = writing or {}, options or {}
        reference, found = {}, {name: {} for name in self.names}
        for method in self.explain:
            write = writing.get(method, np.asarray)
            A = write(self.explained(method, target=target, seed=seed))
            for name in self.names:
                own, asks = options.get(name, {}), name in TRUTHFUL
                key = name, method, str(own), seed, str(target), A.tobytes(), baseline if asks else None
                if key not in self._scores and name in SENSITIVITIES:
                    near = lambda X, m=method, w=write: w(self.explained(m, target=target, seed=seed, X=X))
                    more = {"scale": self.scale, "draws": self.draws, **own}
                    zero = np.zeros(A.shape[1])  # not used by them
                    far = scores_of.sensitivities(
                        self.predict, self.X, A, self.target(target), zero, explain=near, seed=seed, **more
                    )
                    for other, value in far.items():
                        if str(options.get(other, {})) == str(own):
                            self._scores[(other, *key[1:])] = BETTER[other] * value
                elif key not in self._scores:
                    if not reference:
                        kind = baselines(baseline, self.background, self.X, seed)
                        reference = {"baseline": kind, "target": self.target(target)}
                    self._scores[key] = _oriented(name)(
                        self.predict, self.X, A, reference["target"], reference["baseline"], seed=seed, **own
                    )
                found[name][method] = self._scores[key][rows]
        return found

    def table(self, **setting) -> pd.DataFrame:
        """Mean scores: methods (rows) by metrics (columns), more is better."""
        return pd.DataFrame({name: {m: _mean(v) for m, v in of.items()} for name, of in self(**setting).items()})


# What each explainer is called with, so that a case takes a second or two: (keywords)
CHEAP = {"lime": {"samples": 300}, "kernel shap": {"samples": 300, "most": 10}, "integrated gradients": {"steps": 32},
         "smoothgrad": {"samples": 16}}  # fmt: skip
COMPARED = ("kernel shap", "lime", "integrated gradients", "deeplift", "input x gradient", "gradient", "smoothgrad",
            "occlusion", "relevance", "random")  # fmt: skip


def explainers(model, background, names=COMPARED, *, output: str = "logit", first: int = 0) -> dict[str, Callable]:
    """By name, `(X, target, seed) -> (n, d)`, of those that can explain this model. first: what is added to seeds, so
    that the noise of one case is not that of another."""

    def make(name):
        return lambda X, target, seed: EXPLAINERS[name](
            model, X, target, background=background, seed=first + seed, output=output, **CHEAP.get(name, {})
        )

    return {name: make(name) for name in names if able(name, model, output)}


def centred(net):
    """The same probabilities with logits that sum to 0: the raw score of a class is then half its log-odds for two
    classes, and explaining one explains the other."""
    import torch

    with torch.no_grad():
        net[-1].weight -= net[-1].weight.mean(0)
        net[-1].bias -= net[-1].bias.mean()
    return net


def trained_case(kind: str, *, rows: int = 16, seed: int = 0, names=None, methods=COMPARED, train: int = 2000):
    """`(case, truth)`: a perceptron trained on a table of `truth`, and how good each method is.

    truth: one row a method: `closeness` of its attributions to the exact ones of the function that made the table, and
    `auroc` of their sizes for the columns in it. The perceptron is not that function: `fit`, the correlation of its
    log-odds with the true ones on new rows, bounds what can be hoped for.
    """
    from compendium.xai import nets

    table = TABLES[kind](rows + train + 500, seed)
    learn, new = slice(rows, rows + train), slice(rows + train, None)
    net = centred(nets.mlp(table.x[learn], table.y[learn], hidden=(32, 32), seed=seed, epochs=40))
    background, predict = table.x[learn][:200], predictor(net, "logit")
    methods = explainers(net, background, methods, first=1000 * seed + 100 * list(TABLES).index(kind))
    case = Case(predict, table.x[:rows], background, methods, names=names)
    exact = table.attribution[:rows] * (2 * case.target("predicted") - 1)[:, None]
    fit = np.corrcoef(predict(table.x[new])[:, 1], predictor(table.predict, "logit")(table.x[new])[:, 1])[0, 1]
    truth = {
        m: {"closeness": closeness(A, exact), "auroc": float(auroc(A, table.relevant).mean()), "fit": float(fit)}
        for m, A in ((m, case.explained(m)) for m in case.explain)
    }
    return case, pd.DataFrame(truth).T.rename_axis("method")


def knobs(case: Case, *, seeds: int = 2, draws: int = 3) -> dict[str, dict]:
    """What somebody may turn without touching the model; default: baseline mean, seed 0, predicted class, all rows.

    writing: everyone's attributions in another convention, or one method's alone ("own scale").
    """
    n = len(case.X)
    rng = np.random.default_rng(0)
    methods = list(case.explain)
    everyone = lambda write: {"writing": dict.fromkeys(methods, write)}
    return {
        "baseline": {kind: {"baseline": kind} for kind in ("zero", "marginal", "conditional")},
        "seed": {f"seed {k}": {"seed": k} for k in range(1, seeds + 1)},
        "rows": {f"half {k}": {"rows": np.sort(rng.permutation(n)[: n // 2])} for k in range(draws)},
        "class": {"always 1": {"target": 1}},
        "parameters": {
            "few": {
                "options": {
                    "comprehensiveness": {"fractions": (0.01,)}, "sufficiency": {"fractions": (0.01,)},
                    "deletion": {"steps": 4}, "insertion": {"steps": 4}, "faithfulness correlation": {"subset": 1},
                    "infidelity": {"samples": 20}, **{name: {"radius": 0.02} for name in SENSITIVITIES},
                }
            },
            "many": {
                "options": {
                    "comprehensiveness": {"fractions": (0.5,)}, "sufficiency": {"fractions": (0.5,)},
                    "faithfulness correlation": {"subset": max(1, case.X.shape[1] // 2)},
                    "infidelity": {"kind": "noise"}, **{name: {"radius": 0.5} for name in SENSITIVITIES},
                }
            },
        },
        "writing": {name: everyone(write) for name, write in REWRITINGS.items()},
        "own scale": {
            f"{method} {sign} 10": {"writing": {method: partial(np.multiply, factor)}}
            for method in methods
            for sign, factor in (("/", 0.1), ("x", 10.0))
        },
    }  # fmt: skip


def judged(kind: str, *, seed: int = 0, rows: int = 16, train: int = 2000) -> dict[str, pd.DataFrame]:
    """Everything about one trained case: `scores`, `validity`, `taus`, `flips`, `ranges`, `ranks`, `retest`."""
    case, truth = trained_case(kind, rows=rows, seed=seed, train=train)
    found = tamper(case, knobs(case))
    table = case.table()
    tidy = table.rename_axis("method").reset_index().melt("method", var_name="metric", value_name="score")
    taus = tau_matrix(table).rename_axis("metric").reset_index().melt("metric", var_name="other", value_name="tau")
    frames = {
        "scores": tidy.merge(truth.reset_index(), on="method"),
        "validity": validity(table, truth.closeness).rename_axis("metric").rename("tau").reset_index(),
        "taus": taus,
        "flips": flips(found),
        "ranges": ranges(found),
        "ranks": ranks(found),
        "retest": retest(found),
    }
    return {name: frame.assign(table=kind, seed=seed) for name, frame in frames.items()}


# Domains ---------------------------------------------------------------------------------------------------------


def additive_net(x, y, *, units: int = 8, use=None, seed: int = 0, steps: int = 300, rate: float = 0.02):
    """A network of two classes whose log-odds are a sum of one curve for each column, so that its explanation is known.

    Every hidden unit sees one column. use: (d,) bool, columns that it may use at all. The output is (-s/2, s/2).
    """
    import torch
    from torch import nn
    from torch.nn import functional as F

    if len(x) == len(y):
        inputs.same_rows(x=x, y=y)
    tables.same(use, tables.named(x), "of x", "use")
    x = torch.as_tensor(tables.table(x, "x").astype(np.float32))
    y = torch.as_tensor(inputs.binary(y, "y"), dtype=torch.float32)
    d = x.shape[1]
    use = np.ones(d, bool) if use is None else tables.flags(use, "use")
    mask = torch.eye(d).repeat_interleave(units, 0) * torch.as_tensor(use, dtype=torch.float32)
    generator = torch.Generator().manual_seed(seed)
    first = (torch.randn(d * units, d, generator=generator) * mask).requires_grad_()
    bias = torch.randn(d * units, generator=generator).requires_grad_()
    last = (0.1 * torch.randn(d * units, generator=generator)).requires_grad_()
    shift = torch.zeros(1, requires_grad=True)
    optimiser = torch.optim.AdamW([first, bias, last, shift], lr=rate, weight_decay=0.02)
    for _ in range(steps):
        score = F.relu(x @ (first * mask).T + bias) @ last + shift
        optimiser.zero_grad(set_to_none=True)
        F.binary_cross_entropy_with_logits(score, y).backward()
        optimiser.step()
    finite.check("a weight", [first, bias, last, shift], step=steps, lower=f"rate ({rate:g})")
    net = nn.Sequential(nn.Linear(d, d * units), nn.ReLU(), nn.Linear(d * units, 2))
    with torch.no_grad():
        net[0].weight.copy_(first * mask)
        net[0].bias.copy_(bias)
        net[2].weight.copy_(torch.stack([-last, last]) / 2)
        net[2].bias.copy_(torch.cat([-shift, shift]) / 2)
    return net.double().eval().requires_grad_(False)


def contributions(net, X, background, target: int = 1) -> np.ndarray:
    """(n, d) exact: each column's curve less its mean over the background, for the raw score of `target`.

    For an additive function this is the Shapley value and the effect of removing the column at once.
    """
    import torch

    weight, bias, last = net[0].weight, net[0].bias, net[2].weight[target]
    mine = (weight != 0).double()  # (hidden, d)
    tables.same(background, tables.named(X), "of X", "background")
    X, background = tables.table(X), tables.table(background, "background")

    def curves(x):
        hidden = torch.relu(torch.as_tensor(np.asarray(x, float)) @ weight.T + bias)
        return ((hidden * last) @ mine).numpy()

    return curves(X) - curves(background).mean(0)


class Setting(NamedTuple):
    """What a requirement is tested on: a method on the rows of one model."""

    explain: Callable  # (X, seed) -> (n, d) attributions to the adverse class; the seed draws the background as well
    X: np.ndarray
    near: np.ndarray  # X with a small error of measurement
    exact: np.ndarray  # (n, d)
    used: np.ndarray  # (d,) bool: columns that the model uses
    changeable: np.ndarray  # (d,) bool: columns that the person can change


def _reasons(A, most: int = 4) -> np.ndarray:
    """(n, d) bool: up to `most` columns with the largest attributions above 0."""
    A = np.asarray(A, float)
    place = (-A).argsort(1, kind="stable").argsort(1)
    return (place < most) & (np.abs(A).max(1, keepdims=True) * 1e-9 < A)


def _overlap(a, b) -> float:
    """Mean over rows of the share of reasons that both name, of all that either names."""
    either = (a | b).sum(1)
    return float(np.where(either > 0, (a & b).sum(1) / np.maximum(either, 1), 1.0).mean())


def _order(a, b) -> float:
    """Mean over rows of Spearman's correlation of sizes; a row without variation counts as 0."""
    return float(np.nan_to_num(scores_of._correlation(rankdata(np.abs(a), axis=1), rankdata(np.abs(b), axis=1))).mean())


def reasons_after_error(case: Setting) -> float:
    return _overlap(_reasons(case.explain(case.X, 0)), _reasons(case.explain(case.near, 0)))


def reasons_repeated(case: Setting) -> float:
    return _overlap(_reasons(case.explain(case.X, 0)), _reasons(case.explain(case.X, 1)))


def reasons_used(case: Setting) -> float:
    return float((~(_reasons(case.explain(case.X, 0)) & ~case.used).any(1)).mean())


def reasons_true(case: Setting) -> float:
    named = _reasons(case.explain(case.X, 0))
    return float(((case.exact > 0) & named).sum() / max(1, named.sum()))


def reasons_changeable(case: Setting) -> float:
    return float((_reasons(case.explain(case.X, 0)) & case.changeable).any(1).mean())


def strongest_found(case: Setting) -> float:
    place = (-np.abs(case.explain(case.X, 0))).argsort(1, kind="stable").argsort(1)
    return float((np.take_along_axis(place, np.abs(case.exact).argmax(1)[:, None], 1) < 3).mean())


def direction_right(case: Setting) -> float:
    A = case.explain(case.X, 0)
    top = np.abs(case.exact).argsort(1)[:, -3:]
    return float((np.take_along_axis(np.sign(A), top, 1) == np.take_along_axis(np.sign(case.exact), top, 1)).mean())


def order_after_error(case: Setting) -> float:
    return _order(case.explain(case.X, 0), case.explain(case.near, 0))


def order_repeated(case: Setting) -> float:
    return _order(case.explain(case.X, 0), case.explain(case.X, 1))


class Requirement(NamedTuple):
    text: str
    measure: Callable[[Setting], float]  # 0 to 1, more is better
    least: float


CREDIT = {
    "steady": Requirement(
        "the reasons stay when numbers change by a twentieth of their spread", reasons_after_error, 0.8
    ),
    "repeatable": Requirement("the reasons stay with another seed and reference sample", reasons_repeated, 0.8),
    "no false ground": Requirement("no reason is a column the model does not use", reasons_used, 0.95),
    "true reasons": Requirement("what is named as a reason does raise the risk", reasons_true, 0.95),
    "open to change": Requirement(
        "one of the four reasons is something the applicant can change", reasons_changeable, 0.95
    ),
}
HEALTH = {
    "strongest found": Requirement("the column that matters most is among the top three", strongest_found, 0.95),
    "right direction": Requirement("the three strongest columns have the right sign", direction_right, 0.95),
    "steady": Requirement("the order stays under an error of a twentieth of the spread", order_after_error, 0.9),
    "repeatable": Requirement("the order stays with another seed and reference sample", order_repeated, 0.9),
}


@dataclass(frozen=True)
class Domain:
    """A table, what may not be used (the model is kept from it), what a person can change, and what is required."""

    table: str  # of `tabular.suite`
    adverse: str  # the label that is bad news
    requirements: dict[str, Requirement]
    names: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()
    changeable: tuple[str, ...] = ()


DOMAINS = {
    "credit": Domain(
        "german", "2", CREDIT,
        names=("checking account", "duration", "history", "purpose", "amount", "savings", "employment",
               "instalment rate", "sex and status", "guarantors", "residence", "property", "age", "other plans",
               "housing", "credits", "job", "dependants", "telephone", "foreign worker"),
        unused=("sex and status", "age", "foreign worker", "dependants"),
        changeable=("checking account", "duration", "purpose", "amount", "savings", "instalment rate", "guarantors",
                    "other plans", "credits"),
    ),
    "heart": Domain("heart", "2", HEALTH),
    "breast cancer": Domain("breast_cancer", "0", HEALTH),
}  # fmt: skip


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
    """`(attack, preferences)` of `tamper.attack` on a real table: explainers, and metrics asked by a scaffold.

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
        known, new, hidden, shown, {m: partial(EXPLAINERS[m], **o) for m, o in options.items()}, rows=rows, seed=seed,
        teach=teach,
    )  # fmt: skip
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
                {"domain": name, "method": method, "requirement": key, "value": value, "least": need.least,
                 "met": bool(value >= need.least), "seed": seed}
            )  # fmt: skip
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
