"""Forgotten for good? Two checkpoints and the facts one of them should have forgotten, four properties.

    python -m compendium.unlearning audit --base embedded --edited path/to/folder --facts F.csv [--out FOLDER]

1. *forgotten*: the edited model does no better than chance on the facts to forget (held-out wordings).
2. *retained*: it answers other facts as well as the base model does.
3. *permanent*: storing it in 4 bits does not bring the forgotten facts back.
4. *changed inside*: the circuit that carried the facts works differently now: its attribution diverges (CAD) by more
   than it does between two halves of the prompts on the base model. Not a proof of erasure: edits of the last block
   alone, made only to suppress, pass it too (`07_structural_erasure`).

Limits: chance + 0.05; 3 points lost; 3 points back. Where the interval includes the limit, the report says that more
facts are needed to settle it. Where a property cannot be judged, of a single fact or of a model whose inside cannot be
read, the report says why and judges the others, and the command ends with status 3. Results are written as they come.
F.csv has the columns of `data/facts.csv`, and holds the facts to forget; all other facts of `data/facts.csv` that the
base model knows are those to keep.
"""

import io
import json
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from compendium import facts, files, formats, models, stats
from compendium.attribution.decoder import Decoder
from compendium.attribution.nodes import Nodes
from compendium.unlearning import audit_report, cad, code_flips, forget_set, mansu, probing

RETAIN = 0.03  # of accuracy: how much of what should be kept may be lost, or of what should be gone come back
LEVEL = 0.05  # of accuracy: how far above chance still counts as forgotten
FOLDS = 4  # of the attribution pairs, for CAD's interval
CIRCUIT = 0.2  # share of the linear weights that the circuit's nodes hold
PROPERTIES = "forgotten", "retained", "permanent", "changed inside"
AHEAD = "not reached yet"
UNJUDGED = 3  # exit status of an audit that could not judge all properties


def check(base, edited) -> None:
    """Raise ValueError unless two models have one architecture and finite weights."""
    shapes = [{name: tuple(p.shape) for name, p in model.named_parameters()} for model in (base, edited)]
    if shapes[0] != shapes[1]:
        name = next(n for n in {**shapes[0], **shapes[1]} if shapes[0].get(n) != shapes[1].get(n))
        raise ValueError(
            f"the checkpoints are not two versions of one model: {name} is {shapes[0].get(name, 'missing')} in the "
            f"base and {shapes[1].get(name, 'missing')} in the edited one"
        )
    for label, model in (("base", base), ("edited", edited)):
        for name, p in model.named_parameters():
            if not torch.isfinite(p).all():
                raise ValueError(f"the {label} checkpoint holds NaN or infinite values in {name}: it cannot be audited")


def audit(base, edited, tokenizer, table: pd.DataFrame, **options) -> dict:
    """The four properties of `edited`, as a dict that JSON can hold: the last of what `judged` yields, same options."""
    return list(judged(base, edited, tokenizer, table, **options))[-1]


def judged(
    base,
    edited,
    tokenizer,
    table: pd.DataFrame,
    *,
    stored=("nf4",),
    n_retain: int = 100,
    n_pairs: int = 20,
    ig_steps: int = 5,
    memory: float | None = None,
    seed: int = 0,
) -> Iterator[dict]:
    """Yield the findings, one dict that grows, each time that a property has been judged or cannot be.

    table: facts to forget (columns of `facts.load`). stored: formats. n_retain: facts to keep that are tried, half of
    them of the same relations; those the base model knows are asked. n_pairs: facts that attribution looks at.
    memory: gigabytes that it may take beside the weights, where it reads edges. `properties`: whether each holds,
    None where it is not judged, and why not in `not judged`, by property, or by property and format. Raises
    ValueError as `check` does, for a format or number that cannot be, and when the base model knows none of the
    facts.
    """
    for fmt in stored:
        if fmt not in formats.FORMATS:
            raise ValueError(f"unknown format {fmt!r}: choose among {', '.join(formats.FORMATS)}")
    for name, number in {"n_retain": n_retain, "n_pairs": n_pairs, "ig_steps": ig_steps}.items():
        if number < 1:
            raise ValueError(f"{name} is {number}: it must be at least 1")
    check(base, edited)
    known = facts.known(base, tokenizer, table)
    if known.empty:
        raise ValueError("the base model knows none of these facts: there is nothing it could have forgotten")
    keep = facts.known(base, tokenizer, forget_set.others(facts.load(), table, n=n_retain, seed=seed))
    parts = {"forget": known} | ({} if keep.empty else {"retain": keep})
    asked = {name: facts.questions(split="heldout", table=part) for name, part in parts.items()}
    found = {
        "properties": dict.fromkeys(PROPERTIES),
        "settled": dict.fromkeys(PROPERTIES),
        "measured": {},
        "intervals": {},
        "facts": {"to forget": len(known), "to keep": len(keep), "questions": sum(map(len, asked.values()))},
        "not judged": dict.fromkeys(PROPERTIES, AHEAD),
    }
    holds = []  # what cannot be stored or read is said first, not last
    for fmt in stored:
        with _noted(found, f"permanent, {fmt}"):
            formats.storable(base, fmt)
            holds.append(fmt)
    with _noted(found, "changed inside"):
        inside = _Inside(base, edited, tokenizer, known, n_pairs, seed, memory)
        found["inside read by"] = inside.how

    def correct(model, label: str):
        """Share of right answers fact by fact: the two wordings of a fact are no independent evidence."""
        scored = {name: facts.score(model, tokenizer, part) for name, part in asked.items()}
        for s in scored.values():
            if not np.isfinite(s[["logprob", "margin"]].to_numpy()).all():
                raise ValueError(f"the {label} model gives answers probabilities that are NaN or infinite")
        return {
            name: s.groupby(["relation", "subject"], sort=False).correct.mean().to_numpy() for name, s in scored.items()
        }

    before, after = correct(base, "base"), correct(edited, "edited")
    _measure(found, {"forget, base": before["forget"].mean(), "forget": after["forget"].mean()})
    _interval_of(found, "forget", after["forget"], seed)
    _rule(found, "forgotten", "forget", facts.CHANCE + LEVEL)
    yield found

    with _noted(found, "retained"):
        if keep.empty:
            raise ValueError("the base model knows none of the facts to keep that were tried: nothing to compare")
        change = after["retain"] - before["retain"]
        _measure(
            found,
            {"retain, base": before["retain"].mean(), "retain": after["retain"].mean(), "retain change": change.mean()},
        )
        _interval_of(found, "retain change", change, seed)
        _rule(found, "retained", "retain change", -RETAIN, -1)
    yield found

    with _noted(found, "bin width"):
        snapshot, layers = code_flips.snapshot(base), models.linear_layers(edited)
        if any(not torch.equal(layers[name].weight, weight) for name, weight in snapshot.items()):
            moved = code_flips.compare(snapshot, edited, density=code_flips.boundary_density(snapshot), seed=seed)
            _measure(
                found,
                {"mean bin width / mean update": moved["ratio_mean_gap"], "codes that flip in NF4": moved["flips"]},
            )
    kept = []
    for fmt in holds:
        with _noted(found, f"permanent, {fmt}"):
            with formats.quantised(base, fmt):
                alike = correct(base, f"base, stored in {fmt},")
            with formats.quantised(edited, fmt):
                again = correct(edited, f"edited, stored in {fmt},")
            _measure(found, {f"{kind}, base in {fmt}": right.mean() for kind, right in alike.items()})
            _measure(found, {f"{kind}, {fmt}": right.mean() for kind, right in again.items()})
            _measure(found, {f"{fmt} gap": (again["forget"] - after["forget"]).mean()})
            _interval_of(found, f"{fmt} gap", again["forget"] - after["forget"], seed)
            kept.append(fmt)
    with _noted(found, "permanent"):
        if not stored:
            raise ValueError("no storage format was named")
        if kept:
            worst = max(kept, key=lambda fmt: found["measured"][f"{fmt} gap"])
            _rule(found, "permanent", f"{worst} gap", RETAIN)
        if len(kept) < len(stored) and found["properties"]["permanent"] is not False:
            found["properties"]["permanent"] = found["settled"]["permanent"] = None
            raise ValueError(f"not in every format: {next(fmt for fmt in stored if fmt not in kept)} cannot be tried")
    yield found

    if found["not judged"].get("changed inside") == AHEAD:
        with _noted(found, "changed inside"):
            inside.compare(found, ig_steps)
            _rule(found, "changed inside", "CAD cosine", found["measured"]["CAD cosine, noise floor"], -1)
        yield found


class _Inside:
    """What attribution reads of both models: contrast pairs of the known facts, in folds.

    Heads and MLPs of a model that `Decoder` does not lay open are reached by hooks; `how` says so, and why. Raises
    ValueError where they are not found either, and for too few pairs.
    """

    def __init__(self, base, edited, tokenizer, known: pd.DataFrame, n_pairs: int, seed: int, memory):
        both = [model.requires_grad_(False) for model in (base, edited)]
        self.how = "edges"
        try:
            self.readers = [Decoder(model, memory) for model in both]
        except ValueError as error:
            self.readers = [Nodes(model) for model in both]
            self.how = f"nodes, by hooks: {error}"
        groups = [part.iloc[:n_pairs] for _, part in known.groupby("relation", sort=False)]
        pairs, reason = [], None
        for part in groups:
            try:
                pairs += probing.contrast(tokenizer, part, seed=seed)
            except ValueError as error:  # one relation with too few facts; the others may do
                reason = error
        if not pairs:
            raise reason
        folds = [[part[i::FOLDS] for part in pairs if len(part) > i] for i in range(FOLDS)]
        self.folds = [fold for fold in folds if fold]
        if len(self.folds) < 2:
            raise ValueError("no two facts' prompts can be told into halves, whose difference is the noise: more facts")

    def compare(self, found: dict, ig_steps: int) -> None:
        """Divergence of the circuit between the models, with its interval and its noise floor, into `found`."""
        folds = self.folds
        sizes = torch.tensor([sum(map(len, fold)) for fold in folds])
        old, new = (
            torch.stack([probing.attribute_nodes(reader, fold, steps=ig_steps).cpu() for fold in folds])
            for reader in self.readers
        )

        def mean(scores, fold):
            return (scores[fold] * sizes[fold, None]).sum(0) / sizes[fold].sum()

        every, number = torch.ones(len(folds), dtype=torch.bool), torch.arange(len(folds))
        reader = self.readers[0]
        chosen = reader.circuit if isinstance(reader, Nodes) else partial(mansu.circuit, reader)
        circuit = chosen(mean(old, every), CIRCUIT)
        divergence = cad.divergence(mean(old, every), mean(new, every), circuit)
        left_out = [cad.divergence(mean(old, number != i), mean(new, number != i), circuit)["cosine"] for i in number]
        spread = 2 * math.sqrt((len(folds) - 1) * float(np.var(left_out)))  # jackknife over folds, two standard errors
        noise = cad.divergence(mean(old, number % 2 == 0), mean(old, number % 2 == 1), circuit)
        _measure(
            found,
            {f"CAD {name}": value for name, value in divergence.items()}
            | {f"CAD {name}, noise floor": value for name, value in noise.items()},
        )
        found["intervals"]["CAD cosine"] = [divergence["cosine"] - spread, divergence["cosine"] + spread]


@contextmanager
def _noted(found: dict, name: str):
    """What goes wrong in the block is put down as the reason why `name` is not judged; the others go on."""
    try:
        yield
    except Exception as error:  # whatever it is: three properties must not be lost with the fourth
        lines = str(error).strip().splitlines() or ["no message"]
        kind = "" if isinstance(error, ValueError) else f"{type(error).__name__}: "
        found["not judged"][name] = kind + lines[0]


def _measure(found: dict, values: dict) -> None:
    """Put numbers down. Raises ValueError, and puts none down, where one is not finite."""
    for name, value in values.items():
        if not math.isfinite(value):
            raise ValueError(f"{name} is {value}")
    found["measured"] |= {name: float(value) for name, value in values.items()}


def _interval_of(found: dict, name: str, values, seed: int) -> None:
    found["intervals"][name] = list(map(float, _interval(values, seed)))


def _rule(found: dict, name: str, value: str, limit: float, sign: int = 1) -> None:
    """Whether sign x value <= sign x limit, and whether the whole interval says so."""
    if not all(map(math.isfinite, [limit, *found["intervals"][value]])):
        raise ValueError(f"the interval of {value} is not finite")
    inside = [sign * end <= sign * limit for end in found["intervals"][value]]
    found["properties"][name] = bool(sign * found["measured"][value] <= sign * limit)
    found["settled"][name] = all(inside) or not any(inside)
    found["not judged"].pop(name, None)


def _interval(values, seed: int) -> tuple[float, float]:
    """Bootstrap over facts; where all agree, what a share of facts unlike them could still be (95 %)."""
    if np.ptp(values) > 0:
        return stats.bootstrap_interval(values, seed=seed)
    unseen = 1 - 0.05 ** (1 / len(values))
    return float(values[0] - unseen), float(values[0] + unseen)


def place(out) -> Path:
    """The folder for results, which an earlier audit may have used. Raises ValueError before any work."""
    out = Path(out)
    existing = next(path for path in (out.absolute(), *out.absolute().parents) if path.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        raise ValueError(f"{out} cannot be written: {existing} is no folder that you may write to")
    try:
        ours = "properties" in json.loads((out / "audit.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, TypeError):
        ours = False
    if strange := [name for name in ("audit.json", "audit.png") if (out / name).exists() and not ours]:
        raise ValueError(f"{out / strange[0]} is not an audit's: name another folder, or move it away")
    return out


def run(base: str, edited: str, path: str, *, out: str | None = None, device="cpu", dtype="float32", **options) -> dict:
    """Load, audit, print, and write audit.json and audit.png into `out`, anew whenever a property has been judged.
    Hub ids are written owner/model@commit."""
    import matplotlib.pyplot as plt

    out = None if out is None else place(out)
    table = facts.load(Path(path))
    models.set_threads(options.pop("threads", 2))
    sources = {}
    for label, name in (("base", base), ("edited", edited)):
        try:
            name, _, revision = (name, "", "") if Path(name).is_dir() else name.partition("@")
            sources[label] = models.load(name, revision=revision or None, dtype=dtype, device=device)
        except models.ModelError as error:
            raise ValueError(f"the {label} checkpoint: {error}") from None
    (model, tokenizer), (other, _) = sources["base"], sources["edited"]
    for found in judged(model, other, tokenizer, table, **options):
        if out is not None:
            files.write(out / "audit.json", json.dumps(found, indent=2) + "\n")
            picture, fig = io.BytesIO(), audit_report.draw(found)
            fig.savefig(picture, metadata={"Software": None})
            plt.close(fig)
            files.write(out / "audit.png", picture.getvalue())
    print(audit_report.summary(found))
    if out is not None:
        print(f"wrote audit.json and audit.png to {out}")
    return found
