"""Figures and claims of notebooks/05_xai/03_image_explainers.ipynb."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from compendium import stats
from compendium.xai import images


def difference(frame, measure, network, a, b):
    """Mean over seeds, and interval, of method `a` less method `b` in the same network."""
    part = frame.query("measure == @measure and network == @network").pivot(
        index="seed", columns="explainer", values="value"
    )
    return (part[a] - part[b]).mean(), *stats.t_interval(part[a] - part[b])


def gallery(results, train, seeds, n_images, names):
    """One network, one class: the maps disagree."""
    plain, i = images.glyphs(train, seeds[0]), 1
    model = images.cnn(plain.x, plain.y, seed=seeds[0])
    held_out = images.glyphs(n_images, 1000 + seeds[0])
    fig, axes = plt.subplots(3, 6, figsize=(10.5, 5.9))
    axes = axes.ravel()
    axes[0].imshow(held_out.x[i, 0], cmap="gray", vmin=0, vmax=1)
    axes[0].set_xlabel("image")
    axes[-1].axis("off")
    shown = []
    for ax, name in zip(axes[1:], names, strict=False):
        A = images.EXPLAINERS[name](model, held_out.x[i : i + 1], held_out.y[i : i + 1], seed=0)[0, 0]
        top = np.quantile(np.abs(A), 0.995) or 1
        ax.imshow(A, cmap="RdBu_r", vmin=-top, vmax=top)
        ax.set_xlabel(name)
        shown.append({"explainer": name, "auroc": images.auroc(A[None], held_out.mask[i : i + 1])[0]})
    for ax in axes[:-1]:
        ax.contour(held_out.mask[i], [0.5], colors="k" if ax is not axes[0] else "C1", linewidths=1.2)
        ax.set(xticks=[], yticks=[])
    fig.suptitle("One network, one class: the maps disagree", x=0.01, ha="left", weight="bold", size="medium")
    results.figure(fig, "gallery", pd.DataFrame(shown))
    plt.show()


def pointing(results, evidence, dots, names, methods):
    """Most maps of trained networks point at the evidence."""
    fig, axes = plt.subplots(1, 2, figsize=(9.5, 4.9), sharey=True)
    for ax, measure in zip(axes, ("pointing", "auroc among shapes"), strict=True):
        for k, network in enumerate(("flat", "pooled", "untrained")):
            part = evidence.query("network == @network and measure == @measure")
            dots(ax, part, names, shift=0.22 * (k - 1), label=network, color=("C0", "C1", "0.6")[k])
        ax.set(xlabel=measure)
        ax.axhline(len(methods) - 0.5, color="0.7", lw=1)
    axes[1].axvline(0.5, color="0.7", lw=1, ls="--")
    axes[0].set_title("Most maps of trained networks point at the evidence")
    axes[1].legend(loc="center left", bbox_to_anchor=(1, 0.5), title="network")
    results.figure(fig, "pointing", evidence[evidence.measure.isin(["pointing", "auroc among shapes"])])
    plt.show()
    fig, axes = plt.subplots(1, 2, figsize=(9.5, 4.9), sharey=True)
    for ax, measure in zip(axes, ("apart", "likeness"), strict=True):
        for k, network in enumerate(("flat", "pooled")):
            dots(
                ax,
                evidence[(evidence.network == network) & (evidence.measure == measure)],
                names,
                shift=0.2 * k - 0.1,
                label=network,
                color=f"C{k}",
            )
        ax.axhline(len(methods) - 0.5, color="0.7", lw=1)
    axes[0].set(xlabel="apart (share of maps)")
    axes[1].set(xlabel="likeness (rank correlation)")
    axes[0].axvline(0.5, color="0.7", lw=1, ls="--")
    axes[0].set_title("Some maps do not depend on the class they explain")
    axes[1].legend(loc="center left", bbox_to_anchor=(1, 0.5), title="network")
    results.figure(fig, "classes", evidence[evidence.measure.isin(["apart", "likeness"])])
    plt.show()


def shortcut_found(results, dots, shortcut, names, methods, revealed):
    """Which methods reveal a planted shortcut."""
    fig, ax = plt.subplots(figsize=(6.4, 4.8))
    for k, (network, label) in enumerate((("shortcut", "follows the mark"), ("flat", "reads the shapes"))):
        dots(
            ax,
            shortcut[(shortcut.network == network) & (shortcut.measure == "pointing, mark")],
            names,
            shift=0.2 * k - 0.1,
            label=label,
            color=("C3", "C0")[k],
        )
    ax.axhline(len(methods) - 0.5, color="0.7", lw=1)
    ax.set(
        xlabel="pointing at the mark", title=f"{sum(revealed.values())} of {len(methods)} methods reveal the shortcut"
    )
    ax.legend(loc="center left", bbox_to_anchor=(1, 0.5), title="network")
    results.figure(fig, "shortcut_found", shortcut.query("measure == 'pointing, mark'"))
    plt.show()


def randomisation_curves(results, randomisation):
    """Relevance outlives the network."""
    drawn = [
        "edges",
        "relevance",
        "guided backprop",
        "deeplift",
        "contrastive relevance",
        "occlusion",
        "gradient",
        "grad-cam",
        "random",
    ]
    styles = dict(zip(drawn, ["k", "C3", "C2", "C4", "C1", "C5", "C0", "C6", "0.6"], strict=True))
    fig, axes = plt.subplots(1, 2, figsize=(9.5, 4.0), sharey=True)
    for ax, network in zip(axes, ("glyphs", "digits"), strict=True):
        for name in drawn:
            part = randomisation.query("network == @network and explainer == @name and measure == 'spearman'")
            ax.plot(
                part.layers,
                part["mean"],
                "--" if name in images.CONTROLS else "-",
                marker="o",
                ms=4,
                color=styles[name],
                label=name,
            )
            ax.fill_between(part.layers, part.low, part.high, color=styles[name], alpha=0.15, lw=0)
        ax.set(xlabel=f"{network}: layers drawn anew")
    axes[0].set(ylabel="rank correlation with the trained map", title="Relevance outlives the network")
    axes[1].legend(loc="center left", bbox_to_anchor=(1, 0.5))
    results.figure(fig, "randomisation_curves", randomisation[randomisation.explainer.isin(drawn)])
    plt.show()


def deletion_curves(results, dots, deletion, names, methods, agreement):
    """The baseline moves the scores."""
    fig, axes = plt.subplots(1, 2, figsize=(9.5, 4.6), width_ratios=[1.4, 1])
    for k, kind in enumerate(("zero", "mean", "blurred")):
        dots(
            axes[0],
            deletion.query(f"network == 'digits' and measure == 'deletion, {kind}'"),
            names,
            shift=0.22 * (k - 1),
            label=kind,
            color=f"C{k}",
        )
    axes[0].axhline(len(methods) - 0.5, color="0.7", lw=1)
    axes[0].set(
        xlabel="digits: area under the deletion curve (low is good)", title="The baseline moves the scores", xlim=(0, 1)
    )
    axes[0].legend(title="baseline", loc="upper center", bbox_to_anchor=(0.5, -0.13), ncols=3)
    curves = list(agreement.curve.unique())
    for k, (kind, part) in enumerate(agreement.groupby("truth", sort=False)):
        dots(
            axes[1],
            part.rename(columns={"curve": "explainer"}),
            curves,
            shift=0.2 * (k - 1),
            label=kind,
            color=("C4", "C5", "C7")[k],
        )
    axes[1].axvline(0, color="0.7", lw=1)
    axes[1].set(xlabel="glyphs: Kendall's τ with the truth", title="Order against known evidence", xlim=(-1, 1))
    axes[1].legend(title="truth", loc="upper left", bbox_to_anchor=(1, 1))
    results.figure(fig, "deletion_curves", deletion)
    plt.show()


def claims(results, of, evidence, quick, depth, apart, gain, taus_by_seed, revealed, trained, names, get):
    """The claims of this notebook, recorded."""
    for network, words in (
        ("pooled", "a network that pools"),
        ("flat", "a network with linear layers on all positions"),
    ):
        results.claim(
            f"grad-cam-finds-evidence-{network}",
            "paper",
            f"Grad-CAM points at the evidence in {words} (share of images above half)",
            of(evidence, network=network, explainer="grad-cam", measure="pointing"),
            bar=0.5,
            margin=0.1,
            untestable=quick,
            paper="localises the class (Selvaraju et al. 2017)",
        )
    for id, kind, estimate, bar, statement, paper in (
        (
            "guided-backprop-ignores-later-layers",
            "paper",
            depth("guided backprop", 2),
            0.9,
            "Guided backprop does not change when later layers are drawn anew (Spearman above 0.9)",
            "insensitive to higher layers (Adebayo et al. 2018)",
        ),
        (
            "relevance-ignores-the-network",
            "ours",
            depth("relevance", 5),
            0.9,
            "Absolute-contribution relevance hardly changes when all layers are drawn anew (Spearman above 0.9)",
            "",
        ),
        (
            "relevance-ignores-the-class",
            "ours",
            of(evidence, network="flat", explainer="relevance", measure="likeness"),
            0.9,
            "Absolute-contribution relevance gives two classes the same map (likeness above 0.9)",
            "",
        ),
        (
            "contrastive-tells-classes-apart",
            "paper",
            min(apart.values(), key=lambda estimate: estimate.value),
            0.5,
            "Contrastive relevance points at the class it explains, under either head (share above half, the worse head)",
            "the contrastive mode of arXiv 2411.12643",
        ),
        (
            "grad-cam-reveals-shortcut",
            "paper",
            stats.mean(gain["grad-cam"], "seeds"),
            0.0,
            "Grad-CAM points at a planted shortcut more often than in a network without it (difference above 0)",
            "maps expose shortcuts",
        ),
        (
            "deletion-orders-as-truth",
            "paper",
            stats.mean_share(taus_by_seed, "seeds"),
            0.5,
            "Deletion curves order methods as known evidence does (Kendall's τ above 0.5, mean of three measures of truth)",
            "used as a measure of faithfulness (Petsiuk et al. 2018)",
        ),
    ):
        results.claim(id, kind, statement, estimate, bar=bar, margin=0.1, untestable=quick, paper=paper)
    for id, yes, statement, paper in (
        (
            "shortcut-is-revealed",
            revealed.values(),
            "Explanations reveal a planted shortcut (share of methods above 0.99)",
            "maps expose shortcuts (Ribeiro et al. 2016; Lapuschkin et al. 2019)",
        ),
        (
            "maps-need-the-training",
            trained,
            "Maps of a trained network point at the evidence more often than those of an untrained one (share of methods above 0.99)",
            "explanations should depend on the model (Adebayo et al. 2018)",
        ),
    ):
        share = stats.Estimate(float(np.mean(list(yes))), None, None, len(list(yes)), "methods")
        results.claim(
            id,
            "paper",
            statement,
            share,
            bar=0.99,
            untestable=quick or "methods are no sample of anything: a count",
            paper=paper,
        )
    results.metrics(
        **{f"pointing_{name}": get("flat", name, "pointing") for name in names},
        shortcut_revealed=float(np.mean(list(revealed.values()))),
    )
