"""Strategies: what moves, what may not, and that labels teach."""

import math
from copy import deepcopy
from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.datasets import make_moons

from compendium.tabular import finetune
from compendium.tabular.finetune import STRATEGIES, AdaptedPFN, Episode, Strategy

NOMINAL = np.zeros(2, bool)


@pytest.fixture(scope="module")
def moons():
    x, y = make_moons(120, noise=0.2, random_state=0)
    return x, y


def same(a, b):
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


def test_zero_shot_is_the_network_itself(network, moons):
    found, log = finetune.adapt(network, *moons, NOMINAL, None)
    assert found is network
    assert log.step.tolist() == [0]


@pytest.mark.parametrize("name", [name for name in STRATEGIES if name != "zero-shot"])
def test_every_strategy_runs_and_leaves_the_original_alone(network, moons, name):
    before = deepcopy(network)
    strategy = replace(STRATEGIES[name], steps=3, every=1, held_out=0.0, rate=1e-3)
    found, log = finetune.adapt(network, *moons, NOMINAL, strategy)
    assert same(network, before)
    assert all(p.requires_grad for p in network.parameters())
    assert np.isfinite(log.training[1:]).all()
    x = torch.zeros(1, 4, 64)
    with torch.no_grad():
        assert not torch.equal(found(x, torch.tensor([[0, 1]])), network(x, torch.tensor([[0, 1]])))


def test_full_tuning_learns_the_table(network, moons):
    """A random network knows nothing; with its weights free it can learn which side of a line a point is on.

    One view throughout: to learn from the context, whatever the order of columns and classes, takes far more steps.
    """
    x = moons[0]
    y = (x[:, 0] > 0.5).astype(int)
    strategy = Strategy(steps=60, rate=3e-3, every=10, shuffle=False, held_out=0.0)
    log = finetune.adapt(network, x, y, NOMINAL, strategy)[1]
    assert log.training.iloc[-1] < 0.8 * log.training[1]


def test_same_seed_same_weights(network, moons):
    strategy = replace(STRATEGIES["meta"], steps=4, support=(20, 30), query=10)
    first, second, other = (finetune.adapt(network, *moons, NOMINAL, strategy, seed=s)[0] for s in (1, 1, 2))
    assert same(first, second)
    assert not same(first, other)


def test_when_nothing_helps_the_weights_stay(network, moons):
    """A rate that ruins the network: the held-out rows choose the untouched weights."""
    found, log = finetune.adapt(
        network, *moons, NOMINAL, Strategy(steps=30, rate=1.0, clip=None, schedule=False, every=2)
    )
    assert log.best.tolist()[1:].count(True) == 0 or log["held out"].min() < log["held out"][0]
    if not log.best[1:].any():
        assert same(found, network)
        assert len(log) == 6  # stopped after five looks


def test_lora_freezes_all_but_its_adapters_and_reaches_every_one(network, moons):
    original = deepcopy(network)
    model = finetune.with_lora(network, rank=4, alpha=8)
    adapters = {n: p for n, p in model.named_parameters() if p.requires_grad}
    matrices = 2 * len(finetune.TARGETS) * len(original.layers)  # A and B on each target of each layer
    assert len(adapters) == matrices
    assert all("lora_" in name for name in adapters)

    strategy, rng = Strategy(weights="lora"), np.random.default_rng(0)
    optimiser = torch.optim.AdamW(adapters.values(), lr=1e-2)
    reached = set()
    for _ in range(2):  # B begins at 0, so A's gradient is 0 in the first step
        optimiser.zero_grad()
        Episode(*moons, NOMINAL, strategy, rng).loss(model).backward()
        reached |= {name for name, p in adapters.items() if p.grad is not None and p.grad.abs().sum() > 0}
        optimiser.step()
    assert reached == set(adapters)
    frozen = {n.replace(".base_layer", "").removeprefix("base_model.model."): p for n, p in model.named_parameters()}
    for name, weight in original.named_parameters():
        assert torch.equal(frozen[name], weight), name  # to the bit


def test_merged_lora_predicts_as_with_adapters(network, moons):
    model = finetune.with_lora(deepcopy(network), rank=4, alpha=8).eval()
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.1)
    x, y = torch.randn(1, 12, 64, generator=torch.Generator().manual_seed(0)), torch.tensor([[0, 1, 0, 1, 1, 0]])
    with torch.no_grad():
        expected = model(x, y)
        torch.testing.assert_close(finetune._plain(model)(x, y), expected, atol=1e-4, rtol=1e-4)


def test_injected_adapters_are_partly_dead_and_weights_partly_free(network, moons):
    """What the study's injection does: adapters of the output map get no gradient, and q, k, v are trained in full."""
    model = finetune.injected(deepcopy(network), rank=4, alpha=8)
    Episode(*moons, NOMINAL, STRATEGIES["lora, as published"], np.random.default_rng(0)).loss(model).backward()
    grads = {n: None if p.grad is None else p.grad.abs().sum().item() for n, p in model.named_parameters()}
    dead = [n for n in grads if ".out.lora_" in n]
    assert len(dead) == 2 * len(network.layers)
    assert all(grads[n] is None for n in dead)
    free = [n for n, p in model.named_parameters() if p.requires_grad and "lora_" not in n]
    assert any(n.endswith("q.weight") for n in free)
    assert all(grads[n] is not None for n in free if n.split(".")[-2] in "qkv")


def test_episodes(network, moons):
    x, y = moons
    rng = np.random.default_rng(0)
    sizes = set()
    for _ in range(10):
        e = Episode(x, y, NOMINAL, Strategy(support=(20, 40), query=16), rng)
        assert len(e) == 16
        sizes.add(len(e.classes))
        assert abs(np.mean(e.classes) - 0.5) < 0.1  # by class
    assert all(20 <= s <= 40 for s in sizes)
    assert len(sizes) > 3
    whole = Episode(x, y, NOMINAL, Strategy(), rng)
    assert (len(whole.classes), len(whole)) == (96, 24)
    published = Episode(x, y, NOMINAL, STRATEGIES["sft, 8 rows"], rng)
    assert len(published.classes) == 8
    assert len(published) <= 8


def test_queries_of_classes_that_are_not_shown_are_dropped():
    y = np.array([0] * 30 + [1])
    x = np.random.default_rng(0).normal(size=(31, 2))
    for seed in range(30):
        e = Episode(x, y, NOMINAL, STRATEGIES["sft, 8 rows"], np.random.default_rng(seed))
        assert set(e.truth) <= set(e.classes)


def test_support_and_query_are_apart(moons):
    """With the row's number as its only column, no query row may be in the support."""
    x, y = np.arange(60.0)[:, None], np.arange(60) % 2
    for name in ("meta", "sft", "sft, 8 rows"):
        e = Episode(x, y, np.zeros(1, bool), replace(STRATEGIES[name], shuffle=False), np.random.default_rng(0))
        values = lambda part: {round(float(v), 4) for v in part[part != 0]}
        assert not values(e.support) & values(e.query)


def test_test_rows_play_no_part(network, moons):
    """Adapting twice, once with labels of the test rows shuffled: there is no way in, so nothing changes."""
    x, y = moons
    strategy, shuffled = replace(STRATEGIES["sft"], steps=4), y.copy()
    shuffled[80:] = np.random.default_rng(0).permutation(y[80:])
    p = [
        AdaptedPFN(network, strategy=strategy, members=2).fit(x[:80], t[:80]).predict_proba(x[80:])
        for t in (y, shuffled)
    ]
    np.testing.assert_array_equal(*p)


def test_tiny_and_one_class_tables_are_left_alone(network):
    x = np.random.default_rng(0).normal(size=(30, 2))
    assert finetune.adapt(network, x[:5], np.arange(5) % 2, NOMINAL, STRATEGIES["sft"])[0] is network
    assert finetune.adapt(network, x, np.zeros(30, int), NOMINAL, STRATEGIES["sft"])[0] is network
    with pytest.raises(ValueError, match="unknown strategy 'sfd'"):
        AdaptedPFN(network, strategy="sfd").fit(x, np.arange(30) % 2)


def test_storage_changes_the_layers_only(network):
    made = finetune.stored(network, "nf4")
    for (name, before), after in zip(network.named_parameters(), made.parameters(), strict=True):
        matrix = name.startswith("layers") and before.ndim == 2
        assert torch.equal(before, after) != matrix, name


@pytest.mark.parametrize(
    "settings",
    [
        {"support": (9, 3)},
        {"support": (0, 3)},
        {"held_out": 1.0},
        {"held_out": 2},
        {"rate": -1.0},
        {"rate": math.nan},
        {"every": 0},
        {"weights": "q"},
    ],
)
def test_strategies_that_cannot_be_are_refused(settings):
    with pytest.raises(ValueError, match=rf"^a strategy has {next(iter(settings))} .*: "):
        Strategy(**settings)
