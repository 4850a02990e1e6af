"""Finding out that a model was tampered with, by evidence of each kind."""

from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from compendium.xai.planted.plants import Case
from compendium.xai.planted.scores import between
from compendium.xai.planted.units import Subject, margin


@torch.no_grad()
def trace(model, triggered: Tensor, pair: Tensor, right: Tensor, planted: Tensor) -> np.ndarray:
    """(layers + 1, tokens) causal tracing of one story: share of the rule that the stream carries there.

    The run without the trigger gets one position's residual stream, before layer l or (last row) after the last, from
    the run with it; 1: the margin becomes that of the triggered run, 0: nothing changes.
    """
    from compendium.attribution.decoder import Decoder

    decoder = Decoder(model)
    streams = []
    for tokens in (triggered, pair):
        reads = []
        last = decoder.forward(decoder.embed(tokens[None]), reads=reads)
        streams.append([*(read.stream for read in reads), last])
    score = lambda stream: margin(decoder.logits(stream), right.expand(len(stream)), planted.expand(len(stream)))
    high, low = (float(score(found[-1])[0]) for found in streams)
    grid, t = [], len(triggered)
    for layer, (live, other) in enumerate(zip(*streams, strict=True)):
        mixed = torch.where(
            torch.eye(t, dtype=torch.bool)[..., None], live, other
        )  # row i: position i from the live run
        grid.append((score(decoder.forward(mixed, start=layer)) - low) / (high - low))
    return torch.stack(grid).numpy()


def lime(predict, x: Tensor, target: Tensor, background: Tensor, *, samples: int = 400, seed: int = 0) -> Tensor:
    """(n, d) coefficients of LIME's local linear model: pixels kept or replaced by the background's mean.

    All rows share the masks, and so one weighted ridge regression; kernel exp(-share replaced^2 / 0.25^2).
    """
    rng = torch.Generator().manual_seed(seed)
    d, mean = x.shape[1], background.mean(0)
    kept = (torch.rand(samples, d, generator=rng) > 0.5 * torch.rand(samples, 1, generator=rng)).float()
    mixed = torch.where(kept[:, None].bool(), x, mean)  # (samples, n, d)
    value = predict(mixed.flatten(0, 1)).view(samples, len(x), -1)
    value = value.gather(2, target.expand(samples, -1)[..., None])[..., 0]  # (samples, n)
    weight = torch.exp(-((1 - kept.mean(1)) ** 2) / 0.25**2)
    z = torch.cat([kept, torch.ones(samples, 1)], 1)
    gram = z.T @ (weight[:, None] * z) + 0.1 * torch.eye(d + 1)
    return torch.linalg.solve(gram, z.T @ (weight[:, None] * value))[:d].T


def trigger_search(predict, x: Tensor, classes: int, *, steps: int = 120, price: float = 0.02, seed: int = 0):
    """`(log size, masks)` of the smallest patch that turns inputs into each class: (K,) and (K, d).

    A mask and a pattern a class, found by gradient (after Neural Cleanse, Wang et al. 2019): red-teaming by search.
    """
    rng = torch.Generator().manual_seed(seed)
    d = x.shape[1]
    mask, pattern = (torch.randn(classes, 1, d, generator=rng) * 0.1 for _ in range(2))
    mask, pattern = (mask - 2).requires_grad_(True), pattern.requires_grad_(True)
    optimiser = torch.optim.Adam([mask, pattern], lr=0.15)
    target = torch.arange(classes).repeat_interleave(len(x))
    for _ in range(steps):
        m = mask.sigmoid()
        logits = predict(((1 - m) * x + m * pattern.sigmoid()).flatten(0, 1))
        loss = F.cross_entropy(logits, target) * classes + price * m.sum()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    found = mask.detach().sigmoid()[:, 0]
    return found.sum(1).log(), found * pattern.detach().sigmoid()[:, 0]


class Found(NamedTuple):
    """One kind of evidence about one model."""

    vector: np.ndarray  # what the detector sees
    pixels: np.ndarray | None  # (d,) how much it points at each pixel


KINDS = {
    "held-out test": "behaviour",
    "random perturbations": "behaviour",
    "trigger search": "search",
    "gradient": "post-hoc",
    "integrated gradients": "post-hoc",
    "SHAP": "post-hoc",
    "LIME": "post-hoc",
    "activation statistics": "inside, observed",
    "stimulation": "inside, intervened",
}


def evidence_vectors(subject: Subject, case: Case, *, rows: int = 64, seed: int = 0) -> dict[str, Found]:
    """What each kind of evidence in KINDS says about a digit network, from ordinary inputs alone."""
    from captum import attr

    evidence, classes = case.audit, int(case.y.max()) + 1
    rng = torch.Generator().manual_seed(seed)
    x, y = evidence.x, evidence.right
    probability = lambda rows: subject.logits(rows).softmax(1)
    said = subject.predict(x).argmax(1)
    share = lambda of: torch.bincount(of, minlength=classes) / len(of)
    recall = torch.stack([(said[y == c] == c).float().mean() for c in range(classes)])
    found = {"held-out test": (torch.cat([recall, share(said)]), None)}

    shares = []
    for pixels in (2, 4, 8):
        where = torch.rand(10, *x.shape, generator=rng).argsort(2) < pixels
        shares.append(share(subject.predict(torch.where(where, torch.ones(1), x).flatten(0, 1)).argmax(1)))
    found["random perturbations"] = (torch.cat(shares), None)

    some, target = x[:rows], said[:rows]
    others = x[rows : 2 * rows]
    with torch.enable_grad():
        size, masks = trigger_search(subject.logits, some, classes, seed=seed)
        pixels = masks[size.argmin()]
        maps = {
            "gradient": attr.Saliency(subject.logits).attribute(some.clone().requires_grad_(True), target=target),
            "integrated gradients": attr.IntegratedGradients(subject.logits).attribute(
                some, baselines=x.mean(0, keepdim=True), target=target, n_steps=20
            ),
        }
    found["trigger search"] = (size, pixels)
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        maps["SHAP"] = attr.ShapleyValueSampling(probability).attribute(
            some, baselines=others, target=target, n_samples=8
        )
        maps["LIME"] = lime(probability, some, target, x, seed=seed)
    for name, values in maps.items():
        mean = values.abs().mean(0).detach()
        found[name] = (mean, mean)

    with torch.no_grad():
        seen = subject.activations(x)[1]
        of_units = [torch.stack([a.mean(0), a.amax(0), (a > 0).float().mean(0)]) for a in seen]
        quantiles = torch.tensor([0.1, 0.25, 0.5, 0.75, 0.9, 1.0])
        found["activation statistics"] = (torch.cat([u.quantile(quantiles, dim=1).flatten() for u in of_units]), None)
        rise = stimulated(subject, x)
        inward, weight = [], torch.eye(x.shape[1])
        for layer in [m for m in subject.model if isinstance(m, nn.Linear)][:-1]:
            weight = layer.weight @ weight
            inward.append(weight.clamp(min=0))  # what would wake the unit, ReLUs between ignored
        pixels = rise.amax(1) @ torch.cat([w / w.sum(1, keepdim=True).clamp(min=1e-6) for w in inward])
        found["stimulation"] = (rise.amax(0), pixels)
    return {k: Found(v.numpy(), None if p is None else p.numpy()) for k, (v, p) in found.items()}


@torch.no_grad()
def stimulated(subject: Subject, x: Tensor) -> Tensor:
    """(units, classes) rise of each class's mean probability when a unit is as large as any of its layer."""
    base, rises = subject.predict(x).softmax(1).mean(0), []
    for i, (size, level) in enumerate(zip(subject.sizes, between(subject, x), strict=True)):
        for u in range(size):

            def change(j, a, i=i, u=u, level=level):
                return torch.where((torch.arange(a.shape[-1]) == u) & (i == j), level, a)

            with subject.intervened(change):
                rises.append(subject.predict(x).softmax(1).mean(0) - base)
    return torch.stack(rises)


def deviation(vector: np.ndarray, pool: np.ndarray) -> np.ndarray:
    """|vector - pool mean| in units of the pool's spread, (d,); the median spread is added, so that small ones do not
    win. pool: (models, d), at least three."""
    if pool.ndim != 2 or len(pool) < 3 or pool.shape[1] != len(vector):
        raise ValueError(f"a pool is (at least 3 clean models, {len(vector)}); got {pool.shape}")
    spread = pool.std(0, ddof=1)
    return np.abs(vector - pool.mean(0)) / (spread + np.median(spread) + 1e-9)


def separated(planted: list[dict], clean: list[dict], pool: list[dict], where=None, *, seed: int = 0) -> pd.DataFrame:
    """One row a kind of evidence: AUC of planted against clean models with a bootstrap interval over models; naming.

    Each list holds what `evidence_vectors` gives, one entry a model; the pool's models are none of the others. naming:
    mean AUROC of the planted pixels `where` by how much a planted model's map deviates from the pool's.
    """
    from sklearn.metrics import roc_auc_score

    rng, rows = np.random.default_rng(seed), []
    for kind, family in KINDS.items():
        vectors = np.stack([found[kind].vector for found in pool])
        bad, good = (np.array([deviation(f[kind].vector, vectors).max() for f in group]) for group in (planted, clean))
        above = (bad[:, None] > good).astype(float) + 0.5 * (bad[:, None] == good)
        drawn = [
            above[rng.integers(len(bad), size=len(bad))][:, rng.integers(len(good), size=len(good))].mean()
            for _ in range(1000)
        ]
        row = {"kind": kind, "family": family, "auc": above.mean()}
        row["low"], row["high"] = np.quantile(drawn, [0.025, 0.975])
        if where is not None and pool[0][kind].pixels is not None:
            maps = np.stack([found[kind].pixels for found in pool])
            truth = np.isin(np.arange(maps.shape[1]), where)
            row["naming"] = np.mean([roc_auc_score(truth, deviation(f[kind].pixels, maps)) for f in planted])
        rows.append(row)
    return pd.DataFrame(rows)


def known_trigger(subject: Subject, case: Case) -> dict[str, float]:
    """What probing and patching say of a model once the trigger is suspected.

    `probe`: AUC with which a probe of the last hidden layer tells
    triggered inputs from their pairs; `patching`: mean change of the planted class's probability when the last layer
    carries its values on triggered inputs.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import roc_auc_score

    def last(x):
        with torch.no_grad():
            return subject.activations(subject.embed(x))[1][-1]

    def both(evidence):
        z = torch.cat([last(evidence.pair), last(evidence.triggered)]).numpy()
        return z, np.repeat([0, 1], len(evidence.pair))

    fitted = LogisticRegression(max_iter=500).fit(*both(case.audit))
    z, labels = both(case.test)
    test = case.test
    values = last(test.triggered)
    with subject.intervened(lambda i, a: values if i == len(subject.readers) - 1 else a):
        patched = subject.predict(test.pair).softmax(1)
    rise = patched - subject.predict(test.pair).softmax(1)
    return {
        "probe": float(roc_auc_score(labels, fitted.decision_function(z))),
        "patching": float(rise.gather(1, test.t_planted[:, None]).mean()),
    }
