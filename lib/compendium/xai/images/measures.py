"""How well a map of attributions finds evidence whose place is known."""

from collections.abc import Callable

import numpy as np
import torch
from scipy import ndimage
from scipy import stats as sps

from compendium.xai import endings
from compendium.xai.images.inputs import array, checked, images, logits, shares
from compendium.xai.tables import flags, numbers


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
    model = endings.resolved(model, images(X).numpy())
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
