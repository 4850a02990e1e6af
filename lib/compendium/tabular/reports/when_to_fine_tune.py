"""Figures and claims of notebooks/04_tabular/05_when_to_fine_tune.ipynb."""

import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
from sklearn.tree import export_text

from compendium import paths, stats, units
from compendium.tabular.studies import when_to_fine_tune


def gain_by_factor(results, factors, own, by_factor):
    """Gains by factor."""
    fig, axes = plt.subplots(1, 3, figsize=(10, 3.2), sharey=True)
    for ax, factor in zip(axes, factors, strict=True):
        for shift, name in enumerate(own):
            part = by_factor.query("strategy == @name and factor == @factor")
            place = np.arange(len(part)) + 0.12 * (shift - (len(own) - 1) / 2)
            ax.errorbar(
                place, part.gain, yerr=[part.gain - part.low, part.high - part.gain], fmt="o", capsize=2, label=name
            )
        ax.set(
            xticks=range(len(part)),
            xticklabels=[f"{v}\n({n} sets)" for v, n in zip(part.value, part.sets, strict=True)],
            xlabel=factor,
        )
        ax.axhline(0, color="0.6", lw=1)
    axes[0].set(ylabel="gain (nats)", title="Gain over zero-shot by factor")
    axes[2].legend(loc="center left", bbox_to_anchor=(1, 0.5))
    results.figure(fig, "gain_by_factor", by_factor)
    plt.show()


def rules(results, tree, known, gain, best, choices):
    """What a rule would have given."""
    print(export_text(tree.fit(known, gain[best]), feature_names=list(known), decimals=2))
    fig, ax = plt.subplots(figsize=(6, 2.8))
    intervals = [stats.bootstrap_interval(choices[c]) for c in choices]
    ax.errorbar(
        choices.mean(),
        choices.columns,
        xerr=np.abs(np.array(intervals).T - choices.mean().to_numpy()),
        fmt="o",
        capsize=3,
    )
    ax.axvline(0, color="0.6", lw=1)
    ax.set(xlabel=f"mean gain of {best} over zero-shot (nats)", title="What a rule would have given")
    results.figure(fig, "rules", choices.mean().rename("gain").rename_axis("rule").reset_index())
    plt.show()


def context_length(results, contexts, length_sets, length_seeds, lengths, members):
    """Context instead of training."""
    if contexts is None:
        curve = when_to_fine_tune.scores(sets=length_sets, seeds=length_seeds, lengths=lengths, members=members)
    else:
        curve = units.read(paths.ROOT / contexts, again="dvc repro 04-when_to_fine_tune-units")["scores"]
    results.table(curve, "lengths")
    mean = curve.groupby(["method", "rows"]).auc.mean().unstack("method")
    fig, ax = plt.subplots(figsize=(5.5, 3.4))
    sns.lineplot(
        curve, x="rows", y="auc", hue="method", style="method", markers=True, dashes=False, errorbar=("se", 1.96), ax=ax
    )
    ax.set(xscale="log", xlabel="labelled rows", ylabel="AUC", title="Context instead of training")
    ax.set_xticks(lengths, lengths)
    ax.minorticks_off()
    results.figure(fig, "context_length", mean.reset_index())
    plt.show()
    return mean


def claims(results, tags, gain, enough, own, r2, shuffled):
    """The claims of this notebook, recorded."""

    def difference(strategy, factor, first, second):
        """Gain where `factor` is `first`, minus where it is `second`: mean and bootstrap interval over sets."""
        value = tags[factor].reindex(gain.index)
        a, b = (gain[strategy][value == v].to_numpy() for v in (first, second))
        n = min(len(a), len(b))
        if n < 3:
            return stats.Estimate(np.nan, None, None, n, "data sets of the rarer kind")
        rng = np.random.default_rng(0)
        drawn = [rng.choice(a, len(a)).mean() - rng.choice(b, len(b)).mean() for _ in range(2000)]
        return stats.Estimate(
            a.mean() - b.mean(), *np.quantile(drawn, [0.025, 0.975]), n, "data sets of the rarer kind"
        )

    quick = None if enough else "a quick run"
    for id, statement, paper, strategy, *compared in (
        (
            "tune-medium-tables",
            "Tuning gains more on 1,000 to 10,000 rows than below",
            "guideline 1 and 2",
            "sft",
            "size",
            "medium",
            "small",
        ),
        (
            "tune-wide-tables",
            "Tuning gains more on wide tables than on others",
            "+2.2 points (TabPFN, SFT, more than 100 columns)",
            "sft",
            "width",
            "wide",
            "medium",
        ),
        (
            "meta-for-imbalance",
            "Meta-learning gains more on imbalanced tables",
            "guideline 3; its own table says the opposite",
            "meta",
            "balance",
            "imbalanced",
            "balanced",
        ),
    ):
        if strategy in own:
            results.claim(
                id,
                "paper",
                f"{statement} (fall of log-loss, difference above 0)",
                difference(strategy, *compared),
                bar=0.0,
                margin=0.01,
                untestable=quick,
                paper=paper,
                figure="gain_by_factor",
            )
    results.claim(
        "factors-guide",
        "paper",
        "A small tree on these factors predicts the gain on sets it has not seen (share of squared error removed above 0)",
        stats.Estimate(r2, None, None, len(gain), "data sets"),
        bar=0.0,
        paper="guidance by factor, unchecked",
        figure="rules",
        untestable=quick
        or f"no interval; {np.mean(np.array(shuffled) < r2):.0%} of shuffled gains are predicted worse",
    )
