"""Stage 05-metric_reliability-units, for notebook 04_metric_reliability: every question about metrics, case by case.

python -m compendium.xai metric_reliability notebooks/05_xai/judged_metrics.yaml
"""

from pathlib import Path

import pandas as pd

from compendium import models, settings, units
from compendium.paths import XAI
from compendium.xai import meta, synthetic

OUT = XAI / "metric_reliability"


def known(kind: str, seed: int) -> dict[str, pd.DataFrame]:
    """`gate` and `ladder`: impostors and steps of noise of an exact explanation."""
    return {"gate": meta.gate([kind], seeds=[seed]), "ladder": meta.ladder_validity([kind], seeds=[seed])}


def climbs(kind: str, seed: int) -> dict[str, pd.DataFrame]:
    """`climbs`: how far an explanation that denies what matters can be made to score."""
    return {"climbs": meta.climbs((kind,), seeds=(seed,))}


def secret(table: str, seed: int, *, rows: int) -> dict[str, pd.DataFrame]:
    """`hidden` and `told`: explainers, and metrics, of a model that hides the column it decides by."""
    hidden, told = meta.secret(table, seed=seed, rows=rows)
    return {"hidden": hidden, "told": told}


def domain(name: str, seed: int, *, rows: int) -> dict[str, pd.DataFrame]:
    """`domains`: what one use requires of an explanation, and what methods reach."""
    return {"domains": meta.domain(name, seed=seed, rows=rows)}


QUESTIONS = {"known": known, "judged": meta.judged, "climbs": climbs, "secret": secret, "domain": domain}


def one(*, question: str, threads: int = 1, **given) -> dict[str, pd.DataFrame]:
    """The tables of one of QUESTIONS; "judged" gives those of `meta.judged`."""
    models.set_threads(threads)
    return QUESTIONS[question](**given)


def planned(
    *,
    seeds: list[int],
    kinds: list[str],
    trained: list[str],
    climbed: list[str],
    secrets: list[str],
    domains: list[str],
    rows: int,
    train: int,
    secret_rows: int,
) -> list[dict]:
    """The arguments of `one` for every seed of every question.

    kinds, trained, climbed: tables with a known explanation; on those in `trained`, networks learn from `train` rows
    and `rows` are explained. secrets: real tables for the scaffold, `secret_rows` explained. domains: uses.
    Raises ValueError for an unknown name.
    """
    for names, there in (
        ([*kinds, *trained, *climbed], synthetic.TABLES),
        (secrets, meta.SECRETS),
        (domains, meta.DOMAINS),
    ):
        if strange := [name for name in names if name not in there]:
            raise ValueError(f"unknown name {strange[0]!r}: choose among {', '.join(there)}")
    cases = {
        "known": [{"kind": kind} for kind in kinds],
        "judged": [{"kind": kind, "rows": rows, "train": train} for kind in trained],
        "climbs": [{"kind": kind} for kind in climbed],
        "secret": [{"table": name, "rows": secret_rows} for name in secrets],
        "domain": [{"name": name, "rows": rows} for name in domains],
    }
    return [{"question": q, **case, "seed": seed} for q, of in cases.items() for case in of for seed in seeds]


def sweep(given: dict, *, out: Path | None = None) -> units.Sweep:
    """All units of settings as `planned` takes them; out: `OUT` unless given. Raises ValueError as `planned` does."""
    settings.check(given, planned, where="the settings of the judged metrics")
    return units.Sweep(one, planned(**given), OUT if out is None else Path(out), "xai metric_reliability")


def tables(**given) -> dict[str, pd.DataFrame]:
    """The tables of a few units made here and now; given: as `planned` takes them."""
    return units.run(units.Sweep(one, planned(**given), None, "xai metric_reliability"))
