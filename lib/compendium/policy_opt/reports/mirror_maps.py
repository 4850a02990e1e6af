"""Figures and claims of notebooks/03_policy_opt/04_mirror_maps.ipynb."""

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
import torch
from scipy import stats as sps

from compendium import stats
from compendium.policy_opt import comparisons, divergences, mirror


def maps(results, map_seed):
    """Random maps have one shape and other strengths."""
    p, q = torch.linspace(0.001, 1, 200), torch.tensor(0.5)
    drawn = {f"map {seed}": mirror.initial(seed) for seed in range(map_seed, map_seed + 5)}
    curves = pd.concat(
        pd.DataFrame({"p": p, "map": name, "divergence": mirror.divergence(theta, p.log(), q.log().expand_as(p))})
        for name, theta in drawn.items()
    )
    fig, ax = plt.subplots(figsize=(6, 3.4))
    sns.lineplot(curves, x="p", y="divergence", hue="map", ax=ax, legend=False)
    ax.set(
        xlabel="probability now (0.5 at the start)",
        ylabel="divergence",
        title="Five random maps: one shape, other strengths",
    )
    results.figure(fig, "maps", curves)
    plt.show()
    share = mirror.divergence(mirror.initial(map_seed), torch.tensor(0.6).log(), q.log()) / divergences.prob_l2(
        torch.tensor(0.6).log(), q.log()
    )
    return p, q, share


def evolution_curve(results, history, map_seed, theta, p, q):
    """The search finds nothing."""
    fig, axes = plt.subplots(1, 2, figsize=(8.5, 3.4))
    axes[0].plot(history.iteration + 1, history["mean"], marker="o", label="population, mean")
    axes[0].plot(history.iteration + 1, history.before, marker="_", ms=12, ls="", label="map so far")
    axes[0].plot(history.iteration + 1, history.after, marker="s", ls="", label="candidate")
    axes[0].set(
        xlabel="iteration",
        xticks=history.iteration + 1,
        ylabel="held-out accuracy after the inner run",
        title="Fitness",
    )
    axes[0].legend(fontsize=8)
    for name, parameters in {"random": mirror.initial(map_seed), "learned": theta}.items():
        axes[1].plot(p, mirror.divergence(parameters, p.log(), q.log().expand_as(p)), label=name)
    axes[1].set(xlabel="probability now (0.5 at the start)", ylabel="divergence", title="The map before and after")
    axes[1].legend()
    results.figure(fig, "evolution_curve", history)
    plt.show()


def ends(results, tables):
    """Where five seeds end."""
    ends = comparisons.one(tables.finals)
    fig, axes = plt.subplots(1, 2, figsize=(8.5, 3.4))
    for ax, column, label in zip(
        axes, ["accuracy", "length"], ["validation accuracy", "mean length (tokens)"], strict=True
    ):
        sns.stripplot(
            ends, x=column, y="condition", hue="condition", ax=ax, size=7, jitter=False, alpha=0.7, legend=False
        )
        ax.set(xlabel=label, ylabel="")
    axes[0].set_title("Where five seeds end")
    results.figure(fig, "ends", ends)
    plt.show()
    return ends


def claims(results, seeds, ends, inner, history):
    """The claims of this notebook, recorded."""
    quick = None if len(seeds) >= 3 else "a quick run"
    wide = ends.pivot(index="seed", columns="condition", values="length")
    results.claim(
        "mirror-shortens-responses",
        "paper",
        "Even a random mirror map shortens responses by more than 10 % against KL (relative difference, authors' coefficients)",
        stats.mean(wide["random map"] / wide["k3"] - 1, "seeds"),
        bar=-0.1,
        side="below",
        margin=0.14,
        untestable=quick,
        paper="24-36 % shorter",
        figure="ends",
    )
    spread, freedom = ends.groupby("condition").accuracy.var(), len(seeds) - 1
    ratio = spread["learned map, 10"] / spread["random map, 10"]
    low, high = (ratio / sps.f.ppf(share, freedom, freedom) if freedom > 1 else None for share in (0.975, 0.025))
    results.claim(
        "es-cuts-variance",
        "paper",
        "A learned map varies less between seeds than a random one (ratio of variances of accuracy below 1)",
        stats.Estimate(ratio, low, high, len(seeds), "seeds"),
        bar=1.0,
        side="below",
        untestable=quick,
        paper="±0.6 to ±0.2, so a ratio of 0.11",
        figure="ends",
    )
    MORE = "ends more accurate than"
    for id, first, second, statement in (
        (
            "learned-beats-random-map",
            "learned map, 10",
            "random map, 10",
            f"A learned map {MORE} the random one it came from",
        ),
        ("random-map-beats-kl", "random map", "k3", f"A random map {MORE} KL"),
        ("random-map-beats-none", "random map", "none", f"A random map {MORE} no divergence"),
        (
            "strong-map-beats-none",
            "random map, 10",
            "none",
            f"A random map at a coefficient of 10 {MORE} no divergence",
        ),
    ):
        control = second == "none"
        results.claim(
            id,
            "control" if control else "paper",
            f"{statement} (difference above 0)",
            comparisons.difference(ends, "accuracy", first, second),
            bar=0.0,
            margin=0.05,
            untestable=quick,
            paper="" if control else "yes, on GSM8K",
            figure="ends",
        )
    results.metrics(inner_runs=inner, accepted=int(history.accepted.sum()), variance_ratio=ratio)
