"""Stage 04-learning_rates: the learning rate of each strategy, on data sets that no reported number is from.

    python -m compendium.tabular learning_rates notebooks/04_tabular/learning_rates.yaml

A unit is one strategy at one rate on one split of a set of `suite.DEVELOPMENT`: the log-loss of unseen rows. `best` is
what `finetune.STRATEGIES` uses.
"""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from compendium import models, settings, units
from compendium.paths import TABULAR
from compendium.tabular import finetune, metrics, suite
from compendium.tabular.pfn import CHECKPOINT

OUT = TABULAR / "learning_rates"


def one(
    *, name: str, seed: int, strategy: str, rate: float, rows: int, asked: int, members: int
) -> dict[str, pd.DataFrame]:
    """One strategy at one rate on one split of a development set; zero-shot at rate 0."""
    models.set_threads(1)
    data = suite.load(name, suite.DEVELOPMENT)
    train, test = suite.split(data, seed=seed, train=rows, test=asked)
    y = np.unique(data.y, return_inverse=True)[1]
    how = None if strategy == "zero-shot" else replace(finetune.STRATEGIES[strategy], rate=rate)
    made = finetune.AdaptedPFN(strategy=how, members=members, context=rows, random_state=seed)
    scores = metrics.scores(
        y[test], metrics.predicted(made.fit(data.x.iloc[train], y[train]), data.x.iloc[test], y.max() + 1)
    )
    key = {"set": name, "seed": seed, "strategy": strategy, "rate": rate}
    return {"losses": pd.DataFrame([key | {metric: scores[metric] for metric in ("accuracy", "log-loss")}])}


def planned(
    *, sets: list[str] | str, seeds: list[int], rates: dict[str, list[float]], rows: int, asked: int, members: int
) -> list[dict]:
    """The arguments of `one` for every unit. sets: names of `suite.DEVELOPMENT`, or "all". Raises ValueError."""
    sets = list(suite.DEVELOPMENT) if sets == "all" else sets
    if strange := [name for name in sets if name not in suite.DEVELOPMENT]:
        raise ValueError(f"not development sets: {', '.join(strange)}; choose among {', '.join(suite.DEVELOPMENT)}")
    for strategy, given in rates.items():
        if finetune.STRATEGIES.get(strategy) is None:
            known = ", ".join(name for name, how in finetune.STRATEGIES.items() if how)
            raise ValueError(f"unknown strategy {strategy!r}: choose among {known}")
        if wrong := [rate for rate in given if not 0 < rate < math.inf]:
            raise ValueError(f"rate {wrong[0]} of {strategy!r}: it must be a positive number")
    limits = {"rows": rows, "asked": asked, "members": members}
    if wrong := [name for name, number in limits.items() if number < 1]:
        raise ValueError(f"{wrong[0]} is {limits[wrong[0]]}: it must be at least 1")
    tried = [("zero-shot", 0.0), *((strategy, rate) for strategy, given in rates.items() for rate in given)]
    found = [
        {"name": name, "seed": seed, "strategy": strategy, "rate": rate, **limits}
        for name in sets
        for seed in seeds
        for strategy, rate in tried
    ]
    if not found:
        raise ValueError("nothing to search: name at least one data set and one seed")
    return found


def sweep(given: dict, *, out: Path | None = None) -> units.Sweep:
    """All units of settings as `planned` takes them; out: `OUT` unless given. Raises ValueError as `planned` does."""
    settings.check(given, planned, where="the settings of the learning rates")
    inputs = (CHECKPOINT,) if CHECKPOINT.exists() else ()
    return units.Sweep(one, planned(**given), OUT if out is None else Path(out), "tabular learning_rates", inputs)


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
