"""Explainers of single predictions behind one signature: a signed number for every feature of every row.

    A = EXPLAINERS["kernel shap"](model, X, target, background=x_train, seed=0)      # (n, d), in feature order

Everybody explains the same quantity: the probability of `target`, one fixed class per row, or with `output="logit"` its
raw score (the output of a torch net; +-decision_function where probabilities are its sigmoid or softmax; log-odds for
all other models; a regressor's prediction in either case). What the outputs of nets and functions mean is settled in
`endings`, or said by `stated(model, kind)` in the model's place. Frames are compared by their columns' names; targets
are class numbers, or labels as text where the model has labels. Where a method cannot, `able` is False and calling it is an
error: it is never quietly another quantity, another class or another order.

| name | idea | compares with | sums to |
|---|---|---|---|
| shap | tree shap where that is exact, else kernel shap | rows of the background | f(x) - mean f(background) |
| kernel shap | Shapley values by weighted regression over coalitions (Lundberg & Lee 2017) | same | same |
| tree shap | Shapley values along the trees (Lundberg et al. 2020), interventional | same | same |
| deep shap | DeepLift averaged over the background (Lundberg & Lee 2017) | same | same |
| lime | slopes of a linear model fitted nearby (Ribeiro et al. 2016), times x - mean | mean | about that |
| integrated gradients | gradient averaged on the way from the baseline, times x - baseline (Sundararajan et al. 2017) | baseline | f(x) - f(baseline) |
| deeplift | differences of activations passed back by the rescale rule (Shrikumar et al. 2017) | baseline | same |
| occlusion | drop when one feature goes to the baseline | baseline | |
| gradient, smoothgrad | slope, slope averaged under noise (Smilkov et al. 2017) | nothing | |
| input x gradient | slope times x | 0 | |
| relevance, contrastive relevance | share of the absolute contributions (`relevance`); of the raw score always | 0 | |
| random | normal noise: the control | | |

`baseline` is the mean of the background unless given. Gradient methods take torch nets and scikit-learn's linear models
(also behind a StandardScaler). captum, shap and lime do the work, with these corrections, each of which a test covers:

- *Signed, complete, in order.* LIME is asked for all features and for the target's class, and put back in order.
- *Rows are independent.* Samplers restart from `seed` in every row, so that a row's explanation does not depend on its
  neighbours, and two inputs are compared under the same noise.
- *Probabilities of boosted trees.* shap's are stretched values of the raw score; `shap` uses kernel shap there.
- *Trees.* shap compares with thresholds in single precision: values that land on the wrong side made its sums wrong by
  up to 2.2 of 346 in our tests. Values and thresholds are replaced by their ranks (`trees`).
- *Sums.* What promises to add up is checked in every call: `additivity` says by how much it may miss, and refuses nets
  whose activations are functions or modules used twice, which DeepLift and deep SHAP do not see.
- *DeepLift of probabilities.* captum's softmax rule does not add up. Here logits are explained, and these attributions
  pass the softmax along the straight line from the baseline's logits, which is the rescale rule for two classes.
"""  # noqa: E501

from collections.abc import Callable

import numpy as np

from compendium.xai.calls import stated
from compendium.xai.endings import resolved
from compendium.xai.explain.gradients import deeplift, gradient, input_x_gradient, integrated_gradients, smoothgrad
from compendium.xai.explain.local import lime, occlusion, random
from compendium.xai.explain.preparation import MOST_BACKGROUND, applies, background_rows, check, predicted
from compendium.xai.explain.propagation import contrastive_relevance, relevance
from compendium.xai.explain.shapley import deep_shap, kernel_shap, shap_values, tree_shap
from compendium.xai.predictions import OUTPUTS, ROWS_AT_ONCE, predictor
from compendium.xai.tables import table, targets

__all__ = [
    "EXPLAINERS",
    "MOST_BACKGROUND",
    "OUTPUTS",
    "ROWS_AT_ONCE",
    "able",
    "background_rows",
    "check",
    "contrastive_relevance",
    "deep_shap",
    "deeplift",
    "gradient",
    "input_x_gradient",
    "integrated_gradients",
    "kernel_shap",
    "lime",
    "occlusion",
    "predicted",
    "predictor",
    "random",
    "relevance",
    "resolved",
    "shap_values",
    "smoothgrad",
    "stated",
    "table",
    "targets",
    "tree_shap",
]


EXPLAINERS: dict[str, Callable[..., np.ndarray]] = {
    "shap": shap_values,
    "kernel shap": kernel_shap,
    "tree shap": tree_shap,
    "deep shap": deep_shap,
    "lime": lime,
    "integrated gradients": integrated_gradients,
    "input x gradient": input_x_gradient,
    "gradient": gradient,
    "smoothgrad": smoothgrad,
    "deeplift": deeplift,
    "occlusion": occlusion,
    "relevance": relevance,
    "contrastive relevance": contrastive_relevance,
    "random": random,
}


def able(name: str, model, output: str = "probability") -> bool:
    """Whether an explainer can explain this output of this model. Raises ValueError for an unknown name."""
    if name not in EXPLAINERS:
        raise ValueError(f"unknown explainer {name!r}: choose one of {', '.join(EXPLAINERS)}")
    import torch

    with torch.random.fork_rng(devices=[]):  # making the net of a linear model draws
        return applies(name, model, output)
