"""Stage 02-sparsity_permanence-units, for notebook 06: supports of all sizes at equal forgetting, stored in NF4.

python -m compendium.unlearning sparsity_permanence notebooks/02_unlearning/sparsity_permanence.yaml
"""

from pathlib import Path

import pandas as pd

from compendium import settings, units
from compendium.paths import UNLEARNING
from compendium.unlearning import evaluation, sparsity
from compendium.unlearning.studies.unlearned import INPUTS

OUT = UNLEARNING / "sparsity_permanence"


def one(
    *,
    domain: str,
    seed: int,
    share: float | None,
    settings: dict,
    limits: dict,
    target: float,
    reach: float,
    looks: int,
) -> dict[str, pd.DataFrame]:
    """`sparsity.point` of one share, as table points; share None: the untouched model, as table untouched."""
    of = evaluation.subject(domain, seed, limits)
    if share is None:
        return {"untouched": pd.DataFrame([{"seed": seed, **sparsity.measure(of, {})}])}
    found = sparsity.point(of, share, settings, target=target, reach=reach, looks=looks)
    return {"points": pd.DataFrame([{"seed": seed, **row} for row in found])}


def planned(
    *,
    domain: str,
    seeds: list[int],
    shares: list[float],
    dense_rate: float,
    exponent: float,
    max_rate: float,
    target: float,
    reach: float,
    looks: int,
    settings: dict,
    limits: dict,
) -> list[dict]:
    """The arguments of `one` for every unit. shares: of the linear weights that are trained. Rates grow as shares
    shrink: dense_rate times share to minus `exponent`, at most max_rate. Raises ValueError for a share outside 0 to 1.
    """
    if wrong := [share for share in shares if not 0 < share <= 1]:
        raise ValueError(f"shares: {wrong[0]} is no share: it must be above 0 and at most 1")
    same = {"domain": domain, "limits": limits, "target": target, "reach": reach, "looks": looks}
    found = []
    for seed in seeds:
        found.append({**same, "seed": seed, "share": None, "settings": settings})
        for share in shares:
            rate = min(max_rate, dense_rate * share**-exponent)
            found.append({**same, "seed": seed, "share": share, "settings": settings | {"learning_rate": rate}})
    return found


def sweep(given: dict, *, out: Path | None = None) -> units.Sweep:
    """All units of settings as `planned` takes them; out: `OUT` unless given. Raises ValueError as `planned` does."""
    settings.check(given, planned, where="the settings of the sparsity study")
    out = OUT if out is None else Path(out)
    return units.Sweep(one, planned(**given), out, "unlearning sparsity_permanence", INPUTS)


def tables(**given) -> dict[str, pd.DataFrame]:
    """The tables of a few units made here and now; given: as `planned` takes them."""
    return units.run(units.Sweep(one, planned(**given), None, "unlearning sparsity_permanence"))
