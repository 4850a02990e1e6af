"""Figures of notebooks/01_attribution/01_walkthrough.ipynb."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from scipy.stats import spearmanr

from compendium.attribution import draw


def by_hand(results, exact, linear):
    """Each MLP's effect, exactly and by its gradient."""
    fig, ax = plt.subplots(figsize=(7, 3.4))
    place = np.arange(len(exact))
    ax.bar(place - 0.2, exact, 0.4)
    ax.bar(place + 0.2, linear, 0.4)
    top = int(np.argmax(exact))
    ax.annotate("exact", (top - 0.2, exact[top]), (top + 1.2, exact[top]), color="C0", va="center")
    ax.annotate("gradient", (top + 0.2, linear[top]), (top + 1.2, max(linear) * 1.35), color="C1", va="bottom")
    ax.set(
        xlabel="MLP of layer",
        ylabel="fall of the logit difference",
        title="A gradient finds the late MLPs and misjudges the first",
    )
    results.figure(fig, "by_hand", pd.DataFrame({"layer": place, "exact": exact, "gradient": linear}))
    plt.show()


def along(slopes, whole):
    """A function of the number of steps that draws the gradients along the path and what they add up to.

    slopes: (n,) change of the metric for moving the whole way, at n equal steps from the corrupt prompt on.
    """
    fine = len(slopes)

    def drawn(steps=5):
        taken = slopes[:: fine // steps]
        fig, ax = plt.subplots(figsize=(7, 3.4))
        at = np.arange(fine) / fine
        ax.bar(np.arange(steps) / steps, taken, width=1 / steps, align="edge", color="C1", alpha=0.35, edgecolor="C1")
        ax.plot(at, slopes, color="C0")
        ax.axhline(0, color="0.6", lw=1)
        ax.text(0.98, 0.94, "gradient along the path", color="C0", ha="right", transform=ax.transAxes)
        ax.text(0.98, 0.86, f"{steps} of its values", color="C1", ha="right", transform=ax.transAxes)
        ax.set(
            xlabel="from the corrupt prompt (0) to the clean one (1)",
            ylabel="gradient x whole difference",
            title=f"{steps} gradients add up to {taken.mean():.1f}; the metric differs by {whole:.1f}",
        )
        plt.show()
        return fig

    return drawn


def path(results, slopes, whole, steps=5):
    """The gradients along the path, and the few that EAP-IG takes."""
    fig = along(slopes, whole)(steps)
    table = pd.DataFrame({"place": np.arange(len(slopes)) / len(slopes), "slope": slopes})
    results.figure(fig, "path", table)


def against_exact(results, graph, exact, found, node_scores):
    """Estimates against exact patching, a dot a head or MLP; the rank correlations are returned."""
    fig, axes = plt.subplots(1, len(found), figsize=(8.5, 4), sharey=True)
    frame, ranks = pd.DataFrame({"node": graph.source_names, "exact": exact}), {}
    for ax, (name, edges) in zip(axes, found.items(), strict=True):
        frame[name] = node_scores(edges)
        ranks[name] = spearmanr(exact[1:], frame[name][1:]).statistic
        ax.axline((0, 0), slope=1, color="0.7", lw=1)
        ax.scatter(frame[name][1:], exact[1:], s=12)
        for i in exact[1:].topk(2).indices.tolist():
            where = (frame[name][i + 1], exact[i + 1])
            ax.annotate(frame.node[i + 1], where, fontsize=9, xytext=(-6, -3), textcoords="offset points", ha="right")
        ax.set(xlabel=f"{name} score", title=f"{name}: rank correlation {ranks[name]:.2f}")
    axes[0].set_ylabel("exact fall when patched")
    axes[0].text(
        0.97, 0.03, "on the line an estimate is right", fontsize=8, color="0.4", ha="right", transform=axes[0].transAxes
    )
    results.figure(fig, "against_exact", frame)
    plt.show()
    return ranks


def circuit(results, graph, scores, mask, left):
    """The strongest edges, drawn; left: faithfulness by number of edges."""
    fig, ax = plt.subplots(figsize=(9, 4.2))
    draw.circuit(ax, graph, mask, scores)
    few = min(left)
    ax.set_title(
        f"The {int(mask.sum())} strongest of {graph.n_edges:,} edges; {few} keep {left[few]:.0%} of the behaviour"
    )
    kept = mask.nonzero().tolist()
    rows = [(graph.source_names[u], graph.destination_names[d], scores[u, d].item()) for u, d in kept]
    table = pd.DataFrame(rows, columns=["source", "destination", "score"])
    results.figure(fig, "circuit", table.sort_values("score", ascending=False))
    plt.show()
