"""Figures and claims of notebooks/05_xai/02_tabular_explainers.ipynb."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns

from compendium import stats
from compendium.xai import metrics
from compendium.xai.studies.tabular_explainers import ASKED, OF_NET


def recovery_auroc(results, found, kinds):
    """Who finds the columns that made the labels."""
    order = [n for n in [*OF_NET, "no model", "random"] if n in set(found.explainer)]
    mean = found.groupby(["model", "explainer", "kind"]).used.mean()
    fig, axes = plt.subplots(1, 2, figsize=(10.5, 4), sharey=True)
    marks = dict(zip(kinds, "osD^vPX", strict=False))
    for ax, model_name in zip(axes, ("the score", "network"), strict=True):
        grid = mean[model_name].unstack()[kinds].reindex(order)
        ax.hlines(range(len(order)), grid.min(axis=1), grid.max(axis=1), color="0.8", lw=3, zorder=0)
        for i, (kind, mark) in enumerate(marks.items()):
            ax.scatter(grid[kind], range(len(order)), marker=mark, s=34, color=f"C{i}", label=kind)
        ax.axvline(0.5, color="0.7", ls="--", lw=1)
        what = "a trained network" if model_name == "network" else "the score itself"
        worst = grid.loc["shap"].min()
        ax.set(xlabel="AUROC of the columns that made the labels", yticks=range(len(order)), yticklabels=order)
        ax.set_title(f"{what}: SHAP from {worst:.2f} on")
    axes[0].invert_yaxis()
    axes[1].legend(loc="center left", bbox_to_anchor=(1, 0.5), title="kind of table")
    results.figure(fig, "recovery_auroc", mean.reset_index())
    plt.show()


def agreement_matrix(results, between):
    """One camp agrees."""
    full = pd.DataFrame(np.nan, OF_NET, OF_NET)
    for (a, b), value in between.correlation.items():
        if {a, b} <= set(OF_NET):
            full.loc[a, b] = full.loc[b, a] = value
    fig, ax = plt.subplots(figsize=(6.6, 4.8))
    sns.heatmap(full, annot=True, fmt=".2f", cmap="vlag", vmin=-1, vmax=1, ax=ax, cbar=False)
    itself = between.loc[("shap", "shap, other background"), "correlation"]
    ax.set_title(
        f"Rank correlation of two explanations of a row\nshap with itself, other background rows: {itself:.2f}"
    )
    results.figure(fig, "agreement_matrix", full.rename_axis("explainer").reset_index())
    plt.show()


def scores_by_metric(results, scores):
    """No explainer wins everywhere."""
    by_run = scores.pivot_table(index=["set", "seed", "explainer"], columns="metric", values="mean")[ASKED]
    mean_score = by_run.groupby("explainer").mean().loc[[*OF_NET, "random"]]
    half = (
        by_run.groupby("explainer")
        .agg(lambda v: np.diff(stats.bootstrap_interval(v.dropna()))[0] / 2 if v.notna().any() else np.nan)
        .loc[mean_score.index]
    )
    sign = pd.Series(metrics.BETTER)[ASKED]
    rank = (mean_score * sign).rank(ascending=False)
    fig, ax = plt.subplots(figsize=(8.5, 4))
    order = rank.mean(axis=1).sort_values().index
    for i, name in enumerate(order):
        ax.plot(
            [rank.loc[name].min(), rank.loc[name].max()], [i, i], color="0.85", lw=6, solid_capstyle="round", zorder=0
        )
        for place, number in rank.loc[name].value_counts().items():
            ax.scatter(place, i, s=40 + 45 * number, color="0.6" if name == "random" else "C0", alpha=0.8)
            ax.text(place, i, int(number), color="w", ha="center", va="center", fontsize=8)
    best = order[0]
    ax.set(
        yticks=range(len(order)),
        yticklabels=order,
        xticks=range(1, len(order) + 1),
        xlabel=f"rank by a metric (1 is best; number: how many of {len(ASKED)} metrics)",
        title=f"No explainer is best everywhere: {best} ranks from {rank.loc[best].min():.0f} to {rank.loc[best].max():.0f}",
    )
    ax.invert_yaxis()
    results.figure(
        fig,
        "scores_by_metric",
        mean_score.reset_index()
        .melt("explainer", value_name="mean")
        .merge(half.reset_index().melt("explainer", value_name="half interval")),
    )
    plt.show()
    return by_run, mean_score, sign


def baselines_ranking(results, taus):
    """The baseline decides part of the ranking."""
    fig, ax = plt.subplots(figsize=(6.5, 3))
    groups = taus.assign(pair=taus.a + " – " + taus.b).groupby("pair").tau
    interval = pd.DataFrame(
        [
            {
                "pair": p,
                "tau": v.mean(),
                **dict(zip(("low", "high"), stats.bootstrap_interval(v.dropna()), strict=True)),
            }
            for p, v in groups
        ]
    )
    ax.errorbar(
        interval.tau,
        interval.pair,
        xerr=[interval.tau - interval.low, interval.high - interval.tau],
        fmt="o",
        capsize=3,
    )
    ax.set(
        xlabel="Kendall's tau of the two rankings of explainers",
        xlim=(-0.6, 1.02),
        title="The baseline decides part of the ranking",
    )
    ax.axvline(0, color="0.7", lw=1)
    results.figure(fig, "baselines_ranking", interval)
    plt.show()


def order_of_attributions(results, wrong):
    """Sorted attributions look like noise."""
    fig, ax = plt.subplots(figsize=(6.5, 3.6))
    pick = wrong.groupby(["explainer", "attributions"]).score.agg(
        ["mean", lambda v: stats.bootstrap_interval(v)[0], lambda v: stats.bootstrap_interval(v)[1]]
    )
    pick.columns = ["mean", "low", "high"]
    for label, shift in (("in order", -0.12), ("sorted", 0.12)):
        part = pick.xs(label, level="attributions").loc[[*OF_NET, "random"]]
        ax.errorbar(
            part["mean"],
            np.arange(len(part)) + shift,
            xerr=[part["mean"] - part.low, part.high - part["mean"]],
            fmt="o",
            capsize=3,
            label=label,
        )
    ax.set_yticks(range(len(OF_NET) + 1), [*OF_NET, "random"])
    ax.invert_yaxis()
    ax.axvline(0, color="0.7", lw=1)
    ax.set(xlabel="correlation of attributions with single-feature drops", title="Sorted attributions look like noise")
    ax.legend()
    results.figure(fig, "order_of_attributions", pick.reset_index())
    plt.show()


def claims(results, enough, pairs, three, found, kinds, winner, lost, concordance, tau, fall, taus, is_control, sane):
    """The claims of this notebook, recorded."""
    quick = None if enough else "a quick run"
    of = lambda values: stats.mean(values.groupby("seed").mean(), "seeds")
    share_of = lambda values: stats.mean_share(values.groupby("seed").mean(), "seeds")
    agreement = pairs[[(a, b) in three for a, b in zip(pairs.a, pairs.b, strict=True)]]
    net_shap = found[(found.model == "network") & (found.explainer == "shap")]
    against = found[found.model == "network"].pivot_table(index=["kind", "seed"], columns="explainer", values="used")
    results.claim(
        "shap-lime-ig-agree",
        "paper",
        "SHAP, LIME and integrated gradients put the features of a row in the same order (rank correlation above 0.8)",
        of(agreement.set_index("seed").correlation),
        bar=0.8,
        margin=0.1,
        untestable=quick,
        paper="not stated; what evaluating one of them for all would need",
    )
    for kind in [k for k in ("linear", "interaction", "copies", "suppressor") if k in kinds]:
        results.claim(
            f"shap-finds-{kind}",
            "paper",
            f"SHAP of a trained network finds the columns that made the labels ({kind}; AUROC above 0.8)",
            of(net_shap[net_shap.kind == kind].set_index("seed").used),
            bar=0.8,
            margin=0.1,
            untestable=quick,
            paper="explanations have no ground truth to be judged by (position); here they have",
        )
    for id, kind, values, bar, statement, paper in (
        (
            "shap-beats-no-model",
            "control",
            against["shap"] - against["no model"],
            0.0,
            "SHAP of a trained network finds the columns that made the labels better than correlations with the label, which never ask the model (AUROC, difference above 0)",
            "",
        ),
        (
            "sorted-attributions-change-the-winner",
            "ours",
            winner.astype(float),
            0.5,
            "Using attributions sorted by size by position, as xai_evals 0.0.12 does, changes which explainer is most faithful (share above half)",
            "",
        ),
        (
            "baseline-changes-the-ranking",
            "paper",
            lost,
            0.0,
            "What removed features become changes the ranking of explainers more than new draws do (Kendall's tau lost above 0)",
            "metrics are fragmented and can be bent (position, abstract)",
        ),
    ):
        results.claim(
            id,
            kind,
            statement,
            share_of(values) if id.startswith("sorted") else of(values),
            bar=bar,
            margin=0.1,
            untestable=quick,
            paper=paper,
        )
    results.metrics(
        agreement=agreement.correlation.mean(),
        kendall_w=np.mean(concordance),
        sorted_tau=np.nanmean(tau),
        sorted_fall=fall.mean(),
        baseline_tau=taus[~is_control].tau.mean(),
        baseline_tau_without_zero=sane,
        **{f"auroc_{k}": v for k, v in net_shap.groupby("kind").used.mean().items()},
    )
