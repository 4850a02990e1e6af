"""Selective refusal, method against method.

`prepare` makes what all methods share that are to refuse the same categories: training examples and the circuit's
scores. `study` builds one method's *intervention*, a function from a strength to a context manager, and measures the
model inside it.
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
class Settings:
    """What the methods of `intervention` are set to. Rates of "all weights" and "complement" are times `rate_all`."""

    heads: int = 45  # size of the circuit: 4.2 % of the embedded model's parameters
    steps: int = 24
    batch: int = 8  # prompts to refuse a step, and as many to keep
    learning_rate: float = 2.5e-3
    keep_weight: float = 1.5  # of the KL that holds other replies
    arithmetic_steps: int = 8
    arithmetic_rate: float = 3e-4
    rate_all: float = 0.06
    lora_rank: int = 8
    lora_rate: float = 2e-3
    steering_layer: int = 16
    steering_strength: float = 1.0
    cast_strength: float = 1.25
    direction_strength: float = 2.0


@dataclass(frozen=True)
class Prepared:
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


def load(
    model_name: str = "embedded",
    *,
    revision=None,
    device: str = "cpu",
    dtype: str = "float32",
    memory: float | None = None,
    threads: int = 1,
):
    """(decoder, tokenizer) of a frozen model, on `threads` threads."""
    models.set_threads(threads)
    model, tokenizer = models.load(model_name, revision=revision, dtype=dtype, device=device)
    return Decoder(model.requires_grad_(False), memory), tokenizer


def prepare(targets: list[str], seed: int, *, n_pairs: int, ig_steps: int, per_kind: int, **source) -> Prepared:
    """Examples of refusing `targets`, and node scores, which add up over them. source: as `load` takes."""
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
    return Prepared(targets, seed, found, scores.node_scores(total).cpu(), wordings, paragraphs)


def supports(decoder: Decoder, prepared: Prepared, heads: int) -> dict[str, dict[str, torch.Tensor]]:
    """Where an update may act: the circuit, as many random other heads, all linear weights but the circuit, all."""
    graph = decoder.graph
    chosen = circuits.top_heads(graph, prepared.scores, heads)
    circuit = circuits.parameter_mask(decoder, chosen)
    noise = torch.rand(graph.n_sources, generator=torch.Generator().manual_seed(prepared.seed)).masked_fill(chosen, 0)
    everything = edits.everywhere(decoder.model)
    return {
        "circuit": circuit,
        "random heads": circuits.parameter_mask(decoder, circuits.top_heads(graph, noise, heads)),
        "complement": {name: mask & ~circuit[name] if name in circuit else mask for name, mask in everything.items()},
        "all weights": everything,
    }


def intervention(method: str, decoder: Decoder, prepared: Prepared, settings: Settings):
    """(strength -> context manager, update or None) of one method.

    Raises ValueError for an unknown method.
    """
    model, found, s = decoder.model, prepared.examples, settings
    kind, _, support = method.partition(", ")
    masks = supports(decoder, prepared, s.heads)
    refuse, keep = ([row.prompt for row in rows] for rows in (found.refuse, found.keep))
    if kind in ("constrained", "arithmetic") and support in masks:
        few = support in ("circuit", "random heads")
        update = objectives.arithmetic
        if kind == "constrained":
            update = partial(objectives.constrained, keep_weight=s.keep_weight)
        rate = (s.learning_rate if kind == "constrained" else s.arithmetic_rate) * (1 if few else s.rate_all)
        steps = s.steps if kind == "constrained" else s.arithmetic_steps
        options = dict(steps=steps, learning_rate=rate, batch=s.batch, seed=prepared.seed)
        delta = update(model, found, masks[support], **options)
    elif method == "LoRA":
        options = dict(rank=s.lora_rank, steps=s.steps, learning_rate=s.lora_rate, batch=s.batch)
        delta = objectives.lora(model, found, keep_weight=s.keep_weight, seed=prepared.seed, **options)
    elif method in ("DiffMean", "CAST"):
        vector = steering.behaviour(model, found.refuse, found.comply)
        vector = vector * (s.steering_strength if method == "DiffMean" else s.cast_strength)
        when = steering.condition(model, prepared.wordings, keep, prepared.paragraphs) if method == "CAST" else None
        return lambda k: steering.steered(model, vector, [s.steering_layer], k, when), None
    elif method == "directional addition":
        vector = steering.topic(model, refuse, keep) * s.direction_strength
        return lambda k: steering.steered(model, vector, [s.steering_layer], k), None
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
    prepared: Prepared,
    settings: Settings,
    *,
    strengths,
    others: int,
    n_facts: int,
    n_prose: int,
    fmt: str = "nf4",
    keep_update: bool = False,
    **source,
) -> dict:
    """One method on one set of categories, measured on held-out prompts. source: as `load` takes.

    Returns `curve`, one row a strength with refusal rates by kind of prompt; `point`, the row of strength 1 with
    utility, the share of parameters moved, and rates with the model stored in `fmt`; `replies` at strength 1; and
    `update`, if asked for (None for steering).
    """
    decoder, tokenizer = load(**source)
    model = decoder.model
    asked = prompts(prepared.targets, others)
    at, delta = intervention(method, decoder, prepared, settings)
    key = {"method": method, "category": " + ".join(prepared.targets), "seed": prepared.seed}
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
