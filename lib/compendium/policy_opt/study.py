"""Grids of runs, and what the section's notebooks ask of them: paired differences, speed, and what storage leaves.

    tables = study.grid({"k3": {"divergence": "k3", "coefficient": 0.1}, "none": {}}, seeds, base, processes=2)
    study.difference(tables.finals, "accuracy", "k3", "none")          # mean, low, high over seeds, paired

A condition is a name and the settings in which it differs from `base`, both as `config` has them; its runs use the same
seeds, and so the same prompts in the same order, as those of all other conditions.
"""

import hashlib
import inspect
import itertools
import math
import tempfile
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from compendium import run, settings, stats
from compendium.paths import relative
from compendium.policy_opt import config, data, mirror, policy, runs


class Tables(NamedTuple):
    """What the runs of a grid left, each table with the columns `condition` and `seed`."""

    log: pd.DataFrame  # one row a step
    looks: pd.DataFrame  # one row a look at accuracy
    finals: pd.DataFrame  # one row a split, storage format and way of decoding, after training
    seconds: pd.DataFrame  # one row a run: wall time, which differs between machines


def grid(
    conditions: dict[str, dict], seeds: Sequence[int], base: dict, *, processes: int = 1, folder: Path | None = None
) -> Tables:  # fmt: skip
    """Every condition with every seed, or with the `seeds` that it names itself.

    folder: where the runs are kept, so that the same call goes on where an interrupted one ended; None: nowhere.
    Raises ConfigError before the first run starts, RunError if one fails; with a folder, the others are kept.
    """
    made = made_of(conditions, seeds, base)
    with tempfile.TemporaryDirectory(prefix="policies.") if folder is None else nullcontext(folder) as scratch:
        folders = [Path(scratch) / str(i) for i in range(len(made))]
        records = runs.launch(
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
    "base": dict, "seeds": list[int], "conditions": dict[str, dict], "map_seed": int, "iterations": int,
    "population": int, "sigma": float, "rate": float,
}  # fmt: skip


def plan(path: Path, names: Sequence[str]) -> dict:
    """What a YAML file of several runs says, which must be these `names`, of KINDS. Raises ConfigError."""
    try:
        found = run.read_yaml(Path(path))
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
    asked = data.held_out(settings)
    rows = runs.greedy(settings, model, tokenizer, asked)
    return pd.DataFrame(rows + runs.sampled(settings, model, model, tokenizer, asked))


def one(finals: pd.DataFrame, *, split: str = "validation", weights: str = "float32", decoding: str = "greedy"):
    """The rows of one split, storage format and way of decoding."""
    return finals[(finals.split == split) & (finals.weights == weights) & (finals.decoding == decoding)]


def interval(values) -> dict:
    """Mean and Student-t interval over seeds."""
    low, high = stats.t_interval(values)
    return dict(mean=float(np.mean(values)), low=low, high=high, seeds=len(values))


def difference(table: pd.DataFrame, column: str, first: str, second: str) -> dict:
    """`first` minus `second`, condition against condition, paired by seed: mean, low, high, seeds."""
    wide = table.pivot(index="seed", columns="condition", values=column)
    return interval((wide[first] - wide[second]).to_numpy())


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


def share(kept: pd.DataFrame) -> dict:
    """Of the mean gain of all conditions, the share that storage leaves: mean, low, high over seeds; and `gained`,
    whether every seed gained at all, without which a share says nothing. kept: as `survival` returns it."""
    means = kept.groupby("seed")[["gain", "stored"]].mean()
    return interval((means.stored / means.gain).to_numpy()) | dict(gained=bool((means.gain > 0).all()))


def parity(settings: config.Config, out) -> dict:
    """One GRPO run with divergence k3 by our trainer and by TRL's own with its KL: the distance between their
    weights, and how far training moved them, both Euclidean over all weights. For `runs.alone`."""
    from transformers import PrinterCallback
    from trl import GRPOTrainer

    from compendium.policy_opt import trainer

    ours = trainer.build(settings, out)
    ours.train()
    args = ours.args
    args.use_bias_correction_kl = False  # multiplies the KL by the ratio, which no paper here does
    theirs = GRPOTrainer(
        trainer.load(settings)[0], ours.reward_funcs, args, train_dataset=ours.train_dataset,
        processing_class=ours.processing_class,
    )  # fmt: skip
    theirs.remove_callback(PrinterCallback)
    theirs.train()
    begun = trainer.load(settings)[0]
    weights = lambda model: torch.cat([weight.detach().flatten() for weight in model.parameters()])
    distance = lambda one, other: float((weights(one) - weights(other)).norm())
    return dict(difference=distance(ours.model, theirs.model), moved=distance(ours.model, begun))


def meddler(completion_ids, **_) -> list[float]:
    """A reward that spoils torch as it is called: a stand-in for libraries that patch others on import. It rewards
    something that all policies differ in."""
    torch.Tensor.exp = lambda self: torch.special.exp2(self)
    return [float(sum(ids) % 7) for ids in completion_ids]


def one_process(both: tuple[config.Config, config.Config], out) -> dict:
    """Two runs after each other in this process; the record of the second. For `runs.alone`, to show what happens."""
    runs.run(both[0], Path(out) / "first")
    return runs.run(both[1], Path(out) / "second")


def evolve(
    base: dict, theta: Tensor, *, processes: int = 1, folder: Path | None = None, **options
) -> mirror.Evolution:  # fmt: skip
    """`mirror.evolve` where a map's fitness is greedy validation accuracy after a run of `base` with it; options: its
    iterations, population, sigma, rate, seed. Give `base` another `task_seed` than the runs the map is for, and the
    problems they are judged by stay unseen.

    folder: where the runs are kept, so that the same call goes on where an interrupted one ended; None: nowhere. A run
    that diverges has the fitness nan; RunError is raised for one that fails otherwise.
    """
    config.make(base | {"divergence": "mirror"})
    with tempfile.TemporaryDirectory(prefix="maps.") if folder is None else nullcontext(folder) as scratch:
        numbers = itertools.count()

        def members(_, thetas, seeds) -> list[float]:
            jobs = []
            for member, seed in zip(thetas, seeds, strict=True):
                place = Path(scratch) / str(next(numbers))
                file = place.with_suffix(".txt")
                mirror.save(member, file)
                changes = {"divergence": "mirror", "mirror": str(file), "seed": seed, "evaluate": ["validation"]}
                jobs.append((config.make(base | changes), place))
            _launch_all(jobs, processes)
            return [math.nan if runs.diverged(place) else _accuracy(place) for _, place in jobs]

        return mirror.evolve(None, theta, mapper=members, **options)


def _accuracy(folder: Path) -> float:
    return float(one(pd.read_csv(folder / "evaluation.csv")).accuracy.iloc[0])


def _launch_all(jobs: list[tuple[config.Config, Path]], processes: int) -> None:
    """`runs.launch`, passing over the runs that diverge."""
    while jobs:
        try:
            runs.launch(jobs, processes=processes)
            return
        except runs.DivergedError:
            rest = [job for job in jobs if not runs.diverged(job[1])]
            if len(rest) == len(jobs):
                raise
            jobs = rest
