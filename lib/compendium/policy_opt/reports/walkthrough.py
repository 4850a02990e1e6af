"""Figures of notebooks/03_policy_opt/01_walkthrough.ipynb."""

import matplotlib.pyplot as plt
import pandas as pd
import torch


def losses_of(ratio, low, high):
    """The loss of a token by its ratio, for a better and a worse completion."""
    parts = [
        pd.DataFrame(
            {"ratio": ratio, "loss": -torch.minimum(ratio * a, ratio.clamp(1 - low, 1 + high) * a), "advantage": n}
        )
        for a, n in ((1.0, "better than its siblings"), (-1.0, "worse"))
    ]
    return pd.concat(parts)


def draw_clip(below=0.2, above=0.28):
    """The loss of a token by its ratio, with the clip where the two numbers say."""
    frame = losses_of(torch.linspace(0.4, 1.8, 281), below, above)
    fig, ax = plt.subplots(figsize=(6.5, 3.4))
    ax.axvspan(1 - below, 1 + above, color="0.93", zorder=0)
    for colour, (name, part) in zip(("C2", "C1"), frame.groupby("advantage", sort=False), strict=True):
        ax.plot(part.ratio, part.loss, color=colour)
        ax.annotate(
            name,
            (part.ratio.iloc[-1], part.loss.iloc[-1]),
            color=colour,
            ha="right",
            va="bottom",
            fontsize=9,
            xytext=(0, 4),
            textcoords="offset points",
        )
    ax.set(
        xlabel="ratio: probability now / when sampled",
        ylabel="loss of a token",
        title="Outside the clip there is nothing left to gain",
    )
    plt.show()
    return fig


def clip(results):
    """Where the clip ends a push."""
    results.figure(draw_clip(), "clip", losses_of(torch.linspace(0.4, 1.8, 281), 0.2, 0.28))


def step(results, rewards, change):
    """What one step did to each completion."""
    frame = pd.DataFrame({"completion": range(len(rewards)), "reward": rewards, "change": change})
    fig, ax = plt.subplots(figsize=(6, 3.2))
    ax.bar(frame.completion, frame.change, color=["C2" if reward else "C1" for reward in rewards])
    ax.axhline(0, color="0.4", lw=1)
    ax.set(
        xlabel="completion (green: right, orange: wrong)",
        ylabel="change of log-probability (nats)",
        title="One step, judged by siblings alone",
    )
    results.figure(fig, "step", frame)
    plt.show()
