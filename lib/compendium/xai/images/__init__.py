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

from collections.abc import Callable

import numpy as np
from scipy import ndimage

from compendium.xai import relevance as backward
from compendium.xai.images.data import CELL, DISTRACTORS, EVIDENCE, GLYPH, MARGIN, SIZE, Images, bitmaps, digits, glyphs
from compendium.xai.images.gradients import (
    deeplift,
    grad_cam,
    gradient,
    guided_backprop,
    guided_grad_cam,
    input_x_gradient,
    integrated_gradients,
    smoothgrad,
)
from compendium.xai.images.inputs import array, checked, of_net
from compendium.xai.images.measures import MEASURES, absent, apart, auroc, curves, mass, pixels, pointing
from compendium.xai.images.networks import cnn, probabilities, untrained
from compendium.xai.images.perturbation import coalitions, kernel_shap, lime, occlusion, squares
from compendium.xai.images.randomisation import mprt, randomised, spearman, ssim

__all__ = [
    "CELL",
    "CONTROLS",
    "DISTRACTORS",
    "EVIDENCE",
    "EXPLAINERS",
    "GLYPH",
    "MARGIN",
    "MEASURES",
    "SIZE",
    "Images",
    "absent",
    "apart",
    "auroc",
    "bitmaps",
    "centre",
    "cnn",
    "coalitions",
    "contrastive",
    "curves",
    "deeplift",
    "digits",
    "edges",
    "glyphs",
    "grad_cam",
    "gradient",
    "guided_backprop",
    "guided_grad_cam",
    "input_x_gradient",
    "integrated_gradients",
    "kernel_shap",
    "lime",
    "mass",
    "mprt",
    "noise",
    "occlusion",
    "pixels",
    "pointing",
    "probabilities",
    "randomised",
    "relevance",
    "smoothgrad",
    "spearman",
    "squares",
    "ssim",
    "untrained",
]


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
