"""Stage 01-selective_refusal-units, for notebook 03_selective_refusal: one method on one category each.

python -m compendium.attribution selective_refusal notebooks/01_attribution/refusals.yaml
"""

import tempfile
from functools import lru_cache
from pathlib import Path

import pandas as pd
from transformers import AutoModelForCausalLM

from compendium import edits, settings, units
from compendium.attribution import circuits
from compendium.attribution.refusal import measure, prompt_sets, rivals
from compendium.paths import ATTRIBUTION, DATA

OUT = ATTRIBUTION / "selective_refusal"
INPUTS = tuple(DATA / f"{name}.csv" for name in ("facts", "refusal_prompts", "prompts", "prose"))
OURS = "constrained, circuit"
UNTOUCHED = "untouched"


@lru_cache(maxsize=1)  # one category a process: its methods come after each other
def _prepared(targets: tuple[str, ...], seed: int, **given) -> rivals.Prepared:
    return rivals.prepare(list(targets), seed, **given)


def baseline(*, categories, others, n_facts, n_prose, circuit, training, source) -> dict[str, pd.DataFrame]:
    """The model as it is, on the first category: `untouched` (rates and utility) and `replies`."""
    decoder, tokenizer = rivals.load(**source)
    asked = rivals.prompts(categories[:1], others)
    found, replies = rivals.rates(decoder.model, tokenizer, asked)
    point = {"category": categories[0], **found}
    point |= rivals.utility(decoder.model, tokenizer, n_facts, n_prose)
    return {"untouched": pd.DataFrame([point]), "replies": _said(UNTOUCHED, categories[0], asked, replies)}


def method(
    *, name: str, category: str, seed: int, circuit, training, strengths, others, n_facts, n_prose, source
) -> dict[str, pd.DataFrame]:
    """`points` and `curves` of `rivals.study`; of OURS also `replies` and the `heads` of its circuit."""
    prepared, tuned = _prepared((category,), seed, **circuit, **source), rivals.Settings(**training)
    measured = {"strengths": strengths, "others": others, "n_facts": n_facts, "n_prose": n_prose}
    found = rivals.study(name, prepared, tuned, **measured, **source)
    made = {"points": pd.DataFrame([found["point"]]), "curves": pd.DataFrame(found["curve"])}
    if name == OURS:
        decoder, _ = rivals.load(**source)
        graph = decoder.graph
        kept = circuits.top_heads(graph, prepared.scores, tuned.heads)
        share = circuits.parameter_share(decoder, circuits.parameter_mask(decoder, kept))
        names = [node for node, chosen in zip(graph.source_names, kept.tolist(), strict=True) if chosen]
        made["heads"] = pd.DataFrame({"category": category, "head": names, "share of parameters": share})
        made["replies"] = _said(name, category, rivals.prompts([category], others), found["replies"])
    return made


def several(*, categories, circuit, training, others, n_facts, n_prose, source) -> dict[str, pd.DataFrame]:
    """`several`: what updates of OURS for two categories, their sum, and one made for both decline, by category; and
    `exported`: whether the checkpoint of the first, loaded as users load it, replies as the edited model does."""
    decoder, tokenizer = rivals.load(**source)
    model, tuned, pair = decoder.model, rivals.Settings(**training), categories[:2]
    options = {"others": others, "n_facts": n_facts, "n_prose": n_prose, **source}

    def updated(targets: list[str], seed: int) -> dict:
        prepared = rivals.prepare(targets, seed, **circuit, **source)
        return rivals.study(OURS, prepared, tuned, strengths=[], keep_update=True, **options)

    alone = {name: updated([name], seed) for seed, name in enumerate(pair)}
    updates = {name: found["update"] for name, found in alone.items()}
    if len(pair) > 1:
        together = {"sum": edits.combine(list(updates.values())), "joint": updated(pair, 0)["update"]}
        updates |= together
    asked = {name: prompt_sets.to_refuse(name, "heldout") for name in prompt_sets.categories()}
    asked = {name: prompts[:: max(1, len(prompts) // others)] for name, prompts in asked.items()}
    asked["neutral"] = rivals.prompts(categories[:1], others)["neutral"]
    declined = []
    for name, update in updates.items():
        with edits.applied(model, update):
            declined.append({"update": name} | rivals.rates(model, tokenizer, asked)[0])
    prompts = rivals.prompts(pair[:1], others)["target"][:4]
    with tempfile.TemporaryDirectory() as folder:
        edits.export(model, tokenizer, updates[pair[0]], folder)
        _, again = measure.rate(AutoModelForCausalLM.from_pretrained(folder), tokenizer, prompts)
    same = [int(x == y) for x, y in zip(again, alone[pair[0]]["replies"]["target"], strict=False)]
    return {"several": pd.DataFrame(declined), "exported": pd.DataFrame({"category": pair[0], "same reply": same})}


def _said(name: str, category: str, asked: dict[str, list[str]], replies: dict[str, list[str]]) -> pd.DataFrame:
    key = {"method": name, "category": category}
    pairs = [(kind, *both) for kind in asked for both in zip(asked[kind], replies[kind], strict=True)]
    return pd.DataFrame([key | {"kind": kind, "prompt": prompt, "reply": reply} for kind, prompt, reply in pairs])


JOBS = {"baseline": baseline, "method": method, "several": several}


def one(*, job: str, **given) -> dict[str, pd.DataFrame]:
    """The tables of one of JOBS."""
    return JOBS[job](**given)


def planned(
    *,
    categories: list[str],
    methods: list[str],
    n_pairs: int,
    ig_steps: int,
    per_kind: int,
    strengths: list[float],
    others: int,
    n_facts: int,
    n_prose: int,
    training: dict = {},  # noqa: B006
    model_name: str = "embedded",
    revision: str | None = None,
    device: str = "cpu",
    dtype: str = "float32",
    memory: float | None = None,
) -> list[dict]:
    """The arguments of `one` for every unit: the untouched model, every method on every category, and OURS for two.

    categories: one update each; the seed is a category's place. methods: as `rivals.intervention` names them. n_pairs:
    contrast pairs for EAP-IG; ig_steps: interpolation steps; per_kind: prompts to refuse, and to keep, of each kind.
    strengths: multiples of each method's own. others: held-out prompts asked, of neutral ones and of other categories
    each. training: of `rivals.Settings`. Raises ValueError for an unknown category or setting.
    """
    settings.check(training, rivals.Settings, where="training")
    if strange := [name for name in categories if name not in prompt_sets.categories()]:
        raise ValueError(f"unknown category {strange[0]!r}: choose among {', '.join(prompt_sets.categories())}")
    if not categories or OURS not in methods:
        raise ValueError(f"give at least one category, and {OURS!r} among the methods: the others are its rivals")
    source = {"model_name": model_name, "revision": revision, "device": device, "dtype": dtype, "memory": memory}
    same = {"circuit": {"n_pairs": n_pairs, "ig_steps": ig_steps, "per_kind": per_kind}, "training": training}
    same |= {"others": others, "n_facts": n_facts, "n_prose": n_prose, "source": source}
    by_method = [
        {"job": "method", "name": name, "category": category, "seed": seed, "strengths": strengths, **same}
        for seed, category in enumerate(categories)
        for name in methods
    ]
    whole = {"categories": categories, **same}
    return [{"job": "several", **whole}, *by_method, {"job": "baseline", **whole}]


def sweep(given: dict, *, out: Path | None = None) -> units.Sweep:
    """All units of settings as `planned` takes them; out: `OUT` unless given. Raises ValueError as `planned` does."""
    settings.check(given, planned, where="the settings of the refusals")
    return units.Sweep(
        one, planned(**given), OUT if out is None else Path(out), "attribution selective_refusal", INPUTS
    )


def tables(**given) -> dict[str, pd.DataFrame]:
    """The tables of a few units made here and now; given: as `planned` takes them."""
    return units.run(units.Sweep(one, planned(**given), None, "attribution selective_refusal"))
