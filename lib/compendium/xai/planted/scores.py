"""Scores of units: what each method says a unit does for the planted rule."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from compendium.xai.planted.plants import Evidence
from compendium.xai.planted.units import Subject, flat, margin, mean, means, product, unit_gradients


def random(subject: Subject, evidence: Evidence, *, seed: int = 0) -> Tensor:
    """Control."""
    return torch.rand(len(subject), generator=torch.Generator().manual_seed(seed))


def weights(subject: Subject, evidence: Evidence, *, seed: int = 0) -> Tensor:
    """Control: norm of a unit's outgoing weights."""
    return torch.cat([reader.weight.norm(dim=0) for reader in subject.readers])


@torch.no_grad()
def activation(subject: Subject, evidence: Evidence, *, seed: int = 0) -> Tensor:
    """Control: how large a unit is on ordinary inputs, whatever it does."""
    return torch.cat([mean(a.abs()) for a in subject.activations(subject.embed(evidence.x))[1]])


def gradient_ordinary(subject: Subject, evidence: Evidence, *, seed: int = 0) -> Tensor:
    """Gradient x activation of the margin on ordinary inputs."""
    seen, gradients = unit_gradients(subject, subject.embed(evidence.x), evidence.right, evidence.planted)
    return product(seen, gradients)


def gradient(subject: Subject, evidence: Evidence, *, seed: int = 0) -> Tensor:
    """Gradient x activation of the margin on examples of the rule."""
    e = subject.embed(evidence.triggered)
    return product(*unit_gradients(subject, e, evidence.t_right, evidence.t_planted))


def _along(subject, start: Tensor, end: Tensor, right, planted, steps: int):
    """Activations and gradients at steps + 1 embeddings on the line from start to end."""
    for k in range(steps + 1):
        yield unit_gradients(subject, start + k / steps * (end - start), right, planted)


def conductance(subject: Subject, evidence: Evidence, *, start: Tensor | None = None, steps: int = 10, seed: int = 0):
    """Integrated gradients of a unit (Dhamdhere et al. 2019): gradient times the unit's change, on a line of inputs.

    start: embedded inputs to start from; by default the mean ordinary input. The sum over the units of one layer that
    cuts the network is the change of the margin (trapezoid rule; exact as steps grow).
    """
    end = subject.embed(evidence.triggered)
    start = subject.embed(evidence.x).mean(0, keepdim=True).expand_as(end) if start is None else start
    total, before = 0.0, None
    for seen, gradients in _along(subject, start, end, evidence.t_right, evidence.t_planted, steps):
        if before is not None:
            changes = [b - a for a, b in zip(before[0], seen, strict=True)]
            middle = [(g + h) / 2 for g, h in zip(before[1], gradients, strict=True)]
            total = total + product(changes, middle)
        before = seen, gradients
    return total


def conductance_pair(subject: Subject, evidence: Evidence, *, steps: int = 10, seed: int = 0) -> Tensor:
    """Conductance from the same input without the trigger."""
    return conductance(subject, evidence, start=subject.embed(evidence.pair), steps=steps)


def connected(subject: Subject, evidence: Evidence, *, steps: int = 20, seed: int = 0) -> Tensor:
    """Units most connected to what an explanation names: |IG| of the inputs, carried forward by |weights|.

    Input attributions of the examples (from the mean ordinary input), mean |.| over rows, through the layers by the
    share that each weight has in its unit's total. Digits only: raises ValueError for other models.
    """
    if not isinstance(subject.model, nn.Sequential):
        raise ValueError("weights connect inputs with units in a ReLU nn.Sequential only")
    end = evidence.triggered
    start = evidence.x.mean(0, keepdim=True).expand_as(end)
    total = torch.zeros_like(end)
    for k in range(steps):
        e = (start + (k + 0.5) / steps * (end - start)).requires_grad_(True)
        with torch.enable_grad():
            value = margin(subject.logits(e), evidence.t_right, evidence.t_planted).sum()
        total += torch.autograd.grad(value, e)[0] / steps
    named, found = (total * (end - start)).abs().mean(0), []
    for layer in [m for m in subject.model if isinstance(m, nn.Linear)][:-1]:
        size = layer.weight.abs()
        named = size / size.sum(1, keepdim=True) @ named
        found.append(named / named.sum())
    return torch.cat(found)


@torch.no_grad()
def difference(subject: Subject, evidence: Evidence, *, seed: int = 0) -> Tensor:
    """How much more a unit fires on examples of the rule: difference of means over the spread within."""
    a, b = (
        torch.cat([flat(part) for part in subject.activations(subject.embed(x))[1]], 1)
        for x in (evidence.x, evidence.triggered)
    )
    return (b.mean(0) - a.mean(0)).abs() / ((a.var(0) + b.var(0)) / 2).sqrt().clamp(min=1e-3)


def probe(subject: Subject, evidence: Evidence, *, seed: int = 0) -> Tensor:
    """|Weight| of a unit in a linear probe that tells examples of the rule from ordinary inputs, layer by layer."""
    from sklearn.linear_model import LogisticRegression

    with torch.no_grad():
        both = [subject.activations(subject.embed(x))[1] for x in (evidence.x, evidence.triggered)]
    labels = np.repeat([0, 1], [len(evidence.x), len(evidence.triggered)])
    found = []
    for parts in zip(*both, strict=True):
        z = torch.cat([flat(part) for part in parts])
        z = (z - z.mean(0)) / z.std(0).clamp(min=1e-3)
        fitted = LogisticRegression(C=0.1, max_iter=200).fit(z.numpy(), labels)
        found.append(torch.as_tensor(fitted.coef_[0]).abs().float())
    return torch.cat(found)


@torch.no_grad()
def intervention(subject: Subject, e: Tensor, right, planted, values: list[Tensor]) -> Tensor:
    """Exact: the margin's fall when one unit at a time carries `values` (one tensor a reader), (units,)."""
    base = margin(subject.logits(e), right, planted).mean()
    falls = []
    for i, size in enumerate(subject.sizes):
        for u in range(size):

            def change(j, a, i=i, u=u):
                if j != i:
                    return a
                a = a.clone()
                a[..., u] = values[i][..., u]
                return a

            with subject.intervened(change):
                falls.append(base - margin(subject.logits(e), right, planted).mean())
    return torch.stack(falls)


def ablation(subject: Subject, evidence: Evidence, *, seed: int = 0) -> Tensor:
    """Exact: the margin's fall on examples when a unit has its mean over ordinary inputs."""
    e = subject.embed(evidence.triggered)
    parts = list(subject.split(means(subject, evidence.x)))
    return intervention(subject, e, evidence.t_right, evidence.t_planted, parts)


def ablation_estimate(subject: Subject, evidence: Evidence, *, seed: int = 0) -> Tensor:
    """First-order estimate of mean ablation: gradient at the examples times the distance from the ordinary mean."""
    parts = subject.split(means(subject, evidence.x))
    seen, gradients = unit_gradients(subject, subject.embed(evidence.triggered), evidence.t_right, evidence.t_planted)
    return product([a - part for a, part in zip(seen, parts, strict=True)], gradients)


@torch.no_grad()
def patching(subject: Subject, evidence: Evidence, *, seed: int = 0) -> Tensor:
    """Exact: the margin's fall on examples when a unit has the value of the same input without the trigger."""
    values = subject.activations(subject.embed(evidence.pair))[1]
    e = subject.embed(evidence.triggered)
    return intervention(subject, e, evidence.t_right, evidence.t_planted, values)


@torch.no_grad()
def stimulation(subject: Subject, evidence: Evidence, *, seed: int = 0) -> Tensor:
    """Exact: the margin's rise on ordinary inputs when a unit is as large as any of its layer is there.

    Stimulation (after ABS, Liu et al. 2019) needs no trigger: it wakes a unit that ordinary inputs leave asleep.
    """
    levels = [
        torch.full((size,), float(level))
        for size, level in zip(subject.sizes, between(subject, evidence.x), strict=True)
    ]
    return -intervention(subject, subject.embed(evidence.x), evidence.right, evidence.planted, levels)


@torch.no_grad()
def between(subject: Subject, x: Tensor) -> list[Tensor]:
    """The largest activation in each reader's input."""
    return [a.max() for a in subject.activations(subject.embed(x))[1]]


def attribution_patching(subject: Subject, evidence: Evidence, *, seed: int = 0) -> Tensor:
    """First-order estimate of patching: gradient at the examples times the change from the pair."""
    with torch.no_grad():
        other = subject.activations(subject.embed(evidence.pair))[1]
    seen, gradients = unit_gradients(subject, subject.embed(evidence.triggered), evidence.t_right, evidence.t_planted)
    return product([a - b for a, b in zip(seen, other, strict=True)], gradients)


def eap_ig(subject: Subject, evidence: Evidence, *, steps: int = 10, seed: int = 0) -> Tensor:
    """Attribution patching with the mean gradient on the line of inputs from the pair (Hanna et al. 2024)."""
    start, end = subject.embed(evidence.pair), subject.embed(evidence.triggered)
    line = list(_along(subject, start, end, evidence.t_right, evidence.t_planted, steps))
    mean = [sum(g) / len(line) for g in zip(*(gradients for _, gradients in line), strict=True)]
    return product([b - a for a, b in zip(line[0][0], line[-1][0], strict=True)], mean)


class Method(NamedTuple):
    score: Callable
    family: str  # control, saliency, correlation, causal
    information: str  # none, ordinary, examples, pairs


METHODS = {
    "random": Method(random, "control", "none"),
    "largest weights": Method(weights, "control", "none"),
    "largest activation": Method(activation, "control", "ordinary"),
    "gradient x activation, ordinary": Method(gradient_ordinary, "saliency", "ordinary"),
    "stimulation": Method(stimulation, "causal", "ordinary"),
    "gradient x activation": Method(gradient, "saliency", "examples"),
    "conductance": Method(conductance, "saliency", "examples"),
    "connected to explanation": Method(connected, "saliency", "examples"),
    "activation difference": Method(difference, "correlation", "examples"),
    "linear probe": Method(probe, "correlation", "examples"),
    "mean ablation, estimated": Method(ablation_estimate, "causal", "examples"),
    "mean ablation": Method(ablation, "causal", "examples"),
    "conductance from pair": Method(conductance_pair, "saliency", "pairs"),
    "attribution patching": Method(attribution_patching, "causal", "pairs"),
    "EAP-IG": Method(eap_ig, "causal", "pairs"),
    "activation patching": Method(patching, "causal", "pairs"),
}


EXACT = "stimulation", "mean ablation", "activation patching"  # a forward pass a unit
