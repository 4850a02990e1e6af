"""Stage 02-unlearned: every method on every domain and seed, measured from all sides.

    python -m compendium.unlearning known                                       # once: data/known.csv
    python -m compendium.unlearning unlearned notebooks/02_unlearning/unlearned.yaml

Notebooks 04, 05 and 07 read its tables: answers (one row per question, method and storage format), facts (per method)
and relearning. A unit is one method on one domain and seed. An unlearned model itself is not kept: the change of a
dense method takes as much room as the model, and the same settings make it again, to the bit; `compendium.edits.export`
writes one as a checkpoint.
"""

import math
from pathlib import Path

import pandas as pd

from compendium import formats, settings, units
from compendium.paths import DATA, UNLEARNING
from compendium.unlearning import evaluation, methods
from compendium.unlearning.known import KNOWN

OUT = UNLEARNING / "unlearned"
INPUTS = (KNOWN, *(DATA / f"{name}.csv" for name in ("facts", "prompts", "prose")))
ANSWERS = ["domain", "seed", "method", "weights", "kind", "relation", "subject", "correct", "logprob"]


def one(*, domain: str, seed: int, method: str, settings: dict, limits: dict, options: dict) -> dict[str, pd.DataFrame]:
    """`evaluation.study` of one method; of the answers, which fact (one row per wording) and whether it was right."""
    found = evaluation.study(method, evaluation.subject(domain, seed, limits), settings, **options)
    answers = found["answers"].assign(domain=domain, seed=seed)
    answers = answers.assign(correct=answers.correct.astype(int), logprob=answers.logprob.round(3))
    return {"answers": answers[ANSWERS], "facts": found["facts"], "relearning": found["relearning"]}


def planned(
    *,
    domains: list[str],
    seeds: list[int],
    rates: str,
    settings: dict,
    limits: dict,
    options: dict,
    stored: dict[str, list[str]],
    inside: list[str],
    ablations: dict[str, list[str]] = {},  # noqa: B006
) -> list[dict]:
    """The arguments of `one` for every unit: the untouched model and every method, by domain and seed.

    rates: a CSV with the columns method and learning_rate. settings: of `methods.unlearn`, for all. limits: of
    `evaluation.load`. options: of `evaluation.study`. stored: storage formats by method; `others` for those not named.
    inside: methods to look inside for every seed; seed 0 looks inside all but ablations. ablations: more methods by
    "relation, domain, seed". Raises ValueError for what cannot be used.
    """
    by_method = _rates(rates)
    check(by_method, stored)
    found = []
    for domain in domains:
        if domain.count(", ") != 1:
            raise ValueError(f"{domain!r} is no relation and domain: write them as in 'country_capital, Europe'")
        for seed in seeds:
            more = ablations.get(f"{domain}, {seed}", [])
            for method in more:
                if method.split(",")[0] not in by_method:
                    raise ValueError(f"{rates} has no learning rate for {method!r}")
            for method in ["none", *(m for m in by_method if "," not in m), *more]:
                rate = 0.0 if method == "none" else by_method.get(method, by_method.get(method.split(",")[0]))
                looks = method in inside or (seed == 0 and not method.startswith("MANSU,"))
                found.append(
                    {
                        "domain": domain,
                        "seed": seed,
                        "method": method,
                        "settings": settings | {"learning_rate": rate},
                        "limits": limits,
                        "options": options | {"stored": stored.get(method, stored["others"]), "look_inside": looks},
                    }
                )
    if not found:
        raise ValueError("nothing to unlearn: name at least one domain and one seed")
    return found


def _rates(path: str) -> dict[str, float]:
    table = pd.read_csv(path)
    if missing := {"method", "learning_rate"} - set(table):
        raise ValueError(f"{path} lacks column {min(missing)!r}: it needs method and learning_rate")
    return table.set_index("method").learning_rate.to_dict()


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


def sweep(given: dict, *, out: Path | None = None) -> units.Sweep:
    """All units of settings as `planned` takes them; out: `OUT` unless given. Raises ValueError as `planned` does."""
    settings.check(given, planned, where="the settings of the unlearned models")
    return units.Sweep(one, planned(**given), OUT if out is None else Path(out), "unlearning unlearned", INPUTS)
