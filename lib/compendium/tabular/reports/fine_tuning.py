"""Figures and claims of notebooks/04_tabular/03_fine_tuning.ipynb."""

from copy import deepcopy

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from sklearn.datasets import make_moons

from compendium import stats
from compendium.tabular import finetune, metrics, pfn


def gain_by_strategy(results, strategies, gain):
    """What tuning gains over zero-shot."""
    fig, axes = plt.subplots(1, 3, figsize=(10, 0.3 * len(strategies) + 1.6), sharey=True)
    for ax, metric in zip(axes, ("auc", "accuracy", "log-loss"), strict=True):
        part = gain[gain.metric == metric]
        label = part.strategy + " (" + part.sets.astype(str) + " sets)"
        ax.errorbar(part.gain, label, xerr=[part.gain - part.low, part.high - part.gain], fmt="o", capsize=3)
        ax.axvline(0, color="0.6", lw=1)
        ax.set(xlabel=f"gain in {metric}" + (" (nats)" if metric == "log-loss" else ""))
    axes[0].set_title("Gain over zero-shot, mean over sets")
    axes[0].invert_yaxis()
    results.figure(fig, "gain_by_strategy", gain)
    plt.show()


def critical_difference(results, auc):
    """Mean ranks in one pool."""
    pool = [
        m
        for m in ["logistic", "forest", "boosting", "catboost", "zero-shot", "meta", "sft", "lora", "sft, 8 rows"]
        if m in auc and auc[m].notna().all()
    ]
    found = metrics.ranks(auc[pool])
    results.table(found.mean.rename("rank").rename_axis("method").reset_index(), "ranks")
    results.table(found.pairs, "pairs")
    fig, ax = plt.subplots(figsize=(8.5, 3.2))
    metrics.draw_ranks(found, ax)
    ax.set_title("Mean rank by AUC, all methods in one pool", pad=24)
    results.figure(fig, "critical_difference", found.mean.rename("rank").rename_axis("method").reset_index())
    plt.show()
    return found, pool


def support(results, auc, gains):
    """A longer support, all else equal."""
    lengths = [name for name in ("sft, 8 rows", "sft, 32 rows", "sft, 128 rows", "sft, all rows") if name in auc]
    by_length = pd.concat([gains(metric, lengths) for metric in ("accuracy", "log-loss")])
    fig, ax = plt.subplots(figsize=(6, 3.2))
    for shift, (metric, part) in enumerate(by_length.groupby("metric", sort=False)):
        part = part.set_index("strategy").loc[lengths]
        place = np.arange(len(lengths)) + 0.08 * shift
        ax.errorbar(
            place, part.gain, yerr=[part.gain - part.low, part.high - part.gain], fmt="o-", capsize=3, label=metric
        )
    ax.axhline(0, color="0.6", lw=1)
    ax.set(
        xticks=range(len(lengths)),
        xticklabels=[n.removeprefix("sft, ") for n in lengths],
        xlabel="support of a step",
        ylabel="gain over zero-shot",
        title="The support's length, all else equal",
    )
    ax.legend()
    results.figure(fig, "support", by_length)
    plt.show()


def claims(results, enough, gain, auc, scores, splits, kept, found):
    """The claims of this notebook, recorded."""
    quick = None if enough else "a quick run"
    TUNED = {
        "sft-hurts": (
            "sft",
            "below",
            "Supervised fine-tuning lowers accuracy (full context, early stopping",
            "-.005 (TabPFN) to -.080 (TabICL), TALENT",
        ),
        "sft-8-rows-hurts": (
            "sft, 8 rows",
            "below",
            "Supervised fine-tuning on 8 rows at a time lowers accuracy (",
            "-.044 to -.080 (TabICL-like), TALENT",
        ),
        "meta-hurts": (
            "meta",
            "below",
            "Meta-learning lowers accuracy (",
            "+.000 (TabPFN) to -.019 (OrionBiX), TALENT",
        ),
        "lora-hurts": (
            "lora",
            "below",
            "Low-rank adapters lower accuracy (",
            "below zero-shot for every model, TALENT",
        ),
    }
    for id, (strategy, side, statement, paper) in TUNED.items():
        row = gain[(gain.strategy == strategy) & (gain.metric == "accuracy")]
        if len(row):
            results.claim(
                id,
                "paper",
                f"{statement}{', ' if statement[-1] != '(' else ''}mean difference {side} 0)",
                stats.Estimate(*row[["gain", "low", "high"]].iloc[0], len(auc), "data sets"),
                bar=0.0,
                side=side,
                margin=0.01,
                untestable=quick,
                paper=paper,
                figure="gain_by_strategy",
            )
    if {"sft, 8 rows", "sft, all rows"} <= set(auc):
        table = scores.pivot_table(index="set", columns="method", values="accuracy")
        results.claim(
            "support-length-is-the-confound",
            "control",
            "With all rows in the support instead of 8, the same tuning is more accurate (mean difference above 0)",
            stats.resampled_mean((table["sft, all rows"] - table["sft, 8 rows"]).dropna(), "data sets"),
            bar=0.0,
            untestable=None if splits >= 3 else "a quick run",
            paper="not considered: support length and supervised tuning change together",
        )
    if len(kept):
        worst = kept.loc[kept.change.idxmin()]
        results.claim(
            "tuned-gain-survives-nf4",
            "ours",
            "What tuning gains in AUC is still there in NF4 within 0.005 (change, strategy that loses most)",
            stats.Estimate(worst.change, worst.low, worst.high, len(auc), "data sets"),
            bar=-0.005,
            untestable=quick,
        )
    results.metrics(sets=len(auc), **{f"rank_{m}": r for m, r in found.mean.items()})


def adapters(results):
    """How many adapter matrices a gradient reaches, and what share of the base weights is left free, with peft and as injected."""
    network, _ = pfn.load_network()
    x, y = make_moons(120, noise=0.2, random_state=0)

    def census(make):
        """Adapters reached by a gradient, all adapters, and share of base weights that are trainable."""
        model = make(deepcopy(network), rank=8, alpha=16)
        free = {n: p for n, p in model.named_parameters() if p.requires_grad}
        optimiser, rng, reached = (torch.optim.AdamW(free.values(), lr=1e-3), np.random.default_rng(0), set())
        for _ in range(2):  # the second matrix begins at zero, so the first one's gradient does too
            optimiser.zero_grad()
            finetune.Episode(x, y, np.zeros(2, bool), finetune.Strategy(), rng).loss(model).backward()
            reached |= {n for n, p in free.items() if "lora_" in n and p.grad is not None and p.grad.abs().sum() > 0}
            optimiser.step()
        adapters = [n for n in free if "lora_" in n]
        base = sum(p.numel() for n, p in free.items() if "lora_" not in n) / sum(
            p.numel() for p in network.parameters()
        )
        return len(reached), len(adapters), base

    counts = pd.DataFrame(
        [census(finetune.with_lora), census(finetune.injected)], columns=["reached", "adapters", "base weights free"]
    )
    counts.insert(0, "adapters of", ["peft", "the study's injection"])
    results.table(counts, "adapters")
    for row in counts.itertuples(index=False):
        print(
            f"{row[0]:22} {row.reached} of {row.adapters} adapter matrices reached, {row[3]:.0%} of the base weights free"
        )
