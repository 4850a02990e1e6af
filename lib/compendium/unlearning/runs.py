"""Every method on one domain and seed, measured from all sides; what the notebooks of this section draw on.

    python -m compendium.unlearning known                                   # once: data/known.csv
    python -m compendium.unlearning runs notebooks/02_unlearning/runs.yaml country_capital-Europe 0

writes `data/unlearned/country_capital-Europe-0/` with answers.csv (one row a question, method and storage format),
facts.csv (one row a method) and relearning.csv. Runs are spread over processes of one thread each. An unlearned model
itself is not kept: the change of a dense method takes as much room as the model, and the same settings make it again,
to the bit; `compendium.edits.export` writes one as a checkpoint.
"""

import functools
import shutil
from pathlib import Path

import joblib
import pandas as pd
from tqdm import tqdm

from compendium import edits, facts, models, report
from compendium.paths import DATA
from compendium.unlearning import methods, study

KNOWN = DATA / "known.csv"
UNLEARNED = DATA / "unlearned"
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
def _subject(domain: str, seed: int, limits: tuple):
    limits = dict(limits)
    table = pd.read_csv(KNOWN, dtype=str) if limits.get("model_name", "embedded") == "embedded" else None
    return study.load(*domain.split(", "), seed, known=table, **limits)


def studied(method: str, domain: str, seed: int, limits: dict, settings: dict, options: dict) -> dict:
    """`study.study` of one method, in this process."""
    return study.study(method, _subject(domain, seed, tuple(limits.items())), settings, **options)


def right(method: str, domain: str, seed: int, limits: dict, settings: dict) -> dict:
    """Share of right answers by kind of question after one method, and share of parameters edited; nothing else."""
    subject = _subject(domain, seed, tuple(limits.items()))
    delta = methods.unlearn(method, subject, settings)[0] if method != "none" else {}
    with edits.applied(subject.model, delta):
        shares = study.ask(subject).groupby("kind", sort=False).correct.mean()
    return {"method": method, **shares, "edited": edits.moved(subject.model, delta)}


def everywhere(function, jobs: list[tuple], *, processes: int = 2) -> list:
    """`function(*job)` for every job, in processes of one thread each (`joblib.parallel_config` can send them away)."""
    work = joblib.Parallel(n_jobs=processes, return_as="generator")(joblib.delayed(function)(*job) for job in jobs)
    return list(tqdm(work, total=len(jobs), desc="runs", disable=None))


def run(
    domain: str, seed: int, *, rates: dict[str, float], settings: dict, limits: dict, options: dict, stored: dict,
    inside: list, out: Path, processes: int = 2,
) -> None:  # fmt: skip
    """Study every method of `rates` and the untouched model; write three tables to the folder `out`, all or none.

    rates: learning rate by method. settings: of `methods.unlearn`, for all. limits: of `study.load`. options: of
    `study.study`. stored: storage formats by method; `others` for those not named. inside: methods to look inside for
    every seed; seed 0 looks inside all but ablations. Raises ValueError as `domains.domain` and `methods.unlearn` do.
    """

    jobs = []
    for method, rate in ({"none": 0.0} | rates).items():
        looks = method in inside or (seed == 0 and not method.startswith("MANSU,"))
        given = options | {"stored": stored.get(method, stored["others"]), "look_inside": looks}
        jobs.append((method, domain, seed, limits, settings | {"learning_rate": rate}, given))
    done = everywhere(studied, jobs, processes=processes)
    scratch = out.with_name(f".{out.name}.partial")
    shutil.rmtree(scratch, ignore_errors=True)
    writer = report.Report(scratch)
    for name in TABLES:
        writer.table(tidy(name, pd.concat([found[name] for found in done], ignore_index=True)), name)
    shutil.rmtree(out, ignore_errors=True)
    scratch.rename(out)


def tidy(name: str, table: pd.DataFrame) -> pd.DataFrame:
    """What is worth keeping of a table: for answers, which question, and whether the answer was right."""
    if name != "answers":
        return table
    table = table.assign(correct=table.correct.astype(int), logprob=table.logprob.round(3))
    return table[["method", "weights", "kind", "relation", "subject", "template", "correct", "logprob"]]


def load(name: str) -> pd.DataFrame:
    """One of the three tables over all domains and seeds, with columns domain and seed. Raises FileNotFoundError."""
    parts = []
    for folder_ in sorted(UNLEARNED.glob("[!.]*")):
        of = pd.read_csv(folder_ / "facts.csv").iloc[0]
        parts.append(pd.read_csv(folder_ / f"{name}.csv").assign(domain=of.domain, seed=of.seed))
    if not parts:
        raise FileNotFoundError(f"no {name}.csv under {UNLEARNED}: run `dvc repro 02-runs`")
    return pd.concat(parts, ignore_index=True)
