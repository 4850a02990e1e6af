"""Stage 02-bin_width-units, for notebook 02_bin_width: unlearning updates beside the bins of NF4.

python -m compendium.unlearning bin_width notebooks/02_unlearning/bin_width.yaml
"""

from functools import cache
from pathlib import Path

import pandas as pd

from compendium import facts, formats, models, settings, units
from compendium.paths import DATA, UNLEARNING
from compendium.unlearning import forget_set
from compendium.unlearning.code_flips import boundary_density, compare, snapshot
from compendium.unlearning.objectives import OBJECTIVES
from compendium.unlearning.plain_updates import unlearn

OUT = UNLEARNING / "bin_width"
INPUTS = (DATA / "facts.csv", DATA / "prompts.csv")
UNTOUCHED = "none"  # the objective of the unit that trains nothing


@cache
def subject(
    model_name: str, revision: str | None, device: str, dtype: str, relation: str, domain: str, used: int, asked: int
):
    """(known facts to forget, to keep, questions to ask, boundary density of the model's weights).

    used: facts of the relation, at random; 0: all. asked: questions of either kind.
    """
    model, tokenizer = models.load(model_name, revision=revision, dtype=dtype, device=device)
    table = facts.load().query("relation == @relation")
    if used:
        table = table.sample(used, random_state=0)
    known = facts.known(model, tokenizer, table)
    parts = known[known.domain == domain], known[known.domain != domain]
    drawn = [
        facts.questions(split="heldout", table=part).sample(frac=1, random_state=0).head(asked).assign(set=name)
        for name, part in zip(("forget", "retain"), parts, strict=True)
    ]
    return *parts, pd.concat(drawn, ignore_index=True), boundary_density(snapshot(model))


def one(
    *,
    objective: str,
    learning_rate: float,
    seed: int,
    lora_rank: int,
    steps: int,
    look_at: list[int],
    batch: int,
    of: dict,
    threads: int = 1,
) -> dict[str, pd.DataFrame]:
    """One unlearning run, measured. of: as `subject` takes. Tables: `looks` (per step looked at, keys of `compare`),
    `answers` (per question and weights, float32 or nf4) and, for the untouched model, `facts` (numbers of facts)."""
    models.set_threads(threads)
    forget, retain, asked, density = subject(**of)
    model, tokenizer = models.load(of["model_name"], revision=of["revision"], dtype=of["dtype"], device=of["device"])
    same = {"objective": objective + (" + LoRA" if lora_rank else ""), "learning_rate": learning_rate, "seed": seed}
    made = {}
    if objective == UNTOUCHED:
        made["facts"] = pd.DataFrame([{"forget": len(forget), "retain": len(retain), "density": density}])
    else:
        rows = [forget_set.answers(tokenizer, facts.questions(split="train", table=part)) for part in (forget, retain)]
        before = snapshot(model)
        options = {"steps": steps, "look_at": look_at, "batch": batch, "seed": seed, "lora_rank": lora_rank}
        made["looks"] = pd.DataFrame(
            [
                same | {"step": step} | compare(before, model, density=density, seed=seed)
                for step in unlearn(model, *rows, objective, learning_rate=learning_rate, **options)
            ]
        )
    said = [facts.score(model, tokenizer, asked).assign(weights="float32", **same)]
    with formats.quantised(model, "nf4"):
        said.append(facts.score(model, tokenizer, asked).assign(weights="nf4", **same))
    made["answers"] = pd.concat(said)[[*same, "weights", "set", "subject", "correct"]]
    return made


def planned(
    *,
    objectives: list[str],
    learning_rates: list[float],
    seeds: list[int],
    steps: int,
    look_at: list[int],
    batch: int,
    lora_rank: int,
    lora_learning_rate: float,
    relation: str,
    domain: str,
    facts_used: int,
    questions_asked: int,
    model_name: str = "embedded",
    revision: str | None = None,
    device: str = "cpu",
    dtype: str = "float32",
) -> list[dict]:
    """The arguments of `one`, the untouched model first. lora_rank: 0 leaves the run with adapters out. Raises
    ValueError for an objective that is unknown."""
    if strange := set(objectives) - set(OBJECTIVES):
        raise ValueError(f"unknown objective {min(strange)!r}: choose among {', '.join(OBJECTIVES)}")
    of = {"model_name": model_name, "revision": revision, "device": device, "dtype": dtype}
    of |= {"relation": relation, "domain": domain, "used": facts_used, "asked": questions_asked}
    same = {"steps": steps, "look_at": look_at, "batch": batch, "of": of}
    tried = [(UNTOUCHED, 0.0, 0, 0)]
    tried += [(o, rate, 0, seed) for o in objectives for rate in learning_rates for seed in seeds]
    tried += [("graddiff", lora_learning_rate, lora_rank, seed) for seed in seeds if lora_rank]
    keys = ("objective", "learning_rate", "lora_rank", "seed")
    return [dict(zip(keys, unit, strict=True)) | same for unit in tried]


def sweep(given: dict, *, out: Path | None = None) -> units.Sweep:
    """All units of settings as `planned` takes them; out: `OUT` unless given. Raises ValueError as `planned` does."""
    settings.check(given, planned, where="the settings of the bin widths")
    return units.Sweep(one, planned(**given), OUT if out is None else Path(out), "unlearning bin_width", INPUTS)


def tables(**given) -> dict[str, pd.DataFrame]:
    """The tables of a few units made here and now; given: as `planned` takes them."""
    return units.run(units.Sweep(one, planned(**given), None, "unlearning bin_width"))
