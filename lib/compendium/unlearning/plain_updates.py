"""Unlearn by AdamW on the quantisable linear layers, stopping to look at chosen steps.

Only the linear layers move: embeddings and the head stay unquantised in 4-bit loaders, so an edit there would survive
trivially and say nothing about quantisation.
"""

import math
from collections.abc import Iterator

import numpy as np
import torch
from tqdm import tqdm

from compendium import edits, facts, finite, models
from compendium.unlearning import objectives


def unlearn(
    model,
    forget: list[facts.Row],
    retain: list[facts.Row],
    objective: str,
    *,
    learning_rate: float,
    steps: int,
    batch: int = 8,
    seed: int = 0,
    look_at=(),
    lora_rank: int = 0,
) -> Iterator[int]:
    """Train `model` in place; yields the number of steps done at each step in `look_at` and at the last one.

    batch: forget rows per step, and as many retain rows. look_at: step numbers. lora_rank: 0 trains the linear weights
    themselves; otherwise low-rank adapters (peft, alpha = 2 x rank), merged into them at the end, the only look then.
    AdamW with its usual betas, no weight decay, constant rate, no warm-up. Raises ValueError for bad
    arguments, `finite.Diverged` when the loss or a weight is no longer finite.
    """
    if objective not in objectives.OBJECTIVES:
        raise ValueError(f"unknown objective {objective!r}: choose one of {', '.join(objectives.OBJECTIVES)}")
    if not forget or not retain:
        raise ValueError("both a forget set and a retain set are needed")
    if not 0 < learning_rate < math.inf or steps < 1 or batch < 1:
        raise ValueError(
            f"learning_rate ({learning_rate:g}) must be positive, and steps ({steps}) and batch ({batch}) at least 1"
        )
    loss_of = objectives.OBJECTIVES[objective]
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    batches = list(zip(*(edits.batches(rows, batch, steps, rng) for rows in (forget, retain)), strict=True))
    reference = objectives.Reference(model)
    model.requires_grad_(False)
    if lora_rank:
        adapted = edits.adapters(model, lora_rank)
        inner = adapted.get_base_model()
        weights = [p for p in adapted.parameters() if p.requires_grad]
    else:
        adapted, inner = None, model
        weights = [layer.weight.requires_grad_(True) for layer in models.linear_layers(model).values()]
    optimiser = torch.optim.AdamW(weights, lr=learning_rate, weight_decay=0.0, fused=True)
    looks = {*look_at} if not lora_rank else set()
    lower = f"learning_rate ({learning_rate:g})"
    progress = tqdm(batches, desc=f"{objective} {learning_rate:g}", leave=False, disable=None)
    for step, (forget_rows, retain_rows) in enumerate(progress, 1):
        loss = loss_of(inner, reference, forget_rows, retain_rows)
        finite.check("the loss", loss, step=step, lower=lower)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        finite.check("a weight", weights, step=step, lower=lower)
        if step in looks and step < steps:
            yield step
    optimiser.zero_grad(set_to_none=True)
    if adapted:
        adapted.merge_and_unload()  # puts plain linear layers back into `model`
        finite.check("a weight", [p.weight for p in models.linear_layers(model).values()], step=steps, lower=lower)
    model.requires_grad_(False)
    yield steps
