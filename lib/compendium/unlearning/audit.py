"""Forgotten for good? Two checkpoints and the facts one of them should have forgotten, four properties.

    python -m compendium.unlearning audit --base embedded --edited path/to/folder --facts F.csv [--out FOLDER]

1. *forgotten*: the edited model does no better than chance on the facts to forget (held-out wordings).
2. *retained*: it answers other facts as well as the base model does.
3. *permanent*: storing it in 4 bits does not bring the forgotten facts back.
4. *changed inside*: the circuit that carried the facts works differently now: its attribution diverges (CAD) by more
   than it does between two halves of the prompts on the base model. Not a proof of erasure: edits of the last block
   alone, made only to suppress, pass it too (`07_structural_erasure`).

Limits: chance + 0.05; 3 points lost; 3 points back. Where the interval includes the limit, the report says that more
facts are needed to settle it. F.csv has the columns of `data/facts.csv`, and holds the facts to forget; all other facts
of `data/facts.csv` that the base model knows are those to keep.
"""

import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from compendium import facts, formats, models, report, stats
from compendium.attribution.decoder import Decoder
from compendium.unlearning import cad, domains, mansu, mechanism, updates

RETAIN = 0.03  # of accuracy: how much of what should be kept may be lost, or of what should be gone come back
LEVEL = 0.05  # of accuracy: how far above chance still counts as forgotten
FOLDS = 4  # of the attribution pairs, for CAD's interval
CIRCUIT = 0.2  # share of the linear weights that the circuit's nodes hold


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


def audit(
    base, edited, tokenizer, table: pd.DataFrame, *, stored=("nf4",), n_retain: int = 100, n_pairs: int = 20,
    ig_steps: int = 5, seed: int = 0,
) -> dict:  # fmt: skip
    """The four properties of `edited`, as a dict that JSON can hold.

    table: facts to forget (columns of `facts.load`). stored: formats. n_retain: facts to keep that are tried, half of
    them of the same relations; those the base model knows are asked. n_pairs: facts that attribution looks at. Raises
    ValueError as `check` does, and when the base model knows none of the facts.
    """
    check(base, edited)
    known = facts.known(base, tokenizer, table)
    if known.empty:
        raise ValueError("the base model knows none of these facts: there is nothing it could have forgotten")
    keep = facts.known(base, tokenizer, domains.others(facts.load(), table, n=n_retain, seed=seed))
    if keep.empty:
        raise ValueError("the base model knows none of the facts to keep that were tried: there is nothing to compare")
    asked = {name: facts.questions(split="heldout", table=part) for name, part in (("forget", known), ("retain", keep))}

    def correct(model):
        """Share of right answers fact by fact: the two wordings of a fact are no independent evidence."""
        scored = {name: facts.score(model, tokenizer, part) for name, part in asked.items()}
        return {
            name: s.groupby(["relation", "subject"], sort=False).correct.mean().to_numpy() for name, s in scored.items()
        }

    before, after = correct(base), correct(edited)
    answers = {
        "forget": _interval(after["forget"], seed),
        "retain change": _interval(after["retain"] - before["retain"], seed),
    }
    measured = {
        "forget, base": before["forget"].mean(), "forget": after["forget"].mean(),
        "retain, base": before["retain"].mean(),
        "retain": after["retain"].mean(), "retain change": (after["retain"] - before["retain"]).mean(),
    }  # fmt: skip
    snapshot, layers = updates.snapshot(base), models.linear_layers(edited)
    if any(not torch.equal(layers[name].weight, weight) for name, weight in snapshot.items()):
        moved = updates.compare(snapshot, edited, density=updates.boundary_density(snapshot), seed=seed)
        measured["mean bin width / mean update"] = moved["ratio_mean_gap"]
        measured["codes that flip in NF4"] = moved["flips"]
    gaps = {}
    for fmt in stored:
        with formats.quantised(base, fmt):
            measured |= {f"{kind}, base in {fmt}": right.mean() for kind, right in correct(base).items()}
        with formats.quantised(edited, fmt):
            again = correct(edited)
        gaps[fmt] = again["forget"] - after["forget"]
        measured |= {f"forget, {fmt}": again["forget"].mean(), f"retain, {fmt}": again["retain"].mean()}
        measured[f"{fmt} gap"] = gaps[fmt].mean()
        answers[f"{fmt} gap"] = _interval(gaps[fmt], seed)

    groups = [part.iloc[:n_pairs] for _, part in known.groupby("relation", sort=False)]
    pairs = [pair for part in groups for pair in mechanism.contrast(tokenizer, part, seed=seed)]
    decoders = [Decoder(model.requires_grad_(False)) for model in (base, edited)]
    folds = [[part[i::FOLDS] for part in pairs if len(part) > i] for i in range(FOLDS)]
    folds = [fold for fold in folds if fold]
    sizes = torch.tensor([sum(map(len, fold)) for fold in folds])
    old, new = (
        torch.stack([mechanism.attribute(decoder, fold, steps=ig_steps).sum(1).cpu() for fold in folds])
        for decoder in decoders
    )

    def mean(scores, fold):
        return (scores[fold] * sizes[fold, None]).sum(0) / sizes[fold].sum()

    every, number = torch.ones(len(folds), dtype=torch.bool), torch.arange(len(folds))
    circuit = mansu.circuit(decoders[0], mean(old, every), CIRCUIT)
    divergence = cad.divergence(mean(old, every), mean(new, every), circuit)
    left_out = [cad.divergence(mean(old, number != i), mean(new, number != i), circuit)["cosine"] for i in number]
    spread = 2 * math.sqrt((len(folds) - 1) * float(np.var(left_out)))  # jackknife over folds, two standard errors
    answers["CAD cosine"] = (divergence["cosine"] - spread, divergence["cosine"] + spread)
    noise = cad.divergence(mean(old, number % 2 == 0), mean(old, number % 2 == 1), circuit)
    measured |= {f"CAD {name}": value for name, value in divergence.items()}
    measured |= {f"CAD {name}, noise floor": value for name, value in noise.items()}

    def ruling(value, interval, limit, sign=1):
        """Whether sign x value <= sign x limit, and whether the whole interval says so."""
        inside = [sign * end <= sign * limit for end in interval]
        return bool(sign * value <= sign * limit), all(inside) or not any(inside)

    worst = max(stored, key=lambda fmt: measured[f"{fmt} gap"])
    rulings = {
        "forgotten": ruling(measured["forget"], answers["forget"], facts.CHANCE + LEVEL),
        "retained": ruling(measured["retain change"], answers["retain change"], -RETAIN, -1),
        "permanent": ruling(measured[f"{worst} gap"], answers[f"{worst} gap"], RETAIN),
        "changed inside": ruling(divergence["cosine"], answers["CAD cosine"], noise["cosine"], -1),
    }
    return {
        "properties": {name: holds for name, (holds, _) in rulings.items()},
        "settled": {name: settled for name, (_, settled) in rulings.items()},
        "measured": {name: float(value) for name, value in measured.items()},
        "intervals": {name: list(map(float, value)) for name, value in answers.items()},
        "facts": {"to forget": len(known), "to keep": len(keep), "questions": sum(map(len, asked.values()))},
    }


def _interval(values, seed: int) -> tuple[float, float]:
    """Bootstrap over facts; where all agree, what a share of facts unlike them could still be (95 %)."""
    if np.ptp(values) > 0:
        return stats.bootstrap_interval(values, seed=seed)
    unseen = 1 - 0.05 ** (1 / len(values))
    return float(values[0] - unseen), float(values[0] + unseen)


def draw(found: dict):
    """Figure: what is left of both kinds of facts, in the base, the edited and the stored model."""
    import matplotlib.pyplot as plt

    report.style()
    m = found["measured"]
    stored = [name.removesuffix(" gap") for name in m if name.endswith(" gap")]
    columns = {"base": ", base", **{f"base, {fmt}": f", base in {fmt}" for fmt in stored}, "edited": ""}
    columns |= {f"edited, {fmt}": f", {fmt}" for fmt in stored}
    fig, ax = plt.subplots(figsize=(3.5 + 0.9 * len(columns), 3.4))
    for i, kind in enumerate(("forget", "retain")):
        places = [j + 0.38 * (i - 0.5) for j in range(len(columns))]
        ax.bar(places, [m[kind + tail] for tail in columns.values()], 0.36, label=f"facts to {kind}", color=f"C{i}")
    ax.axhline(facts.CHANCE, color="0.5", lw=1, ls="--")
    ax.annotate("chance", (1, facts.CHANCE), xycoords=("axes fraction", "data"), xytext=(3, 0),
                textcoords="offset points", va="center", color="0.4")  # fmt: skip
    ax.set(xticks=range(len(columns)), xticklabels=columns, ylim=(0, 1.02), ylabel="right answers")
    said = [name if yes else f"not {name}" for name, yes in found["properties"].items()]
    ax.set_title(", ".join(said).capitalize())
    ax.legend(loc="center left", bbox_to_anchor=(1.12, 0.5))
    return fig


def run(base: str, edited: str, path: str, *, out: str | None = None, device="cpu", **options) -> dict:
    """Load, audit, print, and write audit.json and audit.png into `out`. Hub ids are written owner/model@commit."""
    table = facts.load(Path(path))
    models.set_threads(options.pop("threads", 2))
    sources = {}
    for label, name in (("base", base), ("edited", edited)):
        try:
            name, _, revision = (name, "", "") if Path(name).is_dir() else name.partition("@")
            sources[label] = models.load(name, revision=revision or None, device=device)
        except models.ModelError as error:
            raise ValueError(f"the {label} checkpoint: {error}") from None
    (model, tokenizer), (other, _) = sources["base"], sources["edited"]
    found = audit(model, other, tokenizer, table, **options)
    for name, yes in found["properties"].items():
        doubt = "" if found["settled"][name] else " (its interval includes the limit: more facts would settle it)"
        print(f"{name:14} {'yes' if yes else 'no'}{doubt}")
    for name, value in found["measured"].items():
        low, high = found["intervals"].get(name, (None, None))
        print(f"  {name:32} {value:9.4g}" + (f"   [{low:.3g}, {high:.3g}]" if low is not None else ""))
    if out:
        report.write(Path(out) / "audit.json", json.dumps(found, indent=2) + "\n")
        draw(found).savefig(Path(out) / "audit.png", metadata={"Software": None})
        print(f"wrote audit.json and audit.png to {out}")
    return found
