"""Do explanations change when the network's weights are randomised? (Adebayo et al., 2018)."""

from collections.abc import Callable, Iterator
from copy import deepcopy

import numpy as np
import torch
from scipy import ndimage
from scipy import stats as sps
from torch import nn

from compendium.xai.images.measures import pixels


def randomised(model: nn.Module, *, seed: int = 0) -> Iterator[tuple[str, nn.Module]]:
    """Copies of the model with ever more layers drawn anew, from the output down: (name of the last one, copy)."""
    made = deepcopy(model)
    drawn = [(name, module) for name, module in made.named_modules() if hasattr(module, "reset_parameters")]
    reached = {id(weight) for _, module in drawn for weight in module.parameters(recurse=False)}
    if left := [name for name, weight in made.named_parameters() if id(weight) not in reached]:
        raise ValueError(f"{left[0]} belongs to a module without reset_parameters(), and would stay as it was trained")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        state = torch.random.get_rng_state()
    for name, module in reversed(drawn):
        with torch.random.fork_rng(devices=[]):
            torch.random.set_rng_state(state)
            module.reset_parameters()
            state = torch.random.get_rng_state()
        yield f"{type(module).__name__.lower()} {name}", deepcopy(made).eval().requires_grad_(False)


def _beside(A, B) -> tuple[np.ndarray, np.ndarray]:
    """Pixel strengths of two sets of maps, of the same images."""
    a, b = pixels(A), pixels(B)
    if a.shape != b.shape:
        raise ValueError(f"maps must be of the same images: {a.shape} and {b.shape}")
    return a, b


def spearman(A, B) -> np.ndarray:
    """(n,) rank correlation of pixel strengths, each map with its partner; nan for a constant map."""
    a, b = (sps.rankdata(M.reshape(len(M), -1), axis=1) for M in _beside(A, B))
    a, b = a - a.mean(1, keepdims=True), b - b.mean(1, keepdims=True)
    size = np.sqrt((a**2).sum(1) * (b**2).sum(1))
    return np.divide((a * b).sum(1), size, out=np.full(len(a), np.nan), where=size > 0)


def ssim(A, B, *, window: int = 7) -> np.ndarray:
    """(n,) structural similarity of pixel strengths, maps scaled to 0..1 (Wang et al. 2004, with square windows)."""
    scaled = []
    for m in _beside(A, B):
        low, high = m.min((1, 2), keepdims=True), m.max((1, 2), keepdims=True)
        scaled.append((m - low) / np.where(high > low, high - low, 1))
    a, b = scaled
    local = lambda v: ndimage.uniform_filter(v, (0, window, window), mode="reflect")
    ma, mb = local(a), local(b)
    va, vb, cov = local(a * a) - ma**2, local(b * b) - mb**2, local(a * b) - ma * mb
    c1, c2 = 0.01**2, 0.03**2
    value = (2 * ma * mb + c1) * (2 * cov + c2) / ((ma**2 + mb**2 + c1) * (va + vb + c2))
    return value.mean((1, 2))


def mprt(explain: Callable, model: nn.Module, X, target, *, seed: int = 0, **kw) -> list[dict]:
    """Model parameter randomisation test, cascading (Adebayo et al. 2018): one dict a layer and the start.

    Each: layers (number drawn anew), layer (the last of them), and (n,) `spearman` and `ssim` of the map with the
    trained network's, for the same target. A method that explains the network must lose the likeness.
    """
    first = explain(model, X, target, seed=seed, **kw)
    rows = [{"layers": 0, "layer": "trained", "spearman": spearman(first, first), "ssim": ssim(first, first)}]
    for k, (name, changed) in enumerate(randomised(model, seed=seed), 1):
        now = explain(changed, X, target, seed=seed + k, **kw)
        rows.append({"layers": k, "layer": name, "spearman": spearman(first, now), "ssim": ssim(first, now)})
    return rows
