"""Figures and claims of notebooks/05_xai/06_audit_gap.ipynb."""

import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns

from compendium import stats
from compendium.xai import audit


def inventory(results, cells, shown, table, flat):
    """What instruments require and grant."""
    fig, ax = plt.subplots(figsize=(9.5, 7.2))
    sns.heatmap(
        cells,
        ax=ax,
        annot=True,
        cmap=sns.light_palette(sns.color_palette()[0], as_cmap=True),
        vmin=0,
        vmax=4,
        cbar=False,
        linewidths=1,
        xticklabels=["required", "granted", "gap"],
        yticklabels=shown.id + np.where(shown.named_by_paper == "yes", "*", "") + " (" + shown.jurisdiction + ")",
    )
    for place, row in enumerate(shown.itertuples()):
        cell = dict(va="center", fontsize=8.5, clip_on=False)
        ax.text(
            3.15,
            place + 0.5,
            "fragile" if row.fragile else "absence" if row.absence else "",
            color=sns.color_palette()[3] if row.fragile else "0.2",
            weight="bold" if row.fragile else "normal",
            **cell,
        )
        ax.text(3.75, place + 0.5, row.legal_force, **cell)
        ax.text(4.4, place + 0.5, row.verifier, **cell)
    for x, head in ((3.15, "claim"), (3.75, "force"), (4.4, "who checks")):
        ax.text(x, -0.35, head, fontsize=9.5)
    ax.xaxis.tick_top()
    ax.tick_params(length=0)
    ax.set_xlim(0, 5.1)
    ax.set_title(
        f"{(table.gap > 0).sum()} of {len(table)} instruments require more access than they grant (*: named by the paper)",
        pad=26,
        x=-0.3,
    )
    results.figure(fig, "inventory", flat.assign(date=flat.date.dt.strftime("%Y-%m-%d")))
    plt.show()


def kappa(results, agreed):
    """How far two coders agree."""
    fig, ax = plt.subplots(figsize=(7.5, 3.6))
    names = agreed.field.str.replace("_", " ") + " (" + agreed.measure + ")"
    ax.errorbar(agreed.kappa, names, xerr=[agreed.kappa - agreed.low, agreed.high - agreed.kappa], fmt="o", capsize=3)
    ax.invert_yaxis()
    ax.set(xlabel="Cohen's kappa, 95 % interval", xlim=(min(0, agreed.low.min()), 1.02))
    ax.set_title(f"Kappa of two coders: {agreed.kappa.min():.2f} to {agreed.kappa.max():.2f}")
    results.figure(fig, "kappa", agreed)
    plt.show()


def gradient(results, table, gradients):
    """Neither date nor legal force orders the gaps."""
    fig, (left, right) = plt.subplots(1, 2, figsize=(13, 4))
    marks = {"binding": "o", "voluntary": "s", "standard": "^"}
    placed = table[["id", "year", "gap", "legal_force", "outside"]].copy()
    placed["height"] = placed.gap.astype(float)
    for k in placed.index:  # neighbours in time are stacked
        near = placed.index[(placed.index < k) & (placed.gap == placed.gap[k]) & (placed.year[k] - placed.year < 0.12)]
        if len(near):
            placed.loc[k, "height"] = placed.height[near].max() + 0.13
    for force, part in placed.groupby("legal_force"):
        for outside, of in part.groupby("outside"):
            colour = sns.color_palette()[0 if outside else 3]
            label = f"{force}, {'outsider' if outside else 'nobody outside'} checks"
            left.scatter(
                of.year, of.height, marker=marks[force], s=48, facecolor=colour, edgecolor="white", label=label
            )
    left.set(xlabel="year of adoption", ylabel="gap, levels", yticks=range(0, 4), ylim=(-0.3, 3.5))
    left.legend(fontsize=7.5, loc="upper left")
    left.set_title("Neither date nor legal force orders the gaps (stacked where dates coincide)", fontsize=9)
    step = gradients[gradients.comparison.str.contains("minus")].reset_index(drop=True)
    order = step.comparison.unique().tolist()
    for coder, shift, colour in (("first", -0.12, sns.color_palette()[0]), ("second", 0.12, sns.color_palette()[1])):
        part = step[step.coder == coder]
        y = np.array([order.index(name) for name in part.comparison]) + shift
        error = [part.estimate - part.low, part.high - part.estimate]
        right.errorbar(part.estimate, y, xerr=error, fmt="o", capsize=3, color=colour, label=f"{coder} coder")
        label = "part due to required levels" if coder == "first" else None
        right.plot(part.required, y, "D", mfc="white", mec=colour, ms=5, label=label)
    right.axvline(0, color="0.6", lw=1)
    right.set(
        yticks=range(len(order)),
        yticklabels=[name.replace(" minus ", "\nminus ") for name in order],
        xlabel="difference of mean gaps, levels, 95 % interval",
    )
    right.invert_yaxis()
    right.legend(fontsize=7.5, loc="center left", bbox_to_anchor=(1, 0.5))
    right.set_title("Gaps go with who checks, and with absence claims", fontsize=9)
    results.figure(fig, "gradient", gradients)
    plt.show()


def survival(results, wide, variants, survived):
    """Which conclusions others would draw."""
    fig, ax = plt.subplots(figsize=(10, 3))
    sns.heatmap(
        wide,
        annot=True,
        fmt=".2f",
        vmin=0,
        vmax=1,
        cmap="RdBu",
        linewidths=1,
        ax=ax,
        cbar_kws={"label": "share of variants"},
    )
    ax.set(xlabel="", ylabel="")
    counts = variants.groupby("kind", sort=False).size()
    ax.set_xticklabels([f"{kind}\n({counts[kind]})" for kind in wide.columns], rotation=0, fontsize=8.5)
    ax.set_title("Which conclusions others would draw\n(first row: interval above 0; last three: sign only)")
    results.figure(fig, "survival", survived)
    plt.show()


def claims_on_paper(results, draws, both, gradient, gradient_2, table):
    """The claims of this notebook, recorded."""
    quick = None if draws >= 2000 else "a quick run"
    INCENTIVE = "an incentive gradient rewards surface proxies (our reading of it)"
    first = both["first coder"]
    coded = {"": (first, gradient), "-second-coder": (both["second coder"], gradient_2)}
    for which, (gap, slopes) in coded.items():
        kind, said = ("paper", "") if not which else ("control", "; the second coder's codes")
        results.claim(
            f"audit-gap-exists{which}",
            kind,
            f"The access that claims require exceeds the access that instruments grant (mean gap in levels of 0 to 4, above 0{said})",
            stats.Estimate(gap["mean gap"], gap.low, gap.high, len(table), "instruments"),
            bar=0.0,
            margin=0.5,
            untestable=quick,
            figure="gradient",
            paper="required and achievable verification access diverge over 21 instruments (its own inventory and codes)",
        )
        results.claim(
            f"absence-claims-are-fragile{which}",
            kind,
            f"Instruments that ask for an absence claim mostly name evidence that does not reach beyond behaviour (share above half{said})",
            stats.share(int(gap.fragile), int(gap["absence claims"]), "instruments", exact=True),
            bar=0.5,
            margin=0.3,
            untestable=quick,
            paper="behavioural assurance cannot verify the absence claims that governance now demands",
        )
        for id, name, statement in (
            (
                "gap-wider-where-voluntary",
                "voluntary or standard minus binding",
                "in voluntary instruments and standards than in binding ones",
            ),
            (
                "gap-wider-without-outside-check",
                "developer or nobody checks minus outsider",
                "where nobody outside the developer checks",
            ),
            ("gap-wider-without-sanction", "no sanction minus sanction", "where no sanction follows"),
        ):
            row = slopes.set_index("comparison").loc[name]
            results.claim(
                id + which,
                kind,
                f"Gaps are wider {statement} (difference in levels above 0{said})",
                stats.Estimate(row.estimate, row.low, row.high, len(table), "instruments"),
                bar=0.0,
                margin=0.5,
                untestable=quick,
                paper=INCENTIVE,
                figure="gradient",
            )
    return first


def alike_outside(results, paired, hiding, pairs):
    """Alike from outside, unlike inside."""
    fig, axes = plt.subplots(1, 3, figsize=(12, 4))
    panels = {
        "forget accuracy": "Alike from outside: forgotten facts",
        "retain accuracy": "... and kept facts",
        "relearned": "Unlike inside: what comes back",
    }
    for ax, (measure, title) in zip(axes, panels.items(), strict=True):
        both = paired[measure].reset_index()
        low, high = paired[measure].to_numpy().min(), paired[measure].to_numpy().max()
        ax.plot([low, high], [low, high], color="0.6", ls="--", lw=1)
        for mechanism in hiding:
            part = both[both.mechanism == mechanism]
            ax.plot(part[False], part[True], "o", ms=5, alpha=0.75, label=mechanism)
        unit = "advantage of right answers, nats" if measure == "relearned" else "share right"
        ax.set(xlabel=f"erased: {unit}", ylabel="suppressed" if ax is axes[0] else "", title=title)
    fig.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=len(hiding))
    results.figure(fig, "alike_outside", pairs[["seed", "mechanism", "start", "suppressed", *panels]])
    plt.show()


def audit_ladder(results, dodge, everything, rungs, truth, title, hiding, climbed, table):
    """What an auditor can tell, by the evidence she sees."""
    fig, axes = plt.subplots(1, 2, figsize=(12, 5), width_ratios=(3, 2), sharey=True)
    for auditor, shift in dodge.items():
        part = everything[everything.auditor == auditor].set_index("evidence").loc[rungs]
        axes[0].errorbar(
            np.arange(len(rungs)) + shift,
            part.auc,
            yerr=[part.auc - part.low, part.high - part.auc],
            fmt="o",
            capsize=3,
            label=auditor,
        )
    axes[0].axhspan(
        truth.low["relearned"], truth.high["relearned"], color="0.9", zorder=0, label="relearning (the check)"
    )
    axes[0].set(
        xticks=range(len(rungs)),
        xticklabels=[f"{'+ ' if i else ''}{r}" for i, r in enumerate(rungs)],
        ylabel="AUC, suppressed against erased",
        title=title,
    )
    axes[0].legend(loc="upper center", bbox_to_anchor=(0.5, -0.25), ncols=2, fontsize="small")
    for mechanism in hiding:
        part = (
            climbed[(climbed.mechanism == mechanism) & (climbed.auditor == "trained, unseen mechanism")]
            .set_index("evidence")
            .loc[rungs]
        )
        axes[1].plot(range(len(rungs)), part.auc, "o-", ms=4, label=mechanism)
    axes[1].set(xticks=range(len(rungs)), title="By hiding mechanism, none met before")
    axes[1].legend(loc="upper center", bbox_to_anchor=(0.5, -0.25), ncols=3, fontsize="small")
    for ax in axes:
        ax.axhline(0.5, color="0.5", ls="--", lw=1)
        ax.tick_params(axis="x", rotation=20)
    axes[1].set_xticklabels([f"{'+ ' if i else ''}{r}" for i, r in enumerate(rungs)])
    results.figure(fig, "audit_ladder", table)
    plt.show()


def audit_ladder_runs(results, real):
    """Language models: which evidence tells what comes back."""
    fig, ax = plt.subplots(figsize=(7.5, 4))
    rungs_real = list(audit.RUN_COLUMNS)
    for auditor, shift in (("fixed score", -0.1), ("trained, unseen mechanism", 0.1)):
        part = real[real.auditor == auditor]
        ax.errorbar(
            np.arange(len(part)) + shift,
            part.auc,
            yerr=[part.auc - part.low, part.high - part.auc],
            fmt="o",
            capsize=3,
            label=auditor.replace("mechanism", "method and domain"),
        )
    ax.axhline(0.5, color="0.5", ls="--", lw=1)
    ax.set(
        xticks=range(len(rungs_real)),
        xticklabels=[f"{'+ ' if i else ''}{r}" for i, r in enumerate(rungs_real)],
        ylabel="AUC, facts came back by relearning",
        title="Language models: which evidence tells what comes back?",
    )
    ax.legend(loc="lower left", fontsize="small")
    results.figure(fig, "audit_ladder_runs", real)
    plt.show()


def claims_on_models(results, enough, pairs, climbed, worlds, resamples, real, passed, recovered):
    """The claims of this notebook, recorded."""
    quick = None if enough else "a quick run"
    scored = pairs.assign(**{name: audit.audit(pairs, columns) for name, columns in audit.ladder().items()})
    line = climbed[climbed.mechanism == "all"].set_index(["evidence", "auditor"])[["auc", "low", "high"]]
    BLIND = "behavioural assurance cannot verify absence claims"
    for rung, what in (
        ("answers", "Answers alone"),
        ("probabilities", "Behaviour with the probabilities of all options"),
    ):
        best = max(
            (line.loc[rung, name] for name in ("fixed score", "trained, unseen mechanism")), key=lambda row: row.auc
        )
        results.claim(
            f"{rung}-cannot-tell",
            "paper",
            f"{what} cannot tell suppressed from erased knowledge (AUC of the better auditor below 0.65)",
            stats.Estimate(*best, worlds, "worlds"),
            bar=0.65,
            side="below",
            untestable=quick,
            paper=BLIND,
            figure="audit_ladder",
        )
    for less, more, what in (
        ("probabilities", "probes", "Linear probes add to behaviour with probabilities"),
        ("probes", "patching", "Activation patching adds to behaviour and probes"),
        ("patching", "before and after", "Comparing before and after training adds to all of these"),
        ("answers", "before and after", "All three classes together add to answers alone"),
        ("probabilities", "before and after", "All three classes together add to behaviour with probabilities"),
    ):
        results.claim(
            f"{more.replace(' ', '-')}-over-{less}",
            "paper",
            f"{what} (gain in AUC above 0, mechanisms not met before)",
            stats.Estimate(*audit.gain(scored, less, more, resamples=resamples), worlds, "worlds"),
            bar=0.0,
            margin=0.05,
            untestable=quick,
            paper="proposed as evidence; no number given",
            figure="audit_ladder",
        )
    results.claim(
        "relearning-tells",
        "control",
        "Teaching half of the forgotten facts tells suppressed from erased by the other half (AUC above half)",
        stats.Estimate(*audit.auc_interval(pairs, "relearned", resamples=resamples), worlds, "worlds"),
        bar=0.5,
        untestable=quick,
        figure="audit_ladder",
    )
    for name, of in real[real.auditor == "fixed score"].groupby("evidence", sort=False):
        row = of.iloc[0]
        results.claim(
            f"runs-{name.replace(' ', '-')}",
            "paper",
            f"Language models: which forgotten facts come back by relearning can be told by {name} (AUC above half)",
            stats.Estimate(row.auc, row.low, row.high, int(row.runs), "unlearned models"),
            bar=0.5,
            margin=0.2,
            figure="audit_ladder_runs",
            untestable=None if 5 <= row["came back"] <= row.runs - 5 else "fewer than five of a kind",
            paper="behaviour cannot; probes, patching and before/after could",
        )
    results.claim(
        "runs-nf4",
        "paper",
        "Language models: which forgotten facts come back in NF4 can be told by some evidence (AUC above half)",
        stats.Estimate(float("nan"), None, None, len(passed), "unlearned models"),
        bar=0.5,
        figure="audit_ladder_runs",
        untestable=f"NF4 brings facts back in {recovered} of them",
        paper="knowledge that was only suppressed can return in 4 bits",
    )
