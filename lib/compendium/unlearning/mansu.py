"""MANSU, piece by piece: circuit, null space, floor (arXiv 2605.15138).

The paper's text that we could read names the pieces and not their formulas; what is ours is said at each.

1. `circuit`: the heads and MLPs that EAP-IG ranks highest on the facts to forget. Ours: by absolute node score, until
   they hold a given share of the linear weights.
2. `support`: inside it, the weights (0.5 % of the model's) with the largest forget gradient for what they cost the
   facts to keep, |g| / sqrt(F + damping). It is the diagonal reading of "the null space of the retain Fisher": to stay
   where F is small, softly.
3. Train there (`edits.train`), any objective.
4. `permanent`: drop what barely moved, since its sign is noise; raise the rest past each weight's own decision
   boundary (`magnitude_floor`); then, because flooring changes what was bounded, take the updates with most to gain for
   what they cost until the predicted rise of the retain loss, 1/2 sum F delta^2, reaches a budget.
"""

import torch
from torch import Tensor

from compendium import edits, facts, models
from compendium.attribution import memory as account
from compendium.attribution.decoder import Decoder
from compendium.unlearning import fisher_information, magnitude_floor


def circuit(decoder: Decoder, scores: Tensor, share: float) -> Tensor:
    """(sources,) bool: nodes by absolute score until they hold `share` of the linear weights, at least one."""
    graph, family = decoder.graph, decoder.family
    mlp = sum(weight.numel() for weight, _, _ in family.mlp_weights(0))
    head = (
        family.weight(0, "q").numel() // graph.heads
    )  # as many as its slice of the output matrix, or of keys or values
    wanted = share * sum(layer.weight.numel() for layer in models.linear_layers(decoder.model).values())
    kept, groups, held = torch.zeros(graph.n_sources, dtype=torch.bool), set(), 0
    for node in scores[1:].abs().argsort(descending=True).add(1).tolist():  # 0, the embedding, has no linear weights
        kept[node] = True
        layer, part = divmod(node - 1, graph.heads + 1)
        group = (layer, part // decoder.groups)
        held += mlp if part == graph.heads else (2 if group in groups else 4) * head
        if part < graph.heads:
            groups.add(group)
        if held >= wanted:
            break
    return kept


def gradient(model, rows: list[facts.Row], *, batch: int = 32, memory: float | None = None) -> dict[str, Tensor]:
    """Gradient of the rows' mean answer log-probability (summed over tokens), for every linear layer's weight, float32.

    memory: gigabytes that gradients may take at once; fewer layers then share a pass, and the result lies on the CPU.
    Raises ValueError for no rows."""
    if not rows:
        raise ValueError("no rows to take a gradient on: the set of facts is empty")
    weights = {name: layer.weight for name, layer in models.linear_layers(model).items()}
    sizes = {name: weight.numel() * (4 + weight.element_size()) for name, weight in weights.items()}
    parts = account.groups(sizes, memory)
    if len(parts) == 1:
        return _gradient(model, rows, weights, batch)
    found = {}
    for names in parts:
        part = _gradient(model, rows, {name: weights[name] for name in names}, batch)
        found |= {name: value.cpu() for name, value in part.items()}
    return found


def _gradient(model, rows, weights: dict[str, Tensor], batch: int) -> dict[str, Tensor]:
    wanted = [p for p in model.parameters() if p.requires_grad]
    model.requires_grad_(False)
    total = {name: torch.zeros_like(weight, dtype=torch.float32) for name, weight in weights.items()}
    for weight in weights.values():
        weight.requires_grad_(True)
    try:
        for start in range(0, len(rows), batch):
            objective = facts.log_probs(model, rows[start : start + batch])[0].sum() / len(rows)
            for name, part in zip(weights, torch.autograd.grad(objective, list(weights.values())), strict=True):
                total[name] += part
    finally:
        model.requires_grad_(False)
        for parameter in wanted:
            parameter.requires_grad_(True)
    return total


def support(
    slope: dict[str, Tensor],
    fisher: dict[str, Tensor] | None,
    within: dict[str, Tensor],
    share: float,
    *,
    damping: float = 1.0,
) -> dict[str, Tensor]:
    """The `share` of all linear weights with the largest |slope| / sqrt(F + damping x mean F): masks by parameter name.

    slope, fisher: by layer name; fisher None ranks by |slope| alone. within: masks to choose inside, by parameter name.
    """
    names = [name for name in slope if f"{name}.weight" in within]
    values = {}
    for name in names:
        value = slope[name].abs().float()
        if fisher is not None:
            value = value / (fisher[name] + damping * fisher[name].mean()).sqrt().clamp(min=1e-30)
        values[name] = value.masked_fill(~within[f"{name}.weight"].to(value.device), 0.0)
    n = max(1, round(share * sum(part.numel() for part in slope.values())))
    flat = torch.cat([value.flatten() for value in values.values()])
    n = min(n, int((flat > 0).sum()))
    if n == 0:
        raise ValueError("no weight inside the mask has a gradient: there is nothing to select")
    least = flat.topk(n).values[-1]
    return {f"{name}.weight": value >= least for name, value in values.items() if (value >= least).any()}


def permanent(
    model,
    delta: edits.Delta,
    slope: dict[str, Tensor],
    fisher: dict[str, Tensor],
    *,
    budget: float | None = None,
    reach: float = 0.5,
    floored: bool = True,
) -> tuple[edits.Delta, dict[str, float]]:
    """The update with every entry past its boundary or gone, and what became of it.

    reach: entries that moved less than this share of the way to their boundary are dropped. budget: the largest
    predicted rise of the retain loss, nats a row; None: no bound; entries are taken by -slope x change, how far they
    lower the log-probability of what should go, for what they cost. floored False leaves the update as it was trained.
    Returns the update and shares of all parameters: `trained`, `dropped` (too small, or no guarantee), `unaffordable`,
    `edited`; and `predicted_rise`, nats a row.
    """
    parameters = dict(model.named_parameters())
    total = sum(p.numel() for p in parameters.values())
    made = {}
    if floored:
        for name, change in delta.items():
            weight = parameters[name].detach()
            far = change.abs() >= reach * magnitude_floor.needed(weight, change.sign().float())
            made[name] = magnitude_floor.floored(weight, torch.where(far, change, 0.0))
    else:
        made = dict(delta)
    sizes = [sum(int((part != 0).sum()) for part in parts.values()) for parts in (delta, made)]
    layer = {name: name.removesuffix(".weight") for name in made}
    if budget is not None:
        gain = {name: (-slope[layer[name]] * change).clamp(min=0) for name, change in made.items()}
        cost = {name: 0.5 * fisher[layer[name]] * change**2 for name, change in made.items()}
        taken = fisher_information.affordable(gain, cost, budget)
        made = {name: torch.where(taken[name], change, 0.0) for name, change in made.items()}
    edited = sum(int((part != 0).sum()) for part in made.values())
    rise = fisher_information.predicted(fisher, {layer[name]: change for name, change in made.items()})
    return made, {
        "trained": sizes[0] / total,
        "dropped": (sizes[0] - sizes[1]) / total,
        "unaffordable": (sizes[1] - edited) / total,
        "edited": edited / total,
        "predicted_rise": rise,
    }
