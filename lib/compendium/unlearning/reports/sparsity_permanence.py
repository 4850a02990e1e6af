"""Figures and claims of notebooks/02_unlearning/06_sparsity_permanence.ipynb."""

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns

from compendium import stats
from compendium.paths import FIGURES


def by_seed(table, column):
    """Rank correlation of a column with the share trained, per seed."""
    groups = table.groupby("seed")[[column, "share"]]
    return groups.apply(lambda part: part[column].corr(part["share"], method="spearman"))


def trade_off(results, points, base):
    """Fewer weights, more of them cross, no fewer answers return."""
    fig, axes = plt.subplots(1, 3, figsize=(13, 4))
    for ax, column, label, title in (
        (axes[0], "crossed", "edited weights that change code", "Fewer weights, more of them cross"),
        (axes[1], "nf4 gap", "forgotten answers that return in NF4", "Do answers come back?"),
        (axes[2], "retained change", "change of answers to keep", "What does it cost?"),
    ):
        sns.lineplot(
            points,
            x="share",
            y=column,
            hue="update",
            style="update",
            markers=True,
            dashes=False,
            errorbar=("pi", 100),
            ax=ax,
        )
        ax.set(xscale="log", xlabel="share of the linear weights trained", ylabel=label, title=title)
    theory = points[~points.floored].groupby("share").predicted.mean()
    axes[0].plot(theory.index, theory, "k:", label="theory: |Δ| / cell width")
    axes[0].legend(title=None, loc="upper right", bbox_to_anchor=(1, 0.95))
    for ax in axes[1:]:
        ax.axhline(0, color="0.6", ls="--", lw=1)
        ax.get_legend().remove()
    own = (base["forget, nf4"] - base["forget"]).mean()
    axes[1].axhline(own, color="0.3", ls=":", lw=1)
    axes[1].annotate(
        "untouched model", (points.share.min(), own), xytext=(0, 3), textcoords="offset points", fontsize=8
    )
    results.figure(fig, "trade_off", points)
    plt.show()


def refusal(results):
    """Few weights are no protection by themselves."""
    refusal = pd.read_csv(FIGURES / "01_attribution" / "03_selective_refusal" / "points.csv").query("moved > 0")
    refusal["lost"] = 1 - refusal["target, nf4"] / refusal["target"]
    summary = refusal.groupby("method", sort=False).agg(
        moved=("moved", "mean"), target=("target", "mean"), lost=("lost", "mean"), runs=("lost", "size")
    )
    labels = {name: f"{name} ({moved:.0%})" for name, moved in summary.moved.items()}
    fig, ax = plt.subplots(figsize=(7.5, 3.2))
    sns.swarmplot(refusal.assign(method=refusal.method.map(labels)), x="lost", y="method", hue="method", s=8, ax=ax)
    ax.axvline(0, color="0.6", ls="--", lw=1)
    ax.set(
        xlabel="share of refusals gone in NF4, one dot a category",
        ylabel="",
        title="Few weights are no protection by themselves",
    )
    results.figure(fig, "refusal", refusal[["method", "category", "moved", "target", "target, nf4", "lost"]])
    plt.show()
    return summary


def claims(results, points, target, error):
    """The claims of this notebook, recorded."""
    as_trained = points[~points.floored]
    rho = by_seed(as_trained[as_trained.forget <= target + 0.05], "nf4 gap").dropna()
    quick = None if len(rho) > 1 else "a quick run"
    results.claim(
        "sparser-is-safer",
        "paper",
        "At equal forgetting, sparser updates lose less of it in NF4 (rank correlation of gap and share above 0)",
        stats.mean_share(rho, "seeds"),
        bar=0.0,
        margin=0.5,
        untestable=quick,
        paper="sparsity-permanence trade-off",
        figure="trade_off",
    )
    results.metrics(theory_error=error, rho=rho.mean())
