"""Every method on one domain and seed, measured from all sides; what the notebooks of this section draw on.

    python -m compendium.unlearning known                                   # once: data/known.csv
    python -m compendium.unlearning runs notebooks/02_unlearning/runs.yaml country_capital-Europe 0

writes `data/unlearned/country_capital-Europe-0/` with answers.csv (one row a question, method and storage format),
facts.csv (one row a method) and relearning.csv. Runs are spread over processes of one thread each, and each is stored
as it is finished, so that the same command goes on where it was interrupted. An unlearned model itself is not kept: the
change of a dense method takes as much room as the model, and the same settings make it again, to the bit;
`compendium.edits.export` writes one as a checkpoint.
"""

import functools
import math
import multiprocessing
import os
import signal
import threading
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import pandas as pd
from tqdm import tqdm

from compendium import edits, facts, files, formats, models, report, units
from compendium.paths import DATA, UNLEARNED
from compendium.unlearning import evaluation, methods

KNOWN = DATA / "known.csv"


TABLES = ("answers", "facts", "relearning")


def known(threads: int = 2) -> pd.DataFrame:
    """Write data/known.csv: which facts of `data/facts.csv` the embedded model knows, by `facts.known`."""
    models.set_threads(threads)
    found = facts.known(*models.load())
    report.write(KNOWN, found.to_csv(index=False, lineterminator="\n"))
    return found


def folder(domain: str, seed: int) -> Path:
    return UNLEARNED / f"{domain.replace(', ', '-')}-{seed}"


@functools.lru_cache(maxsize=1)  # one subject a process: its caches serve all methods that run there
def subject(domain: str, seed: int, limits: tuple) -> methods.Subject:
    """The subject of this process. limits: keywords of `evaluation.load`, as pairs."""
    limits = dict(limits)
    table = pd.read_csv(KNOWN, dtype=str) if limits.get("model_name", "embedded") == "embedded" else None
    return evaluation.load(*domain.split(", "), seed, known=table, **limits)


def studied(method: str, domain: str, seed: int, limits: dict, settings: dict, options: dict) -> dict:
    """`evaluation.study` of one method, in this process."""
    return evaluation.study(method, subject(domain, seed, tuple(limits.items())), settings, **options)


def right(method: str, domain: str, seed: int, limits: dict, settings: dict) -> dict:
    """Share of right answers by kind of question after one method, and share of parameters edited; nothing else."""
    of = subject(domain, seed, tuple(limits.items()))
    delta = methods.unlearn(method, of, settings)[0] if method != "none" else {}
    with edits.applied(of.model, delta):
        shares = evaluation.ask(of).groupby("kind", sort=False).correct.mean()
    return {"method": method, **shares, "edited": edits.moved(of.model, delta)}


def _leave_with_parent() -> None:
    """Workers wait for work for ever, and hold gigabytes, if their parent is killed: watch it. And an interruption from
    the keyboard, which reaches them too, ends them at once and without a traceback."""

    def watch():
        multiprocessing.parent_process().join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
    signal.signal(signal.SIGINT, lambda *_: os._exit(1))


def everywhere(function, jobs: list[tuple], *, processes: int = 2, store: Path | None = None) -> list:
    """`function(*job)` for every job, in order; processes: of one thread each, 1: in this one.

    store: a folder as `units.beside` yields it, where every result is kept as soon as it exists. Raises what a job
    raises, after those under way have ended, and `units.Lost` when a worker is killed.
    Not through joblib: its workers are replaced when their memory grows, and with them goes what a subject has cached.
    """
    if processes < 1:
        raise ValueError(f"processes is {processes}: it must be at least 1")
    progress = functools.partial(tqdm, total=len(jobs), desc="runs", disable=None)
    unit = functools.partial(units.once, store, function)
    if processes == 1 or not jobs:
        return [unit(*job) for job in progress(jobs)]
    context = multiprocessing.get_context("spawn")
    try:
        with ProcessPoolExecutor(processes, mp_context=context, initializer=_leave_with_parent) as pool:
            return list(progress(pool.map(unit, *zip(*jobs, strict=True))))
    except BrokenProcessPool:
        raise units.Lost(processes, store is not None) from None


def run(
    domain: str,
    seed: int,
    *,
    rates: dict[str, float],
    settings: dict,
    limits: dict,
    options: dict,
    stored: dict[str, list[str]],
    inside: list[str],
    out: Path,
    processes: int = 2,
) -> None:
    """Study every method of `rates` and the untouched model; write three tables to the folder `out`, all or none.

    rates: learning rate by method. settings: of `methods.unlearn`, for all. limits: of `evaluation.load`. options: of
    `evaluation.study`. stored: storage formats by method; `others` for those not named. inside: methods to look inside
    for every seed; seed 0 looks inside all but ablations. Studies that are finished outlive an interruption. Raises
    ValueError as `forget_set.domain` and `methods.unlearn` do, `finite.Diverged` and `units.Lost`.
    """
    check(rates, stored)
    jobs = []
    for method, rate in ({"none": 0.0} | rates).items():
        looks = method in inside or (seed == 0 and not method.startswith("MANSU,"))
        given = options | {"stored": stored.get(method, stored["others"]), "look_inside": looks}
        jobs.append((method, domain, seed, limits, settings | {"learning_rate": rate}, given))
    inputs = [path for path in sorted(DATA.glob("*.csv")) if path.is_file()]
    with units.beside(out, [domain, seed, limits], *inputs, command="unlearning runs") as store:
        done = everywhere(studied, jobs, processes=processes, store=store)
        with files.replaced(out, command="unlearning runs") as scratch:
            writer = report.Report(scratch)
            for name in TABLES:
                writer.table(tidy(name, pd.concat([found[name] for found in done], ignore_index=True)), name)


def check(rates: dict[str, float], stored: dict) -> None:
    """Raise ValueError unless all methods, rates and storage formats can be used."""
    for method, rate in rates.items():
        if method not in methods.METHODS:
            raise ValueError(f"unknown method {method!r}: choose one of {', '.join(methods.METHODS)}")
        if isinstance(rate, bool) or not isinstance(rate, int | float) or not 0 < rate < math.inf:
            raise ValueError(f"the learning rate of {method!r} is {rate!r}: it must be a positive number")
    if "others" not in stored:
        raise ValueError("stored lacks 'others': the storage formats of methods that it does not name")
    for method, names in stored.items():
        for name in names:
            if name not in formats.FORMATS:
                raise ValueError(f"stored: unknown format {name!r} of {method!r}: choose {', '.join(formats.FORMATS)}")


def tidy(name: str, table: pd.DataFrame) -> pd.DataFrame:
    """What is worth keeping of a table: for answers, which fact (one row a wording), and whether it was right."""
    if name != "answers":
        return table
    table = table.assign(correct=table.correct.astype(int), logprob=table.logprob.round(3))
    return table[["method", "weights", "kind", "relation", "subject", "correct", "logprob"]]
