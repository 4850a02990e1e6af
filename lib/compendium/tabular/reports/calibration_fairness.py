"""Figures and claims of notebooks/04_tabular/04_calibration_fairness.ipynb."""

import matplotlib.pyplot as plt
import seaborn as sns

from compendium import stats
from compendium.tabular import metrics


def reliability(results, tables):
    """Whether probabilities mean what they say."""
    bins = tables["reliability"].query("not fair and kind == 'width'")
    pooled = (
        bins.assign(c=bins.confidence * bins.n, a=bins.accuracy * bins.n)
        .groupby(["method", "bin"], sort=False)[["n", "c", "a"]]
        .sum()
        .reset_index()
    )
    pooled = pooled.assign(confidence=pooled.c / pooled.n, accuracy=pooled.a / pooled.n).query("n >= 20")
    shown = [m for m in ("logistic", "boosting", "zero-shot", "sft", "lora", "sft, 8 rows") if m in set(pooled.method)]
    fig, ax = plt.subplots(figsize=(5.2, 4.2))
    ax.plot([0.2, 1], [0.2, 1], color="0.6", ls="--", lw=1)
    for name in shown:
        part = pooled[pooled.method == name].sort_values("confidence")
        ax.plot(part.confidence, part.accuracy, "o-", ms=4, label=name)
    ax.set(xlabel="confidence", ylabel="accuracy", title="Reliability, all sets pooled")
    ax.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    results.figure(fig, "reliability", pooled[["method", "bin", "n", "confidence", "accuracy"]])
    plt.show()


def calibration_change_by_strategy(results, change, own):
    """Tuning improves calibration."""
    part = change[change.metric.isin(["ece", "ece, equal mass", "brier"])]
    fig, axes = plt.subplots(1, 3, figsize=(9.5, 0.35 * len(own) + 1.5), sharey=True)
    for ax, (metric, of) in zip(axes, part.groupby("metric", sort=False), strict=True):
        ax.errorbar(of.change, of.strategy, xerr=[of.change - of.low, of.high - of.change], fmt="o", capsize=3)
        ax.axvline(0, color="0.6", lw=1)
        ax.set(xlabel=f"change of {metric}")
        ax.locator_params(axis="x", nbins=4)
    axes[0].set_title("Left of 0: better calibrated than zero-shot")
    axes[0].invert_yaxis()
    results.figure(fig, "calibration_change_by_strategy", part)
    plt.show()


def fairness_and_accuracy(results, mean):
    """Fair and accurate is up and to the left."""
    fig, axes = plt.subplots(1, 3, figsize=(9.5, 3.2), sharey=True)
    for ax, metric in zip(axes, metrics.DIFFERENCES, strict=True):
        sns.scatterplot(
            mean.reset_index(), x=metric, y="accuracy", hue="method", style="method", s=55, ax=ax, legend=ax is axes[2]
        )
        ax.set(xlabel=f"{metric}, mean difference")
    axes[0].set_title("Fair and accurate is up and to the left")
    sns.move_legend(axes[2], "center left", bbox_to_anchor=(1, 0.5), title=None)
    results.figure(fig, "fairness_and_accuracy", mean.reset_index())
    plt.show()


def claims(results, enough, change, scores, fairness, splits, summary):
    """The claims of this notebook, recorded."""
    quick = None if enough else "a quick run"
    for name, statement, paper in (
        ("sft", "Supervised fine-tuning raises the calibration error", "+.001 (TabPFN) to +.055 (TabICL), TALENT"),
        ("lora", "Low-rank adapters raise the calibration error", "the table repeats that of full tuning"),
    ):
        row = change.query("strategy == @name and metric == 'ece'")
        if len(row):
            results.claim(
                f"{name}-hurts-calibration",
                "paper",
                f"{statement} (mean difference of ECE above 0)",
                stats.Estimate(*row[["change", "low", "high"]].iloc[0], scores["set"].nunique(), "data sets"),
                bar=0.0,
                margin=0.01,
                untestable=quick,
                paper=paper,
                figure="calibration_change_by_strategy",
            )
    real = fairness[fairness["set"] != "simulated"]
    if {"sft", "zero-shot"} <= set(real.method):
        spd = real[real.metric == "SPD"].pivot_table(index=["set", "attribute"], columns="method", values="value")
        results.claim(
            "tuning-lowers-parity-difference",
            "paper",
            "Supervised fine-tuning lowers statistical parity differences between groups (mean change below 0)",
            stats.resampled_mean(spd["sft"] - spd["zero-shot"], "sensitive attributes"),
            bar=0.0,
            side="below",
            margin=0.02,
            untestable=None if splits >= 3 else "a quick run",
            paper="-.23 (TabICL), +.00 (TabPFN)",
            figure="fairness_and_accuracy",
        )
    results.metrics(**{f"ece_{m}": v for m, v in summary.set_index("method").ece.items()})
