"""Stage 05-posthoc_vs_mechanistic-units, for notebook 05_posthoc_vs_mechanistic: one planted model each.

python -m compendium.xai posthoc_vs_mechanistic notebooks/05_xai/planted.yaml
"""

from pathlib import Path

import numpy as np
import pandas as pd

from compendium import models, paths, settings, units
from compendium.xai.planted.detect import Found, evidence_vectors, known_trigger, trace
from compendium.xai.planted.editing import edits, outcome
from compendium.xai.planted.plants import CORNERS, digits, stories
from compendium.xai.planted.scores import EXACT, METHODS
from compendium.xai.planted.train import liar, network
from compendium.xai.planted.units import opened

OUT = paths.XAI / "posthoc_vs_mechanistic"
PLANTS = ["shortcut", "backdoor"]
CHOSEN = ["random", "gradient x activation", "mean ablation", "activation patching"]  # enough to compare trainings
GROUPS = {"planted": (0, True), "clean": (500, False), "pool": (1000, False)}  # first seed, and whether a rule is in it
INPUTS = ("ordinary", "spotless")  # spotless: the ordinary ones without any speck, as if the auditor's set held none


def policy_edits(*, seed: int, policy: str, budgets: list[int], steps: int) -> dict[str, pd.DataFrame]:
    """`edits` of a policy that was taught to lie, and the `trace` of one test story (one row a layer and token)."""
    from compendium.policy_opt.policy import load

    model, tokenizer = load(str(paths.ROOT / policy))
    case = stories(tokenizer, seed)
    liar(model, case, steps=steps, rate=2e-3, seed=seed)
    methods = [name for name in METHODS if name not in (*EXACT, "connected to explanation")]
    found = edits(opened(model), case, budgets, methods=methods, kinds=("ablate",), greedy=False, seed=seed)
    test = case.test
    grid = trace(model, test.triggered[0], test.pair[0], test.t_right[:1], test.t_planted[:1])
    words = [tokenizer.decode([token]).strip() for token in test.triggered[0]]
    traced = [
        {"seed": seed, "layer": i, "position": j, "token": words[j], "share": float(value)}
        for i, row in enumerate(grid)
        for j, value in enumerate(row)
    ]
    return {"edits": found.assign(plant="policy", seed=seed), "trace": pd.DataFrame(traced)}


def digits_edits(*, plant: str, seed: int, budgets: list[int]) -> dict[str, pd.DataFrame]:
    """`edits` of a digit network with a rule in it."""
    case = digits(plant, seed)
    found = edits(opened(network(case, seed=seed)), case, budgets, seed=seed)
    return {"edits": found.assign(plant=plant, seed=seed)}


def constrained_edits(*, constraint: str, seed: int, budgets: list[int], sparsity=0.0, decay=0.0):
    """`constrained`: edits, chosen in few ways, of a digit network with a backdoor, trained under a constraint."""
    case = digits("backdoor", seed)
    subject = opened(network(case, seed=seed, sparsity=sparsity, decay=decay))
    found = edits(subject, case, budgets, seed=seed, methods=CHOSEN, kinds=("ablate",), greedy=False)
    return {"constrained": found.assign(constraint=constraint, seed=seed)}


def digits_evidence(*, plant: str, group: str, number: int) -> dict[str, pd.DataFrame]:
    """`evidence` about a digit network, one row a kind and set of INPUTS, and what is `known` of the suspected rule.

    v0, v1, ...: what the detector sees; p0, p1, ...: how much it points at each pixel, blank if it does not.
    """
    first, planted = GROUPS[group]
    seed = first + number
    case = digits(plant, seed, planted=planted)
    subject = opened(network(case, seed=seed))
    clean = case.audit.x.clone()
    clean[:, list(CORNERS)] = 0
    spotless = case._replace(audit=case.audit._replace(x=clean))
    key, rows = {"plant": plant, "group": group, "number": number}, []
    for inputs, of in zip(INPUTS, (case, spotless), strict=True):
        for kind, found in evidence_vectors(subject, of, seed=seed).items():
            row = {**key, "inputs": inputs, "kind": kind} | {f"v{i}": v for i, v in enumerate(found.vector)}
            rows.append(row | {f"p{i}": v for i, v in enumerate(() if found.pixels is None else found.pixels)})
    known = {**key, **outcome(subject, case.test), **known_trigger(subject, case)}
    return {"evidence": pd.DataFrame(rows), "known": pd.DataFrame([known])}


def found(evidence: pd.DataFrame) -> list[dict[str, Found]]:
    """Table `evidence` as `planted.separated` takes it: what `evidence_vectors` gave, one entry a model."""

    def numbers(row, letter: str) -> np.ndarray | None:
        columns = sorted((c for c in evidence if c[0] == letter and c[1:].isdigit()), key=lambda c: int(c[1:]))
        values = row[columns].dropna().to_numpy(float)
        return values if len(values) else None

    return [
        {row.kind: Found(numbers(row, "v"), numbers(row, "p")) for _, row in of.iterrows()}
        for _, of in evidence.groupby("number", sort=False)
    ]


JOBS = {"policy": policy_edits, "edits": digits_edits, "constraint": constrained_edits, "evidence": digits_evidence}


def one(*, job: str, threads: int = 1, **given) -> dict[str, pd.DataFrame]:
    """The tables of one of JOBS."""
    models.set_threads(threads)
    return JOBS[job](**given)


def planned(
    *,
    seeds: list[int],
    evidence_models: int,
    budgets: list[int],
    policy_budgets: list[int],
    policy_steps: int,
    sparsity: float,
    decay: float,
    policy: str = "data/policies/start/policy",
) -> list[dict]:
    """The arguments of `one` for every model.

    seeds: of the edits, and of training with a constraint. evidence_models: of each of GROUPS, for each plant. budgets,
    policy_budgets: units edited, of a digit network's 128 and a policy's 2,112. sparsity: L1 penalty on activations;
    decay: weight decay, its control. policy: folder from the repository's root. Raises ValueError for no budgets.
    """
    if not (budgets and policy_budgets):
        raise ValueError("budgets and policy_budgets: give at least one number of units each")
    constraints = {"none": {}, f"weight decay {decay}": {"decay": decay}, f"L1 {sparsity}": {"sparsity": sparsity}}
    made = [
        {"job": "policy", "seed": seed, "policy": policy, "budgets": policy_budgets, "steps": policy_steps}
        for seed in seeds
    ]
    for seed in seeds:
        made += [{"job": "edits", "plant": plant, "seed": seed, "budgets": budgets} for plant in PLANTS]
        for name, options in constraints.items():
            made.append({"job": "constraint", "constraint": name, "seed": seed, "budgets": budgets, **options})
    return made + [
        {"job": "evidence", "plant": plant, "group": group, "number": i}
        for plant in PLANTS
        for group in GROUPS
        for i in range(evidence_models)
    ]


def sweep(given: dict, *, out: Path | None = None) -> units.Sweep:
    """All units of settings as `planned` takes them; out: `OUT` unless given. Raises ValueError as `planned` does."""
    settings.check(given, planned, where="the settings of the planted models")
    return units.Sweep(one, planned(**given), OUT if out is None else Path(out), "xai posthoc_vs_mechanistic")


def tables(**given) -> dict[str, pd.DataFrame]:
    """The tables of a few units made here and now; given: as `planned` takes them."""
    return units.run(units.Sweep(one, planned(**given), None, "xai posthoc_vs_mechanistic"))
