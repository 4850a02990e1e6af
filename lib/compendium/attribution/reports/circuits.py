"""Figures and claims of notebooks/01_attribution/02_circuits.ipynb."""

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
import torch

from compendium import stats
from compendium.attribution import circuits, draw
from compendium.attribution.studies import circuits as study

NAMES = {
    "country_capital": "capitals",
    "agreement": "subject and verb",
    "greater_than": "greater than",
    "indirect_object": "indirect object",
}


def named(table):
    """A table whose behaviours have names for people."""
    return table.assign(task=table.task.map(lambda task: NAMES.get(task, task)))


def rank_correlation(results, ranks, METHODS, behaviours, seeds):
    """EAP orders parts best."""
    results.table(ranks, "ranks")
    best = ranks.groupby("method").spearman.mean().idxmax()
    panels = {"spearman": "with sign", "spearman of sizes": "size only"}
    fig, axes = plt.subplots(1, 2, figsize=(11, 3.6), sharey=True)
    for ax, (column, title) in zip(axes, panels.items(), strict=True):
        options = dict(x="task", y=column, hue="method", hue_order=METHODS, ax=ax)
        sns.barplot(named(ranks), errorbar=None, legend=ax is axes[1], **options)
        sns.stripplot(
            named(ranks), dodge=True, jitter=False, palette=["k"] * len(METHODS), size=3, legend=False, **options
        )
        ax.set(xlabel="", ylabel="rank correlation with exact patching", title=title)
        ax.tick_params("x", rotation=15)
    sns.move_legend(axes[1], "center left", bbox_to_anchor=(1, 0.5), title=None)
    fig.suptitle(f"{best} ranks heads and MLPs best", x=0.01, ha="left", weight="bold")
    results.figure(fig, "rank_correlation", ranks)
    plt.show()
    first = ranks[(ranks.task == behaviours[0]) & (ranks.seed == seeds[0])].set_index("method").spearman
    return first


def faithfulness(results, behaviours, curves, METHODS, shares):
    """Small circuits keep most of a behaviour."""
    fig, axes = plt.subplots(1, len(behaviours), figsize=(1.5 + 2.7 * len(behaviours), 3.3), sharey=True, squeeze=False)
    for ax, task in zip(axes[0], behaviours, strict=True):
        sns.lineplot(
            curves[curves.task == task],
            x="share",
            y="faithfulness",
            hue="method",
            hue_order=METHODS,
            marker="o",
            errorbar=("pi", 100),
            legend=task == behaviours[-1],
            ax=ax,
        )
        for level in (0, 1):
            ax.axhline(level, color="0.7", lw=1, zorder=0)
        ax.set(
            xscale="log",
            ylim=(-0.5, 1.6),
            xlabel="share of edges kept",
            ylabel="faithfulness, held-out pairs",
            title=NAMES.get(task, task),
        )
    sns.move_legend(axes[0, -1], "center left", bbox_to_anchor=(1, 0.5), title=None)
    small = curves[(curves.share == min(shares)) & (curves.method == "EAP-IG")].faithfulness.mean()
    fig.suptitle(
        f"{min(shares):.1%} of the edges, chosen by EAP-IG, keep {small:.0%} of a behaviour",
        x=0.01,
        ha="left",
        weight="bold",
    )
    results.figure(fig, "faithfulness", curves)
    plt.show()


def variants(results, variants):
    """The ablation is part of the result."""
    order = list(dict.fromkeys(variants.circuit))
    shown = named(variants)
    fig, ax = plt.subplots(figsize=(8.5, 3.4))
    options = dict(x="faithfulness", y="circuit", hue="task", order=order, ax=ax)
    options["dodge"] = 0.5 if shown.task.nunique() > 1 else False
    sns.pointplot(shown, errorbar=("pi", 100), linestyle="none", markersize=5, **options)
    for level in (0, 1):
        ax.axvline(level, color="0.7", lw=1, zorder=0)
    left = variants[variants.circuit == order[-1]].faithfulness.mean()
    ax.set(ylabel="", title=f"Without its top 1 % of edges the model keeps {left:.0%} of a behaviour")
    ax.set_xlabel("faithfulness (1: as the model, 0: as the corrupt prompt)")
    sns.move_legend(ax, "center left", bbox_to_anchor=(1, 0.5), title=None)
    results.figure(fig, "variants", variants)
    plt.show()


def steps(results, by_steps, steps_tried):
    """Five steps are nearly enough."""
    fig, ax = plt.subplots(figsize=(7, 3.6))
    shown = named(by_steps)
    sns.lineplot(shown, x="steps", y="spearman", hue="task", marker="o", errorbar=("pi", 100), legend=False, ax=ax)
    last = shown[shown.steps == max(steps_tried)].groupby("task", sort=False).spearman.mean()
    places = last.sort_values()
    heights = places.to_numpy().copy()
    for i in range(1, len(heights)):  # names that would cover one another move apart
        heights[i] = max(heights[i], heights[i - 1] + 0.05)
    colours = dict(zip(last.index, sns.color_palette(), strict=False))
    for (task, _), height in zip(places.items(), heights, strict=True):
        ax.text(max(steps_tried) * 1.06, height, task, color=colours[task], va="center", fontsize=9)
    mean = by_steps.groupby("steps").spearman.mean()
    most, before = max(steps_tried), sorted(steps_tried)[-2] if len(steps_tried) > 1 else max(steps_tried)
    ax.set(
        xscale="log",
        xlabel="interpolation steps",
        ylabel="rank correlation with exact patching",
        title=f"From {before} to {most} steps agreement rises by {mean[most] - mean[before]:.2f}",
    )
    ax.set_xticks(steps_tried, steps_tried)
    ax.minorticks_off()
    results.figure(fig, "steps", by_steps)
    plt.show()


def lasting(results, overlaps, lasting):
    """Edges change, circuits mostly last."""
    fig, axes = plt.subplots(1, 2, figsize=(11, 3.6), width_ratios=(3, 2))
    sns.barplot(named(overlaps), x="task", y="overlap", hue="between", errorbar=("pi", 100), ax=axes[0])
    axes[0].set(
        xlabel="",
        ylabel="Jaccard overlap of the top 1 % of edges",
        ylim=(0, 1.02),
        title="Which edges: between prompts, and under NF4",
    )
    axes[0].legend(title=None, fontsize="small", loc="upper right")
    both = named(lasting).rename(columns={"faithfulness": "float32", "faithfulness in NF4": "NF4"})
    both = both.melt("task", ["float32", "NF4"], "model", "value")
    sns.barplot(both, x="task", y="value", hue="model", errorbar=("pi", 100), ax=axes[1], palette=["0.4", "C1"])
    axes[1].axhline(1, color="0.7", lw=1)
    axes[1].set(xlabel="", ylabel="faithfulness of the top 1 %", title="What they carry: float32 and NF4")
    sns.move_legend(axes[1], "center left", bbox_to_anchor=(1, 0.5), title=None)
    for ax in axes:
        ax.tick_params("x", rotation=15)
    results.figure(fig, "lasting", lasting)
    plt.show()


def heat_map(results, behaviours, tables, graph, edges, seeds, shape, edges_drawn):
    """Where the score sits."""
    task = behaviours[0]
    nodes = tables["nodes"].query("task == @task").groupby("node", sort=False).score.mean()
    fig, ax = plt.subplots(figsize=(9, 3.2))
    draw.heat_map(ax, graph, torch.tensor(nodes.to_numpy()))
    size = nodes.drop("input").abs().sort_values(ascending=False)
    held = size.iloc[:2].sum() / size.sum()
    first, second = size.index[:2]
    ax.set_title(f"{NAMES.get(task, task)}: {first} and {second} hold {held:.0%} of all heads' and MLPs' score")
    results.figure(fig, "heat_map", nodes.reset_index())
    plt.show()

    one = study.edge_scores(edges[task, seeds[0]], shape)
    mask = circuits.top_edges(graph, one, edges_drawn)
    fig, ax = plt.subplots(figsize=(10, 4.2))
    draw.circuit(ax, graph, mask, one)
    ax.set_title(f"{NAMES.get(task, task)}: the {int(mask.sum())} strongest edges of one sample of pairs")
    kept = [(graph.source_names[u], graph.destination_names[d], one[u, d].item()) for u, d in mask.nonzero().tolist()]
    results.figure(fig, "circuit", pd.DataFrame(kept, columns=["source", "destination", "score"]))
    plt.show()
    return nodes


def by_model(results, of_model):
    """What the units say of each model, behaviour by behaviour, means over samples. of_model: tables by model."""
    rows = []
    for model, tables in of_model.items():
        ranks, areas = (
            tables[name].pivot_table(column, "task", "method", sort=False)
            for name, column in (("ranks", "spearman"), ("areas", "CMD log"))
        )
        found = tables["lasting"].groupby("task", sort=False).mean().drop(columns="seed")
        for name, values in (("distance from 1", areas), ("spearman", ranks)):
            for method in ("EAP-IG", "EAP"):
                found.insert(0, f"{name}, {method}", values[method])
        rows.append(named(found.reset_index()).assign(model=model))
    table = pd.concat(rows, ignore_index=True).rename(columns={"task": "behaviour"})
    table = table[["model", *(column for column in table if column != "model")]]
    results.table(table, "models")
    return table


def claims(results, seeds, ranks, areas, lasting, behaviours):
    """The claims of this notebook, recorded."""
    quick = None if len(seeds) > 1 else "a quick run"
    wide = ranks.pivot_table("spearman", ["task", "seed"], "method")
    per_seed = areas.groupby(["seed", "method"])[["CPR", "CMD", "CMD log"]].mean().unstack("method")
    gain = {rival: per_seed["CMD log"][rival] - per_seed["CMD log"]["EAP-IG"] for rival in ("EAP", "random")}
    survive = (lasting["faithfulness in NF4"] - lasting["faithfulness"]).groupby(lasting.seed).mean()
    results.claim(
        "eap-ig-ranks-as-patching",
        "paper",
        f"EAP-IG ranks heads and MLPs as exact patching does ({behaviours[0]}; Spearman's rank correlation above 0.8)",
        stats.mean_share(wide.loc[behaviours[0]]["EAP-IG"], "seeds"),
        bar=0.8,
        margin=0.1,
        untestable=quick,
        paper="EAP-IG finds what patching finds (no node-level number known to us)",
        figure="rank_correlation",
    )
    for rival, kind, paper in (("EAP", "paper", "EAP-IG more faithful than EAP"), ("random", "control", "")):
        results.claim(
            f"eap-ig-beats-{rival.lower()}",
            kind,
            f"EAP-IG circuits are more faithful than {rival} circuits (CMD over log share, difference above 0, mean over behaviours)",
            stats.mean(gain[rival], "seeds"),
            bar=0.0,
            margin=0.02,
            untestable=quick,
            paper=paper,
            figure="faithfulness",
        )
    results.claim(
        "circuit-survives-nf4",
        "ours",
        "A circuit found in full precision is as faithful in the NF4 model (difference within 0.1, mean over behaviours)",
        stats.mean(survive, "seeds"),
        bar=(-0.1, 0.1),
        side="within",
        untestable=quick,
        figure="lasting",
    )
    results.metrics(
        **{f"spearman_{t}": wide.loc[t]["EAP-IG"].mean() for t in behaviours},
        cmd_log_eap_ig=per_seed["CMD log"]["EAP-IG"].mean(),
        cmd_log_eap=per_seed["CMD log"]["EAP"].mean(),
    )
