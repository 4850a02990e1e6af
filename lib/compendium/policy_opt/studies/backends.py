"""Stage 03-backends-units, for notebook 05_backends: parity with TRL, runs that share a process, learned rewards.

python -m compendium.policy_opt backends notebooks/03_policy_opt/learned_rewards.yaml
"""

import tempfile
from pathlib import Path

import pandas as pd
import torch

from compendium import settings, stats, units
from compendium.paths import DATA, ROOT
from compendium.policy_opt import comparisons, config, launching, runs, trainer, training_data
from compendium.policy_opt.studies import grid

OUT = DATA / "policies" / "backends"
LEARNED = "learned"  # the reward of this name is the reward model that a unit trains first
METHODS = ("grpo", "dr_grpo", "dapo")  # compared with TRL's

# -- parity -----------------------------------------------------------------------------------------------------------


def distances(made: config.Config, out) -> dict:
    """One GRPO run with divergence k3 by our trainer and by TRL's own with its KL: the distance between their
    weights, and how far training moved them, both Euclidean over all weights. For `launching.alone`."""
    from transformers import PrinterCallback
    from trl import GRPOTrainer

    ours = trainer.build(made, out)
    ours.train()
    args = ours.args
    args.use_bias_correction_kl = False  # multiplies the KL by the ratio, which no paper here does
    theirs = GRPOTrainer(
        trainer.load(made)[0],
        ours.reward_funcs,
        args,
        train_dataset=ours.train_dataset,
        processing_class=ours.processing_class,
    )
    theirs.remove_callback(PrinterCallback)
    theirs.train()
    begun = trainer.load(made)[0]
    weights = lambda model: torch.cat([weight.detach().flatten() for weight in model.parameters()])
    distance = lambda one, other: float((weights(one) - weights(other)).norm())
    return dict(difference=distance(ours.model, theirs.model), moved=distance(ours.model, begun))


def parity(*, method: str, given: dict) -> dict[str, pd.DataFrame]:
    """`parity`: `distances` of one method."""
    made = config.make(given | dict(method=method, divergence="k3", coefficient=0.1))
    with tempfile.TemporaryDirectory(prefix="parity.") as scratch:
        return {"parity": pd.DataFrame([{"method": method, **launching.alone(made, Path(scratch) / "run", distances)}])}


# -- interference -----------------------------------------------------------------------------------------------------


def meddler(completion_ids, **_) -> list[float]:
    """A reward that spoils torch as it is called: a stand-in for libraries that patch others on import. It rewards
    something that all policies differ in."""
    torch.Tensor.exp = lambda self: torch.special.exp2(self)
    return [float(sum(ids) % 7) for ids in completion_ids]


def one_process(both: tuple[config.Config, config.Config], out) -> dict:
    """Two runs after each other in this process; the record of the second. For `launching.alone`."""
    runs.run(both[0], Path(out) / "first")
    return runs.run(both[1], Path(out) / "second")


def interference(*, given: dict) -> dict[str, pd.DataFrame]:
    """`interference`: whether a run ends with the weights (1: the same bits) that it has alone, after `meddler` in one
    process, and after it in a process of its own."""
    meddling = config.make(given | dict(rewards={"compendium.policy_opt.studies.backends:meddler": 1.0}))
    quiet = config.make(given | dict(divergence="prob_l2", coefficient=10.0, seed=1))
    with tempfile.TemporaryDirectory(prefix="interference.") as scratch:
        place = Path(scratch)
        alone = launching.alone(quiet, place / "alone")["policy"]
        together = launching.alone((meddling, quiet), place / "together", one_process)["policy"]
        launching.alone(meddling, place / "first")
        after = launching.alone(quiet, place / "after")["policy"]
    rows = [
        {"after a run that changes torch": where, "same weights": int(found == alone)}
        for where, found in (("in one process", together), ("in a process of its own", after))
    ]
    return {"interference": pd.DataFrame(rows)}


# -- learned rewards --------------------------------------------------------------------------------------------------


def judge(*, given: dict) -> dict[str, pd.DataFrame]:
    """`judge`: how a reward model does on pairs it has not seen, and how one does that prefers the longer answer."""
    made = config.make(given)
    with tempfile.TemporaryDirectory(prefix="judge.") as scratch:
        launching.alone(made, Path(scratch) / "run")
        judged = pd.read_csv(Path(scratch) / "run" / "evaluation.csv").assign(judge="reward model")
    held_out = made.but(split="validation", problems=made.evaluated, seed=made.seed + 1)
    unseen = training_data.rows(held_out, *trainer.load(made))
    words = pd.DataFrame([{name: len(pair[name].split()) for name in ("chosen", "rejected")} for pair in unseen])
    longer = (words.chosen > words.rejected) + 0.5 * (words.chosen == words.rejected)
    low, high = stats.bootstrap_interval(longer)
    row = {"judge": "the longer one", "accuracy": longer.mean(), "low": low, "high": high, "n": len(longer)}
    rows = pd.concat([judged.drop(columns="split"), pd.DataFrame([row])])
    return {"judge": rows[["judge", "accuracy", "low", "high", "n"]]}


def trained(*, condition: str | None, seed: int, given: dict, judging: dict) -> dict[str, pd.DataFrame]:
    """The tables of `grid.one`; a run with the reward LEARNED trains the reward model first, as `judging` says."""
    weight = given.get("rewards", {}).get(LEARNED)
    if weight is None:
        return grid.one(condition=condition, seed=seed, given=given)
    with tempfile.TemporaryDirectory(prefix="judge.") as scratch:
        launching.alone(config.make(judging), Path(scratch) / "run")
        learned = {str(Path(scratch) / "run" / "policy"): weight}
        return grid.one(condition=condition, seed=seed, given=given | {"rewards": learned})


JOBS = {"parity": parity, "interference": interference, "judge": judge, "trained": trained}


def one(*, job: str, **given) -> dict[str, pd.DataFrame]:
    """The tables of one of JOBS."""
    return JOBS[job](**given)


def planned(*, base: dict, judging: dict, ends: dict, seeds: list[int], conditions: dict[str, dict]) -> list[dict]:
    """The arguments of `one` for every unit.

    base: settings of `config.make` for all. judging: those of the reward model. ends: more, for runs that are compared.
    conditions: settings in which these differ, by name; the reward LEARNED is the reward model. Raises ConfigError for
    the first that cannot be run.
    """
    judging = base | judging | {"method": "reward"}
    config.make(judging)
    asks = {name for name, changes in conditions.items() if LEARNED in changes.get("rewards", ())}
    there = {
        name: changes | {"rewards": {"correct": 1.0}} if name in asks else changes
        for name, changes in conditions.items()
    }
    compared = grid.planned(
        base=base | ends, seeds=seeds, conditions=there
    )  # what is not learned yet cannot be checked
    for unit in compared:
        if unit["condition"] in asks:
            unit["given"] = base | ends | conditions[unit["condition"]]
    made = [{"job": "parity", "method": method, "given": base} for method in METHODS]
    made += [{"job": "interference", "given": base}, {"job": "judge", "given": judging}]
    return made + [{"job": "trained", "judging": judging, **unit} for unit in compared]


def sweep(given: dict, *, out: Path | None = None) -> units.Sweep:
    """All units of settings as `planned` takes them; out: `OUT` unless given. Raises ConfigError, SettingsError."""
    settings.check(given, planned, where="the settings of the learned rewards")
    wanted = planned(**given)
    start = ROOT / given["base"]["model"] / "model.safetensors"
    inputs = (start,) if start.is_file() else ()
    return units.Sweep(one, wanted, OUT if out is None else Path(out), "policy_opt backends", inputs)


def tables(**given) -> dict[str, pd.DataFrame]:
    """The tables of a few units made here and now; given: as `planned` takes them."""
    return units.run(units.Sweep(one, planned(**given), None, "policy_opt backends"))


def compared(found: dict[str, pd.DataFrame]) -> comparisons.Tables:
    """The tables of the runs among `tables`, as `comparisons` takes them."""
    return comparisons.Tables.of({name: found[name] for name in ("log", "looks", "finals", "start") if name in found})
