"""Figures and claims of notebooks/02_unlearning/03_baselines.ipynb."""

import matplotlib.pyplot as plt
import seaborn as sns

from compendium import facts


def trade_off(results, tried, base, best):
    """What forgetting costs, method by method."""
    fig, ax = plt.subplots(figsize=(8.5, 4.2))
    sns.lineplot(
        tried,
        x="forget",
        y="retained",
        hue="method",
        style="method",
        markers=True,
        dashes=False,
        sort=False,
        estimator=None,
        ax=ax,
    )
    ax.plot(base["forget"], (base["near"] + base["far"]) / 2, "k*", ms=12)
    ax.annotate(
        "untouched",
        (base["forget"], (base["near"] + base["far"]) / 2),
        xytext=(-6, -14),
        textcoords="offset points",
        ha="right",
    )
    ax.axvline(facts.CHANCE, color="0.6", ls="--", lw=1)
    ax.set(
        xlabel="right answers to what should be forgotten (dashed: chance)",
        ylabel="right answers to what should be kept",
        title=f"{best.loc[best.score.idxmax(), 'method']} forgets most for what it costs",
    )
    sns.move_legend(ax, "center left", bbox_to_anchor=(1, 0.5), title=None)
    results.figure(fig, "trade_off", tried)
    plt.show()
