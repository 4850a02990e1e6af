"""The residual-stream graph of a decoder: who writes to the stream, who reads from it.

Every part of a pre-norm decoder adds its output to one residual stream, and every part reads the sum of what was
written before it. So the model is a graph: *sources* are the token embedding, every attention head and every MLP;
*destinations* are the q, k and v input of every head, the input of every MLP, and the logits. An edge u -> v is the
contribution of source u to what destination v reads. Query, key and value inputs are told apart for every *query*
head, also where heads share keys and values (grouped-query attention), as in Hanna et al. 2024 (EAP-IG).

Scores and masks are arrays of shape (sources, destinations); impossible edges hold zero or False.
"""

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor


@dataclass(frozen=True)
class Graph:
    """Index arithmetic for a model of `layers` layers with `heads` query heads each."""

    layers: int
    heads: int
    parallel: bool = False  # whether an MLP reads the stream before its layer's heads have written to it (GPT-NeoX)

    @property
    def n_sources(self) -> int:
        return 1 + self.layers * (self.heads + 1)

    @property
    def n_destinations(self) -> int:
        return self.layers * (3 * self.heads + 1) + 1

    @property
    def logits(self) -> int:
        """Destination index of the logits."""
        return self.n_destinations - 1

    def head(self, layer: int, head: int) -> int:
        """Source index of an attention head."""
        return 1 + layer * (self.heads + 1) + head

    def mlp(self, layer: int) -> int:
        """Source index of an MLP."""
        return self.head(layer, self.heads)

    def reads(self, layer: int, kind: str) -> slice:
        """Destination indices of a layer's inputs: kind "q", "k", "v" (one per head), "attention" (all) or "mlp"."""
        start = layer * (3 * self.heads + 1)
        if kind == "mlp":
            return slice(start + 3 * self.heads, start + 3 * self.heads + 1)
        if kind == "attention":
            return slice(start, start + 3 * self.heads)
        offset = start + "qkv".index(kind) * self.heads
        return slice(offset, offset + self.heads)

    def before(self, layer: int, kind: str) -> int:
        """How many sources come before a layer's "attention" or "mlp" input: those indexed lower feed it."""
        return self.head(layer, 0 if kind == "attention" or self.parallel else self.heads)

    @cached_property
    def source_names(self) -> list[str]:
        return ["input"] + [
            name
            for layer in range(self.layers)
            for name in [*(f"a{layer}.h{head}" for head in range(self.heads)), f"m{layer}"]
        ]

    @cached_property
    def destination_names(self) -> list[str]:
        names = []
        for layer in range(self.layers):
            names += [f"a{layer}.h{head}<{kind}>" for kind in "qkv" for head in range(self.heads)]
            names.append(f"m{layer}")
        return [*names, "logits"]

    @cached_property
    def owner(self) -> Tensor:
        """(destinations,) source index of the node that each destination belongs to; the logits own none: -1."""
        owners = []
        for layer in range(self.layers):
            owners += [self.head(layer, head) for _ in "qkv" for head in range(self.heads)]
            owners.append(self.mlp(layer))
        return torch.tensor([*owners, -1])

    @cached_property
    def possible(self) -> Tensor:
        """(sources, destinations) bool: which edges exist."""
        mask = torch.zeros(self.n_sources, self.n_destinations, dtype=torch.bool)
        for layer in range(self.layers):
            mask[: self.before(layer, "attention"), self.reads(layer, "attention")] = True
            mask[: self.before(layer, "mlp"), self.reads(layer, "mlp")] = True
        mask[:, self.logits] = True
        return mask

    @property
    def n_edges(self) -> int:
        return int(self.possible.sum())
