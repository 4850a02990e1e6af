"""Change weights inside a mask and nowhere else, and put changes on and off.

    delta = edits.train(model, loss_of, masks, steps=30, learning_rate=1e-3)   # {parameter: change}; model as before
    with edits.applied(model, delta, strength=0.5): ...
    edits.export(model, tokenizer, delta, folder)

Gradients *and* optimiser state are confined to the mask: an entry outside it is never touched, not even by weight decay
or momentum. A `Delta`, the change of every weight that moved, is all that an edit is: it can be added at any strength,
summed, measured, saved, and taken off again to the bit.
"""

import math
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from compendium import finite, models

Delta = dict[str, Tensor]  # change of each moved parameter, by name
Loss = Callable[[int], Tensor]  # step number -> scalar


def batches(rows: list, size: int, steps: int, rng) -> list[list]:
    """`steps` batches of `size` rows; every row is drawn once before any is drawn twice. Raises ValueError without rows
    or for a size or number of steps below 1."""
    if not rows:
        raise ValueError("there are no rows to train on: the set of facts, prompts or texts is empty")
    if size < 1 or steps < 1:
        raise ValueError(f"a batch needs at least one row, and training at least one step; got {size} and {steps}")
    order = np.concatenate([rng.permutation(len(rows)) for _ in range(-(-size * steps // len(rows)))])
    return [[rows[i] for i in order[s * size : (s + 1) * size]] for s in range(steps)]


def everywhere(model) -> dict[str, Tensor]:
    """The mask of all weights of the linear layers, what 4-bit loaders quantise. Raises as `models.linear_layers`."""
    return {
        f"{name}.weight": torch.ones_like(layer.weight, dtype=torch.bool)
        for name, layer in models.linear_layers(model).items()
    }


def train(
    model,
    loss_of: Loss,
    masks: dict[str, Tensor],
    *,
    steps: int,
    learning_rate: float,
    project: Callable[[str, Tensor], Tensor] | None = None,
) -> Delta:
    """Minimise `loss_of(step)` by AdamW over the masked entries; the model itself comes back unchanged.

    Only entries inside a mask are parameters of the optimiser: it holds the masked values as one vector per weight.
    No weight decay; gradient norm clipped at 1; betas 0.9, 0.95 because runs are short. project(name, change) ->
    change, if given, is applied to the whole change of each weight after every step, and the mask after it.
    Raises ValueError for a name that the model has not, a mask of another shape or an empty one, and weights that the
    loss does not depend on; `finite.Diverged` when the loss, a gradient
    or a weight is no longer finite.
    """
    parameters = _fitting(model, masks)
    for name, mask in masks.items():
        if mask.dtype != torch.bool:
            raise ValueError(f"the mask of {name} must be bool, got {mask.dtype}: say mask != 0")
    if not any(mask.any() for mask in masks.values()):
        raise ValueError("the mask is empty: there is nothing to train")
    model.requires_grad_(False)
    before = {name: parameters[name].detach().clone() for name in masks}
    where = {name: slice(None) if mask.all() else mask.flatten().nonzero()[:, 0] for name, mask in masks.items()}
    free = {name: before[name].flatten()[where[name]].clone().requires_grad_(True) for name in masks}

    def gather():
        for name, values in free.items():
            if parameters[name].grad is None:
                raise ValueError(f"the loss does not depend on {name}: leave it out of the masks")
            values.grad = parameters[name].grad.flatten()[where[name]]
            parameters[name].grad = None

    def spread():
        for name, values in free.items():
            parameters[name].view(-1)[where[name]] = values
            if project is not None:
                change = project(name, parameters[name] - before[name]).flatten()[where[name]]
                values.copy_(before[name].flatten()[where[name]] + change)
                parameters[name].view(-1)[where[name]] = values

    try:
        for name in masks:
            parameters[name].requires_grad_(True)
        _descend(loss_of, list(free.values()), steps, learning_rate, gather, spread)
        return {name: parameters[name].detach() - before[name] for name in masks}
    finally:
        model.requires_grad_(False)
        with torch.no_grad():
            for name in masks:
                parameters[name].copy_(before[name])
                parameters[name].grad = None


def lora(model, loss_of: Loss, *, rank: int, steps: int, learning_rate: float, seed: int = 0) -> Delta:
    """The same descent through low-rank adapters (peft, alpha = 2 x rank) on every linear layer, merged."""
    torch.manual_seed(seed)
    model.requires_grad_(False)
    before = {f"{name}.weight": layer.weight.detach().clone() for name, layer in models.linear_layers(model).items()}
    adapted = adapters(model, rank)
    try:
        _descend(loss_of, [p for p in adapted.parameters() if p.requires_grad], steps, learning_rate)
    finally:
        adapted.merge_and_unload()  # puts plain linear layers back into `model`
        model.requires_grad_(False)
        after = {f"{name}.weight": layer.weight for name, layer in models.linear_layers(model).items()}
        with torch.no_grad():
            delta = {name: weight - before[name] for name, weight in after.items()}
            for name, weight in after.items():
                weight.copy_(before[name])
    finite.check("a merged weight", delta.values(), step=steps, lower=f"learning_rate ({learning_rate:g})")
    return delta


def adapters(model, rank: int):
    """The model with low-rank adapters (peft, alpha = 2 x rank) on every linear layer and nowhere else. Raises
    ValueError, the model as it was, where peft, which goes by the ends of names, would put them elsewhere too."""
    from peft import LoraConfig, get_peft_model

    layers = set(models.linear_layers(model))
    names = sorted({name.rsplit(".", 1)[-1] for name in layers})
    adapted = get_peft_model(model, LoraConfig(r=rank, lora_alpha=2 * rank, lora_dropout=0.0, target_modules=names))
    reached = {name for name, module in adapted.get_base_model().named_modules() if hasattr(module, "lora_A")}
    if odd := sorted(reached ^ layers):
        adapted.unload()
        raise ValueError(f"adapters would not act on exactly the linear layers: {odd[0]} is the difference")
    return adapted


def _descend(loss_of, weights, steps, learning_rate, gather=lambda: None, spread=lambda: None) -> None:
    if steps < 1 or not 0 < learning_rate < math.inf:
        raise ValueError(
            f"steps ({steps}) must be at least 1 and learning_rate ({learning_rate:g}) a positive number: nothing "
            "would be trained"
        )
    optimiser = torch.optim.AdamW(weights, lr=learning_rate, weight_decay=0.0, betas=(0.9, 0.95))
    lower = f"learning_rate ({learning_rate:g})"
    for step in tqdm(range(steps), desc="training", leave=False, disable=None):
        loss = loss_of(step)
        finite.check("the loss", loss, step=step + 1, lower=lower)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        with torch.no_grad():
            gather()
            finite.clip(weights, 1.0, step=step + 1, lower=lower)
            optimiser.step()
            spread()
    finite.check("a weight", weights, step=steps, lower=lower)  # what the last step did, no loss has seen


def combine(deltas: list[Delta]) -> Delta:
    """Sum of several updates. Raises ValueError where they change one weight in different shapes."""
    total = {}
    for delta in deltas:
        for name, change in delta.items():
            if name in total and total[name].shape != change.shape:
                raise ValueError(
                    f"the updates of {name} have shapes {tuple(total[name].shape)} and {tuple(change.shape)}"
                )
            total[name] = total[name] + change if name in total else change
    return total


@contextmanager
def applied(model, delta: Delta, strength: float = 1.0):
    """Within the block the model's weights are theta + strength * delta; then exactly what they were.

    Raises ValueError for changes of weights that the model has not, or has in another shape.
    """
    parameters = _fitting(model, delta)
    before = {name: parameters[name].data for name in delta}
    try:
        for name, change in delta.items():
            parameters[name].data = before[name] + strength * change
        yield model
    finally:
        for name, weight in before.items():
            parameters[name].data = weight


def _fitting(model, by_name: dict[str, Tensor]) -> dict[str, Tensor]:
    """The model's parameters by name. Raises ValueError unless each tensor is of one of them, in its shape."""
    parameters = dict(model.named_parameters())
    for name, part in by_name.items():
        if name not in parameters:
            raise ValueError(f"the model has no weight {name!r}")
        if part.shape != parameters[name].shape:
            raise ValueError(
                f"{name} has shape {tuple(parameters[name].shape)} in this model, not {tuple(part.shape)}: masks and "
                "updates belong to the model that they were made for"
            )
    return parameters


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
