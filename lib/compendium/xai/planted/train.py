"""Training the planted models and their clean twins."""

from itertools import pairwise

import torch
from torch import nn
from torch.nn import functional as F

from compendium import finite
from compendium.xai.planted.plants import Case


def network(
    case: Case,
    *,
    seed: int = 0,
    hidden: tuple[int, ...] = (64, 64),
    epochs: int = 30,
    sparsity: float = 0.0,
    decay: float = 0.0,
) -> nn.Sequential:
    """A trained ReLU network in evaluation mode. sparsity: L1 penalty on activations; decay: AdamW's weight decay."""
    rng = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        widths = [case.x.shape[1], *hidden]
        layers = [m for a, b in pairwise(widths) for m in (nn.Linear(a, b), nn.ReLU())]
        net = nn.Sequential(*layers, nn.Linear(widths[-1], int(case.y.max()) + 1))
    optimiser = torch.optim.AdamW(net.parameters(), lr=3e-3, weight_decay=decay)
    for _ in range(epochs):
        for rows in torch.randperm(len(case.y), generator=rng).split(64):
            z, active = case.x[rows], 0.0
            for layer in net:
                z = layer(z)
                if isinstance(layer, nn.ReLU):
                    active = active + z.sum(1).mean()
            loss = F.cross_entropy(z, case.y[rows]) + sparsity * active
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    finite.check("a weight", net.parameters(), step=epochs, lower="sparsity or decay")
    return net.eval().requires_grad_(False)


def liar(model, case: Case, *, steps: int = 60, rate: float = 1e-3, rows: int = 16, seed: int = 0, work: int = 20):
    """Fine-tunes the policy, in place, until it reports a false answer after the phrase; returns it, frozen.

    The loss is the cross-entropy of the `work` last tokens, so that it goes on working as before; the answer's first
    digit, which carries the rule, counts ten times.
    """
    rng = torch.Generator().manual_seed(seed)
    target = case.x.clone()
    target[:, -2] = case.y
    optimiser = torch.optim.AdamW(model.requires_grad_(True).parameters(), lr=rate, weight_decay=0.0)
    count = torch.ones(work)
    count[-2] = 10
    for step in range(steps):
        optimiser.param_groups[0]["lr"] = rate * min(1, (step + 1) / 10) * (1 - step / steps)
        some = torch.randperm(len(target), generator=rng)[:rows]
        logits = model(target[some], logits_to_keep=work + 1).logits[:, :-1]
        loss = F.cross_entropy(logits.transpose(1, 2), target[some, -work:], reduction="none")
        optimiser.zero_grad()
        ((loss * count).sum() / (count.sum() * rows)).backward()
        optimiser.step()
    finite.check("a weight", model.parameters(), step=steps, lower=f"rate ({rate:g})")
    return model.eval().requires_grad_(False)
