"""Where an unlearning method may act: functions `(subject, settings) -> bool masks by parameter name`.

settings: of `methods.unlearn`, with the objective's options under `options`. Each raises ValueError for a model without
the part that it names. None instead of masks: through low-rank adapters.
"""

from functools import partial

import torch
from torch import Tensor

from compendium import edits
from compendium.attribution import circuits
from compendium.unlearning import mansu
from compendium.unlearning.subject import Subject

Masks = dict[str, Tensor]


def all_linear(subject: Subject, settings: dict) -> Masks:
    """All linear weights."""
    return edits.everywhere(subject.model)


def adapters(subject: Subject, settings: dict) -> None:
    """Low-rank adapters on all linear layers."""


def blocks_of(model):
    """The model's blocks, in order. Raises ValueError where they are not found."""
    blocks = getattr(model.get_decoder(), "layers", None)
    if not isinstance(blocks, torch.nn.ModuleList) or not len(blocks):
        raise ValueError(f"the blocks of this {type(model).__name__} are not found: choose a model such as Llama")
    return blocks


def last_block(subject: Subject, settings: dict) -> Masks:
    """All linear weights of the last block."""
    last = {id(weight) for weight in blocks_of(subject.model)[-1].parameters()}
    weights = dict(subject.model.named_parameters())
    return {name: mask for name, mask in edits.everywhere(subject.model).items() if id(weights[name]) in last}


def down_projections(subject: Subject, settings: dict) -> Masks:
    """The weights with which the MLPs of the three blocks up to hidden state `options.layer` write to the stream."""
    model, layer = subject.model, settings["options"]["layer"]
    blocks = blocks_of(model)
    if not 1 <= layer <= len(blocks):
        raise ValueError(f"RMU's layer is {layer}: it must be from 1 to {len(blocks)}, the blocks of this model")
    names, everywhere = {id(weight): name for name, weight in model.named_parameters()}, edits.everywhere(model)
    found = {}
    for i in range(max(0, layer - 3), layer):
        part = getattr(getattr(blocks[i], "mlp", None), "down_proj", None)
        if not isinstance(part, torch.nn.Linear):
            raise ValueError(
                f"block {i} of this {type(model).__name__} has no linear layer mlp.down_proj for RMU to train: choose "
                "a model such as Llama, Mistral or Qwen2"
            )
        name = names[id(part.weight)]
        found[name] = everywhere[name]
    return found


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
