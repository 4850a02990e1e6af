"""Stage 02-quantization_reversal-units, for notebook 04: what storage formats bring back.

python -m compendium.unlearning quantization_reversal notebooks/02_unlearning/quantization_reversal.yaml
"""

from pathlib import Path

import pandas as pd

from compendium import settings, units
from compendium.paths import UNLEARNING
from compendium.unlearning import evaluation
from compendium.unlearning.studies.unlearned import INPUTS, check

OUT = UNLEARNING / "quantization_reversal"
COLUMNS = ["method", "learning_rate", "master", "weights", "kind", "subject", "correct", "logprob"]
NO_STEP = {"learning_rate": 1e-12, "steps": 1}  # of no size: what is left is the rounding of the weights


def one(
    *,
    domain: str,
    seed: int,
    method: str,
    learning_rate: float,
    master: str,
    stored: list[str],
    settings: dict,
    limits: dict,
) -> dict[str, pd.DataFrame]:
    """The answers after one method, in full precision and in each format. master: number format of the weights during
    training; method "none" in bfloat16 is the untouched model, rounded."""
    of, trained = settings | {"learning_rate": learning_rate, "master": master}, method
    if (method, master) == ("none", "bfloat16"):
        trained, of = "NPO", of | NO_STEP
    options = {"stored": stored, "kinds": ["forget"], "n_prose": 1, "look_inside": False}
    found = evaluation.study(trained, evaluation.subject(domain, seed, limits), of, **options)["answers"]
    found = found.assign(method=method, learning_rate=learning_rate, master=master, correct=found.correct.astype(int))
    return {"answers": found[COLUMNS]}


def planned(
    *,
    domain: str,
    seed: int,
    rates: dict[str, list[float]],
    masters: list[str],
    stored: list[str],
    settings: dict,
    limits: dict,
) -> list[dict]:
    """The arguments of `one` for every unit, the untouched model first. Raises ValueError for what cannot be used."""
    check({}, {"others": stored})
    if strange := set(masters) - {"float32", "bfloat16"}:
        raise ValueError(f"masters: unknown number format {min(strange)!r}: choose float32, bfloat16")
    for method, tried in rates.items():
        for rate in tried:
            check({method: rate}, {"others": []})
    tried = [("none", 0.0, master) for master in dict.fromkeys(["float32", *masters])]
    tried += [(method, rate, master) for method in rates for rate in rates[method] for master in masters]
    same = {"domain": domain, "seed": seed, "stored": stored, "settings": settings, "limits": limits}
    return [{**same, "method": method, "learning_rate": rate, "master": master} for method, rate, master in tried]


def sweep(given: dict, *, out: Path | None = None) -> units.Sweep:
    """All units of settings as `planned` takes them; out: `OUT` unless given. Raises ValueError as `planned` does."""
    settings.check(given, planned, where="the settings of the quantization reversal")
    out = OUT if out is None else Path(out)
    return units.Sweep(one, planned(**given), out, "unlearning quantization_reversal", INPUTS)


def answers(**given) -> pd.DataFrame:
    """The table of a few units made here and now; given: as `planned` takes them."""
    return units.run(units.Sweep(one, planned(**given), None, "unlearning quantization_reversal"))["answers"]
