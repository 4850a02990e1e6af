"""All explainers and all metrics on one model of a user's own, in a table and a figure.

    from compendium import xai
    found = xai.report(model, x_test, y=y_test, background=x_train)     # scikit-learn, torch, or a function of X
    found.scores                # a row an explainer and metric: mean over rows with its bootstrap interval
    found.attributions["shap"]  # (rows, features)
    found.figure(); found.to_markdown()

How to read it. The row `random` is noise: an explainer that does not beat it in a metric that asks the model has not
explained that model. Metrics of stability and form say nothing about being right (`metrics`), and a gap of completeness
means something only for methods that promise to sum to the prediction. Intervals cover the choice of rows, not that of
the baseline, so repeat the report with another one before preferring a method.
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from compendium import stats
from compendium.xai import calls, endings, explain, predictions, tables
from compendium.xai import metrics as scoring
from compendium.xai.explain import preparation

DEFAULT = (
    "shap",
    "lime",
    "integrated gradients",
    "input x gradient",
    "gradient",
    "smoothgrad",
    "deeplift",
    "occlusion",
    "contrastive relevance",
    "random",
)


@dataclass
class Explained:
    """What `report` found."""

    scores: pd.DataFrame  # explainer, metric, mean, low, high, rows (with a defined value)
    attributions: dict[str, np.ndarray]  # (rows, features) by explainer
    values: dict[tuple[str, str], np.ndarray]  # (rows,) by explainer and metric
    target: np.ndarray  # (rows,) class explained
    accuracy: float  # of a classifier on X, if y was given
    baseline: str
    failed: dict[str, str] = field(default_factory=dict)  # why explainers were left out
    score: float = np.nan  # of the model on X, if y was given
    score_name: str = "Accuracy"  # or "R2" of regressors

    def table(self, column: str = "mean") -> pd.DataFrame:
        """Explainers x metrics."""
        return self.scores.pivot(index="explainer", columns="metric", values=column).loc[
            list(self.attributions), list(dict.fromkeys(self.scores.metric))
        ]

    def ranks(self) -> pd.DataFrame:
        """Explainers x metrics: 1 is best in the metric; ties share; nan where a metric is not defined."""
        means = self.table()
        return means.mul([scoring.BETTER[m] for m in means]).rank(ascending=False)

    def figure(self):
        """The matrix of means with their intervals, coloured by rank in each metric: dark is best."""
        import matplotlib.pyplot as plt

        mean, low, high, ranks = self.table(), self.table("low"), self.table("high"), self.ranks()
        fig, ax = plt.subplots(figsize=(1.5 + 1.02 * mean.shape[1], 1.5 + 0.42 * len(mean)), layout="constrained")
        ax.imshow(-ranks.to_numpy(), cmap="Blues", aspect="auto", vmin=-len(mean) - 1, vmax=1)
        for i, j in np.ndindex(mean.shape):
            value, a, b = mean.iloc[i, j], low.iloc[i, j], high.iloc[i, j]
            dark = ranks.iloc[i, j] <= len(mean) / 4
            text = "–" if np.isnan(value) else f"{value:.2g}\n[{a:.2g}, {b:.2g}]"
            ax.text(j, i, text, ha="center", va="center", fontsize=7, color="white" if dark else "black")
        arrows = [f"{name.replace(' ', chr(10), 1)}\n{'↑' if scoring.BETTER[name] > 0 else '↓'}" for name in mean]
        ax.set_xticks(range(mean.shape[1]), arrows, fontsize=8)
        ax.set_yticks(range(len(mean)), mean.index)
        ax.tick_params(length=0)
        ax.spines[:].set_visible(False)
        fig.suptitle(
            f"Mean [95 % interval], dark: best in the metric\nRemoved features become: {self.baseline}",
            x=0.01,
            ha="left",
            fontweight="bold",
            fontsize="medium",
        )
        return fig

    def to_markdown(self) -> str:
        mean, low, high, ranks = self.table(), self.table("low"), self.table("high"), self.ranks()
        lines = [f"{len(self.target)} rows; removed features become: {self.baseline}."]
        if np.isfinite(self.score):
            lines[0] += f" {self.score_name} of the model: {self.score:.3f}."
        lines += ["", f"| explainer | {' | '.join(mean)} |", "|" + "---|" * (mean.shape[1] + 1)]
        for name in mean.index:
            cells = []
            for metric in mean:
                value = mean.loc[name, metric]
                text = (
                    "–"
                    if np.isnan(value)
                    else f"{value:.3g} [{low.loc[name, metric]:.3g}, {high.loc[name, metric]:.3g}]"
                )
                cells.append(f"**{text}**" if ranks.loc[name, metric] == 1 else text)
            lines.append(f"| {name} | {' | '.join(cells)} |")
        arrows = ", ".join(f"{name} {'↑' if scoring.BETTER[name] > 0 else '↓'}" for name in mean)
        lines += ["", f"Better: {arrows}. Bold: best mean; brackets: 95 % bootstrap interval over rows."]
        lines += [f"Left out: {name} ({why})." for name, why in self.failed.items()]
        return "\n".join(lines) + "\n"


def report(
    model,
    X,
    *,
    y=None,
    background=None,
    target=None,
    explainers=None,
    metrics=None,
    baseline: str = "mean",
    output: str = "probability",
    seed: int = 0,
    draws: int = 4,
    kind: str | None = None,
) -> Explained:
    """Explain the rows of X by every explainer that can, and score each by every metric.

    model: scikit-learn classifier or regressor, torch net, or a function of X. kind: what a net's or a function's
    outputs are: "logits", "probabilities", "log-probabilities", "value" (one column: "logit", "probability"); None:
    inferred where that is certain (see `endings`). y: labels as the model was fitted with, class numbers for nets and
    functions, or a regressor's values: for the score only, accuracy or R2. background: rows to compare with, best the
    training rows; None: X itself. target: class to explain, one or one a row, as a class number or as the text of a
    label; None: the one predicted. explainers: names, or a dict of names and functions of the same signature; metrics:
    names. baseline: "zero", "mean", "marginal" or "conditional". draws: nearby inputs for sensitivity; each costs as
    much as explaining X. Explainers that were not asked for by name and fail on the model are left out, with a warning.

    Raises ValueError for frames with other columns than the model's or each other's, for labels the model does not
    know, and for models whose outputs could mean several things.
    """
    from tqdm import tqdm

    tables.agreed(model, X, background)
    given, target = X, tables.numbered(target, model, X) if target is not None else None
    X_ = explain.table(X)
    background_ = explain.background_rows(background, X_)
    model = calls.stated(model, kind) if kind is not None else model
    model = endings.resolved(model, X_, background_, y=y, strict=True)
    predict = explain.predictor(model, output)
    predictions.same_predictions(model, given, X_)
    p = explain.predictor(model)(X_)
    named, quality = ("Accuracy", np.nan) if y is None else tables.score(p, y, given, model)
    X_, target_ = explain.check(model, X_, p.argmax(1) if target is None else target)
    chosen = _functions(explainers, model, output)
    names = tuple(scoring.METRICS) if metrics is None else tuple(metrics)
    if unknown := set(names) - set(scoring.METRICS):
        raise ValueError(f"unknown metrics {sorted(unknown)}: choose from {', '.join(scoring.METRICS)}")
    filled = scoring.baselines(baseline, background_, X_, seed)
    scale = background_.std(0)
    attributions, values, failed = {}, {}, {}
    for name, function in tqdm(chosen.items(), desc="explainers", disable=None):
        again = lambda x, f=function: f(model, x, target_, background=background_, seed=seed, output=output)
        try:
            A = again(X_)
            moved = {}
            if set(names) & set(scoring.SENSITIVITIES):
                moved = scoring.sensitivities(
                    predict, X_, A, target_, filled, explain=again, seed=seed, draws=draws, scale=scale
                )
        except Exception as wrong:
            if explainers is not None:
                raise
            failed[name] = f"{type(wrong).__name__}: {wrong}".splitlines()[0]
            warnings.warn(f"{name} is left out: {failed[name]}", stacklevel=2)
            continue
        attributions[name] = A
        for metric in names:
            score = moved.get(metric)
            values[name, metric] = (
                scoring.METRICS[metric](predict, X_, A, target_, filled, seed=seed) if score is None else score
            )
    accuracy = quality if named == "Accuracy" else np.nan
    scores = _summarised(values, seed)
    return Explained(scores, attributions, values, target_, accuracy, baseline, failed, quality, named)


def _functions(explainers, model, output: str) -> dict[str, Callable]:
    if explainers is None:
        return {name: explain.EXPLAINERS[name] for name in DEFAULT if explain.able(name, model, output)}
    if isinstance(explainers, dict):
        return explainers
    explainers = [explainers] if isinstance(explainers, str) else list(explainers)
    for name in explainers:
        if name not in explain.EXPLAINERS:
            raise ValueError(f"unknown explainer {name!r}: choose one of {', '.join(explain.EXPLAINERS)}")
        preparation.need(name, model, output)
    return {name: explain.EXPLAINERS[name] for name in explainers}


def _summarised(values: dict, seed: int) -> pd.DataFrame:
    rows = []
    for (name, metric), value in values.items():
        known = value[np.isfinite(value)]
        low, high = stats.bootstrap_interval(known, seed=seed) if len(known) else (np.nan, np.nan)
        mean = float(known.mean()) if len(known) else np.nan
        rows.append({"explainer": name, "metric": metric, "mean": mean, "low": low, "high": high, "rows": len(known)})
    return pd.DataFrame(rows, columns=["explainer", "metric", "mean", "low", "high", "rows"])
