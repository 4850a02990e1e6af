"""Figures of notebooks/04_tabular/01_walkthrough.ipynb."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd


def moons(results, x, y, models):
    """The plane as each model sees it."""
    side = np.linspace(-2, 3, 60), np.linspace(-1.5, 2, 45)
    grid = np.stack(np.meshgrid(*side), -1).reshape(-1, 2)
    fig, axes = plt.subplots(1, 2, figsize=(8.5, 3.4), sharey=True)
    planes = {}
    for ax, (name, model) in zip(axes, models.items(), strict=True):
        planes[name] = model.predict_proba(grid)[:, 1]
        levels = np.linspace(0, 1, 11)
        ax.contourf(*side, planes[name].reshape(45, 60), levels=levels, cmap="RdBu_r", alpha=0.7)
        ax.scatter(*x.T, c=y, cmap="RdBu_r", s=18, edgecolor="k", lw=0.5)
        ax.set(title=name, xlabel="first column")
    axes[0].set_ylabel("second column")
    results.figure(fig, "moons", pd.DataFrame({"x1": grid[:, 0], "x2": grid[:, 1], **planes}))
    plt.show()


def attention(results, maps, asked, at, context, labels, nearness):
    """Attention from one row to the labelled ones in three layers, and how it goes with nearness in all of them.

    maps: (layers, rows, context); asked: the row's number; at: its place; nearness: one row a layer.
    """
    fig, axes = plt.subplots(1, 4, figsize=(11.5, 3), width_ratios=(1, 1, 1, 1.1))
    for ax, layer in zip(axes, (0, len(maps) // 2, len(maps) - 1), strict=False):
        size = 3000 * maps[layer, asked] + 2
        ax.scatter(*context.T, c=labels, cmap="RdBu_r", s=size, edgecolor="k", lw=0.4)
        ax.plot(*at, "k+", ms=12, mew=2)
        ax.set(title=f"layer {layer + 1}", xticks=[], yticks=[])
    axes[3].plot(nearness.layer, nearness["with nearness"], "o-", color="C0")
    axes[3].plot(nearness.layer, nearness["with shuffled nearness"], "o-", color="0.6")
    axes[3].text(4, nearness["with nearness"].iloc[3] - 0.15, "nearness", color="C0", fontsize=9)
    axes[3].text(1, 0.05, "of other points", color="0.5", fontsize=9)
    axes[3].set(xlabel="layer", ylabel="rank correlation", ylim=(-0.15, 1), title="attention and nearness")
    wide = pd.DataFrame(maps[:, asked].T, columns=[f"layer {i + 1}" for i in range(len(maps))])
    results.figure(fig, "attention", wide)
    plt.show()


def prior(results, drawn):
    """Two columns of random tables; those with two continuous columns at least."""

    def continuous(table):
        return [j for j in np.flatnonzero(~table.nominal) if len(np.unique(table.x[:, j])) > 30]

    chosen = [table for table in drawn if len(continuous(table)) >= 2][:6]
    fig, axes = plt.subplots(1, 6, figsize=(11.5, 2.3))
    frames = []
    for number, (ax, table) in enumerate(zip(axes, chosen, strict=True)):
        pair = table.x[:, continuous(table)[:2]]
        low, high = np.nanquantile(pair, [0.01, 0.99], axis=0)
        ax.scatter(*pair.T, c=table.y, cmap="tab10", vmin=0, vmax=9, s=5)
        ax.set(xticks=[], yticks=[], xlim=(low[0], high[0]), ylim=(low[1], high[1]))
        ax.set_title(
            f"{table.x.shape[1]} columns\n{len(np.unique(table.y))} classes", fontsize="small", weight="normal"
        )
        frames.append(pd.DataFrame({"table": number, "x1": pair[:, 0], "x2": pair[:, 1], "class": table.y}))
    results.figure(fig, "prior", pd.concat(frames))
    plt.show()


def bins_of(confidence, correct, bins):
    """A row a bin of equal width that is not empty: rows in it, their mean confidence, the share that is correct."""
    place = np.minimum((confidence * bins).astype(int), bins - 1)
    frame = pd.DataFrame({"bin": place, "confidence": confidence, "correct": correct})
    return frame.groupby("bin").agg(
        rows=("correct", "size"), confidence=("confidence", "mean"), correct=("correct", "mean")
    )


def reliability_of(confidence, correct):
    """A function of the number of bins that draws a reliability diagram and the calibration error."""

    def drawn(bins=10):
        table = bins_of(confidence, correct, bins)
        error = (table.rows / table.rows.sum() * (table.confidence - table.correct).abs()).sum()
        fig, ax = plt.subplots(figsize=(4.6, 3.8))
        ax.plot([0, 1], [0, 1], color="0.6", ls="--", lw=1)
        ax.vlines(
            table.confidence,
            table[["confidence", "correct"]].min(axis=1),
            table[["confidence", "correct"]].max(axis=1),
            color="C3",
            lw=3,
            alpha=0.5,
        )
        ax.scatter(table.confidence, table.correct, s=10 + 300 * table.rows / table.rows.sum(), color="C0", zorder=3)
        low = 1 / 2 - 0.05
        ax.set(
            xlim=(low, 1.02),
            ylim=(low - 0.2, 1.05),
            xlabel="confidence",
            ylabel="share correct",
            title=f"{bins} bins: calibration error {error:.3f}",
        )
        plt.show()
        return fig

    return drawn


def reliability(results, confidence, correct, bins=10):
    """A reliability diagram; the function that draws it with other bins is returned."""
    drawn = reliability_of(confidence, correct)
    results.figure(drawn(bins), "reliability", bins_of(confidence, correct, bins).reset_index())
    return drawn
