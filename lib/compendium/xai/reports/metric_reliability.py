"""Figures of notebooks/05_xai/04_metric_reliability.ipynb."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns

from compendium.xai import meta, metrics


def gate(results, gate, kinds):
    """Seven metrics know right from reversed."""
    grid = gate.pivot_table(index="metric", columns="table", values="passes", sort=False).astype(float)
    fig, ax = plt.subplots(figsize=(1.1 * len(kinds) + 3.2, 4))
    sns.heatmap(grid, annot=True, fmt=".2f", cmap="Blues", vmin=0, vmax=1, linewidths=1, cbar=False, ax=ax)
    ax.set(xlabel="", ylabel="", title="Metrics of form and sum cannot tell\na right explanation from a reversed one")
    results.figure(fig, "gate", grid.reset_index())
    plt.show()


def validity(results, valid, steps, by_size):
    """What counts as truth matters."""
    order = valid.sort_values("tau").metric.tolist()
    fig, ax = plt.subplots(figsize=(7.2, 5))
    tests = {
        "noise in steps": (0.2, steps, "s"),
        "ten methods": (0, valid, "o"),
        "ten methods, by AUROC": (-0.2, by_size, "^"),
    }
    for label, (offset, frame, marker) in tests.items():
        frame = frame[frame.metric.isin(order)].set_index("metric").reindex(order).dropna(subset=["tau"])
        y = np.array([order.index(m) for m in frame.index]) + offset
        ax.errorbar(
            frame.tau, y, xerr=[frame.tau - frame.low, frame.high - frame.tau], fmt=marker, ms=5, capsize=2, label=label
        )
    ax.axvline(0, color="0.6", lw=1)
    ax.set(
        yticks=range(len(order)),
        yticklabels=order,
        xlabel="Kendall's tau with the truth [95 %]",
        title="Agreement on noise is no agreement on methods,\nand what counts as truth matters",
    )
    ax.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    results.figure(fig, "validity", pd.concat([frame.assign(test=label) for label, (_, frame, _) in tests.items()]))
    plt.show()


def agreement(results, tables, asking, summary):
    """Metrics form camps."""
    names = list(metrics.METRICS)
    agreed = []
    for (kind, seed), part in tables["scores"].groupby(["table", "seed"], sort=False):
        table = part.pivot_table(index="method", columns="metric", values="score", sort=False)
        drawn = pd.DataFrame(np.random.default_rng(seed).random(table[names].shape))
        for who, some in (
            ("all metrics", table[names]),
            ("asking the model", table[asking]),
            ("random numbers", drawn),
        ):
            agreed.append({"judges": who, "W": meta.concordance(some), "table": kind, "seed": seed})
    agreed = pd.DataFrame(agreed)
    concord = summary(agreed, "judges", "W")
    results.table(concord, "concordance")
    taus = tables["taus"].groupby(["metric", "other"], sort=False).tau.mean().unstack().loc[names, names]
    fig, ax = plt.subplots(figsize=(7, 5.6))
    sns.heatmap(
        taus,
        annot=True,
        fmt=".1f",
        cmap="vlag",
        vmin=-1,
        vmax=1,
        annot_kws={"size": 7},
        cbar_kws={"label": "Kendall's tau"},
        ax=ax,
    )
    ax.set(xlabel="", ylabel="", title="Metrics form camps that rank methods differently")
    results.figure(fig, "agreement", taus.reset_index())
    plt.show()
    return concord, names, taus


def knobs(results, both, knobs, names):
    """Which choices turn which metric's order."""
    fig, axes = plt.subplots(1, 2, figsize=(11, 4.6), sharey=True)
    for ax, column, title in zip(
        axes,
        ("flipped", "clear"),
        ("Pairs of methods that change order", "... from clear to clearly opposite"),
        strict=True,
    ):
        grid = both.pivot_table(index="metric", columns="knob", values=column, sort=False)[knobs].loc[
            [*names, meta.CONTROL]
        ]
        sns.heatmap(
            grid,
            annot=True,
            fmt=".2f",
            cmap="Reds",
            vmin=0,
            vmax=1,
            linewidths=1,
            cbar=False,
            annot_kws={"size": 8},
            ax=ax,
        )
        ax.set(xlabel="", ylabel="", title=title)
        ax.tick_params(axis="x", rotation=40)
    results.figure(fig, "knobs", both)
    plt.show()


def ranks(results, tables, quality):
    """The ranks that a method can be given without touching the model."""
    ranks = tables["ranks"].groupby(["metric", "method"], sort=False)[["default", "best", "worst"]].mean().reset_index()
    results.table(ranks, "possible_ranks")
    shown = ["deletion", "faithfulness correlation", "infidelity", "max sensitivity"]
    listed = list(quality.index)
    fig, axes = plt.subplots(1, len(shown), figsize=(11.5, 3.6), sharey=True)
    for ax, name in zip(axes, shown, strict=True):
        part = ranks[ranks.metric == name].set_index("method").loc[listed]
        ax.hlines(range(len(listed)), part.best, part.worst, color="C0", lw=5, alpha=0.4)
        ax.plot(part.default, range(len(listed)), "o", color="C0", label="default")
        ax.plot(range(1, len(listed) + 1), range(len(listed)), "|", color="C3", ms=12, mew=2, label="rank by the truth")
        ax.set(yticks=range(len(listed)), yticklabels=listed, xlabel="rank, mean", xlim=(0.5, len(listed) + 0.5))
        ax.set_title(name, fontweight="normal", fontsize="small")
    axes[0].invert_yaxis()
    fig.suptitle(
        "The ranks that a method can be given without touching the model",
        x=0.01,
        ha="left",
        fontweight="bold",
        fontsize="medium",
    )
    handles, labels = axes[0].get_legend_handles_labels()
    fig.legend(handles, labels, loc="outside lower center", ncols=2)
    results.figure(fig, "ranks", ranks[ranks.metric.isin(shown)])
    plt.show()


def climbs(results, gained, asking):
    """A full denial cannot be made to score well."""
    part = gained[gained.metric.isin(asking)]
    fig, ax = plt.subplots(figsize=(6.4, 3.4))
    for offset, (denied, frame) in zip((0.12, -0.12), part.groupby("denied", sort=False), strict=True):
        y = np.array([asking.index(m) for m in frame.metric]) + offset
        ax.errorbar(
            frame.won,
            y,
            xerr=[frame.won - frame.low, frame.high - frame.won],
            fmt="o",
            capsize=2,
            label=f"denies {denied}",
        )
    ax.axvline(0, color="0.6", lw=1)
    ax.axvline(1, color="C3", lw=1)
    ax.set(
        yticks=range(len(asking)),
        yticklabels=asking,
        xlabel="share of the way from random (0) to exact (1) [95 %]",
        title="Metrics that ask the model resist a full denial,\nless so the denial of the strongest column",
    )
    ax.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    results.figure(fig, "climbs", part)
    plt.show()


def scaffold(results, secrets, hidden, summary):
    """A model can hide the column it decides by."""
    fig, axes = plt.subplots(1, len(secrets), figsize=(3.6 * len(secrets) + 1.6, 3.4), sharey=True, squeeze=False)
    listed = list(dict.fromkeys(hidden.explainer))
    for ax, name in zip(axes[0], secrets, strict=True):
        for k, kind in enumerate(("biased", "scaffold", "blind scaffold")):
            frame = summary(hidden[(hidden.table == name) & (hidden.model == kind)], "explainer", "hidden")
            y = np.arange(len(listed)) + 0.2 * (1 - k)
            ax.errorbar(
                frame.hidden,
                y,
                xerr=[frame.hidden - frame.low, frame.high - frame.hidden],
                fmt="so^"[k],
                capsize=2,
                label=kind,
            )
        ax.set(
            yticks=range(len(listed)),
            yticklabels=listed,
            xlim=(-0.05, 1.05),
            xlabel="rows with the hidden column on top",
        )
        ax.set_title(name, fontweight="normal", fontsize="small")
    axes[0][0].invert_yaxis()
    axes[0][-1].legend(loc="center left", bbox_to_anchor=(1, 0.5))
    fig.suptitle("A model can hide the column it decides by", x=0.01, ha="left", fontweight="bold", fontsize="medium")
    results.figure(fig, "scaffold", hidden)
    plt.show()


def domain_requirements(results, tables):
    """Requirements met, by use."""
    needs = tables["domains"]
    domains = needs.domain.unique().tolist()
    asked = pd.DataFrame(
        [
            {"use": d, "requirement": k, "text": r.text, "at least": r.least}
            for d in domains
            for k, r in meta.DOMAINS[d].requirements.items()
        ]
    )
    results.table(asked, "requirements")
    level = needs.groupby(["domain", "method", "requirement"], sort=False)[["value", "least"]].mean().reset_index()
    level["met"] = level.value >= level.least
    results.table(level, "domains")
    fig, axes = plt.subplots(1, len(domains), figsize=(3.7 * len(domains) + 1.2, 4.2), sharey=True, squeeze=False)
    for ax, name in zip(axes[0], domains, strict=True):
        frame = level[level.domain == name]
        grid = frame.pivot_table(index="method", columns="requirement", values="value", sort=False)
        met = frame.pivot_table(index="method", columns="requirement", values="met", sort=False).astype(float)
        sns.heatmap(
            met, annot=grid, fmt=".2f", cmap=["#e8c4b8", "#b8d8c8"], vmin=0, vmax=1, linewidths=1, cbar=False, ax=ax
        )
        ax.set(xlabel="", ylabel="")
        ax.set_title(name, fontweight="normal", fontsize="small")
        ax.tick_params(axis="x", rotation=35)
    fig.suptitle("Requirements met (green), by use", x=0.01, ha="left", fontweight="bold", fontsize="medium")
    results.figure(fig, "domain_requirements", level)
    plt.show()
    return asked, level
