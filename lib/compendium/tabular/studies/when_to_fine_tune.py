"""Stage 04-when_to_fine_tune-units, for notebook 05_when_to_fine_tune: what more rows in the context are worth.

python -m compendium.tabular when_to_fine_tune notebooks/04_tabular/context_lengths.yaml
"""

from pathlib import Path

import pandas as pd

from compendium import settings, units
from compendium.paths import TABULAR
from compendium.tabular import evaluation, suite
from compendium.tabular.pfn import CHECKPOINT

OUT = TABULAR / "context_lengths"
METHODS = ("boosting", "zero-shot")


def planned(*, sets: list[str], seeds: list[int], lengths: list[int], members: int, asked: int = 300) -> list[dict]:
    """The arguments of `evaluation.scores` for every unit. lengths: rows to train on, all of them in the context.
    Raises ValueError for an unknown data set or a length below 2."""
    if strange := [name for name in sets if name not in suite.SUITE]:
        raise ValueError(f"unknown data set {strange[0]!r}: choose among {', '.join(suite.SUITE)}")
    if wrong := [n for n in lengths if n < 2]:
        raise ValueError(f"lengths: {wrong[0]} rows are too few to train on")
    return [
        {"name": name, "seed": seed, "method": method, "rows": n, "asked": asked, "members": members, "context": n}
        for name in sets
        for seed in seeds
        for n in lengths
        for method in METHODS
    ]


def sweep(given: dict, *, out: Path | None = None) -> units.Sweep:
    """All units of settings as `planned` takes them; out: `OUT` unless given. Raises ValueError."""
    settings.check(given, planned, where="the settings of the context lengths")
    return _sweep(planned(**given), OUT if out is None else Path(out))


def scores(**given) -> pd.DataFrame:
    """The table of a few units made here and now; given: as `planned` takes them."""
    return units.run(_sweep(planned(**given), None))["scores"]


def _sweep(wanted: list[dict], out: Path | None) -> units.Sweep:
    inputs = (CHECKPOINT,) if CHECKPOINT.exists() else ()
    return units.Sweep(evaluation.scores, wanted, out, "tabular when_to_fine_tune", inputs)
