"""Claims of notebooks/05_xai/04_metric_reliability.ipynb."""

import numpy as np
import pandas as pd

from compendium import stats
from compendium.xai import meta, metrics


def claims_on_metrics(results, W, by_chance, quick, PAPER, good, sure, could, names, asking, turns, key, over):
    """The claims of this notebook, recorded."""
    results.claim(
        "metrics-disagree",
        "paper",
        "Metrics disagree on which method is best (Kendall's W of 13 metrics below 0.7)",
        stats.Estimate(W.W, W.low, W.high, len(by_chance), "cases (table and seed)"),
        bar=0.7,
        side="below",
        untestable=quick,
        paper=PAPER,
    )
    results.claim(
        "no-metric-suffices-alone",
        "paper",
        "No metric meets all criteria of reliability (number that do, at the ends of the interval of truth; below 1)",
        stats.Estimate(
            int(good.all(axis=1).sum()), int(sure.sum()), int(could.sum()), len(by_chance), "cases (table and seed)"
        ),
        bar=1,
        side="below",
        untestable=quick,
        paper=PAPER,
    )
    for id, which, statement in (
        (
            "rankings-can-be-turned",
            names,
            "Clear orders of two methods can be turned into clear opposites without touching the model",
        ),
        (
            "rankings-of-faithfulness-can-be-turned",
            asking,
            "By the seven metrics that ask the model and pass the gate, clear orders of two methods can be turned into clear opposites",
        ),
        (
            "rankings-without-infidelity-can-be-turned",
            [n for n in asking if n != "infidelity"],
            "By those metrics without infidelity, whose two published forms ask for different things, clear orders can be turned",
        ),
    ):
        shares = turns[turns.metric.isin(which)].groupby(key).clear.mean()
        results.claim(
            id,
            "paper",
            f"{statement} (share of pairs, above the {max(0.05, by_chance.mean()):.2f} that chance and noise leave)",
            over(shares),
            bar=float(max(0.05, by_chance.mean())),
            margin=0.05,
            untestable=quick,
            paper=PAPER,
        )


def claims_on_explanations(
    results, sensitive, among, lead, over, quick, PAPER, hidden, key, met, W, turns, names, by_chance, good
):
    """The claims of this notebook, recorded."""
    for id, kind, values, bar, side, statement in (
        (
            "agreement-is-not-truth",
            "paper",
            sensitive,
            0.2,
            "below",
            f"Metrics that agree with each other (sensitivities, tau {among:.2f}) do not agree with the truth (tau below 0.2)",
        ),
        (
            "denial-of-everything-scores-well",
            "paper",
            lead("everything"),
            0.5,
            "above",
            "An explanation that denies all that matters can be made to score well on metrics that ask the model (0 random, 1 exact; above half)",
        ),
        (
            "denial-of-the-strongest-scores-well",
            "paper",
            lead("the strongest"),
            0.5,
            "above",
            "An explanation that denies only the strongest column of each row can be made to score well (0 random, 1 exact; above half)",
        ),
    ):
        results.claim(id, kind, statement, over(values), bar=bar, side=side, margin=0.1, untestable=quick, paper=PAPER)
    for name, title in (
        ("lime", "LIME"),
        ("kernel shap", "Kernel SHAP"),
        ("integrated gradients", "Integrated gradients"),
    ):
        table = hidden[hidden.explainer == name].pivot_table(index=key, columns="model", values="hidden")
        results.claim(
            f"{name.replace(' ', '-')}-can-be-fooled",
            "paper",
            f"{title}: a scaffold takes the hidden column off the top (drop in share of rows against the blind scaffold above 0)",
            over(table["blind scaffold"] - table["scaffold"]),
            bar=0.0,
            margin=0.2,
            untestable=quick,
            paper="LIME and SHAP can be fooled (Slack et al. 2020)",
        )
    results.claim(
        "no-method-fits-every-use",
        "ours",
        "No method meets all requirements of all uses (number that do; the exact explanation does; below 1)",
        stats.Estimate(int(met.sum()), None, None, len(met), "methods"),
        bar=1,
        side="below",
        untestable=quick or "methods are no sample of anything: a count",
        paper="asks for benchmarks by domain; requirements are ours",
    )
    results.metrics(
        W=W.W,
        clear_flips=turns[turns.metric.isin(names)].groupby(key).clear.mean().mean(),
        clear_flips_control=by_chance.mean(),
        reliable=int(good.all(axis=1).sum()),
        sensitivity_validity=sensitive.mean(),
    )


def card(results, testable, tables, share, tau, some, names, valid, turned, wrong, asking, concord, taus, level):
    """The card of every metric, and what the claims are made of."""
    quick = None if testable else "a quick run"
    PAPER, key = "states it in words (abstract); the test is ours", ["table", "seed"]
    over = lambda values: stats.resampled_mean(values, "cases (table and seed)")
    again = tables["retest"].pivot_table(index="metric", columns="knob", values="tau")
    card = pd.DataFrame(
        {
            "gate": share,
            "truth": tau,
            **{k: again[k] for k in ("baseline", "seed", "rows")},
            "turned": some.xs("any knob", level="knob").clear,
        }
    ).loc[names]
    good = pd.DataFrame(
        {c: card[c] < 0.05 if c == "turned" else card[c] >= (0.95 if c == "gate" else 0.8) for c in card}
    )
    results.table(card.assign(all=good.all(axis=1)).rename_axis("metric").reset_index(), "metric_card")
    could = good.assign(truth=valid.set_index("metric").high.loc[names] >= 0.8).all(
        axis=1
    )  # at the best of its interval
    sure = good.assign(truth=valid.set_index("metric").low.loc[names] >= 0.8).all(axis=1)
    turns = turned[turned.knob == "any knob"]
    by_chance = turns[turns.metric == meta.CONTROL].groupby(key).clear.mean()
    lead = lambda which: wrong[(wrong.denied == which) & wrong.metric.isin(asking)].groupby(key).won.mean()
    form = (
        wrong[(wrong.denied == "everything") & wrong.metric.isin(["complexity", "sparseness"])]
        .groupby(key)
        .beats.mean()
    )
    W = concord.set_index("judges").loc["all metrics"]
    sensitive = tables["validity"][tables["validity"].metric.isin(metrics.SENSITIVITIES)].groupby(key).tau.mean()
    among = taus.loc[list(metrics.SENSITIVITIES), list(metrics.SENSITIVITIES)].to_numpy()[np.triu_indices(3, 1)].mean()
    met = level[~level.method.isin(["oracle"])].groupby(["domain", "method"]).met.all().groupby("method").all()
    return PAPER, W, among, by_chance, could, form, good, key, lead, met, over, quick, sensitive, sure, turns
