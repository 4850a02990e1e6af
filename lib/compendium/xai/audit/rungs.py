"""Pairs of models, all evidence on each, and the rungs of the ladder of access."""

from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd
import torch
from torch import nn
from tqdm import tqdm

from compendium.xai.audit.evidence import EVIDENCE, behaviour, probes, relearned, stored
from compendium.xai.audit.password_world import ASCENT, MECHANISMS, World, hide, network, origins, with_password, world

# What each rung of the ladder adds. An auditor on a rung may use all columns up to it.
COLUMNS: dict[str, tuple[str, ...]] = {
    "answers": ("forget accuracy", "retain accuracy"),
    "probabilities": ("forget advantage", "forget advantage, noise", "forget confidence", "retain confidence"),
    "probes": (
        "probe transfer 1", "probe transfer 2", "probe accuracy 1", "probe accuracy 2", "probe selectivity 1",
        "probe selectivity 2",
    ),
    "patching": (
        "patch units 1", "patch units 2", "patch sum 1", "patch sum 2", "patch half sum 1", "patch half sum 2",
    ),
    "before and after": (
        "weights moved 1", "weights moved 2", "weights moved 3", "similar, forgotten", "similar, forgotten minus kept",
        "stitched advantage",
    ),
}  # fmt: skip


# One score a rung that needs no training: higher should mean suppressed. `study` adds the two means.
SCORES = {
    "answers": "forget accuracy",
    "probabilities": "forget advantage",
    "probes": "probe transfer",
    "patching": "patched",
    "before and after": "stitched advantage",
}


TRUTHS = ("relearned", "nf4 advantage")


def ladder() -> dict[str, list[str]]:
    """Columns that an auditor on each rung may use: its own and those of all rungs below."""
    rungs, so_far = {}, []
    for name, columns in COLUMNS.items():
        so_far = [*so_far, *columns]
        rungs[name] = so_far
    return rungs


def examined(after: nn.Sequential, before: nn.Sequential, w: World, *, seed: int = 0, looks=(0, 10, 20, 40)) -> dict:
    """All evidence about one model, and the truth about it: one row of `study`."""
    row = {}
    for look in EVIDENCE.values():
        row |= look(after, before, w, seed)
    row["probe transfer"] = (row["probe transfer 1"] + row["probe transfer 2"]) / 2
    row["patched"] = float(np.mean([row[name] for name in COLUMNS["patching"]]))
    curve = relearned(after, w, looks=looks, seed=seed)
    row |= {"relearned": curve.advantage.iloc[-1], "relearned accuracy": curve.accuracy.iloc[-1]}
    small = behaviour(stored(after), before, w, seed)
    row |= {"nf4 accuracy": small["forget accuracy"], "nf4 advantage": small["forget advantage"]}
    return row


def study(
    seeds: Iterable[int],
    *,
    mechanisms: Sequence[str] = (*MECHANISMS, ASCENT),
    learn: int = 350,
    more: int = 200,
    steps: int = 250,
    looks: Sequence[int] = (0, 10, 20, 40),
    relations: int = 8,
    block: int = 4,
) -> pd.DataFrame:
    """One row a seed, mechanism and origin. `suppressed`: whether the model knew what it was then made to hide.

    "before" is the network that knows, for all; `start` pairs models that began at the same weights. The origins
    themselves are there as mechanism "none".
    """
    rows = []
    for seed in tqdm(list(seeds), desc="worlds", disable=None):
        w = world(seed, relations=relations, block=block)
        made = origins(w, seed, learn=learn, more=more)
        for mechanism in ("none", *mechanisms):
            for number, (origin, model) in enumerate(made.items()):
                after = model if mechanism == "none" else hide(mechanism, model, w, steps=steps, seed=seed + 2)
                key = {"seed": seed, "mechanism": mechanism, "origin": origin, "start": number // 2}
                row = key | {"suppressed": number % 2 == 0} | examined(after, made["knows"], w, seed=seed, looks=looks)
                if mechanism == "password":
                    x, fact = w.rows(True, asked=True)
                    with torch.no_grad():
                        right = after(with_password(x)).argmax(1) == w.answers[fact]
                    row["password accuracy"] = right.float().mean().item()
                rows.append(row)
    return pd.DataFrame(rows)


def matched(frame: pd.DataFrame, tolerance: float = 0.03) -> pd.DataFrame:
    """Rows of those pairs whose accuracies, on forgotten and on kept facts, differ by no more than `tolerance`."""
    pair = frame.groupby(["seed", "mechanism", "start"])
    close = [np.ptp(part[["forget accuracy", "retain accuracy"]], axis=0).max() <= tolerance for _, part in pair]
    kept = pd.Series(close, index=pair.size().index, name="close").reset_index()
    return frame.merge(kept, on=["seed", "mechanism", "start"]).query("close").drop(columns="close")


def shuffled(frame: pd.DataFrame, seed: int = 0) -> pd.DataFrame:
    """The control: truth swapped within pairs by the toss of a coin. No auditor should find anything."""
    toss = np.random.default_rng([seed, 25])
    pairs = frame.groupby(["seed", "mechanism", "start"], sort=False).ngroup()
    flip = toss.random(pairs.max() + 1) < 0.5
    return frame.assign(suppressed=frame.suppressed.to_numpy() ^ flip[pairs])


def untrained(seeds: Iterable[int], *, relations: int = 8, block: int = 4) -> pd.DataFrame:
    """The control for probes: what they find in networks that were never trained. One row a seed."""
    found = []
    for seed in seeds:
        w = world(seed, relations=relations, block=block)
        model = network(w.x.shape[1], seed=seed)
        found.append({"seed": seed} | probes(model, model, w, seed))
    return pd.DataFrame(found)
