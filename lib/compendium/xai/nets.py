"""Small networks to explain: a ReLU perceptron made of plain linear layers.

Columns are standardised while it trains, and that map is then folded into the first layer: what is left is an
`nn.Sequential` of `nn.Linear` and `nn.ReLU` only, which takes the table as it is and which every method can walk.
"""

from itertools import pairwise

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from compendium import finite
from compendium.inputs import same_rows, vector
from compendium.xai.tables import numbers


def mlp(
    x,
    y,
    *,
    hidden=(64, 64),
    seed: int = 0,
    epochs: int = 60,
    batch: int = 128,
    rate: float = 3e-3,
    weight_decay: float = 1e-3,
) -> nn.Sequential:
    """A classifier trained by AdamW with a cosine schedule: (n, d) -> logits (n, K), in eval mode, weights frozen.

    x: (n, d) without missing values; y: (n,) classes 0 .. K-1. Raises `finite.Diverged` when the loss or a weight is no
    longer finite.
    """
    if len(x) == len(y):
        same_rows(x=x, y=y)
    x, y = numbers(x, "x").astype(np.float32), vector(y, "y")
    if x.ndim != 2 or len(x) != len(y) or not np.isfinite(x).all():
        raise ValueError(f"expected a table without missing values and as many labels, got {x.shape} and {y.shape}")
    if y.dtype.kind not in "biuf" or not np.array_equal(np.unique(y), np.arange(int(y.max()) + 1)):
        raise ValueError(f"labels must be class numbers 0 .. K-1 that all occur, got {np.unique(y)[:10]}")
    if epochs < 1 or batch < 1:
        raise ValueError(f"epochs ({epochs}) and batch ({batch}) must be at least 1: nothing would be learned")
    mean, scale = x.mean(0), x.std(0)
    scale[scale == 0] = 1.0
    inputs, classes = torch.from_numpy((x - mean) / scale), torch.from_numpy(y.astype(np.int64))
    sizes = [x.shape[1], *hidden, int(y.max()) + 1]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layers = []
        for before, after in pairwise(sizes):
            layers += [nn.Linear(before, after), nn.ReLU()]
        net = nn.Sequential(*layers[:-1])
        optimiser = torch.optim.AdamW(net.parameters(), lr=rate, weight_decay=weight_decay)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, epochs)
        step = 0
        for _ in range(epochs):
            for rows in torch.randperm(len(inputs)).split(batch):
                step += 1
                optimiser.zero_grad(set_to_none=True)
                loss = F.cross_entropy(net(inputs[rows]), classes[rows])
                finite.check("the loss", loss, step=step, lower=f"rate ({rate:g})")
                loss.backward()
                optimiser.step()
            schedule.step()
    with torch.no_grad():  # W (x - mean) / scale + b = (W / scale) x + (b - (W / scale) mean)
        first = net[0]
        first.weight /= torch.from_numpy(scale)
        first.bias -= first.weight @ torch.from_numpy(mean)
    finite.check("a weight", net.parameters(), step=step, lower=f"rate ({rate:g})")
    return net.eval().requires_grad_(False)


def linear(weight, bias=None) -> nn.Sequential:
    """A network without hidden layers and with given weights: weight (K, d), bias (K,) or none; double precision."""
    weight = torch.as_tensor(np.asarray(weight, float))
    net = nn.Sequential(nn.Linear(weight.shape[1], weight.shape[0], dtype=weight.dtype))
    with torch.no_grad():
        net[0].weight.copy_(weight)
        net[0].bias.copy_(torch.zeros(len(weight)) if bias is None else torch.as_tensor(np.asarray(bias, float)))
    return net.eval().requires_grad_(False)
