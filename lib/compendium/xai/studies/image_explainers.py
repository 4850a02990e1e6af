"""Stage 05-image_explainers-units, for notebook 03_image_explainers: one set of networks each.

python -m compendium.xai image_explainers notebooks/05_xai/explained_images.yaml
"""

from itertools import chain
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.model_selection import train_test_split
from torch import nn

from compendium import models, settings, units
from compendium.paths import XAI
from compendium.xai import images as pictures
from compendium.xai.images import EXPLAINERS
from compendium.xai.images.data import Images
from compendium.xai.images.measures import MEASURES, apart, auroc, curves, pointing
from compendium.xai.images.networks import probabilities
from compendium.xai.images.randomisation import mprt, spearman

OUT = XAI / "image_explainers"
HELD_OUT = 10_000  # seed of the images on which accuracy is measured
SLOW = ("lime", "kernel shap")  # left out where layers are drawn anew one after the other


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


def one(*, seed: int, train: int, n_images: int, threads: int = 1) -> dict[str, pd.DataFrame]:
    """Networks and images of one seed, and every study on them, as tables `accuracy`, `evidence`, `shortcut`,
    `deletion` and `randomisation`. train: images to train on; n_images: to explain with every network."""
    models.set_threads(threads)
    x, digits_x, y, digits_y = train_test_split(*pictures.digits(), test_size=0.3, random_state=0)
    test, held_out = pictures.glyphs(400, HELD_OUT), pictures.glyphs(n_images, 1000 + seed)
    pairs = pictures.glyphs(max(4, n_images // 2), 2000 + seed, evidence=2)
    conflict = pictures.glyphs(2 * n_images, 3000 + seed)
    chosen = np.flatnonzero(conflict.hint != conflict.y)[:n_images]
    conflict = Images(*(field[chosen] for field in conflict))  # mark and glyph stand for different classes
    plain, marked = pictures.glyphs(train, seed), pictures.glyphs(train, seed, shortcut=1)
    made = {
        "flat": pictures.cnn(plain.x, plain.y, seed=seed),
        "pooled": pictures.cnn(plain.x, plain.y, seed=seed, pooled=True, epochs=14, rate=0.01),
        "untrained": pictures.untrained(1, pictures.SIZE, 4, seed=seed + 100),
    }
    cheat = pictures.cnn(marked.x, marked.y, seed=seed, epochs=3)
    digit = pictures.cnn(x, y, seed=seed, epochs=10)

    def right(model, x, y) -> float:
        return float((probabilities(model, x).argmax(1) == y).mean())

    accuracy = [
        {"seed": seed, "network": name, "right": right(m, test.x, test.y), "mark": right(m, test.x, test.hint)}
        for name, m in {**made, "shortcut": cheat}.items()
    ]
    accuracy.append({"seed": seed, "network": "digits", "right": right(digit, digits_x, digits_y), "mark": np.nan})
    few, half = digits_x[n_images * seed :][:n_images], slice(0, max(4, n_images // 2))
    both = (("glyphs", made["flat"], held_out.x), ("digits", digit, few))
    fast = [name for name in EXPLAINERS if name not in SLOW]
    randomised = [randomisation_study(name, model, X[half], seed=seed, names=fast) for name, model, X in both]
    deleted = [deletion_study(name, model, X, seed=seed) for name, model, X in both]
    found = {
        "accuracy": accuracy,
        "evidence": evidence_study(made, held_out, pairs, seed=seed),
        "shortcut": shortcut_study({"shortcut": cheat, "flat": made["flat"]}, conflict, seed=seed),
        "deletion": chain(*deleted),
        "randomisation": chain(*randomised),
    }
    return {name: pd.DataFrame(list(rows)) for name, rows in found.items()}


def planned(*, seeds: list[int], train: int, n_images: int) -> list[dict]:
    """The arguments of `one` for every seed."""
    return [{"seed": seed, "train": train, "n_images": n_images} for seed in seeds]


def sweep(given: dict, *, out: Path | None = None) -> units.Sweep:
    """All units of settings as `planned` takes them; out: `OUT` unless given. Raises ValueError as `planned` does."""
    settings.check(given, planned, where="the settings of the explained images")
    return units.Sweep(one, planned(**given), OUT if out is None else Path(out), "xai image_explainers")


def tables(**given) -> dict[str, pd.DataFrame]:
    """The tables of a few units made here and now; given: as `planned` takes them."""
    return units.run(units.Sweep(one, planned(**given), None, "xai image_explainers"))
