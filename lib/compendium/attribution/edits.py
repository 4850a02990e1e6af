"""Change weights inside a mask and nowhere else.

Two readings of a circuit-restricted update (C-Delta-theta, arXiv 2602.04521), which leaves both open:

- `arithmetic`: fine-tune once towards a behaviour and once away from it, and add the difference of the two,
  k (theta+ - theta-).
- `constrained`: one update, trained to refuse while a KL term holds all other replies fast.

Both train with gradients *and* optimiser state confined to the mask: an entry outside it is never touched, not even by
weight decay or momentum. `lora` is the usual alternative. Each returns a `Delta`, the change of every weight it moved;
`applied` adds it, at any strength, for as long as a block lasts.
"""

from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from compendium import models
from compendium.attribution.refusal import Examples, distributions

Delta = dict[str, Tensor]  # change of each moved parameter, by name


def batches(rows: list, size: int, steps: int, rng) -> list[list]:
    """`steps` batches; every row is drawn once before any is drawn twice."""
    order = np.concatenate([rng.permutation(len(rows)) for _ in range(-(-size * steps // len(rows)))])
    return [[rows[i] for i in order[s * size : (s + 1) * size]] for s in range(steps)]


def train(
    model, loss_of: Callable[[int], Tensor], masks: dict[str, Tensor], *, steps: int, learning_rate: float
) -> Delta:
    """Minimise `loss_of(step)` by AdamW over the masked entries; the model itself comes back unchanged.

    Only entries inside a mask are parameters of the optimiser: it holds the masked values as one vector per weight.
    No weight decay; gradient norm clipped at 1; betas 0.9, 0.95 because runs are short. Raises ValueError for a name
    that the model has not or an empty mask, RuntimeError when the loss is not finite.
    """
    parameters = dict(model.named_parameters())
    if missing := sorted(set(masks) - set(parameters)):
        raise ValueError(f"the model has no weight {missing[0]!r}")
    if not any(mask.any() for mask in masks.values()):
        raise ValueError("the mask is empty: there is nothing to train")
    model.requires_grad_(False)
    before = {name: parameters[name].detach().clone() for name in masks}
    where = {name: mask.flatten().nonzero()[:, 0] for name, mask in masks.items()}
    free = {name: before[name].flatten()[where[name]].clone().requires_grad_(True) for name in masks}
    optimiser = torch.optim.AdamW(free.values(), lr=learning_rate, weight_decay=0.0, betas=(0.9, 0.95))
    try:
        for name in masks:
            parameters[name].requires_grad_(True)
        for step in tqdm(range(steps), desc="training", leave=False, disable=None):
            loss = loss_of(step)
            if not torch.isfinite(loss):
                raise RuntimeError(f"the loss is {loss.item()} at step {step + 1}: lower learning_rate")
            loss.backward()
            with torch.no_grad():
                for name, values in free.items():
                    values.grad = parameters[name].grad.flatten()[where[name]]
                    parameters[name].grad = None
                torch.nn.utils.clip_grad_norm_(free.values(), 1.0)
                optimiser.step()
                for name, values in free.items():
                    parameters[name].view(-1)[where[name]] = values
        return {name: parameters[name].detach() - before[name] for name in masks}
    finally:
        model.requires_grad_(False)
        with torch.no_grad():
            for name in masks:
                parameters[name].copy_(before[name])
                parameters[name].grad = None


def nll(model, rows) -> Tensor:
    """Mean over rows of the answer's negative log-likelihood per token."""
    logp, targets, weights = distributions(model, rows)
    return -(logp.gather(1, targets[:, None])[:, 0] * weights).sum() / len(rows)


def arithmetic(
    model, found: Examples, masks, *, steps: int, learning_rate: float, batch: int = 8, seed: int = 0
) -> Delta:  # fmt: skip
    """theta+ - theta-: trained to refuse, minus trained to comply, on the same prompts, from the same start."""
    order = np.random.default_rng(seed).permutation(len(found.refuse))
    deltas = []
    for rows in (found.refuse, found.comply):
        drawn = batches([rows[i] for i in order], batch, steps, np.random.default_rng([seed, 1]))
        deltas.append(
            train(
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
    refuse, keep = (batches(rows, batch, steps, rng) for rows in (found.refuse, found.keep + found.plain))
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
    model, found: Examples, masks, *, steps: int, learning_rate: float, batch: int = 8, keep_weight: float = 1.0,
    seed: int = 0,
) -> Delta:  # fmt: skip
    """One update inside the masks: refusals up, everything to keep held by the KL from the untouched model."""
    loss_of = refusal_loss(model, found, steps=steps, batch=batch, keep_weight=keep_weight, seed=seed)
    return train(model, loss_of, masks, steps=steps, learning_rate=learning_rate)


def lora(
    model, found: Examples, *, rank: int, steps: int, learning_rate: float, batch: int = 8, keep_weight: float = 1.0,
    seed: int = 0,
) -> Delta:  # fmt: skip
    """The objective of `constrained` through low-rank adapters (peft, alpha = 2 x rank) on every linear layer."""
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(seed)
    model.requires_grad_(False)
    loss_of = refusal_loss(model, found, steps=steps, batch=batch, keep_weight=keep_weight, seed=seed)
    layers = models.linear_layers(model)
    before = {f"{name}.weight": layer.weight.detach().clone() for name, layer in layers.items()}
    names = sorted({name.rsplit(".", 1)[-1] for name in layers})
    config = LoraConfig(r=rank, lora_alpha=2 * rank, lora_dropout=0.0, target_modules=names)
    adapted = get_peft_model(model, config)
    weights = [p for p in adapted.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(weights, lr=learning_rate, weight_decay=0.0, betas=(0.9, 0.95))
    try:
        for step in tqdm(range(steps), desc="LoRA", leave=False, disable=None):
            loss = loss_of(step)
            if not torch.isfinite(loss):
                raise RuntimeError(f"the loss is {loss.item()} at step {step + 1}: lower learning_rate")
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(weights, 1.0)
            optimiser.step()
    finally:
        adapted.merge_and_unload()  # puts plain linear layers back into `model`
        model.requires_grad_(False)
        after = {f"{name}.weight": layer.weight for name, layer in models.linear_layers(model).items()}
        with torch.no_grad():
            delta = {name: weight - before[name] for name, weight in after.items()}
            for name, weight in after.items():
                weight.copy_(before[name])
    return delta


def combine(deltas: list[Delta]) -> Delta:
    """Sum of several updates."""
    total = {}
    for delta in deltas:
        for name, change in delta.items():
            total[name] = total[name] + change if name in total else change
    return total


@contextmanager
def applied(model, delta: Delta, strength: float = 1.0):
    """Within the block the model's weights are theta + strength * delta; then exactly what they were."""
    parameters = dict(model.named_parameters())
    before = {name: parameters[name].data for name in delta}
    try:
        for name, change in delta.items():
            parameters[name].data = before[name] + strength * change
        yield model
    finally:
        for name, weight in before.items():
            parameters[name].data = weight


def moved(model, delta: Delta) -> float:
    """Share of all the model's parameters that an update changes."""
    changed = sum(int((change != 0).sum()) for change in delta.values())
    return changed / sum(p.numel() for p in model.parameters())


def export(model, tokenizer, delta: Delta, folder: Path, *, strength: float = 1.0) -> Path:
    """Write theta + strength * delta as an ordinary checkpoint that plain `from_pretrained` loads (safetensors)."""
    with applied(model, delta, strength):
        model.save_pretrained(folder, safe_serialization=True)
    tokenizer.save_pretrained(folder)
    return folder
