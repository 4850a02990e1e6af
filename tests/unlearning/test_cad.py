"""Circuit Attribution Divergence on scores whose divergence is known."""

import pytest
import torch

from compendium.unlearning.cad import divergence

CIRCUIT = torch.tensor([True, True, True, True, False, False])
SCORES = torch.tensor([4.0, -3.0, 2.0, 1.0, 0.1, 0.0])


def test_nothing_diverges_from_itself_and_quieter_is_not_erased():
    assert divergence(SCORES, SCORES, CIRCUIT) == pytest.approx({"cosine": 0, "mass": 0, "jaccard": 0, "rank": 0})
    quieter = divergence(SCORES, 0.1 * SCORES, CIRCUIT)
    assert quieter == pytest.approx({"cosine": 0, "mass": 0.9, "jaccard": 0, "rank": 0})


def test_closed_forms():
    moved = torch.tensor([0.0, 0.0, 0.0, 1.0, 5.0, 4.0])
    found = divergence(SCORES, moved, CIRCUIT)
    assert found["cosine"] == pytest.approx(1 - 1 / 30**0.5)
    assert found["mass"] == pytest.approx(0.9)
    assert divergence(SCORES, -SCORES, CIRCUIT)["cosine"] == pytest.approx(2)
    assert divergence(SCORES, -SCORES, CIRCUIT)["rank"] == pytest.approx(2)


def test_strongest_entries_may_lie_outside_the_circuit():
    swapped = SCORES.flip(0)  # its four strongest are entries 2 to 5
    assert divergence(SCORES, swapped, CIRCUIT)["jaccard"] == pytest.approx(1 - 2 / 6)


def test_edges_are_compared_like_nodes():
    edges, circuit = SCORES.view(2, 3), CIRCUIT.view(2, 3)
    assert divergence(edges, edges.flip(0), circuit) == divergence(SCORES, edges.flip(0).flatten(), CIRCUIT)


def test_clear_errors():
    with pytest.raises(ValueError, match="must have one shape"):
        divergence(SCORES, SCORES[:3], CIRCUIT)
    with pytest.raises(ValueError, match="fewer than two"):
        divergence(SCORES, SCORES, torch.zeros(6, dtype=torch.bool))
    with pytest.raises(ValueError, match="does not depend on it"):
        divergence(SCORES, torch.zeros(6), CIRCUIT)
