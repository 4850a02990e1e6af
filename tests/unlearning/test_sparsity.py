"""The sparsity sweep's pieces against brute force."""

import pandas as pd
import pytest
import torch

from compendium import nf4
from compendium.unlearning import evaluation, sparsity
from compendium.unlearning.subject import Subject


def test_crossing_is_the_share_of_places_in_the_cell_from_which_a_step_leaves():
    """Put a weight at many places of its cell, step, and count: the mean over both directions is |step| / width."""
    levels = nf4.LEVELS.double()
    for code in (3, 8, 12):
        low, high = (levels[code - 1] + levels[code]) / 2, (levels[code] + levels[code + 1]) / 2
        places = torch.linspace(low, high, 20002).float()[1:-1]
        block = torch.zeros(len(places), nf4.BLOCK)
        block[:, 0], block[:, 1] = 1.0, places
        for step in (0.01, 0.05, 0.3):
            left = [(nf4.codes(block + d)[:, 1] != code).float().mean() for d in shifted(block, step)]
            change = torch.zeros_like(block)
            change[:, 1] = step
            assert sparsity.crossing(block, change)[:, 1].mean().item() == pytest.approx(
                torch.stack(left).mean().item(), abs=2e-3
            )


def shifted(block, step):
    up = torch.zeros_like(block)
    up[:, 1] = step
    return up, -up


def test_end_cells_and_still_weights():
    block = torch.zeros(1, nf4.BLOCK)
    block[0, :2] = torch.tensor([1.0, -0.97])
    change = torch.zeros_like(block)
    change[0, 1] = 0.05
    gap = (nf4.LEVELS[1] - nf4.LEVELS[0]).item()
    found = sparsity.crossing(block, change)
    assert found[0, 1].item() == pytest.approx(0.05 / gap, rel=1e-4)
    assert found[0, 2:].sum() == 0


@pytest.mark.parametrize("target", [0.7, 0.25])
def test_matched_is_the_least_strength_that_forgets_enough(tiny, monkeypatch, target):
    subject = Subject(tiny, None, None)
    name, weight = next(iter(tiny.named_parameters()))
    delta = {name: torch.ones_like(weight)}
    start = weight.detach().mean().item()

    def ask(subject, only):
        moved = next(tiny.parameters()).mean().item() - start
        return pd.DataFrame({"correct": [1 - moved]})

    monkeypatch.setattr(evaluation, "ask", ask)
    found = sparsity.matched(subject, delta, target)
    assert 1 - target <= found + 1e-6
    assert found <= 1 - target + 2**-6 + 1e-6
    assert sparsity.matched(subject, delta, -1.0) == 1.0
