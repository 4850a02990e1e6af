"""Figures and claims of notebooks/03_policy_opt/03_counterfactual_credit.ipynb."""

import re

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns

from compendium import stats
from compendium.paths import ROOT
from compendium.policy_opt import comparisons, credit, policy, word_problems


def weights(results, written, first, tokenizer, found, region):
    """Who gets the credit in one completion."""
    fig, ax = plt.subplots(figsize=(9, 2.6))
    words = [tokenizer.decode([i]) for i in written[first]]
    ax.bar(range(len(words)), found.weights[first, : len(words)], color="0.75")
    for span in region.spans:
        ax.bar(
            range(span.start, span.end),
            found.weights[first, span.start : span.end],
            color="C0" if span.kind == "calculation" else "C1",
        )
    ax.axhline(1, color="0.4", lw=1, ls="--")
    ax.set_xticks(range(len(words)), words, rotation=90, fontsize=8)
    ax.set(ylabel="weight", title="Credit of every token (blue: calculations, orange: sentences)")
    results.figure(fig, "weights", pd.DataFrame({"token": words, "weight": found.weights[first, : len(words)]}))
    plt.show()


def drops(results, every, KINDS):
    """The answer rests on the calculation before it."""
    fig, ax = plt.subplots(figsize=(7, 3.2))
    sns.boxplot(every, x="drop", y="policy", hue="kind", hue_order=KINDS, ax=ax, showfliers=False, width=0.6)
    ax.axvline(0, color="0.5", lw=1)
    ax.set(
        xlabel="what hiding the span costs the answer (nats)",
        ylabel="",
        title="The answer rests on the calculation before it",
    )
    ax.legend(title=None, fontsize=9)
    results.figure(fig, "drops", every)
    plt.show()


def curves(results, folder):
    """Who gets the credit makes no visible difference."""
    modes = ["vanilla", "counterfactual", "shuffled", "random", "inverted"]
    tables = comparisons.read(ROOT / folder, modes)
    begun = tables.start
    seeds = sorted(tables.finals.seed.unique())
    fig, axes = plt.subplots(1, 2, figsize=(11, 3.8))
    sns.lineplot(
        tables.looks, x="step", y="accuracy", hue="condition", hue_order=modes, errorbar=("se", 1.96), ax=axes[0]
    )
    axes[0].axhline(begun.accuracy.iloc[0], color="0.5", ls="--", lw=1)
    axes[0].set(xlabel="step", ylabel="validation accuracy, greedy", title="Learning curves, by who gets the credit")
    axes[0].legend(title=None, fontsize=8)
    given = tables.log.dropna(subset=["weight_calculation"]).melt(
        ["condition", "seed", "step"], ["weight_calculation", "weight_sentence"], "kind", "weight"
    )
    given["kind"] = given.kind.str.removeprefix("weight_")
    sns.lineplot(given, x="step", y="weight", hue="condition", hue_order=modes, style="kind", errorbar=None, ax=axes[1])
    axes[1].axhline(1, color="0.5", ls="--", lw=1)
    axes[1].set(xlabel="step", ylabel="mean weight of a token", title="Who got it: calculations, sentences")
    sns.move_legend(axes[1], "center left", bbox_to_anchor=(1, 0.5), title=None, fontsize=8)
    results.figure(fig, "curves", tables.looks)
    plt.show()
    return begun, seeds, tables


def claims_of_spans(results, tiny, KINDS, MARGIN):
    """The claims of this notebook, recorded."""
    each = tiny.assign(each=tiny["drop"] / tiny.tokens, filler=tiny.kind == "sentence")
    for id, kind, kinds, statement, paper in (
        (
            "calculation-outranks-filler",
            "paper",
            KINDS,
            "a calculation costs the answer more, per token, than hiding filler",
            "calculation chains are prioritised over scaffolding",
        ),
        (
            "earlier-calculations-outrank-filler",
            "control",
            KINDS[1:],
            "a calculation before the last costs the answer more, per token, than hiding filler",
            "",
        ),
    ):
        means = (
            each[each.kind.isin(kinds)].pivot_table("each", "completion", "filler").dropna()
        )  # completions with both
        gap = means[False] - means[True] if len(means) else []
        results.claim(
            id,
            kind,
            f"Hiding {statement} (difference above 0, nats)",
            stats.resampled_mean(gap, "completions"),
            bar=0.0,
            margin=0.1,
            paper=paper,
            untestable=None if len(gap) >= 10 else "a quick run",
            figure="drops",
        )
    share = (tiny["drop"] < -MARGIN).groupby(tiny.completion).mean()
    results.claim(
        "few-spans-are-distractors",
        "paper",
        "2 to 5 % of spans are distractors, whose removal raises the answer's probability (share)",
        stats.resampled_mean(share, "completions"),
        bar=(0.02, 0.05),
        side="within",
        paper="3.5 % of reasoning spans",
        untestable=None if len(share) >= 20 else "a quick run",
        figure="drops",
    )
    return share


def claims_of_training(results, seeds, ends, threshold, arrived, share):
    """The claims of this notebook, recorded."""
    quick, UNIFORM = None if len(seeds) >= 3 else "a quick run", "than uniform credit (difference"
    for id, kind, statement, paper, table, column, first, second, side in (
        (
            "counterfactual-beats-uniform",
            "paper",
            f"Counterfactual credit ends more accurate {UNIFORM} above 0)",
            "+0.8 to +1.1 points on GSM8K",
            ends,
            "accuracy",
            "counterfactual",
            "vanilla",
            "above",
        ),
        (
            "counterfactual-is-sooner",
            "paper",
            f"Counterfactual credit reaches {threshold:.0%} accuracy in fewer steps {UNIFORM} below 0)",
            "step 100 against 500 in the best case",
            arrived,
            "step",
            "counterfactual",
            "vanilla",
            "below",
        ),
        (
            "inversion-hurts",
            "paper",
            f"Inverted credit ends less accurate {UNIFORM} below 0)",
            "inverting the signal hurts",
            ends,
            "accuracy",
            "inverted",
            "vanilla",
            "below",
        ),
        (
            "order-is-what-helps",
            "control",
            "Counterfactual credit ends more accurate than the same drops on other spans (difference above 0)",
            "",
            ends,
            "accuracy",
            "counterfactual",
            "shuffled",
            "above",
        ),
    ):
        results.claim(
            id,
            kind,
            statement,
            comparisons.difference(table, column, first, second),
            bar=0.0,
            side=side,
            margin=5.0 if column == "step" else 0.01,
            untestable=quick,
            paper=paper,
            figure="curves",
        )
    results.metrics(
        distractors=share.mean(),
        **{f"accuracy {mode}": part.accuracy.mean() for mode, part in ends.groupby("condition")},
    )


def of_the_embedded_model(results, model_name, revision, device, real, tiny, spans):
    """Drops of spans written by the embedded model, below those of the tiny policy; stories that it does not solve in two calculations are left out."""
    real_model, real_tokenizer = policy.load(model_name, revision=revision, device=device)
    solved = "\n\n".join(
        f"{story.question}\n{story.solution.strip()}" for story in word_problems.problems(4, steps=(2,), seed=1)
    )
    shots = [f"{solved}\n\n{story.question}\n" for story in word_problems.problems(real, "validation", steps=(2,))]

    def written_by(shots, tokens):
        made = policy.generate(real_model, real_tokenizer, shots, length=tokens, batch=4)
        return real_tokenizer.batch_decode(made, skip_special_tokens=True)

    def first_two(text):
        ends = [match.end() for match in re.finditer(r"=[^.\n#]*\.", text)][:2]
        return text[: ends[-1]] if len(ends) == 2 else None

    begun_texts = [first_two(text.split("\n")[0]) for text in written_by(shots, 60)]
    whole = [(shot, f"{text} ####") for shot, text in zip(shots, begun_texts, strict=True) if text]
    answers = written_by([shot + text for shot, text in whole], 4) if whole else []
    texts = [text + re.match(r"[^\n]*", answer)[0] for (_, text), answer in zip(whole, answers, strict=True)]
    said = [real_tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
    asked_of_it = real_tokenizer([shot for shot, _ in whole])["input_ids"] if whole else []
    theirs = credit.credit(real_model, real_tokenizer, asked_of_it, said, budget=1024) if whole else None
    every = pd.concat([tiny, spans(theirs, "embedded model")], ignore_index=True) if whole else tiny
    results.table(every, "spans")
    return every, texts, whole
