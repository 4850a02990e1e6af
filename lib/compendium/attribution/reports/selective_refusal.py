"""Figures and claims of notebooks/01_attribution/03_selective_refusal.ipynb."""

import matplotlib.pyplot as plt
import seaborn as sns

from compendium import stats
from compendium.attribution.studies.selective_refusal import OURS


def whom(results, points, kinds):
    """Who is declined, by method."""
    whom = points.groupby("method", sort=False)[kinds].mean()
    fig, ax = plt.subplots(figsize=(7.5, 0.42 * len(whom) + 1.4))
    sns.heatmap(whom, annot=True, fmt=".0%", cmap="Blues", vmin=0, vmax=1, cbar=False, linewidths=1, ax=ax)
    ax.set(
        ylabel="",
        title=f"The circuit update declines {whom.target[OURS]:.0%} of its category,\n{points[points.method == OURS]['over-refusal'].mean():.0%} of near misses and neutral prompts",
    )
    ax.tick_params("y", rotation=0)
    results.figure(fig, "whom", whom.reset_index())
    plt.show()


def trade_off(results, curves, strengths):
    """What refusing costs."""
    lines = (
        curves.groupby(["method", "strength"], sort=False)[["target", "over-refusal", "other category"]]
        .mean()
        .reset_index()
    )
    fig, axes = plt.subplots(1, 2, figsize=(10.5, 4), sharey=True)
    for ax, price in zip(axes, ("over-refusal", "other category"), strict=True):
        sns.lineplot(
            lines,
            x=price,
            y="target",
            hue="method",
            style="method",
            markers=True,
            dashes=False,
            sort=False,
            estimator=None,
            legend=price == "other category",
            ax=ax,
        )
        ax.set(xlim=(-0.04, 1.04), ylim=(-0.04, 1.04), ylabel="target category declined")
    axes[0].set(xlabel="near-miss and neutral prompts declined")
    axes[1].set(xlabel="prompts of other categories declined")
    sns.move_legend(axes[1], "center left", bbox_to_anchor=(1, 0.5), title=None)
    along = ", ".join(f"{k:g}" for k in sorted({*strengths, 1.0}))
    fig.suptitle(f"What refusing costs, at strengths {along}; up and left is better", x=0.01, ha="left", weight="bold")
    results.figure(fig, "trade_off", lines)
    plt.show()


def nf4(results, points):
    """Refusals in four bits."""
    stored = points.melt(
        ["method", "category"], ["target", "target, nf4", "neutral", "neutral, nf4"], "key", "declined"
    )
    stored["prompts"] = stored.key.str.split(",").str[0]
    stored["weights"] = stored.key.str.contains("nf4").map({True: "NF4", False: "float32"})
    fig, ax = plt.subplots(figsize=(9.5, 3.6))
    sns.barplot(
        stored[stored.prompts == "target"],
        x="declined",
        y="method",
        hue="weights",
        palette=["0.6", "C1"],
        errorbar=("pi", 100),
        ax=ax,
    )
    change = (points["target, nf4"] - points["target"])[points.method == OURS].mean()
    ax.set(
        xlim=(0, 1.04),
        xlabel="target category declined",
        ylabel="",
        title=f"In NF4 the circuit update's refusals change by {100 * change:+.0f} points",
    )
    sns.move_legend(ax, "center left", bbox_to_anchor=(1, 0.5), title=None)
    results.figure(fig, "nf4", stored.drop(columns="key"))
    plt.show()


def several(results, tables, categories):
    """Two updates in one model."""
    several = tables["several"].set_index("update")
    fig, ax = plt.subplots(figsize=(8, 0.5 * len(several) + 1.4))
    sns.heatmap(several, annot=True, fmt=".0%", cmap="Blues", vmin=0, vmax=1, cbar=False, linewidths=1, ax=ax)
    ax.set_title(f"Prompts declined by the updates for {' and '.join(categories[:2])}")
    ax.tick_params("y", rotation=0)
    results.figure(fig, "several", several.reset_index())
    plt.show()


def claims(results, categories, points):
    """The claims of this notebook, recorded."""
    quick = None if len(categories) > 1 else "a quick run"
    wide = points.pivot(index="category", columns="method")
    mean = points[points.method == OURS].mean(numeric_only=True)
    of = lambda values: stats.mean(values, "categories")
    premise, baselines = (
        "circuit localisation matters (the paper's premise)",
        "matches or beats inference-time baselines in many settings",
    )
    for id, column, bar, side, statement, paper in (
        (
            "selective-refusal",
            "target",
            0.8,
            "above",
            "declines at least 80 % of the category",
            "large rise of targeted refusal",
        ),
        (
            "selective-refusal-spares-others",
            "over-refusal",
            0.1,
            "below",
            "declines at most 10 % of near misses and neutral prompts",
            "over-refusal controlled",
        ),
        (
            "selective-refusal-keeps-facts",
            "facts change",
            -0.02,
            "above",
            "keeps right answers about facts within 2 points",
            "benchmarks preserved",
        ),
        (
            "selective-refusal-is-small",
            "moved",
            0.05,
            "below",
            "moves less than 5 % of the parameters",
            "less than 5 % of parameters",
        ),
    ):
        results.claim(
            id,
            "paper",
            f"A constrained update of the circuit {statement} (share)",
            stats.mean_share(wide[column][OURS], "categories", least=-1.0 if "change" in column else 0.0),
            bar=bar,
            side=side,
            margin=0.1,
            untestable=quick,
            paper=paper,
            figure="trade_off",
        )
    return baselines, mean, of, premise, quick, wide


def claims_of_rivals(results, premise, baselines, methods, of, wide, quick, mean):
    """The claims of this notebook, recorded."""
    for rival, id, statement, kind, paper in (
        (
            "constrained, random heads",
            "circuit-beats-random",
            "The circuit is a better place for the update than as many random heads",
            "paper",
            premise,
        ),
        (
            "constrained, complement",
            "circuit-beats-complement",
            "The circuit is a better place than all other weights together",
            "paper",
            premise,
        ),
        ("CAST", "circuit-beats-cast", "The update is more selective than conditional steering", "paper", baselines),
        (
            "DiffMean",
            "circuit-beats-diffmean",
            "The update is more selective than DiffMean steering",
            "paper",
            baselines,
        ),
        ("LoRA", "circuit-beats-lora", "The update is more selective than LoRA on all layers", "ours", ""),
    ):
        if rival in methods:
            results.claim(
                id,
                kind,
                f"{statement} (selectivity, difference above 0)",
                of(wide["selectivity"][OURS] - wide["selectivity"][rival]),
                bar=0.0,
                margin=0.1,
                untestable=quick,
                paper=paper,
                figure="trade_off",
            )
    if "arithmetic, circuit" in methods:
        results.claim(
            "arithmetic-is-selective",
            "paper",
            "Contrastive weight arithmetic on the circuit (k = 1) declines the category and not others (difference above 0.7)",
            stats.mean_share(
                wide["target"]["arithmetic, circuit"] - wide["over-refusal"]["arithmetic, circuit"],
                "categories",
                least=-1.0,
            ),
            bar=0.7,
            margin=0.1,
            untestable=quick,
            paper="selective refusal as circuit-restricted weight arithmetic",
        )
    results.claim(
        "refusal-survives-nf4",
        "ours",
        "The refusal is as frequent in the NF4 model (difference within 0.1)",
        of(wide["target, nf4"][OURS] - wide["target"][OURS]),
        bar=(-0.1, 0.1),
        side="within",
        untestable=quick,
        figure="nf4",
    )
    results.metrics(
        **{
            key.replace(" ", "_"): mean[key]
            for key in ("target", "over-refusal", "selectivity", "facts change", "moved")
        }
    )
