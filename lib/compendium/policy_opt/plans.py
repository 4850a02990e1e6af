"""Grids of runs, and what the section's notebooks ask of them: paired differences, speed, and what storage leaves.

    tables = study.grid({"k3": {"divergence": "k3", "coefficient": 0.1}, "none": {}}, seeds, base, processes=2)
    study.difference(tables.finals, "accuracy", "k3", "none")          # mean, low, high over seeds, paired

A condition is a name and the settings in which it differs from `base`, both as `config` has them; its runs use the same
seeds, and so the same prompts in the same order, as those of all other conditions.
"""

import hashlib
import inspect
import tempfile
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from compendium import run, settings
from compendium.paths import relative
from compendium.policy_opt import config, launching, policy, runs, training_data


class Tables(NamedTuple):
    """What the runs of a grid left, each table with the columns `condition` and `seed`."""

    log: pd.DataFrame  # one row a step
    looks: pd.DataFrame  # one row a look at accuracy
    finals: pd.DataFrame  # one row a split, storage format and way of decoding, after training
    seconds: pd.DataFrame  # one row a run: wall time, which differs between machines


def grid(
    conditions: dict[str, dict], seeds: Sequence[int], base: dict, *, processes: int = 1, folder: Path | None = None
) -> Tables:
    """Every condition with every seed, or with the `seeds` that it names itself.

    folder: where the runs are kept, so that the same call goes on where an interrupted one ended; None: nowhere.
    Raises ConfigError before the first run starts, RunError if one fails; with a folder, the others are kept.
    """
    made = made_of(conditions, seeds, base)
    with tempfile.TemporaryDirectory(prefix="policies.") if folder is None else nullcontext(folder) as scratch:
        folders = [Path(scratch) / str(i) for i in range(len(made))]
        records = launching.launch(
            [(settings, folder) for (_, settings), folder in zip(made, folders, strict=True)], processes=processes
        )
        spent = [
            dict(condition=condition, seed=seed, seconds=found["seconds"])
            for ((condition, seed), _), found in zip(made, records, strict=True)
        ]

        def table(name: str) -> pd.DataFrame:
            found = []
            for ((condition, seed), _), folder in zip(made, folders, strict=True):
                if (folder / f"{name}.csv").exists():
                    found.append(pd.read_csv(folder / f"{name}.csv").assign(condition=condition, seed=seed))
            return pd.concat(found, ignore_index=True) if found else pd.DataFrame()

        return Tables(table("log"), table("looks"), table("evaluation"), pd.DataFrame(spent))


def made_of(conditions: dict[str, dict], seeds: Sequence[int], base: dict) -> list[tuple[tuple, config.Config]]:
    """((condition, seed), settings) of every run of a grid. Raises ConfigError for the first that cannot be run."""
    made = []
    for name, changes in conditions.items():
        own = {key: value for key, value in changes.items() if key != "seeds"}
        chosen = changes.get("seeds", seeds)
        if not settings.fits(chosen, list[int]) or not chosen:
            raise config.ConfigError(f"{name}: seeds is {chosen!r}: give a list of whole numbers")
        try:
            made += [((name, seed), config.make(base | own | {"seed": seed})) for seed in chosen]
        except config.ConfigError as error:
            raise config.ConfigError(f"{name}: {error}") from None
    if not made:
        raise config.ConfigError("no conditions: name at least one, such as {none: {}}")
    return made


def read(folder: Path) -> tuple[Tables, pd.DataFrame]:
    """The tables that the command `grid` wrote to a folder, `seconds` left out, and its start. Raises ConfigError."""
    if not (Path(folder) / "start.csv").exists():
        raise config.ConfigError(f"{relative(folder)} holds no grid: dvc repro 03-grid makes the section's own")
    log, looks, finals, begun = (
        pd.read_csv(Path(folder) / f"{name}.csv") for name in ("log", "looks", "finals", "start")
    )
    return Tables(log, looks, finals, pd.DataFrame()), begun


KINDS = {  # of what a plan may say
    "base": dict,
    "seeds": list[int],
    "conditions": dict[str, dict],
    "map_seed": int,
    "iterations": int,
    "population": int,
    "sigma": float,
    "rate": float,
}


def plan(path: Path, names: Sequence[str]) -> dict:
    """What a YAML file of several runs says, which must be these `names`, of KINDS. Raises ConfigError."""
    try:
        found = settings.read(Path(path))
    except run.RunError as error:
        raise config.ConfigError(str(error)) from None
    if set(found) != set(names):
        odd = sorted(set(found) ^ set(names), key=str)[0]
        raise config.ConfigError(
            f"{relative(path)}: {odd!r} is {'missing' if odd in names else 'unknown'}: it needs {', '.join(names)}"
        )
    for name, value in found.items():
        if not settings.fits(value, KINDS[name]):
            kind = inspect.formatannotation(KINDS[name])
            raise config.ConfigError(f"{relative(path)}: {name} is {value!r}: it must be {kind}")
    return found


def fingerprint(*files: Path) -> str:
    """Twelve digits that change with this package's code or with any of the files."""
    code = sorted(Path(__file__).parent.glob("*.py"))
    return hashlib.sha256(b"".join(hashlib.sha256(path.read_bytes()).digest() for path in [*code, *files])).hexdigest()[
        :12
    ]


def start(base: dict) -> pd.DataFrame:
    """The policy that the runs of `base` begin with, asked as they are asked in the end: rows as in `Tables.finals`."""
    settings = config.make(base)
    model, tokenizer = policy.load(
        settings.model, revision=settings.revision, dtype=settings.dtype, device=settings.device
    )
    asked = training_data.held_out(settings)
    rows = runs.greedy(settings, model, tokenizer, asked)
    return pd.DataFrame(rows + runs.sampled(settings, model, model, tokenizer, asked))


def one(finals: pd.DataFrame, *, split: str = "validation", weights: str = "float32", decoding: str = "greedy"):
    """The rows of one split, storage format and way of decoding."""
    return finals[(finals.split == split) & (finals.weights == weights) & (finals.decoding == decoding)]


def launch_all(jobs: list[tuple[config.Config, Path]], processes: int) -> None:
    """`launching.launch`, passing over the runs that diverge."""
    while jobs:
        try:
            launching.launch(jobs, processes=processes)
            return
        except runs.DivergedError:
            rest = [job for job in jobs if not launching.diverged(job[1])]
            if len(rest) == len(jobs):
                raise
            jobs = rest
