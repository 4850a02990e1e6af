"""Selective refusal, method against method: the body of a sweep, safe to call in worker processes.

`prepare` makes what all methods of one policy share, its training examples and the circuit's scores; `study` builds one
method's *intervention*, a function from a strength to a context manager, and measures the model inside it.
"""

from dataclasses import dataclass
from functools import partial

import numpy as np
import torch

from compendium import edits, facts, formats, models, prose
from compendium.attribution import circuits, scores
from compendium.attribution.decoder import Decoder
from compendium.attribution.refusal import examples, measure, objectives, prompt_sets, steering


@dataclass(frozen=True)
class Policy:
    """Categories to refuse, with what the methods need.

    scores: EAP-IG node scores, (sources,). wordings: the train prompts to refuse, one list a phrasing. paragraphs:
    train prose.
    """

    targets: list[str]
    seed: int
    examples: examples.Examples
    scores: torch.Tensor
    wordings: list[list[tuple[int, ...]]]
    paragraphs: list[tuple[int, ...]]


def load(model_name: str = "embedded", *, revision=None, device: str = "cpu", threads: int = 1):
    """(decoder, tokenizer) of a frozen model, on `threads` threads."""
    models.set_threads(threads)
    model, tokenizer = models.load(model_name, revision=revision, device=device)
    return Decoder(model.requires_grad_(False)), tokenizer


def prepare(targets: list[str], seed: int, *, n_pairs: int, ig_steps: int, per_kind: int, **source) -> Policy:
    """Examples and node scores of one policy; scores add up over its categories. source: as `load` takes."""
    decoder, tokenizer = load(**source)
    total = 0
    for target in targets:
        pairs = examples.contrast(tokenizer, target, n=n_pairs, seed=seed)
        count = sum(map(len, pairs))
        total = total + sum(scores.eap_ig(decoder, part, steps=ig_steps) * (len(part) / count) for part in pairs)
    found = examples.examples(decoder.model, tokenizer, targets, per_kind=per_kind, seed=seed)
    wordings = [
        [measure.encode(tokenizer, prompt) for prompt in prompts]
        for target in targets
        for prompts in prompt_sets.wordings(target, "train")
    ]
    paragraphs = [tuple(tokenizer(text, add_special_tokens=False)["input_ids"]) for text in prose.prose("train")]
    return Policy(targets, seed, found, scores.node_scores(total).cpu(), wordings, paragraphs)


def supports(decoder: Decoder, policy: Policy, heads: int) -> dict[str, dict[str, torch.Tensor]]:
    """Where an update may act: the circuit, as many random other heads, all linear weights but the circuit, all."""
    graph = decoder.graph
    chosen = circuits.top_heads(graph, policy.scores, heads)
    circuit = circuits.parameter_mask(decoder, chosen)
    noise = torch.rand(graph.n_sources, generator=torch.Generator().manual_seed(policy.seed)).masked_fill(chosen, 0)
    everything = edits.everywhere(decoder.model)
    return {
        "circuit": circuit,
        "random heads": circuits.parameter_mask(decoder, circuits.top_heads(graph, noise, heads)),
        "complement": {name: mask & ~circuit[name] if name in circuit else mask for name, mask in everything.items()},
        "all weights": everything,
    }


def intervention(method: str, decoder: Decoder, policy: Policy, settings: dict):
    """(strength -> context manager, update or None) of one method; `settings` are the notebook's parameters.

    Raises ValueError for an unknown method.
    """
    model, found, s = decoder.model, policy.examples, settings
    kind, _, support = method.partition(", ")
    masks = supports(decoder, policy, s["heads"])
    refuse, keep = ([row.prompt for row in rows] for rows in (found.refuse, found.keep))
    if kind in ("constrained", "arithmetic") and support in masks:
        few = support in ("circuit", "random heads")
        update = objectives.arithmetic
        if kind == "constrained":
            update = partial(objectives.constrained, keep_weight=s["keep_weight"])
        rate = s["learning_rate" if kind == "constrained" else "arithmetic_rate"] * (1 if few else s["rate_all"])
        steps = s["steps" if kind == "constrained" else "arithmetic_steps"]
        options = dict(steps=steps, learning_rate=rate, batch=s["batch"], seed=policy.seed)
        delta = update(model, found, masks[support], **options)
    elif method == "LoRA":
        options = dict(rank=s["lora_rank"], steps=s["steps"], learning_rate=s["lora_rate"], batch=s["batch"])
        delta = objectives.lora(model, found, keep_weight=s["keep_weight"], seed=policy.seed, **options)
    elif method in ("DiffMean", "CAST"):
        vector = steering.behaviour(model, found.refuse, found.comply)
        vector = vector * s["steering_strength" if method == "DiffMean" else "cast_strength"]
        when = steering.condition(model, policy.wordings, keep, policy.paragraphs) if method == "CAST" else None
        return lambda k: steering.steered(model, vector, [s["steering_layer"]], k, when), None
    elif method == "directional addition":
        vector = steering.topic(model, refuse, keep) * s["direction_strength"]
        return lambda k: steering.steered(model, vector, [s["steering_layer"]], k), None
    else:
        raise ValueError(
            f"unknown method {method!r}: choose LoRA, DiffMean, CAST, directional addition, or 'constrained' or "
            f"'arithmetic' on {', '.join(masks)}, as in 'constrained, circuit'"
        )
    return lambda k: edits.applied(model, delta, k), delta


def prompts(targets: list[str], others: int) -> dict[str, list[str]]:
    """Held-out prompts by kind: all of target and near miss, `others` evenly spaced ones of the other kinds."""
    found = {"target": [p for name in targets for p in prompt_sets.to_refuse(name, "heldout")]}
    for kind, texts in measure.kept(targets, "heldout").items():
        chosen = np.linspace(0, len(texts) - 1, min(others, len(texts))).round().astype(int)
        found[kind] = texts if kind == "near miss" else [texts[i] for i in chosen]
    return found


def rates(model, tokenizer, asked: dict[str, list[str]]) -> tuple[dict[str, float], dict[str, list[str]]]:
    """Share of replies that decline, and the replies, by kind of prompt; all kinds run together."""
    texts = iter(measure.rate(model, tokenizer, [p for group in asked.values() for p in group])[1])
    replies = {kind: [next(texts) for _ in group] for kind, group in asked.items()}
    return {kind: float(np.mean([measure.declines(x) for x in group])) for kind, group in replies.items()}, replies


def utility(model, tokenizer, n_facts: int, n_prose: int) -> dict[str, float]:
    """Accuracy on `n_facts` evenly spaced held-out fact questions, and perplexity on held-out prose."""
    asked = facts.questions(split="heldout", table=measure.fact_split("heldout"))
    asked = asked.iloc[np.linspace(0, len(asked) - 1, n_facts).round().astype(int)]
    return {
        "facts": float(facts.score(model, tokenizer, asked).correct.mean()),
        "perplexity": prose.perplexity(model, tokenizer, prose.prose("heldout")[:n_prose]),
    }


def study(
    method: str,
    policy: Policy,
    settings: dict,
    *,
    strengths,
    others: int,
    n_facts: int,
    n_prose: int,
    fmt: str = "nf4",
    keep_update: bool = False,
    **source,
) -> dict:
    """One method on one policy, measured on held-out prompts. source: as `load` takes.

    Returns `curve`, one row a strength with refusal rates by kind of prompt; `point`, the row of strength 1 with
    utility, the share of parameters moved, and rates with the model stored in `fmt`; `replies` at strength 1; and
    `update`, if asked for (None for steering).
    """
    decoder, tokenizer = load(**source)
    model = decoder.model
    asked = prompts(policy.targets, others)
    at, delta = intervention(method, decoder, policy, settings)
    key = {"method": method, "category": " + ".join(policy.targets), "seed": policy.seed}
    curve = []
    for strength in sorted({*strengths, 1.0}):
        with at(strength):
            found, replies = rates(model, tokenizer, asked)
            curve.append(key | {"strength": strength} | found)
            if strength == 1:
                point, said = key | found | utility(model, tokenizer, n_facts, n_prose), replies
    with at(1.0), formats.quantised(model, fmt):
        point |= {f"{kind}, {fmt}": value for kind, value in rates(model, tokenizer, asked)[0].items()}
    point["moved"] = edits.moved(model, delta) if delta else 0.0
    return {"curve": curve, "point": point, "replies": said, "update": delta if keep_update else None}
