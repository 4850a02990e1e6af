"""Figures and claims of notebooks/04_tabular/02_pretraining.ipynb."""

import matplotlib.pyplot as plt
import pandas as pd

from compendium import paths, stats
from compendium.tabular import pfn


def curve(results):
    """Learning from random tables carries over to real ones, up to a point."""
    network, _ = pfn.load_network()
    curve = pd.read_csv(paths.TABULAR / "curve.csv")
    fig, axes = plt.subplots(1, 2, figsize=(8.5, 3.2))
    axes[0].plot(curve.step, curve.loss, label="network, tables not seen")
    axes[0].plot(curve.step, curve["loss of class shares"], color="0.5", ls="--", label="class shares")
    axes[0].set(xlabel="step", ylabel="cross-entropy (nats)", title="Random tables")
    axes[0].legend()
    axes[1].plot(curve.step, curve["AUC on real tables"], color="C2")
    axes[1].set(xlabel="step", ylabel="mean AUC", title="Real tables kept for development")
    results.figure(fig, "curve", curve)
    plt.show()
    return curve, network


def sets(results, means):
    """Each set, by the network's lead over the better of two."""
    order = (means["zero-shot"] - means[["logistic", "boosting"]].max(axis=1)).sort_values().index
    behind = means["zero-shot"] - means["boosting"]
    print("more than 0.02 behind boosting:", ", ".join(behind[behind < -0.02].sort_values().index) or "nowhere")
    fig, ax = plt.subplots(figsize=(7.5, 0.28 * len(order) + 1.2))
    for marker, method in zip("osD", ["logistic", "boosting", "zero-shot"], strict=True):
        ax.plot(means.loc[order, method], range(len(order)), marker, label=method, ms=6, alpha=0.85)
    ax.set(
        yticks=range(len(order)),
        yticklabels=order,
        xlabel="AUC, mean over splits",
        title="Each set, by the network's lead over the better of two",
    )
    ax.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    results.figure(fig, "sets", means.loc[order].reset_index())
    plt.show()


def claims(results, means, seeds, gap, methods):
    """The claims of this notebook, recorded."""
    quick = None if len(means) >= 10 and len(seeds) >= 3 else "a quick run"
    for id, rival, bar, statement, paper in (
        (
            "zero-shot-beats-logistic",
            "logistic",
            0.0,
            "the network beats logistic regression on small tables (mean difference of AUC above 0)",
            "zero-shot is already strong (not compared with logistic regression)",
        ),
        (
            "zero-shot-near-boosting",
            "boosting",
            -0.02,
            "it comes within 0.02 AUC of gradient boosting on small tables, or above (mean difference)",
            "above tuned boosting (accuracy .851 against .840, TALENT)",
        ),
    ):
        results.claim(
            id,
            "paper",
            f"Untouched, {statement}",
            stats.Estimate(*gap[rival], len(means), "data sets"),
            bar=bar,
            margin=0.02,
            untestable=quick,
            paper=paper,
            figure="sets",
        )
    results.metrics(
        sets=len(means), **{f"auc_{m}": means[m].mean() for m in methods}, **{f"gap_{m}": v[0] for m, v in gap.items()}
    )
