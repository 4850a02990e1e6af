"""What the retain set minds, against one pass a row, closed forms and brute force."""

from itertools import product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from compendium import facts, models
from compendium.unlearning import fisher_information

ROWS = [facts.Row((1, 2, 3), ((4, 5),)), facts.Row((6, 7), ((8,),)), facts.Row((9, 10, 11, 12), ((13,),))]


@pytest.mark.parametrize("batch", [1, 2, 16])
def test_it_is_the_mean_of_squared_row_gradients(tiny, batch):
    found = fisher_information.diagonal(tiny, ROWS, batch=batch)
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
    fisher_information.diagonal(tiny, ROWS)
    assert not parameter.requires_grad, name
    assert all(p.requires_grad for p in list(tiny.parameters())[1:])
    assert all(p.grad is None for p in tiny.parameters())
    assert not any(module._forward_hooks for module in tiny.modules())
    with pytest.raises(ValueError, match="no rows"):
        fisher_information.diagonal(tiny, [])


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
    assert fisher_information.predicted({"w": information}, {"w": step}) == pytest.approx(change, rel=0.02)
    assert fisher_information.predicted({"w": information}, {}) == 0


def test_second_moments_leave_padding_out(tiny):
    found = fisher_information.second_moments(tiny, ROWS, batch=2)
    name = "model.layers.1.mlp.up_proj"
    seen = []
    layer = models.linear_layers(tiny)[name]
    handle = layer.register_forward_pre_hook(lambda _, args: seen.append(args[0][0]))
    for row in ROWS:
        tiny(torch.tensor([row.prompt + row.options[0]]))
    handle.remove()
    x = torch.cat(seen).detach()
    torch.testing.assert_close(found[name], x.T @ x / len(x), rtol=1e-4, atol=1e-6)
    with pytest.raises(ValueError, match="no rows"):
        fisher_information.second_moments(tiny, [])


@pytest.mark.parametrize("energy", [0.0, 0.01, 0.3])
def test_the_null_space_moves_outputs_by_at_most_its_share(energy):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(200, 12, generator=generator) * torch.logspace(0, -3, 12)
    x[:, 3] = 0  # a direction that is never used
    moment = x.T @ x / len(x)
    projector = fisher_information.null_space(moment, energy)
    torch.testing.assert_close(projector, projector.T)
    torch.testing.assert_close(projector @ projector, projector, rtol=1e-4, atol=1e-5)
    assert (x @ projector).square().sum() <= (energy + 1e-6) * x.square().sum()
    assert projector[3, 3] > 0.99
    with pytest.raises(ValueError, match="share of the second moment"):
        fisher_information.null_space(moment, 1.0)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(st.floats(0, 10), st.floats(0.01, 10)), min_size=1, max_size=8), st.floats(0, 30))
def test_choices_fit_the_budget_and_lose_less_than_one_entry(entries, budget):
    gains, costs = (torch.tensor(column) for column in zip(*entries, strict=True))
    (taken,) = fisher_information.affordable({"w": gains}, {"w": costs}, budget).values()
    assert (costs * taken).sum() <= budget + 1e-4
    best = max(
        sum(g for (g, _), use in zip(entries, choice, strict=True) if use)
        for choice in product([False, True], repeat=len(entries))
        if sum(c for (_, c), use in zip(entries, choice, strict=True) if use) <= budget
    )
    assert (gains * taken).sum().item() >= best - gains.max().item() - 1e-4


def test_choices_go_across_layers():
    gain = {"a": torch.tensor([[1.0, 0.0], [3.0, 1.0]]), "b": torch.tensor([2.0])}
    cost = {"a": torch.ones(2, 2), "b": torch.tensor([1.0])}
    taken = fisher_information.affordable(gain, cost, 2.0)
    assert taken["a"].tolist() == [[False, False], [True, False]]
    assert taken["b"].tolist() == [True]
    assert not any(part.any() for part in fisher_information.affordable(gain, cost, 0.0).values())
    with pytest.raises(ValueError, match="must not be negative"):
        fisher_information.affordable(gain, cost, -1.0)
