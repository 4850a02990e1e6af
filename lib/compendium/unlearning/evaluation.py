"""One unlearned model, measured from all sides.

subject = study.load("country_capital", "Europe", seed=0)
found = study.study("MANSU", subject, settings={...})
found["answers"]     # per question: kind, weights (float32, nf4, ...), correct, logprob
found["facts"]       # one row: what was edited, perplexity, CAD, probe, relearning
found["relearning"]  # accuracy on untaught forgotten facts by step
"""

import functools
import json
from collections.abc import Iterable, Sequence

import pandas as pd
import torch

from compendium import edits, facts, formats, models, prose
from compendium.unlearning import cad, code_flips, forget_set, magnitude_floor, mansu, methods, probing
from compendium.unlearning.known import KNOWN
from compendium.unlearning.subject import Subject

KINDS = ("forget", "near", "far")


def load(
    relation: str,
    domain: str,
    seed: int,
    *,
    model_name: str = "embedded",
    revision=None,
    device: str = "cpu",
    dtype: str = "float32",
    memory: float | None = None,
    threads: int = 1,
    fisher_rows: int = 96,
    ig_steps: int = 5,
    **limits,
) -> Subject:
    """A model and what it should forget. fisher_rows, ig_steps, memory: of `Subject`; limits: of `forget_set`."""
    models.set_threads(threads)
    model, tokenizer = models.load(model_name, revision=revision, dtype=dtype, device=device)
    found = forget_set.domain(model, tokenizer, relation, domain, seed=seed, **limits)
    return Subject(model, tokenizer, found, seed, fisher_rows, ig_steps, memory)


@functools.lru_cache(maxsize=1)  # one subject a process: its caches serve all methods that run there
def _subject(domain: str, seed: int, limits: str) -> Subject:
    limits = json.loads(limits)
    table = pd.read_csv(KNOWN, dtype=str) if limits.get("model_name", "embedded") == "embedded" else None
    return load(*domain.split(", "), seed, known=table, **limits)


def subject(domain: str, seed: int, limits: dict) -> Subject:
    """The subject of this process, loaded once. domain: "relation, domain"; limits: keywords of `load`."""
    return _subject(domain, seed, json.dumps(limits, sort_keys=True))


def ask(
    subject: Subject, stored: Iterable[str] = (), kinds: Sequence[str] = KINDS, only: Sequence[str] = KINDS
) -> pd.DataFrame:
    """Every held-out question, in full precision and in each format of `stored`; columns kind, weights, correct, ...

    kinds: of question that are asked in the formats; only: that are asked at all.
    """
    asked = pd.concat(subject.domain.asked, names=["kind"]).reset_index("kind").reset_index(drop=True)
    asked = asked[asked.kind.isin(only)]
    found = [facts.score(subject.model, subject.tokenizer, asked).assign(weights="float32")]
    for fmt in stored:
        with formats.quantised(subject.model, fmt):
            part = asked[asked.kind.isin(kinds)]
            found.append(facts.score(subject.model, subject.tokenizer, part).assign(weights=fmt))
    return pd.concat(found, ignore_index=True)


def inside(subject: Subject, delta: edits.Delta, circuit_share: float = 0.2) -> dict[str, float]:
    """CAD of an update on the facts to forget (edges and nodes) and, as `retain ...`, on near facts to keep (nodes).

    The circuit is the one `mansu.circuit` finds on the facts to forget; for edges, the strongest 1 %. Without an
    update (delta empty), the noise floor: the same between two halves of the facts on the untouched model.
    """
    decoder, before = subject.decoder, subject.scores
    near = subject.domain.retain.query("relation == @subject.domain.forget.relation.iloc[0]")
    kept = probing.contrast(subject.tokenizer, near, seed=subject.seed)
    before_kept = probing.attribute(decoder, kept, steps=subject.ig_steps)

    def again(pairs):
        return probing.attribute(decoder, pairs, steps=subject.ig_steps)

    def compared(name, old, new):
        nodes = mansu.circuit(decoder, old.sum(1).cpu(), circuit_share).to(old.device)
        return {f"CAD {name} {key}": value for key, value in cad.divergence(old.sum(1), new.sum(1), nodes).items()}

    halves = [[part[i::2] for part in pairs if len(part) > 1] for pairs in (subject.pairs, kept) for i in (0, 1)]
    with edits.applied(subject.model, delta):
        old, new, old_kept, new_kept = (
            (before, again(subject.pairs), before_kept, again(kept)) if delta else map(again, halves)
        )
    top = old.abs() >= old.abs().flatten().topk(max(2, round(0.01 * decoder.graph.n_edges))).values[-1]
    edge = {f"CAD edge {key}": value for key, value in cad.divergence(old, new, top).items()}
    return compared("node", old, new) | edge | compared("retain node", old_kept, new_kept)


def study(
    method: str,
    subject: Subject,
    settings: dict,
    *,
    stored=("nf4",),
    kinds=KINDS,
    probe_layers=(10, 15, 20, 25),
    relearn_looks=(0, 4, 8, 12),
    relearn_rate: float = 1e-5,
    n_prose: int = 20,
    look_inside: bool = True,
) -> dict:
    """Unlearn by one method and measure; the model comes back unchanged. settings: of `methods.unlearn`.

    Method "none" measures the untouched model. stored, kinds: of `ask`. look_inside False skips CAD, probe, relearning
    and bin widths. Returns tables `answers` (one row a question and format), `facts` (one row) and `relearning`.
    """
    model, tokenizer, seed = subject.model, subject.tokenizer, subject.seed
    key = {"domain": subject.domain.name, "seed": seed, "method": method}
    before = subject.untouched
    delta, notes = methods.unlearn(method, subject, settings) if method != "none" else ({}, {})
    row = key | notes | {"edited": edits.moved(model, delta)}
    if method.startswith("MANSU"):
        for dtype in (torch.float32, torch.bfloat16):
            counted = magnitude_floor.count(model, delta, dtype)
            row |= {f"{name}, {str(dtype).removeprefix('torch.')}": number for name, number in counted.items()}
    with edits.applied(model, delta):
        answers = ask(subject, stored, kinds)
        row["perplexity"] = prose.perplexity(model, tokenizer, prose.prose("heldout")[:n_prose])
        if delta and look_inside:
            moved = code_flips.compare(before, model, density=subject.density, seed=seed)
            row |= {name: moved[name] for name in ("ratio_mean_gap", "update_mean", "flips")}
    found = {"answers": answers.assign(**key), "relearning": pd.DataFrame()}
    if look_inside:
        row |= inside(subject, delta)
        with edits.applied(model, delta):
            asked = subject.domain.asked
            train = facts.questions(split="train", table=subject.domain.retain).groupby("subject").head(1)
            probes = probing.probe(model, tokenizer, train, asked["forget"], probe_layers)
            row["probe"] = sum(probes.values()) / len(probes)
            curve = probing.relearn(
                model, tokenizer, subject.domain.forget, looks=relearn_looks, learning_rate=relearn_rate, seed=seed
            )
        found["relearning"] = curve.assign(**key)
        row["relearned"] = curve.accuracy.iloc[-1] - curve.accuracy.iloc[0]
    return found | {"facts": pd.DataFrame([row])}
