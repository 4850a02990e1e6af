"""The learning rate of each strategy, searched on data sets that no reported number is from.

    python -m compendium.tabular rates notebooks/04_tabular/rates.yaml

tunes by every strategy and rate on every data set of `suite.DEVELOPMENT` and writes data/tabular/rates.csv, a row a
strategy, rate, set and split with the log-loss of unseen rows. Splits that are done outlive an interruption. `best` is
what `finetune.STRATEGIES` uses.
"""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from compendium import models, report, units
from compendium.tabular import finetune, metrics, suite
from compendium.tabular.pfn import CHECKPOINT


def one(
    name: str, seed: int, *, rates: dict[str, list[float]], rows: int, asked: int, members: int, threads: int = 1
) -> pd.DataFrame:
    """Every strategy at every rate on one split of a development set, and zero-shot (rate 0)."""
    models.set_threads(threads)
    data = suite.load(name, suite.DEVELOPMENT)
    train, test = suite.split(data, seed=seed, train=rows, test=asked)
    y = np.unique(data.y, return_inverse=True)[1]
    tried = {("zero-shot", 0.0): None} | {
        (strategy, rate): replace(finetune.STRATEGIES[strategy], rate=rate)
        for strategy, given in rates.items()
        for rate in given
    }
    found = []
    for (strategy, rate), settings in tried.items():
        model = finetune.AdaptedPFN(strategy=settings, members=members, context=rows, random_state=seed)
        p = metrics.predicted(model.fit(data.x.iloc[train], y[train]), data.x.iloc[test], y.max() + 1)
        key = {"set": name, "seed": seed, "strategy": strategy, "rate": rate}
        found.append(key | {metric: metrics.scores(y[test], p)[metric] for metric in ("accuracy", "log-loss")})
    return pd.DataFrame(found)


def search(out: Path, *, sets: list[str] | str, seeds: list[int], processes: int = 2, **limits) -> pd.DataFrame:
    """`one` on all sets and seeds, written to `out`. sets: names of `suite.DEVELOPMENT`, or "all"; limits: of `one`.

    What is finished outlives an interruption. Raises ValueError for a set that is not of the development suite and for
    other settings that cannot be, MissingExtra when its package is not installed, `finite.Diverged` and `units.Lost`.
    """
    sets = list(suite.DEVELOPMENT) if sets == "all" else sets
    if strange := [name for name in sets if name not in suite.DEVELOPMENT]:
        raise ValueError(f"not development sets: {', '.join(strange)}; choose among {', '.join(suite.DEVELOPMENT)}")
    for strategy, given in limits["rates"].items():
        if finetune.STRATEGIES.get(strategy) is None:
            known = ", ".join(name for name, how in finetune.STRATEGIES.items() if how)
            raise ValueError(f"unknown strategy {strategy!r}: choose among {known}")
        if wrong := [rate for rate in given if not 0 < rate < math.inf]:
            raise ValueError(f"rate {wrong[0]} of {strategy!r}: it must be a positive number")
    if wrong := [name for name, least in limits.items() if isinstance(least, int) and least < 1]:
        raise ValueError(f"{wrong[0]} is {limits[wrong[0]]}: it must be at least 1")
    jobs = [{"name": name, "seed": seed, **limits} for name in sets for seed in seeds]
    if not jobs:
        raise ValueError("nothing to search: name at least one data set and one seed")
    with units.beside(out, "rates", *([CHECKPOINT] * CHECKPOINT.exists()), folder=False) as store:
        table = pd.concat(units.spread(one, jobs, processes=processes, what="sets", store=store), ignore_index=True)
        report.write(out, table.to_csv(index=False, float_format=report.FORMAT, lineterminator="\n"))
    return table


def gains(table: pd.DataFrame) -> pd.DataFrame:
    """(strategies x rates) mean fall of log-loss against zero-shot on the same splits, nats; more is better."""
    key = ["set", "seed"]
    untouched = table[table.strategy == "zero-shot"].set_index(key)["log-loss"]
    tuned = table[table.strategy != "zero-shot"].set_index(key)
    fall = (untouched.reindex(tuned.index) - tuned["log-loss"]).rename("gain")
    return (
        fall.to_frame()
        .assign(strategy=tuned.strategy, rate=tuned.rate)
        .pivot_table(index="strategy", columns="rate", values="gain", sort=False)
    )


def best(table: pd.DataFrame) -> dict[str, float]:
    """The rate with the largest gain, by strategy."""
    return {strategy: float(row.idxmax()) for strategy, row in gains(table).iterrows()}
