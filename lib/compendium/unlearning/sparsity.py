"""Sparsity and permanence: does an edit of few weights survive 4-bit storage better than an edit of many?

To move an output as far with fewer weights, each must move further; a weight that moves further is likelier to cross
its decision boundary. `point` trains on the best `share` of the weights, scales the update until forgetting is the same
for every share (`matched`), and asks what NF4 leaves of it, with and without the magnitude floor.

Theory (`crossing`): if a weight lies anywhere in its cell with equal chance, a step of size |delta| leaves a cell of
width c with probability min(1, |delta| / c).
"""

import numpy as np
import torch
from torch import Tensor

from compendium import edits, nf4
from compendium.unlearning import evaluation, magnitude_floor, mansu, objectives
from compendium.unlearning.subject import Subject


def crossing(weight: Tensor, change: Tensor) -> Tensor:
    """Probability that each weight leaves its NF4 cell, from the size of its change alone: shaped like `weight`.

    Cells reach half a gap to either side; an end cell is taken as wide as its one gap.
    """
    g = nf4.geometry(weight)
    up, down = (torch.where(gap.isnan(), other, gap) for gap, other in ((g.gap_up, g.gap_down), (g.gap_down, g.gap_up)))
    return (change.abs() / ((up + down) / 2)).clamp(max=1.0)


def right(subject: Subject, delta: edits.Delta, strength: float = 1.0) -> float:
    """Share of right answers to the facts to forget, full precision."""
    with edits.applied(subject.model, delta, strength):
        return evaluation.ask(subject, only=("forget",)).correct.mean()


def matched(subject: Subject, delta: edits.Delta, target: float, *, looks: int = 6) -> float:
    """The least strength, at most 1, at which an update leaves at most `target` of the forget questions right.

    By bisection, so to 2^-looks; 1 where even the whole update does not reach the target.
    """
    if right(subject, delta) > target:
        return 1.0
    low, high = 0.0, 1.0
    for _ in range(looks):
        middle = (low + high) / 2
        low, high = (low, middle) if right(subject, delta, middle) <= target else (middle, high)
    return high


def point(
    subject: Subject, share: float, settings: dict, *, target: float, reach: float = 0.5, looks: int = 6
) -> list[dict]:
    """Train on the `share` of weights with most to gain, match forgetting, store in NF4: a row as trained, one floored.

    settings: steps, batch, retain_batch, damping, learning_rate (NPO). Rows hold share, floored, strength, edited (of
    all parameters), size (mean |change| of edited weights over the mean gap between levels), crossed (share of edited
    weights that change code), predicted (`crossing`), and right answers: "forget", "near", "far", "forget, nf4", ...
    """
    forget, kept = subject.rows
    rng = np.random.default_rng(subject.seed)
    sizes = ((forget, settings["batch"]), (kept, settings["retain_batch"]))
    drawn = [edits.batches(rows, size, settings["steps"], rng) for rows, size in sizes]
    masks = edits.everywhere(subject.model)
    if share < 1:
        masks = mansu.support(subject.slope, subject.fisher, masks, share, damping=settings["damping"])
    delta = edits.train(
        subject.model,
        lambda step: objectives.npo(subject.model, subject.reference, drawn[0][step], drawn[1][step]),
        masks,
        steps=settings["steps"],
        learning_rate=settings["learning_rate"],
    )
    strength = matched(subject, delta, target, looks=looks)
    delta = {name: strength * change for name, change in delta.items()}
    hard, _ = mansu.permanent(subject.model, delta, subject.slope, subject.fisher, reach=reach)
    found = []
    for floored, update in ((False, delta), (True, hard)):
        found.append({"share": share, "floored": floored, "strength": strength, **measure(subject, update)})
    return found


def measure(subject: Subject, delta: edits.Delta) -> dict[str, float]:
    """What `point` says of one update; of the untouched model, if it is empty."""
    parameters = dict(subject.model.named_parameters())
    sums = dict.fromkeys(("edited", "size", "width", "chance"), 0.0)
    for name, change in delta.items():
        weight, change = parameters[name].detach().reshape(-1, nf4.BLOCK), change.reshape(-1, nf4.BLOCK)
        touched = (change != 0).any(1)
        if not touched.any():
            continue
        weight, change = weight[touched], change[touched]
        moved = change != 0
        sums["edited"] += int(moved.sum())
        sums["size"] += change.abs().sum().item()
        sums["width"] += (nf4.block_absmax(weight) * moved.sum(1)).sum().item() * nf4.MEAN_GAP
        sums["chance"] += crossing(weight, change)[moved].sum().item()
    with edits.applied(subject.model, delta):
        answers = evaluation.ask(subject, ["nf4"]).groupby(["weights", "kind"], sort=False).correct.mean()
    return {
        "edited": edits.moved(subject.model, delta),
        "size": sums["size"] / max(sums["width"], 1e-30),
        "crossed": magnitude_floor.count(subject.model, delta)["flip"] / max(sums["edited"], 1),
        "predicted": sums["chance"] / max(sums["edited"], 1),
        **{kind if w == "float32" else f"{kind}, {w}": value for (w, kind), value in answers.items()},
    }
