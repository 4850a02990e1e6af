"""Image explainers that hide parts: occlusion, LIME and KernelSHAP over squares."""

from itertools import combinations
from math import comb

import numpy as np
import torch
from torch import Tensor

from compendium.xai.images.inputs import checked, logits, of_net


@of_net
def occlusion(model, X, target, *, background=None, seed=0, window: int = 5, stride: int = 2):
    """captum's occlusion: mean loss of logit over the windows, set to the background, that cover a pixel."""
    from captum.attr import Occlusion

    x, target, absent = checked(model, X, target, background)
    with torch.no_grad():
        found = Occlusion(model).attribute(
            x,
            (x.shape[1], window, window),
            (x.shape[1], stride, stride),
            absent,
            target=target,
            perturbations_per_eval=16,
        )
    return found.double().cpu().numpy()


def squares(h: int, w: int, grid: int) -> np.ndarray:
    """(h, w) number of the square, 0 .. grid^2 - 1, that a pixel belongs to."""
    return (np.arange(h) * grid // h)[:, None] * grid + (np.arange(w) * grid // w)[None]


def _hidden(model, x: Tensor, target: Tensor, absent: Tensor, Z: np.ndarray, region: np.ndarray) -> np.ndarray:
    """(n, m) logit of the target when the squares with Z = 0 are absent; Z: (m, squares)."""
    shown = torch.as_tensor(Z[:, region], dtype=torch.float32)[:, None].to(x)  # (m, 1, h, w)
    each = [logits(model, absent + shown * (row - absent))[:, t] for row, t in zip(x, target, strict=True)]
    return torch.stack(each).double().cpu().numpy()


@of_net
def lime(model, X, target, *, background=None, seed=0, grid: int = 7, samples: int = 200, width: float = 0.25):
    """Weights of a ridge regression of the logit on which squares are shown; near x counts more (Ribeiro et al. 2016).

    Squares are shown with probability one half; weight exp(-(cosine distance)^2 / width^2), as in the lime package.
    """
    x, target, absent = checked(model, X, target, background)
    region = squares(*x.shape[2:], grid)
    Z = np.random.default_rng([seed, 1]).integers(0, 2, (samples, grid * grid)).astype(float)
    Z[0] = 1
    f = _hidden(model, x, target, absent, Z, region)
    weight = np.exp(-((1 - np.sqrt(Z.mean(1))) ** 2) / width**2)  # cosine of z with the vector of ones
    design = np.column_stack([np.ones(samples), Z])
    ridge = np.eye(design.shape[1])
    ridge[0, 0] = 0
    solved = np.linalg.solve(design.T @ (weight[:, None] * design) + ridge, design.T @ (weight[:, None] * f.T))
    return np.repeat(solved[1:].T[:, region][:, None], x.shape[1], 1)  # (n, c, h, w)


@of_net
def kernel_shap(model, X, target, *, background=None, seed=0, grid: int = 7, samples: int = 200):
    """Shapley values of the squares by weighted least squares (Lundberg and Lee 2017); exact if all coalitions fit.

    Otherwise coalitions are drawn in proportion to the kernel, each with its complement. Their values sum to the logit
    at x minus that of the background.
    """
    x, target, absent = checked(model, X, target, background)
    region, s = squares(*x.shape[2:], grid), grid * grid
    Z, weight = coalitions(s, samples, seed)
    ends = _hidden(model, x, target, absent, np.array([[0.0] * s, [1.0] * s]), region)
    total = ends[:, 1] - ends[:, 0]  # (n,)
    f = _hidden(model, x, target, absent, Z, region) - ends[:, :1]
    # The last square is what the others leave of the total.
    design = Z[:, :-1] - Z[:, -1:]
    right = f - Z[:, -1] * total[:, None]
    gram = design.T @ (weight[:, None] * design) + 1e-9 * np.eye(s - 1)
    phi = np.linalg.solve(gram, design.T @ (weight[:, None] * right.T)).T
    phi = np.column_stack([phi, total - phi.sum(1)])
    return np.repeat(phi[:, region][:, None], x.shape[1], 1)


def coalitions(s: int, samples: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Coalitions of s players other than none and all, (m, s) of 0 and 1, and their weights in the regression."""
    if s < 2:
        raise ValueError("Shapley values of squares need at least two: grid >= 2")
    sizes = np.arange(1, s)
    kernel = (s - 1) / (sizes * (s - sizes))  # weight of all coalitions of a size together
    if 2**s - 2 <= samples:
        chosen = [np.isin(np.arange(s), c) for k in sizes for c in combinations(range(s), k)]
        return np.array(chosen, float), np.array([kernel[int(sum(c)) - 1] / comb(s, int(sum(c))) for c in chosen])
    rng = np.random.default_rng([seed, 2])
    drawn = rng.choice(sizes, size=samples // 2, p=kernel / kernel.sum())
    half = (rng.random((samples // 2, s)).argsort(1) < drawn[:, None]).astype(float)
    return np.concatenate([half, 1 - half]), np.ones(2 * len(half))
