"""Figures and claims of notebooks/03_policy_opt/02_divergences.ipynb."""

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
import torch

from compendium import stats
from compendium.policy_opt import comparisons, divergences, mirror


def forces(results):
    """ProbL2 lets rare tokens go."""
    forms = divergences.DIVERGENCES | {"mirror": lambda p, q: mirror.divergence(mirror.initial(42), p, q)}
    logp = torch.linspace(-7, -0.01, 300).requires_grad_(True)
    logq = torch.full_like(logp, 0.1).log()
    rows = []
    for name in ["k3", "log_l2", "prob_l2", "mirror"]:
        (force,) = torch.autograd.grad(forms[name](logp, logq).sum(), logp)
        rows.append(pd.DataFrame({"p": logp.detach().exp(), "divergence": name, "force": force}))
    forces = pd.concat(rows)
    fig, ax = plt.subplots(figsize=(6.5, 3.6))
    sns.lineplot(forces, x="p", y="force", hue="divergence", ax=ax)
    ax.axvline(0.1, color="0.7", lw=1)
    ax.set(
        xscale="log",
        ylim=(-6, 6),
        xlabel="probability now (0.1 at the start)",
        ylabel="force, per unit of coefficient",
        title="ProbL2 lets rare tokens go; k3 and log-L2 do not",
    )
    results.figure(fig, "forces", forces)
    plt.show()
    at = lambda name, p: (
        forces[(forces.divergence == name)].iloc[(forces[forces.divergence == name].p - p).abs().argmin()].force
    )
    authors = {"k3": 0.1, "log_l2": 1e-4, "prob_l2": 1e-4, "mirror": 1e-4}
    print("a token that fell from 0.1 to 0.01, or rose to 0.5: force times the authors' coefficient")
    for name, coefficient in authors.items():
        print(f"{name:8} {coefficient * at(name, 0.01):10.1e} {coefficient * at(name, 0.5):10.1e}")


def curves(results, tables, names, asked):
    """Only k3 is a brake at the authors' coefficients."""
    fig, ax = plt.subplots(figsize=(8, 3.8))
    shown = tables.looks[tables.looks.condition.isin(names)]
    mean = shown.pivot_table(index="step", columns="condition", values="accuracy")
    spread = shown.pivot_table(index="step", columns="condition", values="accuracy", aggfunc=["min", "max"])
    others = [name for name in names if name != "k3"]
    for name, colour in ((others[0], "C0"), ("k3", "C1")):
        if name in mean:
            ax.fill_between(mean.index, spread["min"][name], spread["max"][name], color=colour, alpha=0.15, lw=0)
    for name in others:
        ax.plot(mean.index, mean[name], color="C0", lw=1.2, alpha=0.8)
    apart = max(abs(mean[a] - mean[others[0]]).max() for a in others)
    end = mean.index.max()
    ax.text(end + 0.6, mean[others[0]].iloc[-1], "\n".join(others), color="C0", va="center", fontsize=9)
    if "k3" in mean:
        ax.plot(mean.index, mean["k3"], color="C1")
        ax.text(end + 0.6, mean["k3"].iloc[-1] - 0.03, "k3", color="C1", va="center", fontsize=9)
    ax.axhline(asked.accuracy.iloc[0], color="0.5", ls="--", lw=1)
    ax.text(end, asked.accuracy.iloc[0] + 0.01, "start", ha="right", fontsize=9, color="0.4")
    ax.set(
        xlabel="step",
        ylabel="validation accuracy, greedy",
        title=f"Only k3 is a brake: the other lines are within {apart:.3f} of each other",
    )
    results.figure(fig, "curves", shown)
    plt.show()


def strengths(results, plan, ends):
    """Strength costs, and equal drift costs the same."""
    of = {
        name: (c["divergence"], c["coefficient"])
        for name, c in plan["conditions"].items()
        if c.get("divergence") in ("k3", "prob_l2") and "method" not in c
    }
    strengths = ends.reset_index()
    strengths = strengths[strengths.condition.isin(of)]
    strengths[["divergence", "coefficient"]] = [of[name] for name in strengths.condition]
    fig, axes = plt.subplots(1, 2, figsize=(9, 3.7), sharey=True)
    free = ends.loc["none"]
    told = {"k3": ("C1", "k3"), "prob_l2": ("C0", "ProbL2")}
    for divergence, (colour, name) in told.items():
        part = strengths[strengths.divergence == divergence]
        if part.empty:
            continue
        mean = part.groupby("coefficient").accuracy.agg(["mean", "min", "max"])
        axes[0].fill_between(mean.index, mean["min"], mean["max"], color=colour, alpha=0.15, lw=0)
        axes[0].plot(mean.index, mean["mean"], "o-", color=colour, label=name)
        axes[1].scatter(1000 * part.drift, part.accuracy, color=colour, s=26)
    axes[0].axhline(free.accuracy.mean(), color="0.5", ls="--", lw=1, label="none")
    axes[0].set(
        xscale="log", xlabel="coefficient", ylabel="validation accuracy, greedy", title="Strength costs accuracy ..."
    )
    axes[1].scatter(1000 * free.drift, free.accuracy, color="0.6", s=26)
    axes[1].set(
        xlabel="drift from the start (thousandths of a nat a token)", title="... and equal drift costs the same"
    )
    axes[0].legend(loc="lower left")
    results.figure(fig, "strengths", strengths[["divergence", "coefficient", "seed", "accuracy", "length", "drift"]])
    plt.show()


def survival(results, tables, begun):
    """Gains survive NF4."""
    kept = comparisons.survival(tables.finals, begun)
    results.table(kept, "survival")
    fig, ax = plt.subplots(figsize=(4.6, 4.2))
    sns.scatterplot(kept, x="gain", y="stored", s=28, ax=ax)
    ends_of = [min(kept.gain.min(), kept.stored.min()), max(kept.gain.max(), kept.stored.max())]
    ax.plot(ends_of, ends_of, color="0.5", ls="--", lw=1)
    ax.set(xlabel="gain in float32", ylabel="gain in NF4", title="What 4-bit storage leaves of a gain")
    results.figure(fig, "survival", kept)
    plt.show()
    return kept


def claims(results, seeds, kept, greedy, begun):
    """The claims of this notebook, recorded."""
    ACCURATE = "ends more accurate than"
    quick = None if len(seeds) >= 3 else "a quick run"
    results.claim(
        "rl-lifts-accuracy",
        "control",
        "GRPO without divergence lifts held-out accuracy by 20 points over the supervised start (gain)",
        stats.mean(kept[kept.condition == "none"].gain, "seeds"),
        bar=0.2,
        untestable=quick,
        figure="curves",
    )
    for id, kind, statement, paper, first, second in (
        ("probl2-beats-kl", "paper", f"ProbL2 {ACCURATE} KL (Dr. GRPO", "86.7 against 81.2 % on GSM8K", "ProbL2", "k3"),
        (
            "probl2-beats-kl-under-grpo",
            "paper",
            f"ProbL2 {ACCURATE} KL (GRPO",
            "not known to us",
            "ProbL2, GRPO",
            "k3, GRPO",
        ),
        ("probl2-beats-none", "control", f"ProbL2 {ACCURATE} no divergence at all (Dr. GRPO", "", "ProbL2", "none"),
    ):
        results.claim(
            id,
            kind,
            f"{statement}, difference above 0)",
            comparisons.difference(greedy.reset_index(), "accuracy", first, second),
            bar=0.0,
            margin=0.05,
            untestable=quick,
            paper=paper,
            figure="curves",
        )
    results.claim(
        "rl-gains-survive-nf4",
        "ours",
        "Of the gain in accuracy, at least 90 % is there when start and policy are stored in NF4 (share, mean over all trained policies)",
        comparisons.share(kept),
        bar=0.9,
        untestable=quick,
        figure="survival",
    )
    results.metrics(
        start=begun.accuracy.iloc[0],
        **{f"accuracy {name}": part.accuracy.mean() for name, part in greedy.groupby("condition")},
    )
