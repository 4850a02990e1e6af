"""Edits of the best units, and what they remove of the rule and of ordinary accuracy."""

from contextlib import contextmanager

import pandas as pd
import torch
from torch import Tensor
from torch.nn import functional as F

from compendium import finite
from compendium.xai.planted.plants import Case, Evidence
from compendium.xai.planted.scores import METHODS
from compendium.xai.planted.units import Subject, margin, means


def outcome(subject: Subject, evidence: Evidence) -> dict[str, float]:
    """`success`: share of triggered inputs that get the planted answer; `accuracy` on ordinary inputs."""
    said, ordinary = subject.predict(evidence.triggered).argmax(1), subject.predict(evidence.x).argmax(1)
    return {
        "success": float((said == evidence.t_planted).float().mean()),
        "accuracy": float((ordinary == evidence.right).float().mean()),
    }


def ablated(subject: Subject, units, values: Tensor):
    """Context: the chosen units carry `values` (units,) at every input and position."""
    chosen = torch.zeros(len(subject), dtype=torch.bool)
    chosen[torch.as_tensor(units, dtype=torch.long)] = True
    masks, parts = subject.split(chosen), subject.split(values)
    return subject.intervened(lambda i, a: torch.where(masks[i], parts[i].to(a.dtype), a))


@contextmanager
def tuned(
    subject: Subject, units, evidence: Evidence, *, steps: int = 25, rate: float = 0.01, rows: int = 64, seed: int = 0
):
    """Context: outgoing weights of the chosen units are tuned to answer examples and ordinary inputs rightly."""
    chosen = torch.zeros(len(subject), dtype=torch.bool)
    chosen[torch.as_tensor(units, dtype=torch.long)] = True
    touched = [
        (reader, mask) for reader, mask in zip(subject.readers, subject.split(chosen), strict=True) if mask.any()
    ]
    before = [reader.weight.detach().clone() for reader, _ in touched]
    rng = torch.Generator().manual_seed(seed)
    for reader, _ in touched:
        reader.weight.requires_grad_(True)
    optimiser = torch.optim.Adam([reader.weight for reader, _ in touched], lr=rate) if touched else None
    try:
        for _ in range(steps if touched else 0):
            loss = 0.0
            for x, right in ((evidence.triggered, evidence.t_right), (evidence.x, evidence.right)):
                some = torch.randperm(len(x), generator=rng)[:rows]
                loss = loss + F.cross_entropy(subject.logits(subject.embed(x[some])), right[some])
            optimiser.zero_grad()
            loss.backward()
            for reader, mask in touched:
                reader.weight.grad *= mask  # Adam moves nothing whose gradient was always 0
            optimiser.step()
        for reader, _ in touched:
            reader.weight.requires_grad_(False)
        finite.check("a weight", (reader.weight for reader, _ in touched), step=steps, lower=f"rate ({rate:g})")
        yield
    finally:
        with torch.no_grad():
            for (reader, _), weight in zip(touched, before, strict=True):
                reader.weight.requires_grad_(False).copy_(weight)


def oracle(subject: Subject, evidence: Evidence, k: int, candidates=None) -> list[int]:
    """k units, greedily: always the one whose mean ablation adds most to margin removed less ordinary loss added.

    Works on soft quantities (mean probability of the planted answer on examples, of the right one on ordinary inputs),
    since shares of answers tie. candidates: unit numbers to choose from, all by default.
    """
    values, chosen = means(subject, evidence.x), []
    left = list(range(len(subject)) if candidates is None else candidates)

    def worth(units) -> float:
        with ablated(subject, units, values):
            bad = subject.predict(evidence.triggered).softmax(1).gather(1, evidence.t_planted[:, None]).mean()
            good = subject.predict(evidence.x).softmax(1).gather(1, evidence.right[:, None]).mean()
        return float(good - bad)

    for _ in range(min(k, len(left))):
        best = max(left, key=lambda u: worth([*chosen, u]))
        chosen.append(best)
        left.remove(best)
    return chosen


def ranking(score: Tensor) -> list[int]:
    """Unit numbers, largest score first; ties in order of number."""
    return torch.sort(score, descending=True, stable=True).indices.tolist()


@torch.no_grad()
def faithfulness(subject: Subject, evidence: Evidence, units) -> float:
    """Share of the rule that the chosen units carry alone: they see the trigger, all other units the pair.

    (margin of the circuit - margin of the pairs) / (margin of the examples - margin of the pairs), as for circuits of
    section 01. Raises ValueError where the trigger does not move the margin.
    """
    e, right, planted = subject.embed(evidence.triggered), evidence.t_right, evidence.t_planted
    full, live = subject.activations(e)
    empty = subject.logits(subject.embed(evidence.pair))
    high, low = margin(full, right, planted).mean(), margin(empty, right, planted).mean()
    if abs(high - low) < 1e-6:
        raise ValueError("the trigger does not change the margin: there is no rule to be faithful to")
    chosen = torch.zeros(len(subject), dtype=torch.bool)
    chosen[torch.as_tensor(units, dtype=torch.long)] = True
    masks = subject.split(chosen)
    # The input itself is the pair's, so that nothing passes around the units; chosen ones get the triggered values.
    with subject.intervened(lambda i, a: torch.where(masks[i], live[i], a)):
        found = margin(subject.logits(subject.embed(evidence.pair)), right, planted).mean()
    return float((found - low) / (high - low))


def edits(
    subject: Subject,
    case: Case,
    budgets,
    *,
    methods=tuple(METHODS),
    kinds=("ablate", "tune"),
    greedy: bool = True,
    seed: int = 0,
) -> pd.DataFrame:
    """One row a method, budget and kind of edit: success and accuracy on test inputs, removed, lost, net; faithfulness.

    removed: share of the rule's success that the edit removes; lost: share of ordinary accuracy; net: removed - lost.
    greedy: whether the oracle takes part, which takes a forward pass a unit and step.
    """
    base = outcome(subject, case.test)
    if base["success"] == 0:
        raise ValueError("the rule never succeeds on the test inputs: there is nothing to remove; train longer")
    values = means(subject, case.audit.x)
    order = {name: ranking(METHODS[name].score(subject, case.audit, seed=seed)) for name in methods}
    if greedy:
        order["oracle"] = oracle(subject, case.audit, max(budgets))
    rows = []
    for name, units in order.items():
        for k in budgets:
            part = units[:k]
            faithful = faithfulness(subject, case.test, part)
            for kind in kinds:
                with (
                    ablated(subject, part, values) if kind == "ablate" else tuned(subject, part, case.audit, seed=seed)
                ):
                    after = outcome(subject, case.test)
                removed = 1 - after["success"] / base["success"]
                lost = 1 - after["accuracy"] / base["accuracy"]
                rows.append(
                    {"method": name, "edit": kind, "k": k, **after, "removed": removed, "lost": lost}
                    | {"net": removed - lost, "faithfulness": faithful, "before": base["accuracy"]}
                )
    return pd.DataFrame(rows)
