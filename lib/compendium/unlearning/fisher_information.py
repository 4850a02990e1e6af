"""What the retain set minds: how its loss rises when a weight moves, and in which directions it cannot see a change.

    fisher = diagonal(model, rows)                   # {layer: (out, in)}, E[(d log p / d w)^2]
    predicted(fisher, update)                        # 1/2 sum F delta^2, nats a row
    affordable(gain, cost, budget)                   # which single-weight moves to make within that bound
    null_space(second_moments(model, rows)[layer])   # projector onto inputs that retain rows do not use

Gradients are squared row by row (the *empirical* Fisher, at the answers given): squaring a batch's mean gradient
instead, as is often done, lets rows cancel and depends on the batch size. For a linear layer, the gradient of one row
is the product of what flows in and what flows back, so one backward pass of a batch yields all of its rows.

MANSU (arXiv 2605.15138) projects onto "the null space of the retain set's Fisher information"; whether that is the
diagonal's small entries or a subspace, the available text does not say, so both are here. The subspace is AlphaEdit's
(arXiv 2410.02355): inputs of a layer rather than gradients.
"""

import torch
from torch import Tensor
from tqdm import tqdm

from compendium import facts, models, tokens
from compendium.attribution import memory as account

ROUNDING = 1e-9  # share of a second moment that float32 cannot tell from nothing


def diagonal(
    model, rows: list[facts.Row], *, batch: int = 16, memory: float | None = None, progress: bool = False
) -> dict[str, Tensor]:
    """Mean over rows of the squared gradient of the answer's log-probability, for every linear layer.

    rows: one option each, the answer (log-probabilities are summed over its tokens). Returns float32 tensors shaped
    like the weights. memory: gigabytes that it may take beside the weights; fewer layers then share a pass, rows of a
    batch are squared one by one, and the result lies on the CPU. Raises ValueError for no rows.
    """
    if not rows:
        raise ValueError("no rows to take the Fisher information on")
    layers = models.linear_layers(model)
    if memory is None:
        return _diagonal(model, rows, layers, batch, progress, at_once=batch)
    largest = max(layer.weight.numel() for layer in layers.values()) * 4e-9  # of one row, before it is squared
    found = {}
    for names in account.groups({name: 4 * layer.weight.numel() for name, layer in layers.items()}, memory - largest):
        part = _diagonal(model, rows, {name: layers[name] for name in names}, batch, progress, at_once=1)
        found |= {name: value.cpu() for name, value in part.items()}
    return found


def _diagonal(model, rows, layers, batch: int, progress: bool, at_once: int) -> dict[str, Tensor]:
    """As `diagonal`, of some layers, with `at_once` rows' gradients of a layer at a time."""
    tokens.check_packs(model, "rows", max(map(len, rows), default=0))  # before the hooks, which count every pass
    total = {name: torch.zeros_like(layer.weight, dtype=torch.float32) for name, layer in layers.items()}
    inputs, seen = {}, set()
    wanted = [p for p in model.parameters() if p.requires_grad]
    model.requires_grad_(False)

    def forward(name):
        def hook(_, args, output):
            _check_rows(name, args[0])
            if name in inputs:
                raise ValueError(f"{name} is used more than once in a pass: its rows' gradients cannot be told apart")
            inputs[name] = args[0].detach()
            output.register_hook(lambda gradient: backward(name, gradient))

        return hook

    def backward(name, gradient):
        for back, into in zip(gradient.split(at_once), inputs.pop(name).split(at_once), strict=True):
            by_row = torch.einsum("nto,nti->noi", back.float(), into.float())
            total[name] += by_row.square_().sum(0)
        seen.add(name)

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
    _check_seen(layers, seen)
    return {name: value / len(rows) for name, value in total.items()}


def predicted(fisher: dict[str, Tensor], update: dict[str, Tensor]) -> float:
    """Rise of the loss to second order, 1/2 sum F delta^2, in nats a row: the retain bound once the slope is zero.

    update: changes by layer name; layers it leaves out do not move.
    """
    return 0.5 * sum((fisher[name] * change.float() ** 2).sum().item() for name, change in update.items())


@torch.no_grad()
def second_moments(model, rows: list[facts.Row], *, batch: int = 16) -> dict[str, Tensor]:
    """Mean of x x^T over all tokens of the rows, for the input x of every linear layer: {layer: (in, in)} float32."""
    if not rows:
        raise ValueError("no rows to take inputs from")
    layers = models.linear_layers(model)
    tokens.check_packs(model, "rows", max(map(len, rows), default=0))  # before the hooks, which count every pass
    total = {name: torch.zeros(layer.in_features, layer.in_features) for name, layer in layers.items()}
    real, seen = None, set()

    def collect(name):
        def hook(_, args):
            _check_rows(name, args[0])
            seen.add(name)
            x = args[0][real].float()
            total[name] += (x.T @ x).cpu()

        return hook

    handles = [layer.register_forward_pre_hook(collect(name)) for name, layer in layers.items()]
    try:
        for start in range(0, len(rows), batch):
            part = rows[start : start + batch]
            longest = max(map(len, part))
            real = torch.tensor([[i < len(row) for i in range(longest)] for row in part], device=model.device)
            inputs, *_ = facts.pack(part, model.dtype, model.device)
            model.base_model(**inputs, use_cache=False)
    finally:
        for handle in handles:
            handle.remove()
    _check_seen(layers, seen)
    return {name: value / sum(map(len, rows)) for name, value in total.items()}


def _check_rows(name: str, x: Tensor) -> None:
    if x.ndim != 3:
        raise ValueError(
            f"{name} reads a tensor of shape {tuple(x.shape)}, not (rows, tokens, width): choose another model"
        )


def _check_seen(layers, seen: set[str]) -> None:
    """Raise ValueError for a layer that no row went through: a zero would read as "free to change"."""
    unseen = [name for name in layers if name not in seen]
    if unseen:
        raise ValueError(f"no row went through {unseen[0]}: nothing is known of what it matters to the rows")


def null_space(moment: Tensor, energy: float = 0.01) -> Tensor:
    """Projector (in, in) onto the directions that hold at most `energy` of the inputs' second moment (in, in).

    An update times it moves the layer's outputs on those inputs by at most that share, on average. AlphaEdit keeps
    directions with singular values below 0.02, whatever the layer's scale; a share means the same in every layer.
    """
    if not 0 <= energy < 1:
        raise ValueError(f"energy is a share of the second moment, at least 0 and below 1; got {energy}")
    values, vectors = torch.linalg.eigh(moment.double())  # ascending
    kept = vectors[:, values.clamp(min=0).cumsum(0) <= max(energy, ROUNDING) * values.sum()]
    return (kept @ kept.T).to(moment.dtype)


def affordable(gain: dict[str, Tensor], cost: dict[str, Tensor], budget: float) -> dict[str, Tensor]:
    """Which entries to take for the largest total gain at a total cost within the budget: bool, shaped like `gain`.

    By gain per cost, largest first, until the next one does not fit: short of the best choice by less than one entry.
    Entries without gain are never taken. gain, cost: not negative, same names and shapes.
    """
    if budget < 0:
        raise ValueError(f"the budget must not be negative; got {budget}")
    names = list(gain)
    gains, costs = (torch.cat([part[name].flatten().double() for name in names]) for part in (gain, cost))
    candidates = (gains > 0).nonzero()[:, 0]
    order = candidates[(gains[candidates] / costs[candidates].clamp(min=1e-300)).argsort(descending=True, stable=True)]
    taken = torch.zeros(len(gains), dtype=torch.bool, device=gains.device)
    taken[order[costs[order].cumsum(0) <= budget]] = True
    parts = taken.split([gain[name].numel() for name in names])
    return {name: part.view(gain[name].shape) for name, part in zip(names, parts, strict=True)}
