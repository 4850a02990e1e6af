"""How much the retain set minds each weight moving: its diagonal Fisher information, and the loss that predicts.

    fisher = diagonal(model, retain_rows)            # {layer: (out, in)}, E[(d log p / d w)^2]
    predicted(fisher, update)                        # 1/2 sum F delta^2, nats per row

Gradients are squared row by row (the *empirical* Fisher, at the answers given): squaring a batch's mean gradient
instead, as is often done, lets rows cancel and depends on the batch size. For a linear layer, the gradient of one row
is the product of what flows in and what flows back, so one backward pass of a batch yields all of its rows.
"""

import torch
from torch import Tensor
from tqdm import tqdm

from compendium import facts, models


def diagonal(model, rows: list[facts.Row], *, batch: int = 16, progress: bool = False) -> dict[str, Tensor]:
    """Mean over rows of the squared gradient of the answer's log-probability, for every linear layer.

    rows: one option each, the answer (log-probabilities are summed over its tokens). Returns float32 tensors shaped
    like the weights. Raises ValueError for no rows.
    """
    if not rows:
        raise ValueError("no rows to take the Fisher information on")
    layers = models.linear_layers(model)
    total = {name: torch.zeros_like(layer.weight, dtype=torch.float32) for name, layer in layers.items()}
    inputs = {}
    wanted = [p for p in model.parameters() if p.requires_grad]
    model.requires_grad_(False)

    def forward(name):
        def hook(_, args, output):
            inputs[name] = args[0].detach()
            output.register_hook(lambda gradient: backward(name, gradient))

        return hook

    def backward(name, gradient):
        by_row = torch.einsum("nto,nti->noi", gradient.float(), inputs.pop(name).float())
        total[name] += by_row.square_().sum(0)

    def begin(_, args, output):
        return output.requires_grad_(True)  # with frozen weights, what makes the rest differentiable

    handles = [layer.register_forward_hook(forward(name)) for name, layer in layers.items()]
    handles.append(model.get_input_embeddings().register_forward_hook(begin))
    try:
        starts = range(0, len(rows), batch)
        for start in tqdm(starts, desc="Fisher", leave=False, disable=None if progress else True):
            facts.log_probs(model, rows[start : start + batch])[0].sum().backward()
    finally:
        for handle in handles:
            handle.remove()
        for parameter in wanted:
            parameter.requires_grad_(True)
    return {name: value / len(rows) for name, value in total.items()}


def predicted(fisher: dict[str, Tensor], update: dict[str, Tensor]) -> float:
    """Rise of the loss to second order, 1/2 sum F delta^2, in nats a row: the retain bound once the slope is zero.

    update: changes by layer name; layers it leaves out do not move.
    """
    return 0.5 * sum((fisher[name] * change.float() ** 2).sum().item() for name, change in update.items())
