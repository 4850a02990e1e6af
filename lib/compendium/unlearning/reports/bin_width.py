"""Figures and claims of notebooks/02_unlearning/02_bin_width.ipynb."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns

from compendium import stats


def bin_widths(results, bins):
    """A bin is hundreds of times wider than an update."""
    fig, ax = plt.subplots(figsize=(7.5, 3.8))
    sns.lineplot(bins, x="depth", y="gap_mean", hue="kind", ax=ax, legend="full")
    ax.axhline(30 * 1e-5, color="0.3", ls="--")
    ax.text(0.5, 30 * 1e-5 * 1.15, "30 AdamW steps at 1e-5, at most", color="0.3", fontsize="small")
    ax.set(
        yscale="log",
        xlabel="layer",
        ylabel="bin width (weight units)",
        title="A bin is hundreds of times wider than an unlearning update",
    )
    sns.move_legend(ax, "center left", bbox_to_anchor=(1, 0.5), title=None)
    results.figure(fig, "bin_widths", bins[["depth", "kind", "gap_mean"]])
    plt.show()


def ratio(results, looks):
    """Every update is far smaller than a bin."""
    fig, ax = plt.subplots(figsize=(7.5, 3.8))
    ax.axhspan(47, 828, color="0.9", zorder=0)
    ax.text(0.02, 55, "range in the paper", transform=ax.get_yaxis_transform(), color="0.4", fontsize="small")
    rates = looks.learning_rate.map("{:.0e}".format).str.replace("e-0", "e-")
    sns.lineplot(
        looks.assign(**{"learning rate": rates}),
        x="step",
        y="ratio_mean_gap",
        hue="learning rate",
        style="objective",
        markers=True,
        markersize=8,
        errorbar=None,
        ax=ax,
    )
    ax.set(
        yscale="log",
        xticks=sorted(looks.step.unique()),
        xlabel="AdamW steps",
        ylabel="mean bin width / mean |update|",
        title="Every update is far smaller than a bin",
    )
    ax.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    results.figure(
        fig, "ratio", looks[["setting", "seed", "step", "ratio_mean_gap", "ratio_min_gap", "ratio_local_gap"]]
    )
    plt.show()


def flips(results, looks, kappa):
    """Codes flip about as often as boundaries are dense."""
    fig, ax = plt.subplots(figsize=(5.6, 4))
    rho = np.geomspace(looks.ratio_mean_gap.min() / 1.5, looks.ratio_mean_gap.max() * 1.5)
    ax.plot(rho, kappa / rho, color="0.6", ls="--", label=f"predicted: {kappa:.2f} / ratio")
    sns.scatterplot(looks, x="ratio_mean_gap", y="flips", hue="objective", s=45, ax=ax)
    ax.set(
        xscale="log",
        yscale="log",
        xlabel="bin width / |update|",
        ylabel="share of codes that flip",
        title="Codes flip exactly as often as boundaries are dense",
    )
    ax.legend()
    results.figure(fig, "flips", looks[["setting", "seed", "step", "ratio_mean_gap", "flips", "flips_predicted"]])
    plt.show()
    agreement = looks.flips / looks.flips_predicted
    return agreement


def carried(results, looks, steps):
    """Each weight is noise, the sum is the update."""
    long = looks.melt(
        ["setting", "seed", "step", "ratio_mean_gap"], ["slope", "correlation", "slope_control"], "measure"
    )
    names = {
        "slope": "share of the update that arrives (slope)",
        "correlation": "correlation, weight by weight",
        "slope_control": "slope of the random-sign control",
    }
    fig, ax = plt.subplots(figsize=(7.5, 3.8))
    sns.scatterplot(
        long.assign(measure=long.measure.map(names)),
        x="ratio_mean_gap",
        y="value",
        hue="measure",
        style="measure",
        s=50,
        ax=ax,
    )
    ax.axhline(1, color="0.7", lw=1, zorder=0)
    ax.axhline(0, color="0.7", lw=1, zorder=0)
    ax.set(
        xscale="log",
        xlabel="bin width / |update|",
        ylabel="",
        ylim=(-0.15, 1.25),
        title="Each weight is noise, the sum is the update: NF4 keeps it on average",
    )
    sns.move_legend(ax, "center left", bbox_to_anchor=(1, 0.5), title=None)
    results.figure(fig, "carried", long)
    plt.show()
    final = looks[looks.step == steps]
    return final


def by_model(results, of_model):
    """The last look of every run, means over seeds, model by model. of_model: tables by model."""
    rows = []
    keys = ["objective", "learning_rate"]
    for model, tables in of_model.items():
        looks, answers = tables["looks"], tables["answers"]
        last = looks[looks.step == looks.groupby([*keys, "seed"]).step.transform("max")]
        found = last.groupby(keys, sort=False)[["ratio_mean_gap", "flips", "slope"]].mean()
        said = answers[answers.set == "forget"].pivot_table("correct", keys, "weights")
        untouched = said.loc["none"].iloc[0]
        for weights in ("float32", "nf4"):
            found[f"forget, {weights}"] = said[weights]
            found[f"forget before, {weights}"] = untouched[weights]
        rows.append(found.reset_index().assign(model=model))
    table = pd.concat(rows, ignore_index=True)
    table = table[["model", *(column for column in table if column != "model")]]
    table = table.rename(columns={"ratio_mean_gap": "ratio", "learning_rate": "learning rate"})
    results.table(table, "models")
    return table


def claims(results, looks, agreement, final, seeds, kappa, kappa_gaussian):
    """The claims of this notebook, recorded."""
    per_seed = (
        looks.assign(agreement=agreement)
        .groupby("seed")[["ratio_mean_gap", "agreement", "slope", "correlation", "slope_control"]]
        .mean()
    )
    by_setting = final.groupby("setting").ratio_mean_gap.agg(["min", "max"])
    low, high = by_setting["min"].min(), by_setting["max"].max()
    quick = None if len(seeds) > 1 else "a quick run"
    ratios = stats.mean(np.log(final.groupby("setting").ratio_mean_gap.mean()), "settings")
    results.claim(
        "bin-width-ratio",
        "paper",
        f"Unlearning updates are at least 47 times smaller than an NF4 bin (geometric mean of the ratio, mean-gap reading; {low:.0f} to {high:.0f} over {len(by_setting)} settings)",
        ratios._replace(value=np.exp(ratios.value), low=np.exp(ratios.low), high=np.exp(ratios.high)),
        bar=47.0,
        untestable=quick or "settings are chosen, not sampled",
        paper="47 to 828 times, all baselines",
        figure="ratio",
    )
    for id, kind, column, bar, side, statement, paper, figure in (
        (
            "flip-share-predicted",
            "ours",
            "agreement",
            (0.95, 1.05),
            "within",
            "The share of codes that flip follows from the density of weights at boundaries (measured / predicted, within 5 %)",
            "",
            "flips",
        ),
        (
            "small-updates-are-lost",
            "paper",
            "slope",
            0.5,
            "below",
            "Less than half of an update spread below the bin width reaches the NF4 model (slope)",
            "they cannot clear bin boundaries",
            "carried",
        ),
        (
            "small-updates-are-noisy",
            "paper",
            "correlation",
            0.3,
            "below",
            "Weight by weight, the stored update is mostly noise (correlation with the trained one below 0.3)",
            "implied by the ratio",
            "carried",
        ),
    ):
        results.claim(
            id,
            kind,
            statement,
            stats.mean(per_seed[column], "seeds"),
            bar=bar,
            side=side,
            untestable=quick,
            paper=paper,
            figure=figure,
        )
    results.metrics(
        kappa=kappa,
        kappa_gaussian=kappa_gaussian,
        ratio_low=low,
        ratio_high=high,
        **{f"{name}_mean": per_seed[name].mean() for name in ["agreement", "slope", "correlation", "slope_control"]},
    )
