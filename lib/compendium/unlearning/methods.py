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

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import numpy as np
from torch import Tensor

from compendium import edits, facts
from compendium.unlearning import forget_set, mansu, objectives, places, probing
from compendium.unlearning.subject import Subject

Notes = dict[str, float]


# -- what is forgotten, how a change is held, what becomes of it ------------------------------------------------------


def answers(subject: Subject) -> list[facts.Row]:
    """The facts to forget, with their answers."""
    return subject.rows[0]


def other_answers(subject: Subject) -> list[facts.Row]:
    """The same with another fact's answer."""
    return forget_set.answers(subject.tokenizer, probing.substituted(subject.domain.forget, subject.seed))


def as_stored(subject: Subject, settings: dict, learned: edits.Delta):
    """Weights rounded to `master` after every step, as training a model does that is stored in it; None for float32."""
    if settings.get("master", "float32") == "float32":
        return None
    weights = {
        f"{name}.weight": weight + learned.get(f"{name}.weight", 0.0) for name, weight in subject.untouched.items()
    }
    return lambda name, change: (weights[name] + change).bfloat16().float() - weights[name]


def null_space(subject: Subject, settings: dict, learned: edits.Delta):
    """Changes that leave alone what inputs of kept facts use (as AlphaEdit)."""
    names = {f"{name}.weight": projector for name, projector in subject.projectors.items()}
    return lambda name, change: change @ names[name]


def as_learned(subject: Subject, learned: edits.Delta, settings: dict) -> tuple[edits.Delta, Notes]:
    return learned, {}


def subtracted(subject: Subject, learned: edits.Delta, settings: dict) -> tuple[edits.Delta, Notes]:
    """Minus `strength` times what was learned."""
    return {name: -settings["strength"] * change for name, change in learned.items()}, {}


def permanent(
    subject: Subject, learned: edits.Delta, settings: dict, *, floored: bool = True
) -> tuple[edits.Delta, Notes]:
    """Changes floored to a bin's width or dropped, as `mansu.permanent`; its notes."""
    limits = {"budget": settings["budget"], "reach": settings["reach"], "floored": floored}
    return mansu.permanent(subject.model, learned, subject.slope, subject.fisher, **limits)


# -- the methods ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Method:
    """How a model is made to forget.

    objective: of `objectives`; options: its keywords where they are not the defaults. where: of `places`. forgets: rows
    of the subject. project(subject, settings, learned): what `edits.train` does to a weight's change after every step;
    learned: earlier rounds' changes. finish(subject, learned, settings): the update made of it, and notes.
    """

    objective: str
    options: dict = field(default_factory=dict)
    where: Callable[[Subject, dict], places.Masks | None] = places.all_linear
    forgets: Callable[[Subject], list[facts.Row]] = answers
    project: Callable[[Subject, dict, edits.Delta], Callable | None] = as_stored
    finish: Callable[[Subject, edits.Delta, dict], tuple[edits.Delta, Notes]] = as_learned


SIMNPO = {"gamma": 1.0, "beta": 0.5}  # at the usual 0.125 and 4.5 it does not forget here: see `03_baselines`


def _mansu(objective: str = "simnpo", where=places.circuit, finish=permanent) -> Method:
    return Method(objective, SIMNPO if objective == "simnpo" else {}, where, finish=finish)


METHODS = {
    "GA": Method("ascent"),
    "GradDiff": Method("graddiff"),
    "NPO": Method("npo"),
    "NPO + KL": Method("npo", {"keep": "kl"}),
    "SimNPO": Method("simnpo", SIMNPO),
    "RMU": Method("rmu", {"layer": 7, "scale": 20.0, "alpha": 10.0}, places.mlp_outputs),
    "task vector": Method("learn", finish=subtracted),
    "LoRA": Method("npo", where=places.adapters),
    "SURE": Method("npo", where=places.strongest_rows),
    "null space": Method("npo", project=null_space),
    "last block": Method("npo", where=places.last_block),
    "other answer": Method("learn", where=places.last_block, forgets=other_answers),
    "MANSU": _mansu(),
    "MANSU, NPO": _mansu("npo"),
    "MANSU, no floor": _mansu(finish=partial(permanent, floored=False)),
    "MANSU, no projection": _mansu(where=places.no_projection),
    "MANSU, no circuit": _mansu(where=places.no_circuit),
    "MANSU, random circuit": _mansu(where=places.random_circuit),
}


def named(method: str) -> Method:
    """A method by its name. Raises ValueError for an unknown one."""
    if method not in METHODS:
        raise ValueError(f"unknown method {method!r}: choose one of {', '.join(METHODS)}")
    return METHODS[method]


def masks(method: str, subject: Subject, settings: dict) -> places.Masks | None:
    """Where a method may act: bool masks by parameter name, None: low-rank adapters. Raises ValueError as `places`."""
    of = named(method)
    return of.where(subject, settings | {"options": of.options | settings.get("options", {})})


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
    of = named(method)
    if settings.get("until") is not None and settings.get("most", 0) < settings["steps"]:
        raise ValueError("until needs most, the steps at which to stop in any case, and at least as many as steps")
    model, s = subject.model, settings
    loss, options = objectives.OBJECTIVES[of.objective], of.options | s.get("options", {})
    forget, kept = of.forgets(subject), subject.rows[1]
    most = s["steps"] if s.get("until") is None else s["most"]
    rng = np.random.default_rng(subject.seed)
    drawn = [edits.batches(rows, s[size], most, rng) for rows, size in ((forget, "batch"), (kept, "retain_batch"))]
    within = masks(method, subject, s)
    learned, done = {}, 0
    while True:
        steps = min(s["steps"] if not done else max(1, s["steps"] // 2), most - done)

        def loss_of(step: int, done=done) -> Tensor:
            return loss(model, subject.reference, drawn[0][done + step], drawn[1][done + step], **options)

        with edits.applied(model, learned):
            more = _round(subject, loss_of, within, steps, s, of.project(subject, s, learned))
        learned, done = edits.combine([learned, more]), done + steps
        delta, notes = of.finish(subject, learned, s)
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
