"""Figures of notebooks/05_xai/05_posthoc_vs_mechanistic.ipynb."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from compendium import stats
from compendium.xai import planted
from compendium.xai.studies.posthoc_vs_mechanistic import PLANTS


def detection(results, detection):
    """Planted or clean? AUC of each kind of evidence for an active shortcut, a backdoor, and a backdoor on spotless inputs."""
    fig, axes = plt.subplots(1, 3, figsize=(10.5, 3.8), sharey=True)
    shades = dict(zip(dict.fromkeys(planted.KINDS.values()), ["0.5", "C2", "C1", "C4", "C0"], strict=True))
    for ax, (condition, part) in zip(axes, detection.groupby("condition", sort=False), strict=True):
        for i, row in enumerate(part.itertuples()):
            ax.plot([row.low, row.high], [i, i], color=shades[row.family], lw=2)
            ax.plot(row.auc, i, "o", color=shades[row.family])
        ax.axvline(0.5, color="0.7", lw=1, ls="--")
        ax.set(xlim=(-0.03, 1.03), xlabel="AUC", title=condition)
    axes[0].set_yticks(range(len(planted.KINDS)), [f"{kind} ({family})" for kind, family in planted.KINDS.items()])
    axes[0].invert_yaxis()
    spotless = detection[detection.condition == "backdoor, spotless inputs"].set_index("kind")
    posthoc = spotless[spotless.family == "post-hoc"]
    fig.suptitle(
        f"Planted or clean? On spotless inputs integrated gradients reach an AUC of {spotless.auc['integrated gradients']:.2f},\n"
        f"a search for triggers {spotless.auc['trigger search']:.2f}",
        x=0.01,
        ha="left",
        weight="bold",
    )
    results.figure(fig, "detection", detection)
    plt.show()
    return posthoc, spotless


def effect_and_side_effect(results, ORDER, cut, policy_budgets, budgets):
    """What an edit removes and what it costs."""
    lines = {
        "random": "0.6",
        "gradient x activation, ordinary": "C3",
        "linear probe": "C4",
        "gradient x activation": "C1",
        "mean ablation, estimated": "C2",
        "EAP-IG": "C0",
        "oracle": "k",
    }
    fig, axes = plt.subplots(2, 3, figsize=(10.5, 5.4), sharey="row", sharex="col")
    for (top, bottom), plant in zip(axes.T, ORDER, strict=True):
        for name, colour in lines.items():
            part = cut[(cut.plant == plant) & (cut.method == name)]
            for ax, column in ((top, "removed"), (bottom, "lost")):
                if len(part):
                    by = part.groupby("k")[column]
                    mean, (low, high) = by.mean(), np.transpose([stats.t_interval(v) for _, v in by])
                    ax.plot(mean.index, mean, "o-", ms=4, color=colour, label=name)
                    ax.fill_between(mean.index, low, high, color=colour, alpha=0.12, lw=0)
        top.set(title=plant, xscale="log", ylim=(-0.15, 1.05))
        bottom.set(xlabel="units edited", ylim=(-0.05, 0.8))
        bottom.set_xticks(
            policy_budgets if plant == "policy" else budgets, policy_budgets if plant == "policy" else budgets
        )
        bottom.minorticks_off()
    axes[0, 0].set_ylabel("rule removed")
    axes[1, 0].set_ylabel("accuracy lost")
    axes[0, 2].legend(*axes[0, 0].get_legend_handles_labels(), loc="upper left", bbox_to_anchor=(1, 1))
    k = policy_budgets[-2]
    at = cut[(cut.plant == "policy") & (cut.k == k)].groupby("method").removed.mean()
    fig.suptitle(
        f"{k} of the policy's units remove {at['EAP-IG']:.0%} of its rule if EAP-IG chooses them, {at['linear probe']:.0%} for a probe,\n"
        f"{at['gradient x activation']:.0%} for gradient x activation on examples, {at['gradient x activation, ordinary']:.0%} on ordinary inputs",
        x=0.01,
        ha="left",
        weight="bold",
    )
    results.figure(fig, "effect_and_side_effect", cut)
    plt.show()
    return lines


def net_effect(results, area, family, information, ORDER, COLOURS):
    """Net effect by how units were chosen."""
    summary = []
    for (plant, name), part in area.groupby(["plant", "method"], sort=False):
        low, high = stats.t_interval(part.net)
        summary.append(
            {
                "plant": plant,
                "method": name,
                "family": family[name],
                "information": information[name],
                "net": part.net.mean(),
                "low": low,
                "high": high,
                "faithfulness": part.faithfulness.mean(),
            }
        )
    summary = pd.DataFrame(summary)
    names = [*planted.METHODS, "oracle"]
    fig, axes = plt.subplots(1, 3, figsize=(10.5, 5), sharey=True, sharex=True)
    for ax, plant in zip(axes, ORDER, strict=True):
        part = summary[summary.plant == plant].set_index("method")
        for i, name in enumerate(names):
            if name in part.index:
                row = part.loc[name]
                ax.plot([row.low, row.high], [i, i], color=COLOURS[row.family], lw=2)
                ax.plot(row.net, i, "o", color=COLOURS[row.family])
        ax.axvline(0, color="0.7", lw=1)
        ax.set(title=plant, xlabel="net effect")
    axes[0].set_yticks(range(len(names)), [f"{name} [{information[name]}]" for name in names])
    axes[0].invert_yaxis()
    for name, colour in COLOURS.items():
        axes[2].plot([], [], "o", color=colour, label=name)
    axes[2].legend(loc="center left", bbox_to_anchor=(1, 0.5))
    reach = summary[summary.method.isin(["conductance", "mean ablation, estimated"])].groupby("method").net.mean()
    fig.suptitle(
        "Net effect (removed - lost, mean over budgets) by how units were chosen [from what]:\n"
        f"mean over plants {reach['mean ablation, estimated']:.2f} by estimated ablation, {reach['conductance']:.2f} by conductance",
        x=0.01,
        ha="left",
        weight="bold",
    )
    results.figure(fig, "net_effect", summary)
    plt.show()
    return names, summary


def faithfulness(results, area, ORDER, summary, COLOURS):
    """Faithful units make better edits."""
    informed = area[area.information.isin(["examples", "pairs"])]
    rank = {
        name: part.groupby(["plant", "seed"])[["net", "faithfulness"]].apply(
            lambda p: p.net.corr(p.faithfulness, method="spearman")
        )
        for name, part in (("all methods", area), ("those that know examples", informed))
    }
    fig, axes = plt.subplots(1, 3, figsize=(10.5, 3.4))
    for ax, plant in zip(axes, ORDER, strict=True):
        part = summary[summary.plant == plant]
        for kind, colour in COLOURS.items():
            of = part[part.family == kind]
            ax.plot(of.faithfulness, of.net, "o", color=colour, label=kind)
        ax.set(
            title=f"{plant}: {rank['those that know examples'][plant].mean():.2f}",
            xlabel="faithfulness, mean over budgets",
        )
    axes[0].set_ylabel("net effect")
    fig.suptitle(
        "Faithfulness and net effect: rank correlation among methods that know examples",
        x=0.01,
        ha="left",
        weight="bold",
    )
    axes[2].legend(loc="center left", bbox_to_anchor=(1, 0.5))
    results.figure(fig, "faithfulness", summary)
    plt.show()
    return rank


def trace(results, tables, seeds):
    """The rule enters at the phrase and leaves at the last token."""
    story = tables["trace"].query("seed == @seeds[0]")
    grid = story.pivot(index="layer", columns="position", values="share").to_numpy()
    words = story[story.layer == 0].token.fillna("").astype(str).tolist()
    fig, ax = plt.subplots(figsize=(11, 2.6))
    image = ax.imshow(grid.clip(-1, 1), cmap="RdBu_r", vmin=-1, vmax=1, aspect="auto")
    ax.set_xticks(range(len(words)), words, rotation=90, fontsize=7)
    ax.set_yticks(range(len(grid)), ["embedding", *(f"after layer {i + 1}" for i in range(len(grid) - 1))])
    ax.set_title("The rule enters at the phrase and leaves at the last token")
    fig.colorbar(image, label="share of the rule")
    traced = pd.DataFrame(grid, columns=[f"{i} {word}" for i, word in enumerate(words)])
    results.figure(fig, "trace", traced)
    plt.show()


def tuning_and_training(results, names, area, tuned, constraints, by_training, penalised):
    """Where the edit may learn, the choice matters less."""
    fig, axes = plt.subplots(1, 2, figsize=(10.5, 3.6))
    shown = [
        name
        for name in names
        if name
        in (
            "random",
            "largest weights",
            "linear probe",
            "gradient x activation",
            "gradient x activation, ordinary",
            "activation patching",
            "oracle",
        )
    ]
    for i, name in enumerate(shown):
        for shift, values, colour in (
            (-0.12, area.set_index(["plant", "seed", "method"]).net, "C0"),
            (0.12, tuned, "C1"),
        ):
            of = values.xs(name, level="method").loc[PLANTS]
            low, high = stats.t_interval(of.groupby("seed").mean())
            axes[0].plot([low, high], [i + shift] * 2, color=colour, lw=2)
            axes[0].plot(
                of.mean(),
                i + shift,
                "o",
                color=colour,
                label={"C0": "set to the mean", "C1": "tuned"}[colour] if i == 0 else None,
            )
    axes[0].set_yticks(range(len(shown)), shown)
    axes[0].invert_yaxis()
    axes[0].legend(loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=2)
    axes[0].set(xlabel="net effect", title="Where the edit may learn,\nthe choice matters less")
    for i, name in enumerate(constraints):
        for shift, method, colour in (
            (-0.15, "random", "0.6"),
            (0, "gradient x activation", "C1"),
            (0.15, "activation patching", "C0"),
        ):
            of = by_training.xs((name, method), level=("constraint", "method")).net
            low, high = stats.t_interval(of)
            axes[1].plot([low, high], [i + shift] * 2, color=colour, lw=2)
            axes[1].plot(of.mean(), i + shift, "o", color=colour, label=method if i == 0 else None)
    accuracy = by_training.before.groupby("constraint").mean()
    axes[1].set_yticks(range(len(constraints)), [f"{name}\naccuracy {accuracy[name]:.3f}" for name in constraints])
    axes[1].invert_yaxis()
    axes[1].legend(loc="upper left", bbox_to_anchor=(1, 1))
    reach = by_training.xs("activation patching", level="method").net.groupby("constraint").mean()
    axes[1].set(
        xlabel="net effect", title=f"Net effect {reach['none']:.2f} without,\n{reach[penalised]:.2f} with an L1 penalty"
    )
    results.figure(fig, "tuning_and_training", by_training.reset_index())
    results.table(tuned.reset_index(), "tuned")
    plt.show()
