"""Stage 04-comparison: every method on every data set and split, measured from all sides.

    python -m compendium.tabular comparison notebooks/04_tabular/comparison.yaml

Notebooks 03 to 05 of the section read its tables: scores (one row per data set, split and method), fairness (per
sensitive attribute and metric as well), reliability (per bin of confidence) and tags (per data set). Data sets whose
package is not installed are left out, and `missing` of tags says so. A unit is one method on one split.
"""

from difflib import get_close_matches
from pathlib import Path

import pandas as pd

from compendium import formats, settings, units
from compendium.paths import TABULAR
from compendium.tabular import baselines, evaluation, finetune, suite
from compendium.tabular.pfn import CHECKPOINT

OUT = TABULAR / "comparison"


def planned(
    *,
    seeds: list[int],
    methods: list[str],
    sets: list[str] | str = (),
    fair: list[str] | str = (),
    fair_methods: list[str] = (),
    more_sets: list[str] = (),
    more_methods: list[str] = (),
    rows: int = 1000,
    asked: int = 1000,
    members: int = 8,
    context: int = 1000,
    stored: str | None = None,
) -> list[dict]:
    """The arguments of `evaluation.one` per unit. sets, fair: names, or "all". more_sets: those of `sets` that get
    more_methods too. stored: for `sets` only. Raises ValueError for names that are unknown and numbers that cannot be.
    """
    limits = {"rows": rows, "asked": asked, "members": members, "context": context}
    for what, names, known in (
        ("data set", [] if sets == "all" else [*sets, *more_sets], suite.SUITE),
        ("data set", [] if fair == "all" else fair, suite.FAIRNESS),
        ("method", [*methods, *fair_methods, *more_methods], [*baselines.BASELINES, *finetune.STRATEGIES]),
        ("format", [stored] if stored else [], formats.FORMATS),
    ):
        if strange := [name for name in names if name not in known]:
            close = get_close_matches(str(strange[0]), list(known), 1, 0.4)
            hint = f"did you mean {close[0]!r}?" if close else f"choose among {', '.join(known)}"
            raise ValueError(f"unknown {what} {strange[0]!r}: {hint}")
    if wrong := [name for name, number in limits.items() if number < 1]:
        raise ValueError(f"{wrong[0]} is {limits[wrong[0]]}: it must be at least 1")
    if wrong := [seed for seed in seeds if seed < 0]:
        raise ValueError(f"seed {wrong[0]}: it cannot be negative")
    of = lambda given, every: list(every) if given == "all" else given
    plain = [
        {"name": n, "seed": s, "method": m, "tags": (s, i) == (seeds[0], 0), **limits, "stored": stored}
        for n in of(sets, suite.SUITE)
        for s in seeds
        for i, m in enumerate([*methods, *(more_methods if n in more_sets else ())])
    ]
    more = [
        {"name": n, "seed": s, "method": m, "fair": True, "tags": (s, i) == (seeds[0], 0), **limits}
        for n in of(fair, suite.FAIRNESS)
        for s in seeds
        for i, m in enumerate(fair_methods)
    ]
    if not plain + more:
        raise ValueError("nothing to study: name at least one data set, one method and one seed")
    return plain + more


def sweep(given: dict, *, out: Path | None = None) -> units.Sweep:
    """All units of settings as `planned` takes them, on the data sets that are installed; out: `OUT` unless given.

    Raises ValueError as `planned` does, and MissingExtra when no data set is installed.
    """
    settings.check(given, planned, where="the settings of the comparison")
    return _sweep(planned(**given), OUT if out is None else Path(out))


def tables(**given) -> dict[str, pd.DataFrame]:
    """The tables of a small comparison made here and now, in this process; given: as `planned` takes them."""
    return units.run(_sweep(planned(**given), None))


def _sweep(wanted: list[dict], out: Path | None) -> units.Sweep:
    missing = evaluation.missing(wanted)
    able = [unit for unit in wanted if unit not in missing]
    gone = sorted({(unit["name"], unit.get("fair", False)) for unit in missing})
    inputs = (CHECKPOINT,) if CHECKPOINT.exists() else ()
    return units.Sweep(evaluation.one, able, out, "tabular comparison", inputs, {"left out": gone} if gone else {})


def load(folder: Path) -> dict[str, pd.DataFrame]:
    """The tables of a comparison, by name. Raises FileNotFoundError with the command that makes them."""
    found = units.read(folder, again="dvc repro 04-comparison")
    if gone := units.index(folder).get("left out"):
        missing = pd.DataFrame(gone, columns=["set", "fair"]).assign(missing=True)
        found["tags"] = pd.concat([found["tags"], missing], ignore_index=True)
    return found
