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
from compendium.unlearning.code_flips import compare, snapshot


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


def experiment(
    objective: str,
    learning_rate: float,
    seed: int,
    *,
    forget,
    retain,
    asked,
    look_at,
    steps: int,
    batch: int,
    density: float,
    lora_rank: int = 0,
    model_name: str = "embedded",
    revision=None,
    device="cpu",
    threads: int = 1,
) -> tuple[list[dict], list]:
    """One unlearning run, measured: the body of a sweep, safe to call in worker processes.

    forget, retain: tables of facts to train on (train templates). asked: questions to put to the trained model, in
    full precision and through NF4. Returns one dict a look (settings, `compare`'s keys) and two frames of per-item
    answers, each with a column `weights` ("float32" or "nf4").
    """
    from compendium import facts, formats
    from compendium.unlearning import forget_set
    from compendium.unlearning.studies import bin_width

    models.set_threads(threads)
    model, tokenizer = models.load(model_name, revision=revision, device=device)
    rows = [forget_set.answers(tokenizer, facts.questions(split="train", table=table)) for table in (forget, retain)]
    before = snapshot(model)
    settings = dict(objective=objective + (" + LoRA" if lora_rank else ""), learning_rate=learning_rate, seed=seed)
    looks = []
    for step in bin_width.unlearn(
        model,
        *rows,
        objective,
        learning_rate=learning_rate,
        steps=steps,
        batch=batch,
        seed=seed,
        look_at=look_at,
        lora_rank=lora_rank,
    ):
        looks.append(settings | {"step": step} | compare(before, model, density=density, seed=seed))
    answers = [facts.score(model, tokenizer, asked).assign(weights="float32", **settings)]
    with formats.quantised(model, "nf4"):
        answers.append(facts.score(model, tokenizer, asked).assign(weights="nf4", **settings))
    return looks, answers
