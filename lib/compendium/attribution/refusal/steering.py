"""Run-time baselines: add a direction to the residual stream while the model runs; the weights stay as they are.

- `behaviour`: DiffMean steering, the mean difference between reading a refusal and reading the model's own reply after
  the same prompts (Rimsky et al. 2024; CAST builds its vectors from such question x reply pairs).
- `topic`: directional addition, the mean difference at the last prompt token between prompts to refuse and prompts to
  answer (Arditi et al. 2024). There it is a refusal direction because the model refuses one kind; a model that refuses
  nothing has no such direction to find, so here it can only be the topic's.
- `Condition`: CAST (Lee et al. 2025) steers only where the prompt looks like the category. It compares a prompt's mean
  hidden state with its tanh-projection on a condition vector; we take the cosine with the centred condition vector,
  and its layer and threshold from train prompts whose wording the vector was not fitted on (largest F1).

`steered` hooks one of them in. Layer l means the stream that leaves block l; the last block is left out, because what
transformers reports for it has been normalised already.
"""

from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from compendium import facts, tokens


@torch.no_grad()
def hidden(model, rows: list[tuple[int, ...]], pool, batch: int = 32) -> Tensor:
    """(rows, layers - 1, d) pooled streams leaving all blocks but the last; pool: (stream (t, d), row) -> (d,). Raises
    ValueError for no rows, or an empty one."""
    if not rows or not all(rows):
        raise ValueError("no rows of tokens to read: the set of prompts, or one of them, is empty")
    found = []
    for start in range(0, len(rows), batch):
        part = rows[start : start + batch]
        length = max(map(len, part))
        ids = torch.tensor([list(row) + [0] * (length - len(row)) for row in part], device=model.device)
        streams = model.base_model(ids, use_cache=False, output_hidden_states=True).hidden_states[1:-1]
        for i, row in enumerate(part):
            found.append(torch.stack([pool(stream[i, : len(row)], start + i) for stream in streams]))
    return torch.stack(found)


def last(stream: Tensor, _: int) -> Tensor:
    return stream[-1]


def mean(stream: Tensor, _: int) -> Tensor:
    """Without the first token: a decoder parks attention there, and its stream is so large that it hides the rest."""
    if len(stream) < 2:
        raise ValueError("a prompt of one token has no mean without its first")
    return stream[1:].mean(0)


def behaviour(model, refuse: list[facts.Row], comply: list[facts.Row]) -> Tensor:
    """(layers, d): mean over reply tokens after refusals minus after the model's own replies, on the same prompts."""
    means = []
    for rows in (refuse, comply):
        sizes = [len(row.options[0]) for row in rows]
        whole = [row.prompt + row.options[0] for row in rows]
        means.append(hidden(model, whole, lambda stream, i, sizes=sizes: stream[-sizes[i] :].mean(0)).mean(0))
    return means[0] - means[1]


def topic(model, refuse: list[tuple[int, ...]], keep: list[tuple[int, ...]]) -> Tensor:
    """(layers, d): mean at the last prompt token of prompts to refuse minus of prompts to answer."""
    return hidden(model, refuse, last).mean(0) - hidden(model, keep, last).mean(0)


@dataclass(frozen=True)
class Condition:
    """Fires for a prompt whose mean stream after block `layer` has a cosine with `vector` above `threshold`."""

    layer: int
    vector: Tensor
    centre: Tensor
    threshold: float

    def similarity(self, states: Tensor) -> Tensor:
        """Cosine with the condition vector: states (n, d) -> (n,)."""
        return torch.cosine_similarity(states - self.centre, self.vector[None], dim=1)


def condition(model, refuse: list[list[tuple[int, ...]]], keep: list[tuple[int, ...]], plain=()) -> Condition:
    """The layer and threshold that best (F1) tell prompts to refuse in a wording left out of the fit from the rest.

    refuse: one list of prompts for each wording, at least two. Each wording is left out once, with its share of keep
    and plain; a threshold chosen on wordings that the vector was fitted on would be too high for any other. plain:
    rows without the chat template. They count where the condition must not fire, but the vector is not fitted on them:
    the template sets them apart before anything else does. Raises ValueError for fewer wordings, or fewer prompts to
    keep than wordings.
    """
    if len(refuse) < 2 or len(keep) < len(refuse) or not all(refuse):
        raise ValueError(
            f"a condition needs two wordings at least, and as many prompts to keep; got {len(refuse)} and {len(keep)}"
        )
    wording = torch.from_numpy(np.repeat(np.arange(len(refuse)), [len(rows) for rows in refuse]))
    parts = [[row for rows in refuse for row in rows], keep, plain]
    yes, no, other = (hidden(model, list(rows), mean) if len(rows) else None for rows in parts)
    fold = torch.arange(len(no)) % len(refuse)
    best = (-1.0, None)
    for layer in range(yes.shape[1]):
        found = []
        for left_out in range(len(refuse)):
            fit = _condition(layer, yes[wording != left_out, layer], no[fold != left_out, layer])
            found.append([fit.similarity(yes[wording == left_out, layer]), fit.similarity(no[fold == left_out, layer])])
            if other is not None:
                found[-1].append(fit.similarity(other[left_out :: len(refuse), layer]))
        values = torch.cat([part for parts in found for part in parts]).cpu().numpy()
        truth = np.repeat([i == 0 for parts in found for i in range(len(parts))], [len(p) for ps in found for p in ps])
        for threshold in np.quantile(values, np.linspace(0.02, 0.98, 97)):
            fired = values > threshold
            f1 = 2 * (fired & truth).sum() / (fired.sum() + truth.sum())
            if f1 > best[0]:
                best = (f1, replace(_condition(layer, yes[:, layer], no[:, layer]), threshold=float(threshold)))
    return best[1]


def _condition(layer: int, yes: Tensor, no: Tensor) -> Condition:
    means = yes.mean(0), no.mean(0)
    return Condition(layer, means[0] - means[1], (means[0] + means[1]) / 2, 0.0)


@contextmanager
def steered(model, vector: Tensor, layers, strength: float, when: Condition | None = None):
    """Within the block, strength * vector[l] is added at every position to what leaves each block l in `layers`.

    vector: (layers, d). when: decided once per prompt, at its first pass, as in CAST; the pass that decides runs
    unsteered first, which costs a second one. Prompts may be padded on the left (with an attention mask). Raises
    ValueError for layers that the vector does not have, for none, and for a model whose blocks are not found.
    """
    blocks = getattr(model.get_decoder(), "layers", ())
    layers = list(layers)
    if not len(blocks) - 1 <= len(vector) <= len(blocks) or vector.shape[1:] != (model.config.hidden_size,):
        raise ValueError(
            f"a vector of shape {tuple(vector.shape)} does not fit this {type(model).__name__}: it needs a row of "
            f"{model.config.hidden_size} numbers for each of its {len(blocks)} layers (the last may be left out)"
        )
    if not layers or any(not 0 <= layer < len(vector) for layer in layers):
        raise ValueError(f"layers {layers} are to be steered: name at least one, from 0 to {len(vector) - 1}")
    live = {"gate": None, "probing": False}

    def add(layer):
        def hook(_, __, output):
            if live["probing"]:
                return output
            change = strength * vector[layer].to(output)
            return output + (change if live["gate"] is None else live["gate"][:, None, None] * change)

        return hook

    def decide(_, args, kwargs):
        ids = kwargs.get("input_ids", args[0] if args else None)
        past = kwargs.get("past_key_values")
        if live["probing"] or (past is not None and past.get_seq_length() > 0):
            return
        live["probing"] = True
        mask = kwargs.get("attention_mask")
        if mask is None:
            mask = torch.ones_like(ids)
        elif mask.ndim == 4:  # packed questions: real tokens see the first one, padding only itself
            mask = (mask[:, 0, :, 0] == 0).long()
        states = []
        handle = blocks[when.layer].register_forward_hook(lambda _, __, output: states.append(output))
        model.base_model(ids, attention_mask=mask, use_cache=False, **tokens.positions(model, mask))
        handle.remove()
        live["probing"] = False
        mask = mask * (mask.cumsum(1) > 1)  # as `mean` pools
        means = (states[0] * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
        live["gate"] = (when.similarity(means) > when.threshold).to(means)

    handles = [blocks[layer].register_forward_hook(add(layer)) for layer in layers]
    if when is not None:
        handles.append(model.base_model.register_forward_pre_hook(decide, with_kwargs=True))
    try:
        yield model
    finally:
        for handle in handles:
            handle.remove()
