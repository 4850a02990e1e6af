"""Figures and claims of notebooks/02_unlearning/04_quantization_reversal.ipynb."""

import matplotlib.pyplot as plt
import seaborn as sns

from compendium import stats
from compendium.unlearning import outcomes


def storage(results, gaps, stored):
    """Before and after storage."""
    moved = gaps[gaps.method != "none"]
    star = gaps[(gaps.method == "none") & (gaps.master == "float32")].set_index("format").gap
    fig, ax = plt.subplots(figsize=(7.5, 0.5 * len(stored) + 1.4))
    colours = {"float32": "C0", "bfloat16": "C1"}
    for i, fmt in enumerate(stored):
        for j, (master, colour) in enumerate(colours.items()):
            part = moved[(moved.format == fmt) & (moved.master == master)]
            ax.scatter(100 * part.gap, [i + 0.16 * (2 * j - 1)] * len(part), color=colour, s=28, alpha=0.8)
        if fmt in star:
            ax.plot(100 * star[fmt], i, "k*", ms=10)
    ax.axvline(0, color="0.6", ls="--", lw=1)
    mean = moved[moved.master == "float32"].groupby("format").gap.mean().loc[list(stored)]
    ax.set(
        yticks=range(len(stored)),
        yticklabels=[fmt.upper() for fmt in stored],
        xlabel="points of forgotten answers that come back (star: the untouched model)",
        title=f"{mean.idxmax().upper()} brings back {100 * mean.max():.0f} points, NF4 {100 * mean['nf4']:.0f}",
    )
    ax.invert_yaxis()
    ax.text(1, 1.02, "trained in float32", color="C0", ha="right", transform=ax.transAxes, fontsize=9)
    ax.text(1, 1.1, "trained in bfloat16", color="C1", ha="right", transform=ax.transAxes, fontsize=9)
    results.figure(fig, "storage", gaps)
    plt.show()


def formats(results):
    """What four-bit formats bring back."""
    table = outcomes.table(outcomes.read("answers"), outcomes.read("facts"))
    formats_run = [c.removesuffix(" gap") for c in table if c.endswith(" gap")]
    several = table[table[[f"{fmt} gap" for fmt in formats_run]].notna().all(axis=1)].replace(
        {"method": {"none": "none (untouched)"}}
    )
    long = several.melt(["domain", "seed", "method"], [f"{fmt} gap" for fmt in formats_run], "format", "gap")
    long["format"] = long.format.str.removesuffix(" gap")
    fig, ax = plt.subplots(figsize=(8, 4))
    sns.pointplot(
        long, x="gap", y="method", hue="format", errorbar=("pi", 100), linestyle="none", dodge=0.5, markersize=4, ax=ax
    )
    ax.axvline(0, color="0.6", ls="--", lw=1)
    ax.set(
        xlabel="forgotten answers that come back (mean and range over runs; left of 0: fewer still)",
        ylabel="",
        title="What 4-bit formats bring back, beside the untouched model",
    )
    sns.move_legend(ax, "center left", bbox_to_anchor=(1, 0.5), title=None)
    results.figure(fig, "formats", long)
    plt.show()
    return long, table


def claims(results, gaps, stored, masters, asked, key, table):
    """The claims of this notebook, recorded."""
    BACK = "at least 5 points of what is forgotten"
    start = gaps[gaps.method == "none"].forget.iloc[0]
    counted = gaps[(gaps.method != "none") & (gaps.forget <= start - 0.2) & (gaps.retained >= 0.5)]
    for fmt, master in [(f, m) for f in ("nf4", "int8") if f in stored for m in masters]:
        part = asked.merge(counted[(counted.format == fmt) & (counted.master == master)][key], on=key)
        gap = (part[fmt] - part["float32"]).groupby(part.subject).mean()  # by fact: mean over runs that count
        n = len(part[key].drop_duplicates())
        results.claim(
            f"{fmt}-recovers-{master}",
            "paper",
            f"{fmt.upper()} brings back {BACK if fmt == 'nf4' else 'less than 5 points'} with {master} weights (gap; {n} runs of one domain)",
            stats.resampled_mean(gap, "facts"),
            bar=0.05,
            side="above" if fmt == "nf4" else "below",
            figure="storage",
            untestable=None if n > 1 else "fewer than two runs",
            paper="4 bits: much comes back" if fmt == "nf4" else "8 bits: little comes back",
        )
    several_answers, objectives = outcomes.read("answers"), ["GradDiff", "NPO", "NPO + KL", "SimNPO", "LoRA"]
    untouched_forget = table[table.method == "none"].set_index(["domain", "seed"]).forget
    runs_counted = table[table.method.isin(objectives)].join(untouched_forget.rename("start"), on=["domain", "seed"])
    runs_counted = runs_counted[
        (runs_counted.forget <= runs_counted.start - 0.2) & (runs_counted[["near", "far"]].mean(axis=1) >= 0.5)
    ]
    for fmt, id, what, kind, paper in (
        ("nf4", "tuned-baselines-recover", "NF4", "paper", "gaps of +0.05 to +0.07 in 4 bits"),
        ("fp4", "fp4-recovers", "FP4", "paper", "gaps of +0.05 to +0.07 in 4 bits"),
        ("q4_0", "q4-0-recovers", "Q4_0", "paper", "gaps of +0.05 to +0.07 in 4 bits"),
        ("q4_1", "native-grid-recovers", "Q4_1, the grid these weights were published on,", "control", ""),
    ):
        of = runs_counted[runs_counted[f"{fmt} gap"].notna()]
        gap = outcomes.pooled_gaps(several_answers, of, fmt)
        results.claim(
            id,
            kind,
            f"{what} brings back {BACK} by {', '.join(sorted(set(of.method)))} (mean over methods, domains and seeds)",
            outcomes.interval(gap),
            bar=0.05,
            paper=paper,
            margin=0.02,
            figure="formats",
        )
