"""Stage 03-map: a mirror map learned by evolution strategies (GBMPO, arXiv 2602.04380)."""

import itertools
import math
import tempfile
from contextlib import nullcontext
from pathlib import Path

import pandas as pd
from torch import Tensor

from compendium.policy_opt import config, launching, mirror
from compendium.policy_opt.plans import launch_all, one


def evolve(base: dict, theta: Tensor, *, processes: int = 1, folder: Path | None = None, **options) -> mirror.Evolution:
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
            launch_all(jobs, processes)
            return [math.nan if launching.diverged(place) else _accuracy(place) for _, place in jobs]

        return mirror.evolve(None, theta, mapper=members, **options)


def _accuracy(folder: Path) -> float:
    return float(one(pd.read_csv(folder / "evaluation.csv")).accuracy.iloc[0])
