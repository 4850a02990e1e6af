"""Stage 02-baselines-units, for notebook 03_baselines: every method over its learning rates, on a domain for tuning.

python -m compendium.unlearning baselines notebooks/02_unlearning/baselines.yaml
"""

from pathlib import Path

import pandas as pd

from compendium import edits, settings, units
from compendium.paths import UNLEARNING
from compendium.unlearning import evaluation, methods
from compendium.unlearning.studies.unlearned import INPUTS, check

OUT = UNLEARNING / "baselines"


def one(*, domain: str, seed: int, method: str, settings: dict, limits: dict) -> dict[str, pd.DataFrame]:
    """Share of right answers by kind of question after one method, and share of parameters edited; nothing else."""
    of = evaluation.subject(domain, seed, limits)
    delta = methods.unlearn(method, of, settings)[0] if method != "none" else {}
    with edits.applied(of.model, delta):
        shares = evaluation.ask(of).groupby("kind", sort=False).correct.mean()
    row = {
        "method": method,
        "learning_rate": settings["learning_rate"],
        **shares,
        "edited": edits.moved(of.model, delta),
    }
    return {"runs": pd.DataFrame([row])}


def planned(*, domain: str, seed: int, grid: dict[str, list[float]], settings: dict, limits: dict) -> list[dict]:
    """The arguments of `one` for every unit, the untouched model first. grid: learning rates by method. settings: of
    `methods.unlearn`; limits: of `evaluation.load`. Raises ValueError for a method or a rate that cannot be."""
    for method, rates in grid.items():
        for rate in rates:
            check({method: rate}, {"others": []})
    tried = [("none", 0.0), *((method, rate) for method, rates in grid.items() for rate in rates)]
    same = {"domain": domain, "seed": seed, "limits": limits}
    return [{**same, "method": m, "settings": settings | {"learning_rate": rate}} for m, rate in tried]


def sweep(given: dict, *, out: Path | None = None) -> units.Sweep:
    """All units of settings as `planned` takes them; out: `OUT` unless given. Raises ValueError as `planned` does."""
    settings.check(given, planned, where="the settings of the baselines")
    return units.Sweep(one, planned(**given), OUT if out is None else Path(out), "unlearning baselines", INPUTS)


def runs(**given) -> pd.DataFrame:
    """The table of a few units made here and now; given: as `planned` takes them."""
    return units.run(units.Sweep(one, planned(**given), None, "unlearning baselines"))["runs"]
