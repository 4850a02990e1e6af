"""Stage 04-pretraining-units, for notebook 02_pretraining: the network and three baselines on all small tables.

python -m compendium.tabular pretraining notebooks/04_tabular/pretraining.yaml
"""

from pathlib import Path

import pandas as pd

from compendium import settings, units
from compendium.paths import TABULAR
from compendium.tabular import evaluation, suite
from compendium.tabular.pfn import CHECKPOINT

OUT = TABULAR / "pretraining"
METHODS = ("constant", "logistic", "boosting", "zero-shot")


def planned(*, sets: list[str] | str, seeds: list[int], members: int) -> list[dict]:
    """The arguments of `evaluation.scores` for every unit. sets: names, or "small": those of at most `suite.SMALL` rows
    that are installed. Raises ValueError for an unknown name."""
    if sets == "small":
        there = [name for name, source in suite.SUITE.items() if source.where in suite.installed()]
        sets = [name for name in there if len(suite.load(name).y) <= suite.SMALL]
    if strange := [name for name in sets if name not in suite.SUITE]:
        raise ValueError(f"unknown data set {strange[0]!r}: choose among {', '.join(suite.SUITE)}")
    return [{"name": n, "seed": s, "method": m, "members": members} for n in sets for s in seeds for m in METHODS]


def sweep(given: dict, *, out: Path | None = None) -> units.Sweep:
    """All units of settings as `planned` takes them; out: `OUT` unless given. Raises ValueError."""
    settings.check(given, planned, where="the settings of the pretraining study")
    return _sweep(planned(**given), OUT if out is None else Path(out))


def scores(**given) -> pd.DataFrame:
    """The table of a few units made here and now; given: as `planned` takes them."""
    return units.run(_sweep(planned(**given), None))["scores"]


def _sweep(wanted: list[dict], out: Path | None) -> units.Sweep:
    inputs = (CHECKPOINT,) if CHECKPOINT.exists() else ()
    return units.Sweep(evaluation.scores, wanted, out, "tabular pretraining", inputs)
