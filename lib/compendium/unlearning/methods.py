"""Unlearning methods behind one signature: `(method, subject, settings) -> update`; the model comes back unchanged.

| method | objective | where it may act |
|---|---|---|
| GA, GradDiff, NPO, NPO + KL, SimNPO | as `objectives` has them | all linear weights |
| RMU | rmu | down-projections of the three blocks up to its layer; of all up to it, if they are fewer |
| task vector | learn, subtracted | all linear weights |
| LoRA | npo | low-rank adapters on all linear layers |
| SURE | npo | a tenth of the rows, by norm of the forget gradient (Zhang et al. 2025) |
| null space | npo | all linear weights, changes projected onto inputs that kept facts do not use (as AlphaEdit) |
| MANSU | simnpo | under 1 %, by circuit, forget gradient and Fisher; then floored or dropped (`mansu`) |
| last block | npo | the last block: made to suppress, a control for what looks inside |
| other answer | learn another fact's answer | the last block, the same |

MANSU's variants: "MANSU, NPO" (another objective), "no floor", "no projection" (the forget gradient alone chooses), "no
circuit" (anywhere), "random circuit" (the same choice of weights inside random nodes).
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from compendium import edits, facts
from compendium.attribution import circuits
from compendium.attribution.decoder import Decoder
from compendium.unlearning import code_flips, fisher_information, forget_set, mansu, objectives, probing

SIMNPO = {"gamma": 1.0, "beta": 0.5}  # at the usual 0.125 and 4.5 it does not forget here: see `03_baselines`
METHODS = {  # objective, and its keywords where they are not the defaults
    "GA": ("ascent", {}),
    "GradDiff": ("graddiff", {}),
    "NPO": ("npo", {}),
    "NPO + KL": ("npo", {"keep": "kl"}),
    "SimNPO": ("simnpo", SIMNPO),
    "RMU": ("rmu", {"layer": 7, "scale": 20.0, "alpha": 10.0}),
    "task vector": ("learn", {}),
    "LoRA": ("npo", {}),
    "SURE": ("npo", {}),
    "null space": ("npo", {}),
    "last block": ("npo", {}),
    "other answer": ("learn", {}),
    "MANSU": ("simnpo", SIMNPO),
    "MANSU, NPO": ("npo", {}),
    "MANSU, no floor": ("simnpo", SIMNPO),
    "MANSU, no projection": ("simnpo", SIMNPO),
    "MANSU, no circuit": ("simnpo", SIMNPO),
    "MANSU, random circuit": ("simnpo", SIMNPO),
}


@dataclass
class Subject:
    """A model and what it should forget, with everything several methods share, computed once when first asked for."""

    model: torch.nn.Module
    tokenizer: object
    domain: forget_set.Domain
    seed: int = 0
    fisher_rows: int = 96
    ig_steps: int = 5

    @cached_property
    def rows(self) -> tuple[list[facts.Row], list[facts.Row]]:
        return self.domain.rows(self.tokenizer)

    @cached_property
    def questions(self) -> pd.DataFrame:
        """The facts to forget in training wordings: what says when to stop, since the held-out ones must not."""
        return facts.questions(split="train", table=self.domain.forget)

    @cached_property
    def reference(self) -> objectives.Reference:
        return objectives.Reference(self.model)

    @cached_property
    def untouched(self) -> dict[str, Tensor]:
        """The weights of all linear layers, before anything is unlearned."""
        return code_flips.snapshot(self.model)

    @cached_property
    def density(self) -> float:
        return code_flips.boundary_density(self.untouched)

    @cached_property
    def decoder(self) -> Decoder:
        return Decoder(self.model.requires_grad_(False))

    @cached_property
    def pairs(self) -> list:
        return probing.contrast(self.tokenizer, self.domain.forget, seed=self.seed)

    @cached_property
    def scores(self) -> Tensor:
        """EAP-IG edge scores of the facts to forget, (sources, destinations)."""
        return probing.attribute(self.decoder, self.pairs, steps=self.ig_steps)

    @cached_property
    def slope(self) -> dict[str, Tensor]:
        return mansu.gradient(self.model, self.rows[0])

    @cached_property
    def fisher(self) -> dict[str, Tensor]:
        kept = self.rows[1]
        chosen = np.random.default_rng(self.seed).permutation(len(kept))[: self.fisher_rows]
        return fisher_information.diagonal(self.model, [kept[i] for i in chosen])

    @cached_property
    def projectors(self) -> dict[str, Tensor]:
        return {
            name: fisher_information.null_space(m)
            for name, m in fisher_information.second_moments(self.model, self.rows[1]).items()
        }


def masks(method: str, subject: Subject, settings: dict) -> dict[str, Tensor]:
    """Where a method may act: bool masks by parameter name. Raises ValueError for a model without the part it names."""
    model = subject.model
    everywhere = edits.everywhere(model)
    if method == "RMU":
        layer = (METHODS[method][1] | settings.get("options", {}))["layer"]
        return {name: everywhere[name] for name in _down_projections(model, layer)}
    if method in ("last block", "other answer"):
        last = {id(weight) for weight in _blocks(model)[-1].parameters()}
        weights = dict(model.named_parameters())
        return {name: mask for name, mask in everywhere.items() if id(weights[name]) in last}
    if method == "SURE":
        norms = {name: part.norm(dim=1) for name, part in subject.slope.items()}
        least = torch.cat(list(norms.values())).quantile(1 - settings["rows"])
        chosen = {f"{name}.weight": (norm >= least)[:, None] for name, norm in norms.items()}
        return {name: mask & chosen[name] for name, mask in everywhere.items() if chosen[name].any()}
    if not method.startswith("MANSU"):
        return everywhere
    nodes, within = subject.scores.sum(1), everywhere
    if method == "MANSU, random circuit":
        nodes = torch.rand(nodes.shape, generator=torch.Generator().manual_seed(subject.seed))
    if method != "MANSU, no circuit":
        within = circuits.parameter_mask(
            subject.decoder, mansu.circuit(subject.decoder, nodes.cpu(), settings["circuit"])
        )
    fisher = None if method == "MANSU, no projection" else subject.fisher
    return mansu.support(subject.slope, fisher, within, settings["share"], damping=settings["damping"])


def _blocks(model):
    """The model's blocks, in order. Raises ValueError where they are not found."""
    blocks = getattr(model.get_decoder(), "layers", None)
    if not isinstance(blocks, torch.nn.ModuleList) or not len(blocks):
        raise ValueError(f"the blocks of this {type(model).__name__} are not found: choose a model such as Llama")
    return blocks


def _down_projections(model, layer: int) -> list[str]:
    """Names of the weights with which the MLPs of the three blocks up to hidden state `layer` write to the stream."""
    blocks = _blocks(model)
    if not 1 <= layer <= len(blocks):
        raise ValueError(f"RMU's layer is {layer}: it must be from 1 to {len(blocks)}, the blocks of this model")
    names = {id(weight): name for name, weight in model.named_parameters()}
    found = []
    for i in range(max(0, layer - 3), layer):
        part = getattr(getattr(blocks[i], "mlp", None), "down_proj", None)
        if not isinstance(part, torch.nn.Linear):
            raise ValueError(
                f"block {i} of this {type(model).__name__} has no linear layer mlp.down_proj for RMU to train: choose "
                "a model such as Llama, Mistral or Qwen2"
            )
        found.append(names[id(part.weight)])
    return found


def unlearn(method: str, subject: Subject, settings: dict) -> tuple[edits.Delta, dict[str, float]]:
    """Train a method's update; returns it and notes about it.

    settings: learning_rate, steps, batch, retain_batch (rows a step); `until` and `most`: train on, in rounds of half
    as many steps, while more than the share `until` of the questions in training wordings is right and fewer than
    `most` steps are done; `options`, keywords of the objective; LoRA's `rank`, the task vector's `strength`, SURE's
    `rows`, and MANSU's circuit, share, damping, reach, budget; `master` "bfloat16" rounds the weights to it after every
    step, as training a model that is stored in it does. Raises ValueError for an unknown method, and for `until`
    without `most` or with a `most` below `steps`.

    A round begins with a fresh optimiser, and LoRA's with fresh adapters.
    """
    if method not in METHODS:
        raise ValueError(f"unknown method {method!r}: choose one of {', '.join(METHODS)}")
    if settings.get("until") is not None and settings.get("most", 0) < settings["steps"]:
        raise ValueError("until needs most, the steps at which to stop in any case, and at least as many as steps")
    model, s = subject.model, settings
    objective, options = METHODS[method]
    loss, options = objectives.OBJECTIVES[objective], options | s.get("options", {})
    forget, kept = subject.rows
    if method == "other answer":
        forget = forget_set.answers(subject.tokenizer, probing.substituted(subject.domain.forget, subject.seed))
    most = s["steps"] if s.get("until") is None else s["most"]
    rng = np.random.default_rng(subject.seed)
    drawn = [edits.batches(rows, s[size], most, rng) for rows, size in ((forget, "batch"), (kept, "retain_batch"))]
    within = None if method == "LoRA" else masks(method, subject, s)
    learned, done = {}, 0
    while True:
        steps = min(s["steps"] if not done else max(1, s["steps"] // 2), most - done)

        def loss_of(step: int, done=done) -> Tensor:
            return loss(model, subject.reference, drawn[0][done + step], drawn[1][done + step], **options)

        with edits.applied(model, learned):
            more = _round(subject, loss_of, within, steps, s, _projection(method, subject, s, learned))
        learned, done = edits.combine([learned, more]), done + steps
        delta, notes = _finished(method, subject, learned, s)
        if done == most:
            return delta, notes | {"steps": done}
        with edits.applied(model, delta):
            right = facts.score(model, subject.tokenizer, subject.questions).correct.mean()
        if right <= s["until"]:
            return delta, notes | {"steps": done}


def _round(subject: Subject, loss_of, within, steps: int, s: dict, project) -> edits.Delta:
    """So many steps from where the model is now; within None: through LoRA."""
    rate = s["learning_rate"]
    if within is None:
        return edits.lora(subject.model, loss_of, rank=s["rank"], seed=subject.seed, steps=steps, learning_rate=rate)
    return edits.train(subject.model, loss_of, within, project=project, steps=steps, learning_rate=rate)


def _projection(method: str, subject: Subject, s: dict, learned: edits.Delta):
    """What `edits.train` does to the change of a weight after every step, or None; learned: earlier rounds' changes."""
    if method == "null space":
        names = {f"{name}.weight": p for name, p in subject.projectors.items()}
        return lambda name, change: change @ names[name]
    if s.get("master", "float32") == "float32":
        return None
    weights = {
        f"{name}.weight": weight + learned.get(f"{name}.weight", 0.0) for name, weight in subject.untouched.items()
    }
    return lambda name, change: (weights[name] + change).bfloat16().float() - weights[name]


def _finished(method: str, subject: Subject, learned: edits.Delta, s: dict) -> tuple[edits.Delta, dict[str, float]]:
    """The update that a method makes of what was learned, and notes about it."""
    if method == "task vector":
        return {name: -s["strength"] * change for name, change in learned.items()}, {}
    if not method.startswith("MANSU"):
        return learned, {}
    return mansu.permanent(
        subject.model,
        learned,
        subject.slope,
        subject.fisher,
        budget=s["budget"],
        reach=s["reach"],
        floored=method != "MANSU, no floor",
    )
