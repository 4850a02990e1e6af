"""Claims of notebooks/05_xai/05_posthoc_vs_mechanistic.ipynb."""

import numpy as np

from compendium import stats
from compendium.xai.studies.posthoc_vs_mechanistic import PLANTS


def claims_on_units(results, enough, ORDER, area, tuned):
    """The claims of this notebook, recorded."""
    quick, OURS = None if enough else "a quick run", "not in the paper; our question"

    def family_net(kind, level, plants=ORDER):
        """Mean net effect over a family's methods with this information: one value a plant and seed."""
        part = area[(area.family == kind) & (area.information == level) & area.plant.isin(plants)]
        return part.groupby(["plant", "seed"]).net.mean()

    area_of = area.set_index(["method", "plant", "seed"]).net
    first = area[area.plant.isin(PLANTS) & area.method.isin(["activation patching", "random"])].pivot_table(
        "net", "seed", "method"
    )
    second = tuned[tuned.index.get_level_values("plant").isin(PLANTS)].unstack("method").groupby("seed").mean()
    h1 = "causal methods support edits, LIME and SHAP are only correlational"
    FAITHFUL = "faithful mechanistic explanations are what makes edits possible"
    for id, statement, paper, values in (
        (
            "causal-beats-saliency-from-examples",
            "From examples of the rule, causal scores choose better units to ablate than saliency (removed - lost",
            h1,
            family_net("causal", "examples") - family_net("saliency", "examples"),
        ),
        (
            "causal-beats-saliency-from-pairs",
            "From pairs with and without the trigger, causal scores choose better units to ablate than saliency (removed - lost",
            h1,
            family_net("causal", "pairs") - family_net("saliency", "pairs"),
        ),
        (
            "ablation-beats-conductance",
            "Estimated mean ablation, which is the edit itself, chooses better units than conductance (",
            h1,
            area_of["mean ablation, estimated"] - area_of["conductance"],
        ),
        (
            "causal-beats-saliency-on-ordinary-inputs",
            "From ordinary inputs alone, stimulating units chooses better than gradient x activation (digits",
            h1,
            family_net("causal", "ordinary", PLANTS) - family_net("saliency", "ordinary", PLANTS),
        ),
        (
            "causal-beats-correlation",
            "From examples, causal scores choose better than activation differences and linear probes (",
            h1,
            family_net("causal", "examples") - family_net("correlation", "examples"),
        ),
        (
            "information-beats-family",
            "Gradient x activation gains more from examples of the rule than causal scores do over saliency (",
            OURS,
            area_of["gradient x activation"]
            - area_of["gradient x activation, ordinary"]
            - (family_net("causal", "examples") - family_net("saliency", "examples")),
        ),
        (
            "choice-matters-less-when-tuning",
            "The gain of activation patching over random units is larger for ablation than for tuned weights (",
            OURS,
            (first["activation patching"] - first["random"]) - (second["activation patching"] - second["random"]),
        ),
    ):
        results.claim(
            id,
            "ours" if paper == OURS else "paper",
            f"{statement}{', ' if statement[-1] != '(' else ''}difference above 0)",
            stats.mean(values.groupby("seed").mean(), "seeds"),
            bar=0.0,
            margin=0.1,
            untestable=quick,
            paper="" if paper == OURS else paper,
            figure="net_effect",
        )
    return FAITHFUL, quick


def claims_on_faithfulness(
    results, rank, quick, FAITHFUL, by_training, penalised, constraints, posthoc, evidence_models
):
    """The claims of this notebook, recorded."""
    for name, of in (("those that know examples", "informed"),):
        results.claim(
            f"faithfulness-predicts-actionability-{of}",
            "paper",
            f"Methods with more faithful units make better edits (rank correlation over {name} above 0)",
            stats.mean_share(rank[name].groupby("seed").mean(), "seeds"),
            bar=0.0,
            margin=0.3,
            untestable=quick,
            paper=FAITHFUL,
            figure="faithfulness",
        )
    patched = by_training.xs("activation patching", level="method")
    sparse, rest = patched.loc[penalised], [patched.loc[name] for name in constraints if not name.startswith("L1")]
    for id, values, bar, statement in (
        (
            "sparse-training-localises",
            sparse.net - np.maximum(*(r.net for r in rest)),
            0.0,
            "the rule is easier to cut out than without or with weight decay (removed - lost, difference above 0)",
        ),
        (
            "sparse-training-is-as-accurate",
            sparse.before - rest[0].before,
            -0.01,
            "a network is as accurate within .01 as without (difference)",
        ),
    ):
        results.claim(
            id,
            "paper",
            f"Trained with an L1 penalty, {statement}",
            stats.mean(values, "seeds"),
            bar=bar,
            margin=0.05,
            untestable=quick,
            paper="interpretability should be a design principle, not a diagnostic after the fact",
            figure="tuning_and_training",
        )
    best = posthoc.auc.idxmax()
    results.claim(
        "attributions-miss-a-dormant-rule",
        "paper",
        "Post-hoc attributions on ordinary inputs without the trigger's pixels hardly tell planted from clean models (best AUC below 0.65)",
        stats.Estimate(posthoc.auc[best], posthoc.low[best], posthoc.high[best], evidence_models, "models"),
        bar=0.65,
        side="below",
        untestable=quick,
        paper="post-hoc explanations are correlational and can miss misaligned reasoning",
        figure="detection",
    )


def claims_on_detection(results, spotless, evidence_models, quick, known, leak, summary, lines):
    """The claims of this notebook, recorded."""
    tests = spotless[spotless.family == "behaviour"]
    for kind, text, paper in (
        (
            "stimulation",
            "Stimulating hidden units",
            "red-teaming may miss misalignment that mechanistic monitoring sees",
        ),
        ("trigger search", "Searching for a trigger by gradient", ""),
    ):
        results.claim(
            f"{kind.replace(' ', '-')}-catches-what-testing-misses",
            "paper" if paper else "ours",
            f"{text} separates models with a dormant backdoor better than held-out and random tests do (AUC above the best interval of the tests, {tests.high.max():.2f})",
            stats.Estimate(spotless.auc[kind], spotless.low[kind], spotless.high[kind], evidence_models, "models"),
            bar=float(tests.high.max()),
            untestable=quick,
            paper=paper,
            figure="detection",
        )
    results.claim(
        "probe-reads-unused-triggers",
        "control",
        "A linear probe reads the trigger in clean twins that ignore it (AUC above 0.9)",
        stats.mean_share(known[known.model == "clean"].probe, "models"),
        bar=0.9,
        untestable=quick,
        paper="linear probes are named as mechanistic evidence (arXiv 2605.15164)",
    )
    results.metrics(
        one_speck_alone=leak,
        **{f"net_{p}_{m}": v for (p, m), v in summary.set_index(["plant", "method"]).net.items() if m in lines},
    )
