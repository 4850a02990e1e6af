"""Figures and claims of notebooks/02_unlearning/05_mansu.ipynb."""

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns

from compendium import facts, stats
from compendium.unlearning import outcomes
from compendium.unlearning.studies import mansu as mansu_study


def dots(data, order):
    fig, axes = plt.subplots(1, 3, figsize=(13, 0.36 * len(order) + 1.8), sharey=True)
    panels = {
        "forget": ("right answers to facts to forget", facts.CHANCE, "Forgotten?"),
        "retained change": ("change of right answers to others", 0, "Retained?"),
        "nf4 gap": ("change of the first in NF4", 0, "Permanent?"),
    }
    for ax, (column, (label, mark, title)) in zip(axes, panels.items(), strict=True):
        sns.swarmplot(data, x=column, y="method", hue="domain", order=order, alpha=0.85, legend=ax is axes[0], ax=ax)
        ax.axvline(mark, color="0.6", ls="--", lw=1)
        ax.set(xlabel=label, ylabel="", title=title)
    legend = axes[0].get_legend_handles_labels()
    axes[0].get_legend().remove()
    fig.legend(*legend, loc="outside lower center", ncols=2)
    return fig


def four(results, table):
    """No method has all four properties."""
    main = [m for m in table.method.unique() if m != "none" and not m.startswith("MANSU,")]
    order = table[table.method.isin(main)].groupby("method")[["forget", "retained change"]].mean()
    order = (
        (order["retained change"] - order["forget"].clip(lower=facts.CHANCE))
        .sort_values(ascending=False)
        .index.tolist()
    )
    controls = (
        table[table.method.isin(["last block", "other answer"])].groupby(["domain", "seed"])["CAD node cosine"].max()
    )
    stronger = controls.reindex(pd.MultiIndex.from_frame(table[["domain", "seed"]])).to_numpy()
    met = {
        "forgotten\n(at most .30)": ("forget", table["forget"] <= facts.CHANCE + 0.05),
        "near facts kept\n(within .03)": ("near change", table["near change"] >= -0.03),
        "far facts kept\n(within .03)": ("far change", table["far change"] >= -0.03),
        "stays forgotten in NF4\n(at most .03 back)": ("nf4 gap", table["nf4 gap"] <= 0.03),
        "changed inside more\nthan suppression": ("CAD node cosine", table["CAD node cosine"] > stronger),
    }
    grid = pd.DataFrame(
        {
            name: passed.astype(float).where(table[column].notna()).groupby(table.method).mean()
            for name, (column, passed) in met.items()
        }
    ).loc[order]
    means = pd.DataFrame({name: table.groupby("method")[column].mean() for name, (column, _) in met.items()}).loc[order]
    fig, ax = plt.subplots(figsize=(10, 0.36 * len(order) + 1.6))
    sns.heatmap(
        grid,
        annot=means,
        fmt=".2f",
        cmap=sns.blend_palette(["#e08062", "#f3f3f3", "#5b9bd0"], as_cmap=True),
        vmin=0,
        vmax=1,
        linewidths=1,
        ax=ax,
        annot_kws={"color": "0.15"},
        cbar_kws={"label": "share of runs that meet it"},
    )
    ax.set(ylabel="", title="Blue: the property holds in all runs; red: in none (number: mean over runs)")
    ax.tick_params(axis="x", labelsize=8, rotation=0)
    results.figure(
        fig, "four", means.join(grid, rsuffix=", share met").rename(columns=lambda name: name.replace("\n", " "))
    )
    plt.show()
    return controls, main, order


def properties(results, table, main, order):
    """Every run of every method."""
    results.figure(dots(table[table.method.isin(main)], order), "properties", table[table.method.isin(main)])
    plt.show()


def ablations(results, table):
    """MANSU without its pieces, in one run."""
    parts = [m for m in table.method.unique() if m.startswith("MANSU")]
    single = table[table.method.isin(parts) & (table.domain == "country_capital, Europe") & (table.seed == 0)]
    results.figure(dots(single, parts), "ablations", single)
    plt.show()


def claims(results, table, answers, stored, order, controls):
    """The claims of this notebook, recorded."""
    ours = table[table.method == "MANSU"].set_index(["domain", "seed"])
    kept = {kind: outcomes.interval(outcomes.changes(answers, "MANSU", [kind])) for kind in ("near", "far")}
    worse = min(kept, key=lambda kind: kept[kind].value)
    spans = {fmt: outcomes.interval(outcomes.gaps(answers, "MANSU", fmt)) for fmt in stored}
    worst = max(spans, key=lambda fmt: spans[fmt].value)
    known = table["forget"] + table["nf4 gap"].clip(lower=0)  # of what should be forgotten, at worst
    score = table.assign(score=table["retained change"] - known.clip(lower=facts.CHANCE))
    score = score.pivot(index=["domain", "seed"], columns="method", values="score")
    best = score[[m for m in order if m not in ("MANSU", "last block", "other answer")]].mean().idxmax()
    for id, estimate, bar, side, statement, paper in (
        (
            "mansu-forgets",
            outcomes.interval(outcomes.shares(answers, "MANSU", ["forget"])),
            facts.CHANCE + 0.05,
            "below",
            "MANSU forgets (right answers below chance + 0.05)",
            "forgets (accuracy near chance)",
        ),
        (
            "mansu-retains",
            kept[worse],
            -0.03,
            "above",
            f"MANSU keeps what it should within 3 points (change of right answers; {worse} facts, the worse kind)",
            "retain accuracy preserved",
        ),
        (
            "mansu-permanent",
            spans[worst],
            0.03,
            "below",
            f"Less than 3 points of what MANSU forgets come back in 4 bits (gap in {worst}, the worst of {', '.join(stored)})",
            "PTQ gap <= 0",
        ),
        (
            "mansu-erases",
            stats.mean(ours["CAD node cosine"] - controls, "runs"),
            0.0,
            "above",
            "MANSU changes the mechanism more than suppression does (CAD, difference from the stronger control above 0)",
            "structural erasure: highest CAD",
        ),
        (
            "mansu-beats-baselines",
            stats.mean(score["MANSU"] - score[best], "runs"),
            0.0,
            "above",
            f"MANSU has a better trade-off than the best rival, {best} (retained minus known of what should go, as NF4 leaves it; difference above 0)",
            "the only method with all four properties",
        ),
    ):
        chosen = "the rival was chosen by these runs" if id == "mansu-beats-baselines" else None
        results.claim(
            id, "paper", statement, estimate, bar=bar, side=side, paper=paper, untestable=chosen, figure="four"
        )
    for ablation, what in {
        "no floor": "the floor",
        "no projection": "dividing by the Fisher information",
        "no circuit": "staying inside a circuit",
        "random circuit": "this circuit rather than a random one",
    }.items():
        results.claim(
            f"mansu-needs-{ablation.replace(' ', '-')}",
            "paper",
            f"MANSU is better for {what} (retained minus known of what should go, as NF4 leaves it; difference above 0)",
            mansu_study.compared(answers, f"MANSU, {ablation}"),
            bar=0.0,
            paper="each component is needed",
            untestable="one run: facts of one run are no independent evidence about runs",
            figure="ablations",
        )
    results.metrics(
        forget=ours["forget"].mean(),
        near=ours["near change"].mean(),
        far=ours["far change"].mean(),
        nf4_gap=ours["nf4 gap"].mean(),
        edited=ours["edited"].mean(),
    )


def four_properties(results):
    """The four properties of every method in every domain, with intervals over facts and seeds."""
    answers = outcomes.read("answers")
    table = outcomes.table(answers, outcomes.read("facts"))
    results.table(table, "runs")
    stored = [fmt for fmt in ("nf4", "fp4", "q4_0", "q4_1") if f"{fmt} gap" in table]
    measures = {"forget": lambda a, m: outcomes.shares(a, m, ["forget"])}
    measures |= {kind: lambda a, m, kind=kind: outcomes.changes(a, m, [kind]) for kind in ("near", "far")}
    measures |= {f"{fmt} gap": lambda a, m, fmt=fmt: outcomes.gaps(a, m, fmt) for fmt in stored}
    rows = []
    for (name, method), part in table.groupby(["domain", "method"], sort=False):
        here = answers[answers.domain == name]
        row = {"domain": name, "method": method}
        for measure, values in measures.items():
            if len(found := values(here, method)):
                row |= dict(
                    zip((measure, f"{measure} low", f"{measure} high"), outcomes.interval(found)[:3], strict=True)
                )
        one = here[(here.seed == 0) & (here.weights == "float32") & (here.kind != "forget")]
        firsts = [
            one[one.method == m].groupby(["relation", "subject"]).correct.first().to_numpy() for m in ("none", method)
        ]
        rows.append(
            row
            | {
                "McNemar p": stats.mcnemar(*firsts),
                "CAD": part["CAD node cosine"].mean(),
                "edited": part["edited"].mean(),
                "perplexity": part["perplexity ratio"].mean(),
                "steps": part["steps"].mean(),
                "runs": len(part),
            }
        )
    four = pd.DataFrame(rows)
    results.table(four, "four_properties")
    shown = four[["domain", "method"]].copy()
    for measure in ("forget", "near", "far", "nf4 gap"):
        columns = four[[measure, f"{measure} low", f"{measure} high"]].to_numpy()
        shown[measure] = [f"{m:+.2f} [{low:+.2f}, {high:+.2f}]" for m, low, high in columns]
    return answers, four, shown, stored, table
