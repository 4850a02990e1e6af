"""Policy losses: by hand, by property, and against TRL's own code on the same tensors."""

from collections import defaultdict
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from compendium.policy_opt import divergences, losses

SHAPE = (4, 6)
logps = hnp.arrays("float64", SHAPE, elements=st.floats(-12, 0))
signed = hnp.arrays("float64", SHAPE[:1], elements=st.floats(-3, 3))
masks = hnp.arrays("bool", SHAPE)


def tensors(seed=0, dtype=torch.float64, rows=4, length=6):
    """logp, old_logp, ref_logp, advantages, mask of a batch with rows of several lengths."""
    generator = torch.Generator().manual_seed(seed)
    logp = -3 * torch.rand(rows, length, generator=generator, dtype=dtype)
    near = lambda: logp + 0.3 * torch.randn(rows, length, generator=generator, dtype=dtype)
    lengths = torch.randint(1, length + 1, (rows, 1), generator=generator)
    advantages = torch.randn(rows, generator=generator, dtype=dtype)
    return logp, near(), near(), advantages, torch.arange(length) < lengths


def named(name, **more):
    return lambda *batch: losses.LOSSES[name](*batch, **({"length": 9} if name == "dr_grpo" else {}), **more)


def by_hand(logp, old, ref, advantages, mask, weights, low, high, coefficient):
    """Per-token losses, one at a time."""
    made = torch.zeros_like(logp)
    for i, t in mask.nonzero().tolist():
        r, a = (logp[i, t] - old[i, t]).exp().item(), advantages[i].item()
        kl = (ref[i, t] - logp[i, t]).exp().item() - (ref[i, t] - logp[i, t]).item() - 1
        made[i, t] = -weights[i, t].item() * min(r * a, min(max(r, 1 - low), 1 + high) * a) + coefficient * kl
    return made


def test_every_aggregation_by_hand():
    logp, old, ref, advantages, mask = tensors()
    weights = torch.rand(SHAPE, dtype=torch.float64)
    options = dict(token_weights=weights, divergence=divergences.k3, coefficient=0.3)
    loss = by_hand(logp, old, ref, advantages, mask, weights, 0.2, 0.2, 0.3)
    rows = torch.stack([loss[i, mask[i]].mean() for i in range(len(loss))])
    batch = logp, old, ref, advantages, mask
    torch.testing.assert_close(losses.grpo(*batch, **options), rows.mean())
    torch.testing.assert_close(losses.dr_grpo(*batch, length=9, **options), loss.sum() / (len(loss) * 9))
    loss = by_hand(logp, old, ref, advantages, mask, weights, 0.2, 0.28, 0.3)
    torch.testing.assert_close(losses.dapo(*batch, **options), loss[mask].mean())
    torch.testing.assert_close(losses.dapo(*batch, total=100, **options), loss.sum() / 100)


def test_the_divergence_can_be_weighed_too():
    logp, old, ref, advantages, mask = tensors()
    weights = torch.rand(SHAPE, dtype=torch.float64)
    options = dict(token_weights=weights, divergence=divergences.log_l2, coefficient=0.1)
    without = losses.dapo(logp, old, ref, advantages, mask, weights)
    term = 0.1 * (logp - ref) ** 2
    for weigh, expected in ((False, term), (True, weights * term)):
        found = losses.dapo(logp, old, ref, advantages, mask, weigh_divergence=weigh, **options)
        torch.testing.assert_close(found, without + expected[mask].mean())


@settings(deadline=None, max_examples=50)
@given(logps, logps, signed, st.floats(0.01, 0.5), st.floats(0.01, 0.5))
def test_clipping_is_a_pessimistic_bound_and_stops_gradients(logp, old, advantages, low, high):
    logp, old, advantages = (torch.from_numpy(x.copy()) for x in (logp, old, advantages))
    logp.requires_grad_(True)
    mask = torch.ones(SHAPE)
    loss = losses.policy_loss(logp, old, None, advantages, mask, low=low, high=high)
    free = -((logp - old).exp() * advantages[:, None]).mean()
    assert loss >= free - 1e-9 * free.abs()
    (gradient,) = torch.autograd.grad(loss, logp)
    ratio = (logp - old).exp()
    beyond = torch.where(advantages[:, None] > 0, ratio > 1 + high, ratio < 1 - low)
    assert (gradient[beyond] == 0).all()
    inside = ~beyond & (advantages[:, None].abs() > 1e-6)
    assert (gradient[inside].sign() == -advantages[:, None].expand(SHAPE)[inside].sign()).all()


@settings(deadline=None, max_examples=50)
@given(logps, masks, st.sampled_from([*losses.LOSSES]), st.sampled_from([float("nan"), float("inf"), -1e30, 5.0]))
def test_what_lies_outside_the_mask_has_no_effect(logp, mask, name, junk):
    logp, mask = torch.from_numpy(logp.copy()), torch.from_numpy(mask.copy())
    _, old, ref, advantages, _ = tensors()
    weights = torch.ones(SHAPE, dtype=torch.float64)
    loss = named(name, token_weights=weights, divergence=divergences.k3, coefficient=0.1)

    def with_gradient(fill):
        filled = [x.masked_fill(~mask, fill) for x in (logp, old, ref)]
        filled[0].requires_grad_(True)
        made = loss(*filled, advantages, mask)
        return made, torch.autograd.grad(made, filled[0])[0]

    clean, gradient = with_gradient(0.0)
    found, spoilt = with_gradient(junk)
    assert torch.equal(clean, found)
    assert torch.equal(gradient, spoilt)
    assert (spoilt[~mask] == 0).all()
    assert clean.isfinite()


@pytest.mark.parametrize("name", losses.LOSSES)
def test_gradients(name):
    logp, old, ref, advantages, mask = tensors(1)
    for divergence in (None, divergences.k3, divergences.log_l2, divergences.prob_l2):
        loss = named(name, divergence=divergence, coefficient=0.5)
        assert torch.autograd.gradcheck(lambda x: loss(x, old, ref, advantages, mask), logp.requires_grad_(True))  # noqa: B023


def test_token_loss_of_micro_batches_adds_up_to_that_of_the_step():
    logp, old, ref, advantages, mask = tensors(2)
    whole = losses.dapo(logp, old, ref, advantages, mask)
    parts = [
        losses.dapo(*(x[i : i + 1] for x in (logp, old, ref, advantages, mask)), total=mask.sum()) for i in range(4)
    ]
    torch.testing.assert_close(whole, sum(parts))


def test_weights_act_on_the_reward_as_token_advantages_do():
    logp, old, ref, advantages, mask = tensors(3)
    weights = torch.rand(SHAPE, dtype=torch.float64)
    for name in losses.LOSSES:
        torch.testing.assert_close(
            named(name)(logp, old, ref, advantages, mask, weights),
            named(name)(logp, old, ref, advantages[:, None] * weights, mask),
        )


def test_sequence_ratios_let_weights_count_through_the_gradient():
    logp, old, ref, _, mask = tensors(4)
    advantages, weights = torch.ones(4, dtype=torch.float64), torch.ones(SHAPE, dtype=torch.float64)
    weights[:, 0] = 3.0
    old = logp.clone()  # nothing is clipped
    (gradient,) = torch.autograd.grad(losses.gspo(logp.requires_grad_(True), old, ref, advantages, mask, weights), logp)
    expected = -weights * mask / mask.sum(1, keepdim=True) / 4
    torch.testing.assert_close(gradient, expected)


def test_a_ceiling_bounds_the_loss_of_bad_completions():
    old, mask = torch.full((1, 1), -9.0), torch.ones(1, 1)
    found = losses.grpo(torch.zeros(1, 1), old, None, torch.tensor([-1.0]), mask, ceiling=2.0)
    assert found.item() == pytest.approx(2.0)


def test_bad_shapes_are_refused():
    logp, old, ref, advantages, mask = tensors()
    with pytest.raises(ValueError, match=r"mask has shape \(4, 5\), logp \(4, 6\)"):
        losses.grpo(logp, old, ref, advantages, mask[:, :5])
    with pytest.raises(ValueError, match="fit neither rows nor tokens"):
        losses.grpo(logp, old, ref, advantages[:3], mask)
    with pytest.raises(ValueError, match="a divergence needs ref_logp"):
        losses.grpo(logp, old, None, advantages, mask, divergence=divergences.k3)
    with pytest.raises(ValueError, match="unknown ratio 'word'"):
        losses.grpo(logp, old, None, advantages, mask, ratio="word")


# Advantages ------------------------------------------------------------------------------------------------------


def test_advantages_by_hand():
    rewards = torch.tensor([1.0, 0.0, 0.0, 1.0, 3.0, 3.0, 3.0, 7.0], dtype=torch.float64)
    plain = losses.group_advantages(rewards, 4, scale=False)
    assert plain.tolist() == [0.5, -0.5, -0.5, 0.5, -1, -1, -1, 3]
    scaled = losses.group_advantages(rewards, 4, eps=0.0)
    torch.testing.assert_close(scaled, plain / torch.tensor([(1 / 3) ** 0.5] * 4 + [2.0] * 4, dtype=torch.float64))


@pytest.mark.parametrize("scale", [True, False])
def test_groups_that_teach_nothing_have_no_advantage(scale):
    for value in (0.1, 1e30, -7.0):
        assert (losses.group_advantages(torch.full((6,), value), 3, scale=scale) == 0).all()
    assert losses.group_advantages(torch.tensor([4.0, 2.0]), 1, scale=scale).tolist() == [0, 0]
    assert (losses.group_advantages(torch.full((4,), torch.nan), 4, scale=scale) == 0).all()


def test_a_missing_reward_is_left_out_and_an_infinite_one_refused():
    found = losses.group_advantages(torch.tensor([1.0, torch.nan, 0.0, 0.5]), 4, scale=False)
    assert found.tolist() == [0.5, 0, -0.5, 0]
    assert torch.equal(losses.group_advantages(torch.tensor([1.0, torch.nan]), 2), torch.zeros(2))
    with pytest.raises(ValueError, match="completion 2 has an infinite reward"):
        losses.group_advantages(torch.tensor([0.0, 0.0, torch.inf, 0.0]), 4)
    with pytest.raises(ValueError, match=r"shape \(5,\) cannot be cut into groups of 4"):
        losses.group_advantages(torch.zeros(5), 4)


@settings(deadline=None, max_examples=50)
@given(hnp.arrays("float64", 12, elements=st.floats(-100, 100)), st.sampled_from([2, 3, 4, 6, 12]), st.booleans())
def test_advantages_are_centred_and_keep_the_order(rewards, group, scale):
    rewards = torch.from_numpy(rewards.copy())
    found = losses.group_advantages(rewards, group, scale=scale).view(-1, group)
    assert found.sum(1).abs().max() < 1e-6
    rewards = rewards.view(-1, group)
    assert ((found[:, :, None] - found[:, None]) * (rewards[:, :, None] - rewards[:, None]) >= -1e-9).all()
    if scale:
        assert (found.std(1) <= 1 + 1e-9).all()


def test_dynamic_sampling_draws_again_for_groups_that_teach_nothing():
    stream = iter(range(1000))
    asked = []

    def draw(n):
        asked.append(n)
        return [(torch.tensor([1.0, float(k % 3 == 0)]), k) for k in (next(stream) for _ in range(n))]

    groups, drawn = losses.dynamic_sampling(draw, 4)
    assert [k for _, k in groups] == [1, 2, 4, 5]
    assert asked == [4, 2]
    assert drawn == 6
    groups, drawn = losses.dynamic_sampling(lambda n: [(torch.ones(3),)] * n, 4, rounds=2)
    assert (groups, drawn) == ([], 8)


def test_overlong_completions():
    mask = torch.ones(3, 2)
    assert losses.overlong_mask(mask, torch.tensor([True, False, True])).sum(1).tolist() == [2, 0, 2]
    lengths = torch.tensor([10, 80, 81, 90, 100, 120])
    torch.testing.assert_close(losses.overlong_penalty(lengths, 100, 20), torch.tensor([0, 0, -0.05, -0.5, -1, -1]))
    with pytest.raises(ValueError, match="buffer must lie between 1 and the limit of 10, not 0"):
        losses.overlong_penalty(lengths, 10, 0)


# TRL -------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trl():
    return pytest.importorskip("trl.trainer.grpo_trainer")


def trl_loss(trl, logp, old, ref, advantages, mask, *, kind, ratio="token", high=0.2, beta=0.0, delta=None, length=9):
    """What TRL's trainer computes from these log-probabilities: its own loss, with the forward pass taken out."""
    trainer = SimpleNamespace(
        _get_per_token_logps_and_entropies=lambda *_, **__: (logp, torch.zeros_like(logp), None),
        aux_loss_enabled=False,
        top_entropy_quantile=1.0,
        off_policy_mask_threshold=None,
        importance_sampling_level=ratio,
        beta=beta,
        args=SimpleNamespace(use_bias_correction_kl=False, delta=delta, steps_per_generation=1),
        loss_type=kind,
        epsilon_low=0.2,
        epsilon_high=high,
        use_vllm=False,
        model=SimpleNamespace(training=True),
        current_gradient_accumulation_steps=1,
        max_completion_length=length,
        _entropy_bonus_enabled=False,
        accelerator=SimpleNamespace(num_processes=1, reduce=lambda x, **_: x, gather=lambda x: x),
        _metrics={"train": defaultdict(list)},
    )
    ids = torch.zeros(mask.shape, dtype=torch.long)
    inputs = dict(
        prompt_ids=ids[:, :1],
        prompt_mask=torch.ones_like(ids[:, :1]),
        completion_ids=ids,
        completion_mask=mask.long(),
        advantages=advantages,
        old_per_token_logps=old,
        ref_per_token_logps=ref,
        num_items_in_batch=mask.sum().float(),
    )
    return trl.GRPOTrainer._compute_loss(trainer, None, inputs)


@pytest.mark.parametrize("beta", [0.0, 0.1])
@pytest.mark.parametrize(
    ("name", "theirs"),
    [
        ("grpo", dict(kind="grpo")),
        ("dapo", dict(kind="dapo", high=0.28)),
        ("dr_grpo", dict(kind="dr_grpo")),
        ("gspo", dict(kind="grpo", ratio="sequence")),
    ],
)
def test_values_and_gradients_are_trls(trl, name, theirs, beta):
    ours = dict(divergence=divergences.k3, coefficient=beta) if beta else {}
    if name == "gspo":
        ours |= dict(low=0.2, high=0.2)
    for seed in range(5):
        batch = tensors(seed, torch.float32, rows=6, length=9)
        batch[0].requires_grad_(True)
        expected, found = trl_loss(trl, *batch, beta=beta, **theirs), named(name, **ours)(*batch)
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
        for one, other in zip(*(torch.autograd.grad(x, batch[0]) for x in (found, expected)), strict=True):
            torch.testing.assert_close(one, other, rtol=0, atol=1e-5)


def test_weights_and_ceiling_are_trls_token_advantages_and_delta(trl):
    logp, old, ref, advantages, mask = tensors(7, torch.float32)
    weights = torch.rand(SHAPE)
    expected = trl_loss(trl, logp, old, ref, advantages[:, None] * weights, mask, kind="dapo", high=0.28, delta=1.1)
    torch.testing.assert_close(
        losses.dapo(logp, old, ref, advantages, mask, weights, ceiling=1.1), expected, rtol=0, atol=1e-5
    )


def test_the_overlong_penalty_is_trls(trl):
    from trl.rewards import get_soft_overlong_punishment

    lengths = [10, 80, 81, 90, 99, 100, 120]
    expected = get_soft_overlong_punishment(100, 20)(completion_ids=[[1] * n for n in lengths])
    assert losses.overlong_penalty(torch.tensor(lengths), 100, 20).tolist() == pytest.approx(expected)
