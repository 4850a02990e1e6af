"""Objectives by hand, training, and what updates do to codes."""

import math

import numpy as np
import pytest
import torch

from compendium import edits, facts, formats, models, nf4
from compendium.unlearning import code_flips, objectives, plain_updates

ROWS = [facts.Row((3, 5, 7), ((11, 13),)), facts.Row((2, 4), ((6,),)), facts.Row((9, 8, 1, 2), ((10, 12, 14),))]


def by_hand(model, row):
    ids = torch.tensor([[*row.prompt, *row.options[0]]])
    logs = model(ids).logits.float().log_softmax(-1)[0]
    return sum(logs[len(row.prompt) - 1 + i, t] for i, t in enumerate(row.options[0])).item()


@pytest.mark.parametrize("sequence", [5, 11, 256])
def test_rows_end_to_end_are_rows_apart(tiny, monkeypatch, sequence):
    monkeypatch.setattr(objectives, "SEQUENCE", sequence)
    weight = next(iter(models.linear_layers(tiny).values())).weight.requires_grad_(True)
    found = []
    for log_probs in (objectives.log_probs, facts.log_probs):
        total, count = (part.flatten() for part in log_probs(tiny, ROWS))
        found.append((total, count, *torch.autograd.grad((total / count).sum(), weight)))
    for ours, padded in zip(*found, strict=True):
        torch.testing.assert_close(ours, padded, rtol=1e-4, atol=1e-6)


def test_losses_equal_hand_computations(tiny):
    forget, retain = ROWS[:2], ROWS[2:]
    reference = objectives.Reference(tiny)
    before = [by_hand(tiny, row) for row in forget]
    torch.testing.assert_close(reference(forget), torch.tensor(before), rtol=1e-4, atol=1e-5)
    with torch.no_grad():
        for layer in models.linear_layers(tiny).values():
            layer.weight.mul_(1.1)
    after = [by_hand(tiny, row) for row in forget]
    keep = -by_hand(tiny, retain[0]) / 3
    nll = -(after[0] / 2 + after[1]) / 2
    assert objectives.gradient_difference(tiny, reference, forget, retain, alpha=2).item() == pytest.approx(
        -nll + 2 * keep, rel=1e-4
    )
    beta = 0.3
    sigmoid = lambda z: 1 / (1 + math.exp(-z))
    expected = (
        -2 / beta * sum(math.log(sigmoid(-beta * (a - b))) for a, b in zip(after, before, strict=True)) / 2 + keep
    )
    assert objectives.npo(tiny, reference, forget, retain, beta=beta).item() == pytest.approx(expected, rel=1e-4)
    assert objectives.ascent(tiny, reference, forget, retain).item() == pytest.approx(-nll, rel=1e-4)
    assert objectives.learn(tiny, reference, forget, retain).item() == pytest.approx(nll, rel=1e-4)
    lengths = [2, 1]
    losses = [math.log(sigmoid(4.5 * (-a / n - 0.1))) for a, n in zip(after, lengths, strict=True)]
    expected = -0.125 * 2 / 4.5 * sum(losses) / 2 + 3 * keep
    assert objectives.simnpo(tiny, reference, forget, retain, delta=0.1, alpha=3).item() == pytest.approx(
        expected, rel=1e-4
    )


def test_kl_compares_every_answer_token_with_the_original(tiny):
    reference = objectives.Reference(tiny)
    assert objectives.kl(tiny, reference, ROWS).item() == pytest.approx(0, abs=1e-6)
    original = {row: _answer_logs(tiny, row) for row in ROWS}
    with torch.no_grad():
        for layer in models.linear_layers(tiny).values():
            layer.weight.mul_(1.3)
    each = []
    for row in ROWS:
        before, after = original[row], _answer_logs(tiny, row)
        each.append((before.exp() * (before - after)).sum(-1))
    expected = torch.cat(each).mean().item()
    assert expected > 1e-3
    assert objectives.kl(tiny, reference, ROWS).item() == pytest.approx(expected, rel=1e-3)


@torch.no_grad()
def _answer_logs(model, row):
    logs = model(torch.tensor([[*row.prompt, *row.options[0]]])).logits.float().log_softmax(-1)[0]
    return logs[len(row.prompt) - 1 : -1].clone()


def test_rmu_pulls_forget_rows_to_one_direction_and_holds_the_rest(tiny):
    reference, forget, retain = objectives.Reference(tiny), ROWS[:2], ROWS[2:]

    def stream(model, row):
        ids = torch.tensor([[*row.prompt, *row.options[0]]])
        return model(ids, output_hidden_states=True).hidden_states[1][0]

    held = objectives.rmu(tiny, reference, forget, retain, layer=1, scale=3.0, alpha=0.0, seed=4)
    direction = torch.randn(tiny.config.hidden_size, generator=torch.Generator().manual_seed(4))
    gone = torch.cat([stream(tiny, row) for row in forget])
    expected = ((gone - 3.0 * direction / direction.norm()) ** 2).mean().item()
    assert held.item() == pytest.approx(expected, rel=1e-4)
    assert objectives.rmu(tiny, reference, forget, retain, layer=1, scale=3.0, alpha=9.0, seed=4).item() == (
        pytest.approx(expected, rel=1e-4)
    )
    with pytest.raises(ValueError, match="layer 40 is not one"):
        objectives.rmu(tiny, reference, forget, retain, layer=40)


def test_npo_starts_as_gradient_ascent(tiny):
    """At the original weights the gradient of NPO equals that of the summed log-probability (Zhang et al. 2024)."""
    reference = objectives.Reference(tiny)
    weight = tiny.model.layers[0].mlp.up_proj.weight
    (npo,) = torch.autograd.grad(objectives.npo(tiny, reference, ROWS, ROWS, alpha=0), weight)
    (ascent,) = torch.autograd.grad(facts.log_probs(tiny, ROWS)[0].mean(), weight)
    torch.testing.assert_close(npo, ascent, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("objective", ["graddiff", "npo"])
@pytest.mark.parametrize("lora_rank", [0, 4])
def test_training_forgets_and_touches_linear_layers_only(tiny, objective, lora_rank):
    reference = objectives.Reference(tiny)
    start = {name: p.detach().clone() for name, p in tiny.named_parameters()}
    layers = list(models.linear_layers(tiny))
    before = objectives.nll(tiny, ROWS[:2]).item()
    steps = list(
        plain_updates.unlearn(
            tiny, ROWS[:2], ROWS[2:], objective, learning_rate=3e-3, steps=6, batch=2, look_at=(2,), lora_rank=lora_rank
        )
    )
    assert steps == ([6] if lora_rank else [2, 6])
    assert objectives.nll(tiny, ROWS[:2]).item() > before
    moved = {name for name, p in tiny.named_parameters() if not torch.equal(p, start[name])}
    assert moved
    assert moved <= {f"{name}.weight" for name in models.linear_layers(tiny)}
    assert reference(ROWS).shape == (3,)
    assert list(models.linear_layers(tiny)) == layers


def test_training_repeats_bit_for_bit(tiny):
    start = {name: p.detach().clone() for name, p in tiny.named_parameters()}
    ends = []
    for _ in range(2):
        tiny.load_state_dict(start, strict=False)
        list(plain_updates.unlearn(tiny, ROWS, ROWS, "npo", learning_rate=1e-3, steps=3, batch=2, seed=5))
        ends.append({name: p.detach().clone() for name, p in tiny.named_parameters()})
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in start)


def test_batches_show_every_row_before_any_twice():
    drawn = [row for batch in edits.batches([0, 1, 2, 3, 4], 2, 5, np.random.default_rng(0)) for row in batch]
    assert sorted(drawn[:5]) == sorted(drawn[5:]) == [0, 1, 2, 3, 4]


def test_bad_training_arguments_are_refused(tiny):
    for arguments, message in (
        (dict(objective="gd", learning_rate=1e-3), "choose one of ascent, graddiff"),
        (dict(objective="npo", learning_rate=0), "must be positive"),
    ):
        with pytest.raises(ValueError, match=message):
            next(plain_updates.unlearn(tiny, ROWS, ROWS, steps=1, **arguments))
    with pytest.raises(ValueError, match="both a forget set and a retain set"):
        next(plain_updates.unlearn(tiny, [], ROWS, "npo", learning_rate=1e-3, steps=1))


def test_compare_equals_direct_computation(tiny):
    before = code_flips.snapshot(tiny)
    torch.manual_seed(1)
    with torch.no_grad():
        for layer in models.linear_layers(tiny).values():
            layer.weight.add_(1e-4 * torch.randn_like(layer.weight))
    found = code_flips.compare(before, tiny, density=code_flips.boundary_density(before))
    old = torch.cat([w.flatten() for w in before.values()])
    new = torch.cat([layer.weight.detach().flatten() for layer in models.linear_layers(tiny).values()])
    delta, gain = new - old, formats.roundtrip(new, "nf4") - formats.roundtrip(old, "nf4")
    g = nf4.geometry(old)
    assert found["update_mean"] == pytest.approx(delta.abs().mean().item(), rel=1e-5)
    assert found["ratio_mean_gap"] == pytest.approx(
        nf4.MEAN_GAP * g.absmax.mean().item() / delta.abs().mean().item(), rel=1e-4
    )
    gap = torch.where(delta > 0, g.gap_up, g.gap_down)
    assert found["ratio_local_gap"] == pytest.approx(gap.nanmean().item() / delta.abs().mean().item(), rel=1e-4)
    assert found["flips"] == pytest.approx((nf4.codes(new) != g.codes).float().mean().item(), rel=1e-5)
    assert found["slope"] == pytest.approx((gain @ delta / (delta @ delta)).item(), rel=1e-3)
    assert found["correlation"] == pytest.approx((gain @ delta / gain.norm() / delta.norm()).item(), rel=1e-3)
    assert found["changed_in_bf16"] == pytest.approx((new.bfloat16() != old.bfloat16()).float().mean().item(), rel=1e-5)


def test_small_gaussian_updates_flip_as_predicted_and_arrive_on_average(tiny):
    """Closed form for Gaussian weights: flips = 1.26 / ratio, slope 1, control slope 0."""
    layer = torch.nn.Linear(2048, 2048, bias=False)

    class Model(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = layer

        def get_output_embeddings(self):
            return None

    model = Model()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        layer.weight.normal_(0, 0.02, generator=generator)
        before = code_flips.snapshot(model)
        delta = 3e-5 * torch.randn(layer.weight.shape, generator=generator)
        layer.weight.add_(delta.masked_fill(nf4.geometry(layer.weight).is_absmax, 0))  # scales stay
    found = code_flips.compare(before, model, density=code_flips.boundary_density(before))
    assert found["flips"] * found["ratio_mean_gap"] == pytest.approx(1.26, abs=0.05)
    assert found["flips"] == pytest.approx(found["flips_predicted"], rel=0.05)
    assert found["flips_control"] == pytest.approx(found["flips"], rel=0.05)
    assert found["slope"] == pytest.approx(1, abs=0.1)
    assert abs(found["slope_control"]) < 0.1


def test_no_update_is_an_error(tiny):
    with pytest.raises(ValueError, match="no update to measure"):
        code_flips.compare(code_flips.snapshot(tiny), tiny, density=9.5)


def test_describe_reports_bin_widths():
    weight = torch.randn(64, 64, generator=torch.Generator().manual_seed(0))
    found = code_flips.describe(weight)
    assert found["weights"] == 4096
    assert found["gap_mean"] == pytest.approx(nf4.block_absmax(weight).mean().item() * 2 / 15, rel=1e-6)
    assert found["gap_min"] < found["gap_local"] < found["gap_mean"] * 2


def test_adapters_that_would_reach_the_head_are_refused(tiny):
    tiny.lm_head = torch.nn.ModuleDict()
    tiny.q_proj = torch.nn.Linear(64, 97, bias=False)  # a head with the name of a layer, as peft sees it
    tiny.get_output_embeddings = lambda: tiny.q_proj
    for train_ in (
        lambda: next(plain_updates.unlearn(tiny, ROWS, ROWS, "learn", learning_rate=1e-3, steps=1, lora_rank=2)),
        lambda: edits.lora(tiny, None, rank=2, steps=1, learning_rate=1e-3),
    ):
        with pytest.raises(ValueError, match="q_proj is the difference"):
            train_()
        assert not any("lora" in name for name, _ in tiny.named_parameters())


@pytest.mark.parametrize("given", [{"steps": 0}, {"steps": -1}, {"learning_rate": 0.0}, {"learning_rate": math.inf}])
def test_an_edit_that_would_train_nothing_is_refused(tiny, given):
    settings = {"steps": 1, "learning_rate": 1e-3} | given
    with pytest.raises(ValueError, match="nothing would be trained"):
        edits.train(tiny, lambda step: None, edits.everywhere(tiny), **settings)
