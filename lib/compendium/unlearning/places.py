"""Where an unlearning method may act: functions `(subject, settings) -> bool masks by parameter name`.

settings: of `methods.unlearn`, with the objective's options under `options`. Each raises ValueError for a model without
the part that it names. None instead of masks: through low-rank adapters.
"""

from functools import partial

import torch
from torch import Tensor

from compendium import edits
from compendium.attribution import circuits, nodes
from compendium.unlearning import mansu
from compendium.unlearning.subject import Subject

Masks = dict[str, Tensor]


def all_linear(subject: Subject, settings: dict) -> Masks:
    """All linear weights."""
    return edits.everywhere(subject.model)


def adapters(subject: Subject, settings: dict) -> None:
    """Low-rank adapters on all linear layers."""


def last_block(subject: Subject, settings: dict) -> Masks:
    """All linear weights of the last block."""
    last = {id(weight) for weight in nodes.blocks(subject.model)[-1].parameters()}
    weights = dict(subject.model.named_parameters())
    return {name: mask for name, mask in edits.everywhere(subject.model).items() if id(weights[name]) in last}


def mlp_outputs(subject: Subject, settings: dict) -> Masks:
    """The weights with which the MLPs of the three blocks up to hidden state `options.layer` write to the stream."""
    model, layer = subject.model, settings["options"]["layer"]
    found = nodes.parts(model)
    if not 1 <= layer <= len(found):
        raise ValueError(f"RMU's layer is {layer}: it must be from 1 to {len(found)}, the blocks of this model")
    names, everywhere = {id(weight): name for name, weight in model.named_parameters()}, edits.everywhere(model)
    masks = {}
    for i, (_, part) in list(enumerate(found))[max(0, layer - 3) : layer]:
        if part is None or not isinstance(part.module, torch.nn.Linear):
            raise ValueError(
                f"block {i} of this {type(model).__name__} has no linear layer with which an MLP writes to the stream, "
                "for RMU to train: choose a model without mixtures of experts"
            )
        name = names[id(part.module.weight)]
        masks[name] = everywhere[name]
    return masks


def strongest_rows(subject: Subject, settings: dict) -> Masks:
    """The share `rows` of all rows, by norm of the forget gradient (SURE: Zhang et al. 2025)."""
    norms = {name: part.norm(dim=1) for name, part in subject.slope.items()}
    least = torch.cat(list(norms.values())).quantile(1 - settings["rows"])
    chosen = {f"{name}.weight": (norm >= least)[:, None] for name, norm in norms.items()}
    return {name: mask & chosen[name] for name, mask in edits.everywhere(subject.model).items() if chosen[name].any()}


def _support(subject: Subject, settings: dict, *, nodes: str = "circuit", fisher: bool = True) -> Masks:
    """MANSU's weights: the share `share` of those within nodes, by forget gradient and Fisher information.

    nodes: "circuit", the strongest that hold the share `circuit` of the weights; "random", as many; "all".
    fisher: else the forget gradient alone chooses.
    """
    within = edits.everywhere(subject.model)
    if nodes != "all":
        score = subject.scores.sum(1)
        if nodes == "random":
            score = torch.rand(score.shape, generator=torch.Generator().manual_seed(subject.seed))
        kept = mansu.circuit(subject.decoder, score.cpu(), settings["circuit"])
        within = circuits.parameter_mask(subject.decoder, kept)
    known = subject.fisher if fisher else None
    return mansu.support(subject.slope, known, within, settings["share"], damping=settings["damping"])


circuit = partial(_support)
random_circuit = partial(_support, nodes="random")
no_circuit = partial(_support, nodes="all")
no_projection = partial(_support, fisher=False)
