"""A trained model, its rows and its explainers: what the metrics are tried on."""

from collections.abc import Callable
from functools import partial

import numpy as np
import pandas as pd

from compendium import finite, inputs
from compendium.xai import metrics as scores_of
from compendium.xai import tables
from compendium.xai.explain import EXPLAINERS, able, predictor
from compendium.xai.meta.gating import CONTROL, mean, oriented
from compendium.xai.meta.manipulation import REWRITINGS, flips, ranges, ranks, tamper
from compendium.xai.meta.rank_validity import closeness, tau_matrix, validity
from compendium.xai.meta.test_retest import retest
from compendium.xai.metrics import BETTER, METRICS, SENSITIVITIES, TRUTHFUL, baselines
from compendium.xai.synthetic import TABLES, auroc


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
                    self._scores[key] = oriented(name)(
                        self.predict, self.X, A, reference["target"], reference["baseline"], seed=seed, **own
                    )
                found[name][method] = self._scores[key][rows]
        return found

    def table(self, **setting) -> pd.DataFrame:
        """Mean scores: methods (rows) by metrics (columns), more is better."""
        return pd.DataFrame({name: {m: mean(v) for m, v in of.items()} for name, of in self(**setting).items()})


# What each explainer is called with, so that a case takes a second or two: (keywords)
CHEAP = {
    "lime": {"samples": 300},
    "kernel shap": {"samples": 300, "most": 10},
    "integrated gradients": {"steps": 128},
    "smoothgrad": {"samples": 16},
}


COMPARED = (
    "kernel shap",
    "lime",
    "integrated gradients",
    "deeplift",
    "input x gradient",
    "gradient",
    "smoothgrad",
    "occlusion",
    "relevance",
    "random",
)


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
    """`(case, truth)`: a perceptron trained on a table of `synthetic`, and how good each method is.

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
                    "comprehensiveness": {"fractions": (0.01,)},
                    "sufficiency": {"fractions": (0.01,)},
                    "deletion": {"steps": 4},
                    "insertion": {"steps": 4},
                    "faithfulness correlation": {"subset": 1},
                    "infidelity": {"samples": 20},
                    **{name: {"radius": 0.02} for name in SENSITIVITIES},
                }
            },
            "many": {
                "options": {
                    "comprehensiveness": {"fractions": (0.5,)},
                    "sufficiency": {"fractions": (0.5,)},
                    "faithfulness correlation": {"subset": max(1, case.X.shape[1] // 2)},
                    "infidelity": {"kind": "noise"},
                    **{name: {"radius": 0.5} for name in SENSITIVITIES},
                }
            },
        },
        "writing": {name: everyone(write) for name, write in REWRITINGS.items()},
        "own scale": {
            f"{method} {sign} 10": {"writing": {method: partial(np.multiply, factor)}}
            for method in methods
            for sign, factor in (("/", 0.1), ("x", 10.0))
        },
    }


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
