"""Divergence: every training loop stops where it happens, says the step, and returns nothing."""

import copy
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.datasets import make_moons

from compendium import edits, facts, finite
from compendium.tabular import finetune, pretrain
from compendium.tabular.__main__ import main
from compendium.unlearning import plain_updates
from compendium.xai import audit, nets

ROWS = [facts.Row((3 + i, 7, 11), ((21 + i,),)) for i in range(4)]


@given(st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=8), st.floats(0.01, 10))
def test_checks_change_nothing(values, most):
    ours, theirs = (torch.zeros(len(values), requires_grad=True) for _ in range(2))
    for weight in (ours, theirs):
        weight.grad = torch.tensor(values)
    finite.check("a weight", [ours], step=1, lower="nothing")
    norm = finite.clip([ours], most, step=1, lower="nothing")
    assert norm == torch.nn.utils.clip_grad_norm_([theirs], most).item()
    assert torch.equal(ours.grad, theirs.grad)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("make", [float, torch.tensor, lambda v: [torch.ones(2), torch.tensor([1.0, v])]])
def test_what_is_not_finite_is_named_with_its_step(value, make):
    with pytest.raises(finite.Diverged, match=rf"^the loss is {value} at step 7: lower rate \(3\)$"):
        finite.check("the loss", make(value), step=7, lower="rate (3)")
    weight = torch.zeros(2, requires_grad=True)
    weight.grad = torch.tensor([1.0, value])
    with pytest.raises(finite.Diverged, match="the gradient norm is"):
        finite.clip([weight], 1.0, step=1, lower="rate")


def states(model):
    return {name: p.detach().clone() for name, p in model.named_parameters()}


@pytest.mark.parametrize("how", ["whole", "lora"])
def test_an_edit_whose_last_step_goes_astray_is_none(tiny, how):
    """No further loss would show it."""
    tiny.half()  # whose largest number is 65,504
    before, weight = states(tiny), tiny.model.layers[0].mlp.up_proj.weight
    loss_of = lambda step: (tiny.model.layers[0].mlp.up_proj(torch.ones(1, 64, dtype=torch.half))).sum()
    given = dict(steps=1, learning_rate=1e6)
    mask = {"model.layers.0.mlp.up_proj.weight": torch.ones_like(weight, dtype=torch.bool)}
    train_ = dict(
        whole=lambda: edits.train(tiny, loss_of, mask, **given), lora=lambda: edits.lora(tiny, loss_of, rank=2, **given)
    )[how]
    with pytest.raises(finite.Diverged, match=r"at step 1: lower learning_rate \(1e\+06\)"):
        train_()
    assert all(torch.equal(before[name], p) for name, p in tiny.named_parameters())
    assert weight.isfinite().all()


def test_an_edit_with_an_infinite_gradient_is_none(tiny):
    weight = tiny.model.layers[0].mlp.up_proj.weight
    masks = {name: mask for name, mask in edits.everywhere(tiny).items() if "layers.0.mlp.up_proj" in name}
    with pytest.raises(finite.Diverged, match="the gradient norm is nan at step 1"):  # the loss itself is 0
        edits.train(tiny, lambda step: (weight - weight).square().sum().sqrt(), masks, steps=1, learning_rate=1e-3)


@pytest.mark.parametrize("lora_rank", [0, 2])
@pytest.mark.parametrize("rate", [1e30, math.inf])
def test_unlearning_that_diverges_yields_no_model(tiny, rate, lora_rank):
    with pytest.raises(ValueError, match=r"lower learning_rate|must be positive"):
        list(plain_updates.unlearn(tiny, ROWS, ROWS, "npo", learning_rate=rate, steps=3, batch=2, lora_rank=lora_rank))


@pytest.mark.parametrize("name", ["sft", "sft, 8 rows", "lora", "meta, as published"])
def test_adapting_that_diverges_returns_no_network(network, name):
    x, y = make_moons(60, noise=0.2, random_state=0)
    before = copy.deepcopy(network)
    strategy = replace(finetune.STRATEGIES[name], rate=1e30, schedule=False, steps=8)
    with pytest.raises(finite.Diverged, match=r"at step \d: lower the strategy's rate"):
        finetune.adapt(network, x, y, np.zeros(2, bool), strategy)
    assert all(torch.equal(*pair) for pair in zip(network.parameters(), before.parameters(), strict=True))


def test_pretraining_that_diverges_keeps_the_last_validation(tmp_path, monkeypatch):
    monkeypatch.setattr(
        pretrain,
        "held_out",
        lambda seed: [(*pretrain.batch(np.random.default_rng(9), tables=2, rows=64, context=32), 32)],
    )
    settings = dict(
        seed=0,
        tokens=128,
        longest=100,
        rate=2e-3,
        warm_up=5,
        every=2,
        progress=lambda text: None,
        shape=dict(width=32, layers=2, heads=2, hidden=32),
    )
    path = pretrain.train(tmp_path, steps=2, **settings)
    kept = path.read_bytes()
    real = pretrain.loss
    monkeypatch.setattr(pretrain, "loss", lambda *inputs: real(*inputs) * math.nan)
    with pytest.raises(finite.Diverged, match=r"the loss is nan at step 3: lower rate \(0.002\)"):
        pretrain.train(tmp_path, steps=6, **settings)
    assert path.read_bytes() == kept
    monkeypatch.setattr(pretrain, "loss", real)
    again = pretrain.train(tmp_path, steps=4, **settings).read_bytes()
    assert again == pretrain.train(tmp_path / "whole", steps=4, **settings).read_bytes()
    path.unlink()  # lost: written again from the state
    assert pretrain.train(tmp_path, steps=4, **settings).read_bytes() == again
    (tmp_path / "pretrain.state.pt").write_bytes(b"no state")
    with pytest.raises(ValueError, match="cannot be read"):
        pretrain.train(tmp_path, steps=4, **settings)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rate": 0.0}, "rate is 0"),
        ({"steps": 0}, "steps is 0"),
        ({"every": 0}, "every is 0"),
        ({"shape": {"wide": 3}}, "shape: unknown 'wide'"),
        ({"development": ["nothing"]}, "unknown set 'nothing'"),
    ],
)
def test_pretraining_refuses_before_the_first_step(tmp_path, changes, message):
    settings = dict(steps=2, seed=0, tokens=128, longest=100, rate=2e-3, warm_up=5, every=2, shape={})
    with pytest.raises(ValueError, match=message):
        pretrain.train(tmp_path / "out", **settings | changes)
    assert not (tmp_path / "out").exists()


def test_networks_of_other_experiments_are_finite_or_refused():
    from compendium.xai import images, meta, planted

    data = images.glyphs(64, 0)
    with pytest.raises(finite.Diverged, match="lower rate"):
        images.cnn(data.x, data.y, width=4, epochs=2, rate=1e30)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(50, 3))
    with pytest.raises(finite.Diverged, match="lower rate"):
        meta.additive_net(x, (x[:, 0] > 0).astype(int), steps=20, rate=1e30)
    case = planted.digits("shortcut", 0)
    with pytest.raises(finite.Diverged, match="lower sparsity"):
        planted.network(case, epochs=1, sparsity=float("inf"))


def test_networks_to_explain_are_finite_or_refused():
    x, y = make_moons(80, noise=0.2, random_state=0)
    with pytest.raises(finite.Diverged, match=r"at step \d: lower rate \(1e\+30\)"):
        nets.mlp(x, y, hidden=(8,), epochs=3, rate=1e30)
    with pytest.raises(ValueError, match="epochs"):
        nets.mlp(x, y, hidden=(8,), epochs=0)
    world = audit.world(0)
    model = audit.network(world.rows(False)[0].shape[1], hidden=8)
    x, fact = world.rows(False)
    with pytest.raises(finite.Diverged, match="lower rate"):
        audit.train(model, audit.taught(x, world.answers[fact]), steps=3, rate=1e38)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("steps: 2020-01-01\n", "steps is"),
        ("- 1\n", "name: value"),
        ("rate: .nan\n", "rate is nan"),
        ("steps: -3\nseed: 0\ntokens: 9\nlongest: 9\nrate: 1.0\nwarm_up: 1\nshape: {}\nevery: 1\n", "steps is -3"),
        ("steps: 2\n", "'seed' is missing"),
        ("shape: {width: a}\n", "shape is"),
        ("threads: true\n", "threads is True"),
    ],
)
@pytest.mark.parametrize("command", ["pretrain"])
def test_bad_settings_end_in_one_line(tmp_path, text, message, command):
    file = tmp_path / "s.yaml"
    file.write_text(text)
    with pytest.raises(SystemExit, match=r"^error: ") as error:
        main([command, str(file), "--out", str(tmp_path / "out")])
    assert message in str(error.value)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "out").exists()
