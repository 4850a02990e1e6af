"""Diagonal Fisher information against one backward pass a row."""

import pytest
import torch

from compendium import facts, models
from compendium.unlearning import fisher

ROWS = [facts.Row((1, 2, 3), ((4, 5),)), facts.Row((6, 7), ((8,),)), facts.Row((9, 10, 11, 12), ((13,),))]


@pytest.mark.parametrize("batch", [1, 2, 16])
def test_it_is_the_mean_of_squared_row_gradients(tiny, batch):
    found = fisher.diagonal(tiny, ROWS, batch=batch)
    layers = models.linear_layers(tiny)
    assert set(found) == set(layers)
    expected = {name: torch.zeros_like(layer.weight) for name, layer in layers.items()}
    for row in ROWS:
        tiny.zero_grad()
        facts.log_probs(tiny, [row])[0].sum().backward()
        for name, layer in layers.items():
            expected[name] += layer.weight.grad**2 / len(ROWS)
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-4, atol=1e-9)


def test_it_leaves_the_model_as_it_was(tiny):
    name, parameter = next(iter(tiny.named_parameters()))
    parameter.requires_grad_(False)
    fisher.diagonal(tiny, ROWS)
    assert not parameter.requires_grad, name
    assert all(p.requires_grad for p in list(tiny.parameters())[1:])
    assert all(p.grad is None for p in tiny.parameters())
    assert not any(module._forward_hooks for module in tiny.modules())
    with pytest.raises(ValueError, match="no rows"):
        fisher.diagonal(tiny, [])


def test_it_predicts_the_loss_of_a_calibrated_model():
    """Where answers are drawn from the model itself, the Fisher information is the loss's curvature."""
    torch.manual_seed(0)
    weight = torch.randn(5, 3)
    x = torch.randn(4, 3)
    probability = (x @ weight.T).softmax(-1)
    information = torch.zeros(5, 3)
    for i in range(4):
        for label in range(5):
            gradient = (torch.nn.functional.one_hot(torch.tensor(label), 5) - probability[i])[:, None] * x[i]
            information += probability[i, label] * gradient**2 / 4
    step = torch.zeros(5, 3)
    step[2, 1] = 1e-2
    change = -(probability * ((x @ (weight + step).T).log_softmax(-1) - probability.log())).sum(-1).mean().item()
    assert fisher.predicted({"w": information}, {"w": step}) == pytest.approx(change, rel=0.02)
    assert fisher.predicted({"w": information}, {}) == 0
