"""Stage 03-grid: every run that the section's notebooks compare.

    python -m compendium.policy_opt grid notebooks/03_policy_opt/grid.yaml --out data/policies/grid

A condition is a name and the settings in which it differs from `base`, both as `config` has them. Its runs use the same
seeds, and so the same prompts in the same order, as those of all other conditions. A unit is one run, in a process of
its own; one more asks the policy that all begin with.
"""

import tempfile
from pathlib import Path

import pandas as pd

from compendium import settings, units
from compendium.paths import DATA, ROOT
from compendium.policy_opt import comparisons, config, launching, policy, runs, training_data

OUT = DATA / "policies" / "grid"
LOG = "reward", "flat", "length", "entropy", "divergence", "weight_calculation", "weight_sentence", "distractors"


def one(*, condition: str | None, seed: int, given: dict) -> dict[str, pd.DataFrame]:
    """What one run left: log, looks and finals; condition None: start, what the policy it would begin with answers.

    given: settings of `config.make`.
    """
    made = config.make(given | {"seed": seed})
    if condition is None:
        return {"start": start(made)}
    with tempfile.TemporaryDirectory(prefix="policies.") as scratch:
        launching.alone(made, Path(scratch) / "run")
        found = {}
        for name, file in (("log", "log"), ("looks", "looks"), ("finals", "evaluation")):
            if (path := Path(scratch) / "run" / f"{file}.csv").exists():
                found[name] = pd.read_csv(path).assign(condition=condition, seed=seed)
    columns = ["condition", "seed", "step", *(name for name in LOG if name in found["log"])]
    return found | {"log": found["log"][columns]}


def start(made: config.Config) -> pd.DataFrame:
    """The policy that a run begins with, asked as it is asked in the end: rows as in `Tables.finals`."""
    model, tokenizer = policy.load(made.model, revision=made.revision, dtype=made.dtype, device=made.device)
    asked = training_data.held_out(made)
    rows = runs.greedy(made, model, tokenizer, asked)
    return pd.DataFrame(rows + runs.sampled(made, model, model, tokenizer, asked))


def planned(*, base: dict, seeds: list[int], conditions: dict[str, dict]) -> list[dict]:
    """The arguments of `one` for every unit: conditions with `seeds`, or with the seeds that they name themselves, and
    the start. Raises ConfigError for the first that cannot be run."""
    found = []
    for name, changes in conditions.items():
        own = {key: value for key, value in changes.items() if key != "seeds"}
        chosen = changes.get("seeds", seeds)
        if not settings.fits(chosen, list[int]) or not chosen:
            raise config.ConfigError(f"{name}: seeds is {chosen!r}: give a list of whole numbers")
        try:
            for seed in chosen:
                config.make(base | own | {"seed": seed})
                found.append({"condition": name, "seed": seed, "given": base | own})
        except config.ConfigError as error:
            raise config.ConfigError(f"{name}: {error}") from None
    if not found:
        raise config.ConfigError("no conditions: name at least one, such as {none: {}}")
    return [*found, {"condition": None, "seed": found[0]["seed"], "given": base}]


def sweep(given: dict, *, out: Path | None = None) -> units.Sweep:
    """All units of settings as `planned` takes them; out: `OUT` unless given. Raises ConfigError, SettingsError."""
    settings.check(given, planned, where="the settings of the grid")
    wanted = planned(**given)
    read = {Path(unit["given"].get("model", ""), "model.safetensors") for unit in wanted}
    read |= {Path(name) for unit in wanted if isinstance(name := unit["given"].get("mirror"), str)}
    there = sorted(path for name in read for path in (name, ROOT / name) if path.is_file())
    inputs = tuple(dict.fromkeys(path.resolve() for path in there))
    return units.Sweep(one, wanted, OUT if out is None else Path(out), "policy_opt grid", inputs)


def tables(*, processes: int = 1, **given) -> comparisons.Tables:
    """The tables of a few runs made here and now; given: as `planned` takes them."""
    return comparisons.Tables.of(units.run(units.Sweep(one, planned(**given), None, "runs"), processes=processes))
