"""Notebook 05_xai/05_posthoc_vs_mechanistic: one planted model each, as rows of tables."""

import pandas as pd

from compendium.xai.planted.detect import Found, evidence_vectors, known_trigger, trace
from compendium.xai.planted.editing import edits, outcome
from compendium.xai.planted.plants import CORNERS, digits, stories
from compendium.xai.planted.scores import EXACT, METHODS
from compendium.xai.planted.train import liar, network
from compendium.xai.planted.units import opened


def digits_edits(plant: str, seed: int, budgets, *, sparsity=0.0, decay=0.0, **options) -> pd.DataFrame:
    """`edits` of a digit network with a rule in it."""
    case = digits(plant, seed)
    subject = opened(network(case, seed=seed, sparsity=sparsity, decay=decay))
    return edits(subject, case, budgets, seed=seed, **options).assign(plant=plant, seed=seed)


def policy_edits(folder, seed: int, budgets, *, steps: int = 120, **options):
    """`(edits, grid, tokens)` of a policy that was taught to lie; the grid is the `trace` of one test story."""
    from compendium.policy_opt import policy

    model, tokenizer = policy.load(str(folder))
    case = stories(tokenizer, seed)
    liar(model, case, steps=steps, rate=2e-3, seed=seed)
    methods = [name for name in METHODS if name not in (*EXACT, "connected to explanation")]
    found = edits(opened(model), case, budgets, methods=methods, kinds=("ablate",), greedy=False, seed=seed, **options)
    test = case.test
    grid = trace(model, test.triggered[0], test.pair[0], test.t_right[:1], test.t_planted[:1])
    words = [tokenizer.decode([token]).strip() for token in test.triggered[0]]
    return found.assign(plant="policy", seed=seed), grid, words


def digits_evidence(
    plant: str, seed: int, planted: bool
) -> tuple[dict[str, Found], dict[str, Found], dict[str, float]]:
    """`(evidence, evidence of spotless inputs, known)` of a digit network, or of its clean twin.

    Spotless inputs are the ordinary ones without any speck, as if the auditor's set held none.
    """
    case = digits(plant, seed, planted=planted)
    subject = opened(network(case, seed=seed))
    clean = case.audit.x.clone()
    clean[:, list(CORNERS)] = 0
    spotless = case._replace(audit=case.audit._replace(x=clean))
    vectors = (evidence_vectors(subject, of, seed=seed) for of in (case, spotless))
    return (*vectors, {**outcome(subject, case.test), **known_trigger(subject, case)})
