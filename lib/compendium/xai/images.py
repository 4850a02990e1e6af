"""Images whose evidence is known, networks trained on them, explainers of images, and measures of where they point.

`glyphs` renders white shapes on dark noise. One is of the four EVIDENCE shapes and decides the class; the others are
distractors that say nothing. A mark lies in one of the four corners: with `shortcut=0` it has nothing to do with the
class, with `shortcut=1` corner k means class k, which is easier to learn than any shape. So the truth is known twice:
which pixels carry the class, and, for a network that follows the mark, which pixels it used. `digits` are real images.

Every explainer is `(model, X, target, *, background=None, seed=0, ...) -> array as X`, signed where the method has a
sign, for the logit of one fixed target class per row. model: nn.Module of images (n, channels, h, w) to logits (n, K);
background: images (m, channels, h, w) whose mean stands for "absent" (None: black). captum computes what it has;
LIME and kernel SHAP work on a grid of squares with the same coalitions for all rows, which takes seconds, not minutes.

| explainer | idea |
|---|---|
| gradient, smoothgrad | slope of the logit at x; mean of it over noisy copies (Smilkov et al. 2017) |
| input x gradient, integrated gradients, deeplift | contributions against the background |
| guided backprop | gradient that drops negative signals at every ReLU (Springenberg et al. 2015) |
| grad-cam | last feature maps weighted by their mean gradient, upsampled (Selvaraju et al. 2017) |
| guided grad-cam | product of these two |
| occlusion, lime, kernel shap | change of the logit when squares are hidden |
| relevance, contrastive relevance | `compendium.xai.relevance` |
| random, edges, centre | controls that ignore the model: noise, a Sobel filter, the distance from the middle |

Read every number beside the controls'. `edges` is the important one: it draws the shapes, as convincing maps do
(Adebayo et al. 2018). Two things tell an explanation from it: evidence that lies among distractors, and `randomised`
networks, for which its map stays the same.
"""

import warnings
from collections.abc import Callable, Iterator
from copy import deepcopy
from itertools import combinations
from math import comb
from typing import NamedTuple

import numpy as np
import torch
from scipy import ndimage
from scipy import stats as sps
from torch import Tensor, nn
from torch.nn import functional as F

from compendium import finite
from compendium.inputs import vector
from compendium.xai import additivity, outputs
from compendium.xai import relevance as backward
from compendium.xai.additivity import STEPS
from compendium.xai.image_inputs import adds_up, array, checked, images, logits, of_net, shares
from compendium.xai.tables import flags, numbers

# Images ----------------------------------------------------------------------------------------------------------

SIZE, CELL, MARGIN, GLYPH = 28, 8, 2, 7  # 3 x 3 cells inside a margin that only marks use

_BITMAPS = """
cross   ring    diagonal tee     bar     post    steps   frame
...#... ..###.. #.....# ####### ....... ..##... ##..... #....##
...#... .#...#. .#...#. ...#... ....... ..##... ##..... #......
...#... #.....# ..#.#.. ...#... ####### ..##... ..##... #......
####### #.....# ...#... ...#... ####### ..##... ..##... #......
...#... #.....# ..#.#.. ...#... ....... ..##... ....##. #......
...#... .#...#. .#...#. ...#... ....... ..##... ....##. #.....#
...#... ..###.. #.....# ...#... ....... ..##... ....... #######
"""
EVIDENCE = ("cross", "ring", "diagonal", "tee")  # class 0, 1, 2, 3
DISTRACTORS = ("bar", "post", "steps", "frame")


class Images(NamedTuple):
    """Rendered images and what is known about them."""

    x: np.ndarray  # (n, 1, 28, 28) float32
    y: np.ndarray  # (n,) class: the shape of the evidence glyph
    mask: np.ndarray  # (n, 28, 28) bool, the 7 x 7 box of that glyph: its ink and its gaps
    hint: np.ndarray  # (n,) class that the corner of the mark stands for
    mark: np.ndarray  # (n, 28, 28) bool, the 4 x 4 corner with the 2 x 2 mark, without pixels of glyphs
    other: np.ndarray  # (n,) class of the second evidence glyph, -1 where there is none
    other_mask: np.ndarray  # (n, 28, 28) bool, its box
    shapes: np.ndarray  # (n, 28, 28) bool, boxes of all glyphs, and the mark


def bitmaps() -> dict[str, np.ndarray]:
    """Glyph name -> (7, 7) array of 0 and 1."""
    names, *rows = (line.split() for line in _BITMAPS.strip().splitlines())
    return {name: np.array([[c == "#" for c in row[k]] for row in rows], float) for k, name in enumerate(names)}


def glyphs(
    n: int, seed: int = 0, *, shortcut: float = 0.0, evidence: int = 1, distractors: int = 3, noise: float = 0.1
) -> Images:
    """`n` images: `evidence` glyphs of different classes (1 or 2) among distractors, in random cells.

    shortcut: share of the images whose mark is put into the corner of their class; in the others, and so in all with 0,
    the corner is drawn at random. With evidence=2 the class is that of the first glyph, `other` that of the second.
    """
    if not 0 <= shortcut <= 1:
        raise ValueError(f"shortcut is a share of images, 0 to 1, not {shortcut}")
    if evidence not in (1, 2) or evidence + distractors > 9:
        raise ValueError("one or two evidence glyphs, and at most nine glyphs, fit into an image")
    rng = np.random.default_rng([seed, 28])
    drawn, K = bitmaps(), len(EVIDENCE)
    x = rng.normal(0, noise, (n, 1, SIZE, SIZE)).clip(-2 * noise, 2 * noise)
    y = rng.integers(K, size=n)
    other = (y + rng.integers(1, K, size=n)) % K if evidence == 2 else np.full(n, -1)
    hint = np.where(rng.random(n) < shortcut, y, rng.integers(K, size=n))
    mask, other_mask, mark, shapes = (np.zeros((n, SIZE, SIZE), bool) for _ in range(4))
    for i in range(n):
        names = [EVIDENCE[y[i]], *([EVIDENCE[other[i]]] if evidence == 2 else [])]
        names += rng.choice(DISTRACTORS, distractors).tolist()
        for k, (name, cell) in enumerate(zip(names, rng.permutation(9), strict=False)):
            top, left = MARGIN + CELL * np.array(divmod(cell, 3)) + rng.integers(CELL - GLYPH + 1, size=2)
            box = np.s_[top : top + GLYPH, left : left + GLYPH]
            x[i, 0][box] += drawn[name] * rng.uniform(0.7, 1)
            shapes[i][box] = True
            if k < evidence:
                (mask, other_mask)[k][i][box] = True
        x[i, 0][_corner(hint[i], MARGIN)] += 1
        mark[i][_corner(hint[i], 2 * MARGIN)] = True
    mark &= ~shapes
    return Images(x.astype(np.float32), y, mask, hint, mark, other, other_mask, shapes | mark)


def _corner(k: int, size: int) -> tuple[slice, slice]:
    return tuple(slice(0, size) if side == 0 else slice(SIZE - size, SIZE) for side in divmod(int(k), 2))


def digits(size: int = 16) -> tuple[np.ndarray, np.ndarray]:
    """Scikit-learn's 1,797 handwritten digits, 8 x 8, enlarged to `size`: x (n, 1, size, size) in 0..1, y (n,)."""
    from sklearn.datasets import load_digits

    found = load_digits()
    x = torch.as_tensor(found.images[:, None] / 16, dtype=torch.float32)
    return F.interpolate(x, (size, size), mode="bilinear", align_corners=False).numpy(), found.target


# Networks --------------------------------------------------------------------------------------------------------


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
    model = outputs.resolved(model, x.numpy())
    return shares(model, logits(model, x, batch)).numpy()


# Explainers ------------------------------------------------------------------------------------------------------


def _slope(model, x: Tensor, target: Tensor) -> Tensor:
    x = x.detach().requires_grad_()
    (g,) = torch.autograd.grad(model(x).gather(1, target[:, None]).sum(), x)
    return g


@of_net
def gradient(model, X, target, *, background=None, seed=0):
    """Slope of the target's logit."""
    x, target, _ = checked(model, X, target, background)
    return _slope(model, x, target).double().cpu().numpy()


@of_net
def input_x_gradient(model, X, target, *, background=None, seed=0):
    """(x - background) times the slope."""
    x, target, absent = checked(model, X, target, background)
    return ((x - absent) * _slope(model, x, target)).double().cpu().numpy()


@of_net
def smoothgrad(model, X, target, *, background=None, seed=0, draws: int = 16, noise: float = 0.15):
    """Mean slope over copies with Gaussian noise of `noise` times the image's range."""
    x, target, _ = checked(model, X, target, background)
    spread = noise * (x.amax((1, 2, 3), keepdim=True) - x.amin((1, 2, 3), keepdim=True))
    g = torch.Generator().manual_seed(seed)
    parts = [_slope(model, x + spread * torch.randn(x.shape, generator=g).to(x), target) for _ in range(draws)]
    return torch.stack(parts).double().mean(0).cpu().numpy()


@of_net
def integrated_gradients(model, X, target, *, background=None, seed=0, steps: int = 24, tolerance: float = STEPS):
    """captum's integrated gradients from the background. Raises ValueError where sums miss the change in the logit by
    more than `tolerance` times the largest logit."""
    from captum.attr import IntegratedGradients

    x, target, absent = checked(model, X, target, background)
    found = IntegratedGradients(model).attribute(
        x, absent.expand_as(x), target=target, n_steps=steps, internal_batch_size=1024
    )
    remedy = f"more than steps={steps} are needed"
    return adds_up("integrated gradients", found, model, x, target, absent, tolerance, remedy)


@of_net
def deeplift(model, X, target, *, background=None, seed=0):
    """captum's DeepLift (rescale rule) against the background. Its rule for max pooling makes sums miss the change in
    the logit a little; ValueError where they miss it by more than `additivity` allows, or activations are hidden."""
    from captum.attr import DeepLift

    x, target, absent = checked(model, X, target, background)
    tolerance = additivity.deeplift_tolerance(model, x)
    with warnings.catch_warnings(action="ignore"):  # that hooks are set, and taken off again
        found = additivity.hooked(DeepLift(model).attribute, x.requires_grad_(), absent.expand_as(x), target=target)
    return adds_up("deeplift", found, model, x, target, absent, tolerance, additivity.MODULES)


@of_net
def guided_backprop(model, X, target, *, background=None, seed=0):
    """captum's guided backpropagation. Raises ValueError for activations other than nn.ReLU modules called once, which
    it would pass unguided."""
    from captum.attr import GuidedBackprop

    x, target, _ = checked(model, X, target, background)
    additivity.guidable(model, x)
    with warnings.catch_warnings(action="ignore"):  # that hooks are set, and taken off again
        found = additivity.hooked(GuidedBackprop(model).attribute, x.requires_grad_(), target=target)
    return found.detach().double().cpu().numpy()


def _last_convolution(model) -> nn.Module:
    found = [module for module in model.modules() if isinstance(module, nn.Conv2d)]
    if not found:
        raise ValueError("Grad-CAM needs a network with a convolution")
    return found[-1]


@of_net
def grad_cam(model, X, target, *, background=None, seed=0, layer=None, relu: bool = True):
    """captum's Grad-CAM of the last convolution (or `layer`), upsampled to the image, in every channel the same."""
    from captum.attr import LayerAttribution, LayerGradCam

    x, target, _ = checked(model, X, target, background)
    cam = LayerGradCam(model, layer or _last_convolution(model)).attribute(
        x.requires_grad_(), target=target, relu_attributions=relu
    )
    cam = LayerAttribution.interpolate(cam, tuple(x.shape[2:]), "bilinear")
    return cam.detach().expand_as(x).double().cpu().numpy()


@of_net
def guided_grad_cam(model, X, target, *, background=None, seed=0, layer=None):
    """Guided backpropagation times Grad-CAM."""
    kw = dict(background=background, seed=seed)
    return guided_backprop(model, X, target, **kw) * grad_cam(model, X, target, layer=layer, **kw)


@of_net
def occlusion(model, X, target, *, background=None, seed=0, window: int = 5, stride: int = 2):
    """captum's occlusion: mean loss of logit over the windows, set to the background, that cover a pixel."""
    from captum.attr import Occlusion

    x, target, absent = checked(model, X, target, background)
    with torch.no_grad():
        found = Occlusion(model).attribute(
            x, (x.shape[1], window, window), (x.shape[1], stride, stride), absent, target=target,
            perturbations_per_eval=16,
        )  # fmt: skip
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


@of_net
def relevance(model, X, target, *, background=None, seed=0):
    """Absolute-contribution relevance: never negative."""
    x, target, _ = checked(model, X, target, background)
    return backward.relevance(model, x, target)


@of_net
def contrastive(model, X, target, *, background=None, seed=0):
    """Contrastive relevance: positive minus negative stream."""
    x, target, _ = checked(model, X, target, background)
    return backward.contrastive(model, x, target)


def noise(model, X, target, *, background=None, seed=0):
    """Control: Gaussian noise."""
    return np.random.default_rng([seed, 3]).normal(size=np.shape(X))


def edges(model, X, target, *, background=None, seed=0):
    """Control: size of the Sobel gradient of the image. Ignores the model and the class."""
    X = array(X)
    # Not ndimage.sobel: it would smooth over images and channels as well.
    along = lambda a, b: ndimage.correlate1d(ndimage.correlate1d(X, [-1, 0, 1], a), [1, 2, 1], b)
    return np.hypot(along(2, 3), along(3, 2))


def centre(model, X, target, *, background=None, seed=0):
    """Control: a Gaussian bump in the middle of the image."""
    h, w = np.shape(X)[2:]
    a, b = np.linspace(-1, 1, h)[:, None], np.linspace(-1, 1, w)[None]
    return np.broadcast_to(np.exp(-(a**2 + b**2) / 0.5), np.shape(X)).copy()


EXPLAINERS: dict[str, Callable] = {
    "gradient": gradient,
    "input x gradient": input_x_gradient,
    "integrated gradients": integrated_gradients,
    "smoothgrad": smoothgrad,
    "deeplift": deeplift,
    "guided backprop": guided_backprop,
    "grad-cam": grad_cam,
    "guided grad-cam": guided_grad_cam,
    "occlusion": occlusion,
    "lime": lime,
    "kernel shap": kernel_shap,
    "relevance": relevance,
    "contrastive relevance": contrastive,
    "random": noise,
    "edges": edges,
    "centre": centre,
}
CONTROLS = ("random", "edges", "centre")


# Measures --------------------------------------------------------------------------------------------------------


def pixels(A, sign: str = "both") -> np.ndarray:
    """(n, h, w) strength of a pixel, at least 0, from maps (n, c, h, w) or (n, h, w), summed over channels.

    sign: "both" counts evidence for and against (|A|), "positive" evidence for the class alone.
    """
    A = numbers(A, "maps")
    if A.ndim not in (3, 4) or not np.isfinite(A).all():
        raise ValueError(f"maps must be finite, (n, h, w) or (n, channels, h, w), not {A.shape}")
    if sign not in ("both", "positive"):
        raise ValueError(f"unknown sign {sign!r}: choose both or positive")
    if A.ndim == 4:
        A = np.abs(A).sum(1) if sign == "both" else A.sum(1)
    return np.abs(A) if sign == "both" else A.clip(0)


def _paired(A, mask, sign: str) -> tuple[np.ndarray, np.ndarray]:
    strength, mask = pixels(A, sign), flags(mask, "the mask")
    if mask.shape != strength.shape:
        raise ValueError(f"masks {mask.shape} do not fit maps {strength.shape}")
    area = mask.reshape(len(mask), -1).sum(1)
    if (area == 0).any() or (area == mask[0].size).any():
        raise ValueError("every mask needs pixels inside and outside")
    return strength.reshape(len(strength), -1), mask.reshape(len(mask), -1)


def auroc(A, mask, *, sign: str = "both", within=None) -> np.ndarray:
    """(n,) chance that a random pixel of the mask is stronger than one outside; ties count half.

    within: (n, h, w) bool, the pixels outside that count; with the boxes of all glyphs a map of the ink is at chance.
    """
    a, m = _paired(A, mask, sign)
    inside = m.sum(1)
    if within is None:
        ranks = sps.rankdata(a, axis=1)
        return ((ranks * m).sum(1) / inside - (inside + 1) / 2) / (m.shape[1] - inside)
    within = flags(within, "within")
    if within.shape != np.shape(mask):
        raise ValueError(f"`within` must be pixels as the masks {np.shape(mask)}, not {within.shape}")
    outside = within.reshape(m.shape) & ~m
    if not outside.any(1).all():
        raise ValueError("`within` needs pixels outside every mask")
    counted = np.where(m | outside, a, np.nan)
    ranks = sps.rankdata(counted, axis=1, nan_policy="omit")
    return (np.where(m, ranks, 0).sum(1) / inside - (inside + 1) / 2) / outside.sum(1)


def pointing(A, mask, *, sign: str = "both") -> np.ndarray:
    """(n,) 1 if the strongest pixel lies in the mask, 0 if not; the share of them in the mask if several tie."""
    a, m = _paired(A, mask, sign)
    top = a == a.max(1, keepdims=True)
    return (top & m).sum(1) / top.sum(1)


def mass(A, mask, *, sign: str = "both") -> np.ndarray:
    """(n,) share of the strength that lies in the mask; a map of zeros counts as spread evenly."""
    a, m = _paired(A, mask, sign)
    total = a.sum(1)
    return np.where(total > 0, (a * m).sum(1) / np.where(total > 0, total, 1), m.mean(1))


def apart(A, own, other) -> np.ndarray:
    """(n,) 1 if the (signed) map is on average higher in the box of its own class than in that of the other, 0 if
    lower, 0.5 if equal."""
    A = numbers(A, "maps")
    A = A.sum(1) if A.ndim == 4 else A
    own, other = flags(own, "own"), flags(other, "other")
    if A.ndim != 3 or own.shape != A.shape or other.shape != A.shape:
        raise ValueError(f"masks {own.shape}, {other.shape} do not fit maps {A.shape}")
    if not np.isfinite(A).all() or not (own.any((1, 2)) & other.any((1, 2))).all():
        raise ValueError("maps must be finite, and every box needs pixels")
    mean = lambda m: (A * m).sum((1, 2)) / m.sum((1, 2))
    return (np.sign(mean(own) - mean(other)) + 1) / 2


MEASURES: dict[str, Callable] = {"auroc": auroc, "pointing": pointing, "mass": mass}


def absent(kind: str, X) -> np.ndarray:
    """What stands for removed pixels, as X: "zero" (black), "mean" (of all images), "blurred" (the image itself)."""
    X = array(X)
    if kind == "zero":
        return np.zeros_like(X)
    if kind == "mean":
        return np.broadcast_to(X.mean(0, keepdims=True), X.shape).copy()
    if kind == "blurred":
        return ndimage.gaussian_filter(X, (0, 0, X.shape[2] / 8, X.shape[3] / 8))
    raise ValueError(f"unknown baseline {kind!r}: choose zero, mean or blurred")


def curves(
    model, X, A, target, *, baseline="zero", insert: bool = False, steps: int = 16, sign: str = "positive"
) -> np.ndarray:
    """(n, steps + 1) probability of the target as pixels are removed, strongest first; with insert=True, put back.

    baseline: a kind of `absent`, or images as X. Equal pixels (a map with zeros) go in reading order. The area under
    the curve is its mean: low is good for deletion, high for insertion.
    """
    model = outputs.resolved(model, images(X).numpy())
    x, target, _ = checked(model, X, target)
    n, c, h, w = x.shape
    gone = torch.as_tensor(absent(baseline, X) if isinstance(baseline, str) else array(baseline, "baseline")).to(x)
    if gone.shape != x.shape:
        raise ValueError(f"baseline must be images as X, {tuple(x.shape)}, not {tuple(gone.shape)}")
    strength = pixels(A, sign)
    if strength.shape != (n, h, w):
        raise ValueError(f"maps {strength.shape} do not fit images {tuple(x.shape)}")
    place = (-strength.reshape(n, -1)).argsort(1, kind="stable").argsort(1).reshape(n, 1, h, w)
    taken = np.linspace(0, h * w, steps + 1).round()
    touched = torch.as_tensor(place[:, None] < taken[:, None, None, None]).to(x.device)  # (n, steps + 1, 1, h, w)
    inside, outside = (x, gone) if insert else (gone, x)
    made = torch.where(touched, inside[:, None], outside[:, None])
    p = shares(model, logits(model, made.reshape(-1, c, h, w))).reshape(n, steps + 1, -1)
    return p.gather(2, target[:, None, None].expand(-1, steps + 1, 1))[..., 0].double().cpu().numpy()


# Randomisation ---------------------------------------------------------------------------------------------------


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


# Studies: everything of one seed, as rows of a table --------------------------------------------------------------


def _rows(network: str, name: str, seed: int, **values) -> list[dict]:
    """One row a measure: the mean over images."""
    kept = {"network": network, "explainer": name, "seed": seed}
    return [kept | {"measure": m, "value": float(np.nanmean(v))} for m, v in values.items()]


def evidence_study(networks: dict[str, nn.Module], images: Images, pairs: Images, *, seed: int = 0) -> list[dict]:
    """Does a map of the true class find its glyph; do maps of two classes in one image differ, and in the right way?

    images: of one evidence glyph, pairs: of two. Measures: those of MEASURES, "auroc among shapes", "pointing,
    positive"; on pairs "apart" and "likeness", the rank correlation of the maps of both classes.
    """
    rows = []
    for network, model in networks.items():
        for name, explain in EXPLAINERS.items():
            A = explain(model, images.x, images.y, seed=seed)
            own, other = (explain(model, pairs.x, k, seed=seed) for k in (pairs.y, pairs.other))
            both = apart(own, pairs.mask, pairs.other_mask) + apart(other, pairs.other_mask, pairs.mask)
            rows += _rows(
                network, name, seed,
                **{measure: f(A, images.mask) for measure, f in MEASURES.items()},
                **{"auroc among shapes": auroc(A, images.mask, within=images.shapes)},
                **{"pointing, positive": pointing(A, images.mask, sign="positive")},
                **{"apart": both / 2, "likeness": spearman(own, other)},
            )  # fmt: skip
    return rows


def shortcut_study(networks: dict[str, nn.Module], images: Images, *, seed: int = 0) -> list[dict]:
    """Does the map of the predicted class point at the mark? On images whose mark and glyph stand for other classes.

    A method reveals a shortcut if it points there for a network that follows the mark and not for one that does not.
    """
    rows = []
    for network, model in networks.items():
        predicted = probabilities(model, images.x).argmax(1)
        for name, explain in EXPLAINERS.items():
            A = explain(model, images.x, predicted, seed=seed)
            rows += _rows(
                network, name, seed,
                **{f"{measure}, mark": f(A, images.mark) for measure, f in MEASURES.items()},
                **{"pointing, glyph": pointing(A, images.mask)},
            )  # fmt: skip
    return rows


def deletion_study(network: str, model: nn.Module, X, *, seed: int = 0, steps: int = 16) -> list[dict]:
    """Areas under deletion and insertion curves of the predicted class, for every kind of baseline."""
    predicted = probabilities(model, X).argmax(1)
    rows = []
    for name, explain in EXPLAINERS.items():
        A = explain(model, X, predicted, seed=seed)
        for kind in ("zero", "mean", "blurred"):
            for curve in ("deletion", "insertion"):
                found = curves(model, X, A, predicted, baseline=kind, insert=curve == "insertion", steps=steps)
                rows += _rows(network, name, seed, **{f"{curve}, {kind}": found.mean(1)})
    return rows


def randomisation_study(network: str, model: nn.Module, X, *, seed: int = 0, names=tuple(EXPLAINERS)) -> list[dict]:
    """Likeness of maps to those of the trained network as layers are drawn anew: rows of `mprt`, means over images."""
    predicted = probabilities(model, X).argmax(1)
    rows = []
    for name in names:
        for step in mprt(EXPLAINERS[name], model, X, predicted, seed=seed):
            made = _rows(network, name, seed, spearman=step["spearman"], ssim=step["ssim"])
            rows += [row | {"layers": step["layers"], "layer": step["layer"]} for row in made]
    return rows
