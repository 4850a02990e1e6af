"""Scores of explanations: one number a row, for one fixed class, from predictions under masks.

    values = METRICS["deletion"](predict, X, A, target, baseline, seed=0)      # (n,)

predict: (n, d) -> (n, K), such as `explain.predictor(model)`; X (n, d); A (n, d), signed, in feature order; target: one
class or one a row, and it stays that class whatever a masked input is predicted as; baseline: what a removed feature
becomes. f is the prediction of the target, x without S the row with the features of S removed.

| metric | definition | better |
|---|---|---|
| faithfulness correlation | Pearson, over random sets S, of sum of a in S with f(x) - f(x without S) (Bhatt et al. 2020) | high |
| deletion | area under f as features go, largest a first (Petsiuk et al. 2018) | low |
| insertion | area under f as features come back, largest a first | high |
| comprehensiveness | f(x) - f(x without the top), mean over top 1, 5, 10, 20, 50 % (DeYoung et al. 2020) | high |
| sufficiency | f(x) - f(the top alone), same mean and sign as theirs | low |
| infidelity | mean over S of (b sum of a in S - drop)^2, b >= 0 the best stretch (Yeh et al. 2019) | low |
| monotonicity | Spearman of abs(a) with the size of the change as features come in by it, least first (after Arya et al. 2019) | high |
| completeness gap | abs(sum a - (f(x) - f(nothing kept))) (Sundararajan et al. 2017) | low |
| max, mean sensitivity | largest, mean distance of explanations of nearby inputs from a (Yeh et al. 2019) | low |
| relative sensitivity | max sensitivity / length of a | low |
| complexity | entropy of abs(a) / sum abs(a), nats (Bhatt et al. 2020) | low |
| sparseness | Gini index of abs(a) (Chalasani et al. 2020) | high |

Those of `TRUTHFUL` ask the model and can tell a right explanation from a wrong one. The others cannot: a
constant explanation is perfectly insensitive, one feature picked at random is perfectly simple.

Definitions that matter. "Top" is by signed a, so what supports the class goes first. Yeh's stretch b makes methods of
different scale comparable; theirs may be negative, which would forgive an explanation with all signs wrong, ours may
not. A correlation where one side does not vary is nan (the model does not react, or all attributions are equal), and
areas and drops are what they are: a constant model has drops of 0. Ties in a are removed in column order. Noise does
not score 0 in monotonicity where predictions saturate (features that come late change little): read it beside noise.

Baselines (`baselines`): zero and mean are one row; marginal averages predictions over rows of the background;
conditional fills removed features with their normal expectation given the kept ones, and stays near the data. Masks go
to the model in large batches: n rows and s masks are n s rows at once, cut to `AT_ONCE` numbers.
"""  # noqa: E501

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from compendium.xai.metrics.concordance import agreement, kendall_w
from compendium.xai.metrics.faithfulness import (
    completeness_gap,
    comprehensiveness,
    deletion,
    deletion_curve,
    faithfulness_correlation,
    infidelity,
    insertion,
    insertion_curve,
    monotonicity,
    sufficiency,
)
from compendium.xai.metrics.form import complexity, sparseness
from compendium.xai.metrics.masking import AT_ONCE, FRACTIONS, Conditional, baselines, checked, masked
from compendium.xai.metrics.randomisation import mprt
from compendium.xai.metrics.stability import (
    distances,
    max_sensitivity,
    mean_sensitivity,
    relative_sensitivity,
    sensitivities,
)

__all__ = [
    "AT_ONCE",
    "BETTER",
    "FRACTIONS",
    "METRICS",
    "SENSITIVITIES",
    "TRUTHFUL",
    "Conditional",
    "Metric",
    "agreement",
    "baselines",
    "checked",
    "completeness_gap",
    "complexity",
    "comprehensiveness",
    "deletion",
    "deletion_curve",
    "distances",
    "faithfulness_correlation",
    "infidelity",
    "insertion",
    "insertion_curve",
    "kendall_w",
    "masked",
    "max_sensitivity",
    "mean_sensitivity",
    "monotonicity",
    "mprt",
    "relative_sensitivity",
    "sensitivities",
    "sparseness",
    "sufficiency",
]


@dataclass(frozen=True)
class Metric:
    """A score of explanations, called as its function is."""

    function: Callable[..., np.ndarray]
    better: int  # 1: high values are good, -1: low ones
    asks_model: bool = False  # and so can tell a right explanation from a wrong one
    needs_explain: bool = False  # explains other inputs too: takes explain=

    def __call__(self, *arguments, **options) -> np.ndarray:
        return self.function(*arguments, **options)


METRICS: dict[str, Metric] = {
    "faithfulness correlation": Metric(faithfulness_correlation, 1, asks_model=True),
    "deletion": Metric(deletion, -1, asks_model=True),
    "insertion": Metric(insertion, 1, asks_model=True),
    "comprehensiveness": Metric(comprehensiveness, 1, asks_model=True),
    "sufficiency": Metric(sufficiency, -1, asks_model=True),
    "infidelity": Metric(infidelity, -1, asks_model=True),
    "monotonicity": Metric(monotonicity, 1, asks_model=True),
    "completeness gap": Metric(completeness_gap, -1, asks_model=True),
    "max sensitivity": Metric(max_sensitivity, -1, needs_explain=True),
    "mean sensitivity": Metric(mean_sensitivity, -1, needs_explain=True),
    "relative sensitivity": Metric(relative_sensitivity, -1, needs_explain=True),
    "complexity": Metric(complexity, -1),
    "sparseness": Metric(sparseness, 1),
}
TRUTHFUL = tuple(name for name, metric in METRICS.items() if metric.asks_model)
SENSITIVITIES = tuple(name for name, metric in METRICS.items() if metric.needs_explain)
BETTER: dict[str, int] = {name: metric.better for name, metric in METRICS.items()}
