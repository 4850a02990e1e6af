"""A model and what it should forget: the subject of every method."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from compendium import facts
from compendium.attribution.decoder import Decoder
from compendium.unlearning import code_flips, fisher_information, forget_set, mansu, objectives, probing


@dataclass
class Subject:
    """A model and what it should forget, with everything several methods share, computed once when first asked for."""

    model: torch.nn.Module
    tokenizer: object
    domain: forget_set.Domain
    seed: int = 0
    fisher_rows: int = 96
    ig_steps: int = 5
    memory: float | None = None  # gigabytes beside the weights, for attribution and for gradients

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
        return Decoder(self.model.requires_grad_(False), self.memory)

    @cached_property
    def pairs(self) -> list:
        return probing.contrast(self.tokenizer, self.domain.forget, seed=self.seed)

    @cached_property
    def scores(self) -> Tensor:
        """EAP-IG edge scores of the facts to forget, (sources, destinations)."""
        return probing.attribute(self.decoder, self.pairs, steps=self.ig_steps)

    @cached_property
    def slope(self) -> dict[str, Tensor]:
        return mansu.gradient(self.model, self.rows[0], memory=self.memory)

    @cached_property
    def fisher(self) -> dict[str, Tensor]:
        kept = self.rows[1]
        chosen = np.random.default_rng(self.seed).permutation(len(kept))[: self.fisher_rows]
        return fisher_information.diagonal(self.model, [kept[i] for i in chosen], memory=self.memory)

    @cached_property
    def projectors(self) -> dict[str, Tensor]:
        return {
            name: fisher_information.null_space(m)
            for name, m in fisher_information.second_moments(self.model, self.rows[1]).items()
        }
