"""Figures of notebooks/02_unlearning/01_walkthrough.ipynb."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch

from compendium import formats, nf4


def block(results, w, x, codes, dequantised):
    """The weights of one block in their cells."""
    fig, ax = plt.subplots(figsize=(8, 2.6))
    ax.vlines(nf4.LEVELS, 0, 1, color="0.55", lw=1, label="level")
    ax.vlines(nf4.BOUNDARIES, 0, 1, color="C3", lw=1, ls=":", label="decision boundary")
    height = 0.25 + 0.5 * np.arange(64) / 63
    ax.scatter(x, height, c=codes, cmap="twilight", s=18, zorder=3, edgecolor="k", lw=0.3)
    ax.set(xlabel="weight / block absmax", yticks=[], title="64 weights fall into 16 cells, narrow in the middle")
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.25), ncols=2)
    table = pd.DataFrame({"weight": w, "scaled": x, "code": codes, "dequantised": dequantised})
    results.figure(fig, "block", table)
    plt.show()


def pushed(w, i, up, gap):
    """A function of the push, in hundredths of a gap, that draws where weight i of a block is and what is stored."""
    push = torch.linspace(0, 2.2 * gap, 221)
    one = torch.tensor([i])
    stored = torch.stack([formats.roundtrip(w.index_add(0, one, p[None]), "nf4")[i] for p in push])

    def drawn(push_percent=60):
        at = min(push_percent, 220)
        fig, ax = plt.subplots(figsize=(6.5, 3.6))
        ax.plot(push * 1e3, (w[i] + push) * 1e3, color="0.6", ls="--")
        ax.plot(push * 1e3, stored * 1e3, color="C0")
        ax.axvline(up * 1e3, color="C3", ls=":")
        ax.plot(push[at] * 1e3, (w[i] + push[at]) * 1e3, "o", color="0.4")
        ax.plot(push[at] * 1e3, stored[at] * 1e3, "s", color="C0")
        ax.text(0.97, 0.2, "as stored in NF4", color="C0", ha="right", transform=ax.transAxes)
        ax.text(0.97, 0.12, "as trained", color="0.4", ha="right", transform=ax.transAxes)
        ax.text(0.97, 0.04, "decision boundary", color="C3", ha="right", transform=ax.transAxes)
        ax.set(
            xlabel="update of this weight (x 1e-3)",
            ylabel="value (x 1e-3)",
            title="An update is lost until it crosses a boundary",
        )
        plt.show()
        return fig

    return drawn, pd.DataFrame({"update": push, "trained": w[i] + push, "stored": stored})


def journey(results, w, i, up, gap):
    """One weight pushed further and further; the function that draws it for another push is returned."""
    drawn, table = pushed(w, i, up, gap)
    results.figure(drawn(60), "journey", table)
    return drawn


def average(results, table):
    """What equal small updates of all weights do to codes and to the mean."""
    fig, axes = plt.subplots(1, 2, figsize=(8.5, 3.4))
    axes[0].loglog(table.iloc[:, 0], table.iloc[:, 2], "o-")
    axes[0].set(xlabel="bin width / update", ylabel="share of codes that move", title="Few weights move ...")
    axes[1].semilogx(table.iloc[:, 0], table.iloc[:, 3], "o-", color="C2")
    axes[1].axhline(1, color="0.6", ls="--")
    axes[1].set(
        xlabel="bin width / update",
        ylabel="mean stored move / mean update",
        ylim=(0, 1.5),
        title="... but the average survives",
    )
    results.figure(fig, "average", table)
    plt.show()
