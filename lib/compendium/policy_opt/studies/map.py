"""Stage 03-map: a mirror map learned by evolution strategies (GBMPO, arXiv 2602.04380).

    python -m compendium.policy_opt map notebooks/03_policy_opt/map.yaml --out data/policies/map

Generations follow each other, so this is no sweep; but every run is kept as it is finished, and the same command, after
an interruption, goes on from there.
"""

import itertools
import math
import tempfile
from contextlib import nullcontext
from pathlib import Path

import pandas as pd
from torch import Tensor

from compendium import dependencies, files, report, settings
from compendium.policy_opt import config, launching, mirror, runs
from compendium.policy_opt.comparisons import one


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


def planned(*, base: dict, map_seed: int, iterations: int, population: int, sigma: float, rate: float) -> dict:
    """These settings, checked. Raises ConfigError and ValueError."""
    config.make(base | {"divergence": "mirror"})
    return {
        "base": base,
        "map_seed": map_seed,
        "iterations": iterations,
        "population": population,
        "sigma": sigma,
        "rate": rate,
    }


def learn(given: dict, *, out: Path, processes: int = 2) -> mirror.Evolution:
    """Learn a map by settings as `planned` takes them; writes evolution.csv and learned.txt to the folder `out`."""
    settings.check(given, planned, where="the settings of the map")
    plan = planned(**given)
    options = {name: plan[name] for name in ("iterations", "population", "sigma", "rate")}
    weights = Path(config.make(plan["base"] | {"divergence": "mirror"}).model) / "model.safetensors"
    key = dependencies.digest([plan, dependencies.code(__name__), *([dependencies.sha256(weights)] * weights.exists())])
    out = files.check(out, "policy_opt map")
    with files.resumed(out.with_name(f".{out.name}.runs"), key) as kept:
        found = evolve(plan["base"], mirror.initial(plan["map_seed"]), processes=processes, folder=kept, **options)
        with files.replaced(out, command="policy_opt map") as scratch:
            report.Report(scratch).table(pd.DataFrame(found.history), "evolution")
            mirror.save(found.theta, scratch / "learned.txt")
    return found
