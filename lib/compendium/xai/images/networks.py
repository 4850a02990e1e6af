"""Small convolutional networks for the planted images."""

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from compendium import finite
from compendium.inputs import vector
from compendium.xai import endings
from compendium.xai.images.inputs import images, logits, shares


def untrained(
    channels: int, size: int, classes: int, *, seed: int = 0, width: int = 16, pooled: bool = False
) -> nn.Sequential:
    """The network with its initial weights: three convolutions with two poolings, then a head.

    The head is two linear layers on all positions, or, with pooled=True, one linear layer on the mean over positions.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        conv = lambda a, b: [nn.Conv2d(a, b, 3, padding=1), nn.ReLU()]
        body = [*conv(channels, width), nn.MaxPool2d(2), *conv(width, 2 * width), nn.MaxPool2d(2)]
        body += conv(2 * width, 2 * width)
        if pooled:
            head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2 * width, classes)]
        else:
            cells = 2 * width * (size // 4) ** 2
            head = [nn.Flatten(), nn.Linear(cells, 64), nn.ReLU(), nn.Linear(64, classes)]
        return nn.Sequential(*body, *head).eval().requires_grad_(False)


def cnn(
    x, y, *, seed: int = 0, width: int = 16, pooled: bool = False, epochs: int = 6, rate: float = 2e-3, batch: int = 64
) -> nn.Sequential:
    """A network trained on images x (n, channels, size, size) of classes y (n,): nn.Sequential of logits, in eval mode.

    Adam with a one-cycle rate; seconds on one core for a few thousand small images. Other arguments: see `untrained`.
    """
    y = vector(y, "y")
    if y.dtype.kind not in "biuf" or len(y) == 0 or (y != y.astype(int)).any() or y.min() != 0:
        raise ValueError(f"labels must be class numbers that count from 0, got {np.unique(y)[:10]}")
    x, y = torch.tensor(np.asarray(x), dtype=torch.float32), torch.tensor(y, dtype=torch.long)
    if x.ndim != 4 or len(x) != len(y) or x.shape[2] != x.shape[3]:
        raise ValueError(f"expected square images (n, channels, size, size) and n classes, got {tuple(x.shape)}")
    model = untrained(x.shape[1], x.shape[2], int(y.max()) + 1, seed=seed, width=width, pooled=pooled)
    model.train().requires_grad_(True)
    order = torch.Generator().manual_seed(seed)
    optimiser = torch.optim.Adam(model.parameters(), lr=rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, rate, total_steps=epochs * -(-len(x) // batch))
    for _ in range(epochs):
        for rows in torch.randperm(len(x), generator=order).split(batch):
            optimiser.zero_grad(set_to_none=True)
            F.cross_entropy(model(x[rows]), y[rows]).backward()
            optimiser.step()
            schedule.step()
    finite.check("a weight", model.parameters(), step=schedule.last_epoch, lower=f"rate ({rate:g})")
    return model.eval().requires_grad_(False)


def probabilities(model: nn.Module, x, batch: int = 1024) -> np.ndarray:
    """(n, K) probabilities of the classes: softmax of logits, or what a net that ends in softmax gives itself."""
    x = images(x)
    model = endings.resolved(model, x.numpy())
    return shares(model, logits(model, x, batch)).numpy()
