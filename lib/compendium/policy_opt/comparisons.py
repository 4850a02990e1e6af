"""What section 03 asks of its runs: paired differences, speed, what storage leaves of a gain."""

from pathlib import Path
from typing import NamedTuple

import pandas as pd

from compendium import stats, units
from compendium.stats import Estimate


class Tables(NamedTuple):
    """What the runs of a grid left; but for `start`, with the columns `condition` and `seed`."""

    log: pd.DataFrame  # one row per step
    looks: pd.DataFrame  # one row per look at accuracy
    finals: pd.DataFrame  # one row per split, storage format and way of decoding, after training
    start: pd.DataFrame  # rows as of `finals`, of the policy that all began with

    @classmethod
    def of(cls, found: dict[str, pd.DataFrame], conditions=None) -> "Tables":
        """From tables by name, of some conditions or all."""
        kept = lambda table: table[table.condition.isin(conditions)] if conditions and len(table) else table
        runs = (kept(found.get(name, pd.DataFrame())) for name in ("log", "looks", "finals"))
        return cls(*runs, found.get("start", pd.DataFrame()))


def read(folder: Path, conditions=None) -> Tables:
    """The tables of the stage 03-grid, of some conditions or all. Raises FileNotFoundError."""
    return Tables.of(units.read(folder, again="dvc repro 03-grid"), conditions)


def one(finals: pd.DataFrame, *, split: str = "validation", weights: str = "float32", decoding: str = "greedy"):
    """The rows of one split, storage format and way of decoding."""
    return finals[(finals.split == split) & (finals.weights == weights) & (finals.decoding == decoding)]


def difference(table: pd.DataFrame, column: str, first: str, second: str) -> Estimate:
    """`first` minus `second`, condition against condition, paired by seed."""
    wide = table.pivot(index="seed", columns="condition", values=column)
    return stats.mean(wide[first] - wide[second], "seeds")


def steps_to(looks: pd.DataFrame, threshold: float) -> pd.DataFrame:
    """First look at which a run's accuracy reached `threshold`: condition, seed, step, reached. A run that never did
    gets the look after its last, which is too few: differences of steps are then bounds."""
    rows = []
    for (condition, seed), part in looks.groupby(["condition", "seed"], sort=False):
        above = part[part.accuracy >= threshold].step
        never = part.step.max() + part.step.diff().max() if len(part) > 1 else 2 * part.step.max()
        step = above.min() if len(above) else never
        rows.append(dict(condition=condition, seed=seed, step=float(step), reached=bool(len(above))))
    return pd.DataFrame(rows)


def survival(finals: pd.DataFrame, begun: pd.DataFrame, weights: str = "nf4", split: str = "validation"):
    """What storage leaves of a gain: condition, seed, and the gains in accuracy over the start, stored alike.

    gain: trained minus start in float32; stored: both in the format; kept: stored / gain, nan for a gain of 0.
    """
    before = begun[(begun.split == split) & (begun.decoding == "greedy")].set_index("weights").accuracy
    rows = one(finals, split=split)[["condition", "seed", "accuracy"]]
    other = one(finals, split=split, weights=weights)[["condition", "seed", "accuracy"]]
    both = rows.merge(other, on=["condition", "seed"], suffixes=("", "_stored"))
    both["gain"] = both.accuracy - before["float32"]
    both["stored"] = both.accuracy_stored - before[weights]
    both["kept"] = (both.stored / both.gain).where(both.gain != 0)
    return both[["condition", "seed", "gain", "stored", "kept"]]


def share(kept: pd.DataFrame) -> Estimate:
    """Of the mean gain of all conditions, the share that storage leaves, over seeds. kept: as `survival` returns it.
    Without a gain in every seed a share says nothing: its value is then nan, of no seeds."""
    means = kept.groupby("seed")[["gain", "stored"]].mean()
    return stats.mean(means.stored / means.gain if (means.gain > 0).all() else [], "seeds")
