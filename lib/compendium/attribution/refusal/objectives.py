"""Two readings of a circuit-restricted update that makes a model refuse; C-Delta-theta (arXiv 2602.04521) allows both.

- `arithmetic`: fine-tune once towards a behaviour and once away from it, and add the difference of the two,
  k (theta+ - theta-).
- `constrained`: one update, trained to refuse while a KL term holds all other replies fast. `lora` is the same
  objective through low-rank adapters.

Each returns a change of weights, as `compendium.edits` trains and applies it.
"""

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from compendium import edits
from compendium.attribution.refusal.examples import Examples, distributions


def nll(model, rows) -> Tensor:
    """Mean over rows of the answer's negative log-likelihood per token."""
    logp, targets, weights = distributions(model, rows)
    return -(logp.gather(1, targets[:, None])[:, 0] * weights).sum() / len(rows)


def arithmetic(
    model, found: Examples, masks, *, steps: int, learning_rate: float, batch: int = 8, seed: int = 0
) -> edits.Delta:
    """theta+ - theta-: trained to refuse, minus trained to comply, on the same prompts, from the same start."""
    order = np.random.default_rng(seed).permutation(len(found.refuse))
    deltas = []
    for rows in (found.refuse, found.comply):
        drawn = edits.batches([rows[i] for i in order], batch, steps, np.random.default_rng([seed, 1]))
        deltas.append(
            edits.train(
                model,
                lambda step, drawn=drawn: nll(model, drawn[step]),
                masks,
                steps=steps,
                learning_rate=learning_rate,
            )
        )
    return {name: deltas[0][name] - deltas[1][name] for name in masks}


def refusal_loss(model, found: Examples, *, steps: int, batch: int, keep_weight: float, seed: int):
    """loss_of(step): refuse the prompts to refuse, and keep_weight times the KL from the untouched model's replies."""
    rng = np.random.default_rng(seed)
    refuse, keep = (edits.batches(rows, batch, steps, rng) for rows in (found.refuse, found.keep + found.plain))
    with torch.no_grad():  # half precision: these are targets of a loss, and all of them together are large
        known = [distributions(model, rows)[0].half() for rows in tqdm(keep, desc="replies", leave=False, disable=None)]

    def loss_of(step):
        rows, n = refuse[step] + keep[step], sum(len(row.options[0]) for row in refuse[step])
        logp, targets, weights = distributions(model, rows)
        refusing = -(logp[:n].gather(1, targets[:n, None])[:, 0] * weights[:n]).sum() / batch
        before = known[step].float()
        change = (before.exp() * (before - logp[n:])).sum(-1)
        return refusing + keep_weight * (change * weights[n:]).sum() / batch

    return loss_of


def constrained(
    model,
    found: Examples,
    masks,
    *,
    steps: int,
    learning_rate: float,
    batch: int = 8,
    keep_weight: float = 1.0,
    seed: int = 0,
) -> edits.Delta:
    """One update inside the masks: refusals up, everything to keep held by the KL from the untouched model."""
    loss_of = refusal_loss(model, found, steps=steps, batch=batch, keep_weight=keep_weight, seed=seed)
    return edits.train(model, loss_of, masks, steps=steps, learning_rate=learning_rate)


def lora(
    model,
    found: Examples,
    *,
    rank: int,
    steps: int,
    learning_rate: float,
    batch: int = 8,
    keep_weight: float = 1.0,
    seed: int = 0,
) -> edits.Delta:
    """The objective of `constrained` through low-rank adapters on every linear layer."""
    loss_of = refusal_loss(model, found, steps=steps, batch=batch, keep_weight=keep_weight, seed=seed)
    return edits.lora(model, loss_of, rank=rank, steps=steps, learning_rate=learning_rate, seed=seed)
