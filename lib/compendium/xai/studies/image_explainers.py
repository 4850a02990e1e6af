"""Notebook 05_xai/03_image_explainers: everything of one seed, as rows of a table."""

import numpy as np
from torch import nn

from compendium.xai.images import EXPLAINERS
from compendium.xai.images.data import Images
from compendium.xai.images.measures import MEASURES, apart, auroc, curves, pointing
from compendium.xai.images.networks import probabilities
from compendium.xai.images.randomisation import mprt, spearman


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
                network,
                name,
                seed,
                **{measure: f(A, images.mask) for measure, f in MEASURES.items()},
                **{"auroc among shapes": auroc(A, images.mask, within=images.shapes)},
                **{"pointing, positive": pointing(A, images.mask, sign="positive")},
                **{"apart": both / 2, "likeness": spearman(own, other)},
            )
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
                network,
                name,
                seed,
                **{f"{measure}, mark": f(A, images.mark) for measure, f in MEASURES.items()},
                **{"pointing, glyph": pointing(A, images.mask)},
            )
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
