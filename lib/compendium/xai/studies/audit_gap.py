"""Stage 05-audit_gap-units, for notebook 06_audit_gap: worlds in which models hide what they know, or never knew it.

python -m compendium.xai audit_gap notebooks/05_xai/auditors.yaml
"""

from pathlib import Path

import pandas as pd

from compendium import models, settings, units
from compendium.paths import XAI
from compendium.xai import audit

OUT = XAI / "audit_gap"


def one(*, seed: int, hiding: list[str], learn: int, more: int, hide: int, threads: int = 1) -> dict[str, pd.DataFrame]:
    """One world: `models`, as `audit.study` gives them for mechanisms `hiding` and gradient ascent, and `untrained`."""
    models.set_threads(threads)
    made = audit.study((seed,), mechanisms=(*hiding, audit.ASCENT), learn=learn, more=more, steps=hide)
    return {"models": made, "untrained": audit.untrained((seed,))}


def planned(*, worlds: int, hiding: list[str], learn: int, more: int, hide: int) -> list[dict]:
    """The arguments of `one` for worlds from 100 on: 0 to 9 were looked at while the treatments were built.

    learn, more, hide: steps of training. Raises ValueError for an unknown mechanism."""
    if strange := [name for name in hiding if name not in audit.MECHANISMS]:
        raise ValueError(f"unknown mechanism {strange[0]!r}: choose among {', '.join(audit.MECHANISMS)}")
    same = {"hiding": hiding, "learn": learn, "more": more, "hide": hide}
    return [{"seed": 100 + i, **same} for i in range(worlds)]


def sweep(given: dict, *, out: Path | None = None) -> units.Sweep:
    """All units of settings as `planned` takes them; out: `OUT` unless given. Raises ValueError as `planned` does."""
    settings.check(given, planned, where="the settings of the auditors' worlds")
    return units.Sweep(one, planned(**given), OUT if out is None else Path(out), "xai audit_gap")


def tables(**given) -> dict[str, pd.DataFrame]:
    """The tables of a few units made here and now; given: as `planned` takes them."""
    return units.run(units.Sweep(one, planned(**given), None, "xai audit_gap"))
