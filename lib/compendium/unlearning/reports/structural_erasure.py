"""Figures and claims of notebooks/02_unlearning/07_structural_erasure.ipynb."""

import matplotlib.pyplot as plt
import seaborn as sns

from compendium import stats


def three_sides(results, looked, means, columns):
    """One checkpoint, three examinations."""
    floor = looked[looked.method == "none"].groupby("domain")["CAD, nodes"].mean().mean()
    untouched = looked[looked.method == "none"]["probe AUC"].mean()
    done = looked[looked.method != "none"]
    order = means.index.drop("none").tolist()
    fig, axes = plt.subplots(1, 3, figsize=(13, 0.36 * len(order) + 1.8), sharey=True)
    panels = {
        "CAD, nodes": ("CAD (nodes)", floor, "Does the circuit work differently?"),
        "relearned to": ("right answers after teaching others", None, "Do facts come back?"),
        "probe AUC": ("AUC of a linear probe", untouched, "Are they still in there?"),
    }
    for ax, (column, (label, mark, title)) in zip(axes, panels.items(), strict=True):
        sns.swarmplot(done, x=column, y="method", hue="domain", order=order, alpha=0.85, legend=ax is axes[0], ax=ax)
        if mark is not None:
            ax.axvline(mark, color="0.6", ls="--", lw=1)
        ax.set(xlabel=label, ylabel="", title=title)
    legend = axes[0].get_legend_handles_labels()
    axes[0].get_legend().remove()
    fig.legend(*legend, loc="outside lower center", ncols=2)
    results.figure(fig, "three_sides", done[["domain", "seed", "method", *columns.values()]])
    plt.show()
    return done


def relearning(results, curves):
    """Facts come back slowly, whatever hid them."""
    fig, ax = plt.subplots(figsize=(8, 4.2))
    shown = [
        m
        for m in ["none", "MANSU", "last block", "other answer", "NPO", "GradDiff", "null space", "LoRA"]
        if m in set(curves.method)
    ]
    sns.lineplot(
        curves[curves.method.isin(shown)],
        x="step",
        y="accuracy",
        hue="method",
        hue_order=shown,
        style="method",
        style_order=shown,
        markers=True,
        dashes=False,
        errorbar=None,
        ax=ax,
    )
    ax.axhline(0.25, color="0.6", ls="--", lw=1)
    ax.set(
        xlabel="steps of teaching the other half",
        ylabel="right answers, facts not taught",
        title="How fast do forgotten facts come back?",
    )
    sns.move_legend(ax, "center left", bbox_to_anchor=(1, 0.5), title=None)
    results.figure(fig, "relearning", curves)
    plt.show()


def claims(results, correlations, done, looked):
    """The claims of this notebook, recorded."""
    partial = correlations[correlations.measure == "CAD, nodes"].set_index(["criterion", "taken out"])
    for criterion, name in (("relearned to", "relearning"), ("probe AUC", "probe")):
        found = partial.loc[criterion, "forget and size"]
        results.claim(
            f"cad-predicts-{name}",
            "paper",
            f"CAD predicts {name} beyond forgetting and update size (partial rank correlation below 0)",
            stats.Estimate(
                found.rho, found.low, found.high, done.groupby(["domain", "method"]).ngroups, "methods in domains"
            ),
            bar=0.0,
            side="below",
            paper="CAD distinguishes structural erasure from suppression",
        )
    suppressed, key = done.method.isin(["last block", "other answer"]), ["domain", "seed"]
    noise = looked[looked.method == "none"].set_index(key)["CAD, nodes"]
    above = done[suppressed].groupby(key)["CAD, nodes"].mean() - noise
    back = done[suppressed].groupby(key)["gain"].mean() - done[~suppressed].groupby(key)["gain"].mean()
    results.claim(
        "cad-suppression",
        "paper",
        "Suppression in the last block stays below CAD's noise floor (difference below 0)",
        stats.mean(above, "runs"),
        bar=0.0,
        side="below",
        paper="suppression leaves the circuit as it was",
    )
    results.claim(
        "relearning-suppression",
        "control",
        "Relearning tells suppression apart: fewer points come back after other methods than after the controls (difference below 0)",
        stats.mean(-back, "runs"),
        bar=0.0,
        side="below",
    )
    results.metrics(
        cad_relearning=partial.loc["relearned to", "nothing"].rho, cad_probe=partial.loc["probe AUC", "nothing"].rho
    )
