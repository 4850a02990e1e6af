"""Figures of notebooks/05_xai/01_walkthrough.ipynb."""

from itertools import permutations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns


def joining(value, names, by_hand):
    """A function of the number of an order that draws what each feature adds when features become known in it."""
    d = len(names)
    orders = list(permutations(range(d)))

    def drawn(order=1):
        chosen = orders[(order - 1) % len(orders)]
        totals = [value(chosen[:k]) for k in range(d + 1)]
        fig, ax = plt.subplots(figsize=(7, 3))
        for place, j in enumerate(chosen):
            gain = totals[place + 1] - totals[place]
            ax.barh(place, gain, left=totals[place], color="C0" if gain > 0 else "C3")
            ax.text(
                max(totals[place : place + 2]) + 0.01,
                place,
                f"{gain:+.2f}   (Shapley value {by_hand[j]:+.2f})",
                va="center",
                fontsize=9,
            )
        ax.axvline(totals[0], color="0.6", lw=1, ls=":")
        ax.set(
            yticks=range(d),
            yticklabels=[names[j] for j in chosen],
            xlabel="mean prediction with the features so far",
            xlim=(min(totals) - 0.05, max(totals) + 0.45),
            title=f"Order {order} of {len(orders)}: gains depend on who came before",
        )
        ax.invert_yaxis()
        plt.show()
        return fig

    return drawn


def order(results, value, names, by_hand):
    """What each feature adds in one order; the function that draws another order is returned."""
    drawn = joining(value, names, by_hand)
    rows = [
        {"order": number + 1, "feature": names[j], "place": place, "adds": value(o[: place + 1]) - value(o[:place])}
        for number, o in enumerate(permutations(range(len(names))))
        for place, j in enumerate(o)
    ]
    results.figure(drawn(1), "order", pd.DataFrame(rows))
    return drawn


def three_explanations(results, table, target):
    """One row, three explanations."""
    fig, ax = plt.subplots(figsize=(7, 3.2))
    table.set_index("feature").plot.barh(ax=ax, width=0.75)
    ax.axvline(0, color="0.3", lw=1)
    ax.invert_yaxis()
    ax.set(xlabel=f"contribution to the probability of class {target}", ylabel="", title="One row, three explanations")
    ax.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    results.figure(fig, "three_explanations", table)
    plt.show()


def deletion(results, curves, chance, area):
    """Deletion curves of explanations among those of random orders."""
    fig, ax = plt.subplots(figsize=(7, 3.6))
    steps = np.arange(chance.shape[1])
    low, high = np.quantile(chance, [0.025, 0.975], axis=0)
    ax.fill_between(steps, low, high, color="0.88")
    ax.text(2.5, (low[2] + high[2]) / 2, "95 % of random orders", color="0.45", ha="center", fontsize=9)
    right = [name for name in curves if name != "upside down"]
    offsets = np.linspace(-0.06, 0.06, len(right))
    for colour, offset, name in zip(
        ("C0", "C1", "C2"), offsets, right, strict=True
    ):  # side by side: they all but coincide
        ax.plot(steps + offset, curves[name], "o-", color=colour, ms=4, label=f"{name}, area {area(curves[name]):.2f}")
    ax.plot(
        steps,
        curves["upside down"],
        "o-",
        color="C3",
        ms=4,
        label=f"upside down, area {area(curves['upside down']):.2f}",
    )
    ax.set(
        xlabel="features removed",
        ylabel="probability of the explained class",
        title="A right order brings the probability down first",
    )
    ax.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    results.figure(fig, "deletion", pd.DataFrame({"removed": steps, "low": low, "high": high, **curves}))
    plt.show()


def report(results, found, metrics):
    """Two metrics of every explainer, with intervals, beside the random control."""
    fig, axes = plt.subplots(1, len(metrics), figsize=(9, 3.6), sharey=True)
    scores = found.scores
    order = found.table().index.tolist()
    for ax, metric in zip(axes, metrics, strict=True):
        part = scores[scores.metric == metric].set_index("explainer").loc[order]
        place = np.arange(len(order))
        colours = ["0.6" if name == "random" else "C0" for name in order]
        for i, (mean, low, high) in enumerate(part[["mean", "low", "high"]].to_numpy()):
            ax.plot([low, high], [i, i], color=colours[i], lw=2)
            ax.plot(mean, i, "o", color=colours[i])
        ax.axvline(part.loc["random", "mean"], color="0.6", ls="--", lw=1)
        ax.set(yticks=place, yticklabels=order, title=metric)
    axes[0].invert_yaxis()
    fig.supxlabel("mean over rows, with its 95 % interval", fontsize="medium")
    sns.despine(fig)
    results.figure(fig, "report", scores)
    plt.show()
