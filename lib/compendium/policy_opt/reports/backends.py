"""Figures and claims of notebooks/03_policy_opt/05_backends.ipynb."""

import matplotlib.pyplot as plt
import seaborn as sns

from compendium import stats
from compendium.policy_opt import comparisons


def pipeline(results, begun, compared, found):
    """The reward that training sees, and the accuracy it does not."""
    started = begun[(begun.decoding == "greedy") & (begun.weights == "float32")].accuracy.iloc[0]
    rising = compared.log[compared.log.condition.isin(["GRPO, learned reward", "GRPO, learned, k3"])]
    true = compared.looks if len(compared.looks) else found.assign(step=compared.log.step.max())
    names = list(compared.finals.condition.unique())
    fig, axes = plt.subplots(1, 2, figsize=(10, 3.6))
    sns.lineplot(
        rising, x="step", y="reward", hue="condition", hue_order=names, errorbar=None, legend=False, ax=axes[0]
    )
    axes[0].set(xlabel="step", ylabel="learned reward of its samples", title="What training sees")
    sns.lineplot(
        true, x="step", y="accuracy", hue="condition", hue_order=names, marker="o", errorbar=("se", 1.96), ax=axes[1]
    )
    axes[1].axhline(started, color="0.5", ls="--", lw=1)
    axes[1].set(xlabel="step", ylabel="validation accuracy, greedy", ylim=(0, 1), title="What is true (dashed: start)")
    sns.move_legend(axes[1], "center left", bbox_to_anchor=(1, 0.5), title=None)
    results.figure(fig, "pipeline", true)
    plt.show()


def claims(results, seeds, parity, same, found, kept):
    """The claims of this notebook, recorded."""
    quick = None if len(seeds) >= 3 else "a quick run"
    one = lambda value: stats.Estimate(float(value), None, None, 1, "comparison")
    results.claim(
        "trainer-is-trl",
        "check",
        "Our trainer with k3 is TRL's GRPO with KL (distance between the weights, over how far training moved them, below 0.001)",
        one((parity.difference / parity.moved).max()),
        bar=1e-3,
        side="below",
    )
    results.claim(
        "runs-do-not-interfere",
        "check",
        "A run in a process of its own has the same bits after one that changes its libraries as alone (1: yes)",
        one(same["in a process of its own"]),
        bar=0.5,
    )
    results.claim(
        "one-process-does-not-isolate",
        "check",
        "In one process, a run after one that changes its libraries has other bits than alone (1: yes)",
        one(not same["in one process"]),
        bar=0.5,
        paper="AlignTune isolates backends by flags in one process",
    )
    for id, kind, statement, first, second in (
        (
            "verifier-beats-learned-reward",
            "control",
            "GRPO ends more accurate with the verifier than with a reward model trained on its pairs",
            "GRPO, verifier",
            "GRPO, learned reward",
        ),
        (
            "kl-guards-a-learned-reward",
            "ours",
            "KL (k3 at 0.1) keeps a policy more accurate under a learned reward",
            "GRPO, learned, k3",
            "GRPO, learned reward",
        ),
    ):
        gap = comparisons.difference(found, "accuracy", first, second)
        results.claim(id, kind, f"{statement} (difference above 0)", gap, bar=0.0, untestable=quick, figure="pipeline")
    results.claim(
        "learned-reward-teaches",
        "control",
        "GRPO on a learned reward ends more accurate than its start (gain above 0)",
        stats.mean(kept[kept.condition == "GRPO, learned reward"].gain, "seeds"),
        bar=0.0,
        untestable=quick,
        figure="pipeline",
    )
    gained = kept[kept.groupby("condition").gain.transform("mean") > 0.1]
    stored = comparisons.share(gained) if len(gained) else stats.Estimate(float("nan"), None, None, len(seeds), "seeds")
    results.claim(
        "pipeline-gains-survive-nf4",
        "ours",
        "Of a gain above 10 points, at least 90 % is there when start and policy are stored in NF4 (share, mean over methods)",
        stored,
        bar=0.9,
        untestable=quick,
    )
