"""MANSU's pieces against brute force, and every method on a tiny model."""

import numpy as np
import pandas as pd
import pytest
import torch

from compendium import edits, facts, models
from compendium.attribution import circuits
from compendium.attribution.decoder import Decoder, Pairs
from compendium.unlearning import fisher_information, forget_set, magnitude_floor, mansu, methods, probing
from compendium.unlearning.subject import Subject

rng = np.random.default_rng(0)


def rows(n, seed):
    draw = np.random.default_rng(seed)
    return [
        facts.Row(
            tuple(map(int, draw.integers(3, 90, 4))), (tuple(map(int, draw.integers(3, 90, draw.integers(1, 3)))),)
        )
        for _ in range(n)
    ]


@pytest.fixture
def subject(tiny):
    made = Subject(tiny, None, None, seed=0)
    made.rows = rows(6, 0), rows(8, 1)
    prompts = [torch.tensor([row.prompt for row in made.rows[0]][part]) for part in (slice(0, 3), slice(3, 6))]
    answers = [torch.tensor([[7], [8], [9]]), torch.tensor([[17], [18], [19]])]
    made.pairs = [Pairs(*prompts, *answers)]
    made.fisher_rows = 4
    return made


def test_a_circuit_is_the_strongest_nodes_that_hold_a_share(tiny):
    decoder = Decoder(tiny)
    scores = torch.rand(decoder.graph.n_sources, generator=torch.Generator().manual_seed(2)) - 0.5
    linear = sum(layer.weight.numel() for layer in models.linear_layers(tiny).values())

    def held(kept):
        return sum(int(mask.sum()) for mask in circuits.parameter_mask(decoder, kept).values()) / linear

    for share in (1e-9, 0.1, 0.4, 0.8, 1.0):
        kept = mansu.circuit(decoder, scores, share)
        order = scores[1:].abs().argsort(descending=True) + 1
        n = int(kept.sum())
        assert set(kept.nonzero()[:, 0].tolist()) == set(order[:n].tolist())
        assert held(kept) >= share - 1e-6
        if n > 1:
            assert held(kept & (torch.arange(len(kept)) != order[n - 1])) < share


def test_gradient_is_that_of_the_mean_log_probability(tiny):
    some = rows(5, 3)
    slope = mansu.gradient(tiny, some, batch=2)
    weight = tiny.model.layers[1].self_attn.v_proj.weight.requires_grad_(True)
    objective = sum(facts.log_probs(tiny, [row])[0].sum() for row in some) / len(some)
    (expected,) = torch.autograd.grad(objective, weight)
    torch.testing.assert_close(slope["model.layers.1.self_attn.v_proj"], expected, rtol=1e-3, atol=1e-6)


def test_support_takes_the_best_for_what_they_cost(tiny):
    slope = {name: torch.randn_like(layer.weight) for name, layer in models.linear_layers(tiny).items()}
    fisher = {name: torch.rand_like(part) for name, part in slope.items()}
    within = {f"{name}.weight": torch.rand_like(part) < 0.5 for name, part in slope.items() if "layers.0" in name}
    total = sum(part.numel() for part in slope.values())
    found = mansu.support(slope, fisher, within, 0.01, damping=0.5)
    ranked = sorted(
        ((slope[n][i, j].abs() / (fisher[n][i, j] + 0.5 * fisher[n].mean()).sqrt()).item(), n, i, j)
        for name, mask in within.items()
        for n in [name.removesuffix(".weight")]
        for i, j in mask.nonzero().tolist()
    )[::-1][: round(0.01 * total)]
    chosen = {(name.removesuffix(".weight"), i, j) for name, mask in found.items() for i, j in mask.nonzero().tolist()}
    assert chosen == {(n, i, j) for _, n, i, j in ranked}
    with pytest.raises(ValueError, match="nothing to select"):
        mansu.support(slope, fisher, {name: mask & False for name, mask in within.items()}, 0.01)


@pytest.mark.parametrize("budget", [None, 1e-3])
def test_a_permanent_update_flips_every_code_it_edits_and_no_other(tiny, budget):
    layers = models.linear_layers(tiny)
    torch.manual_seed(3)
    delta = {
        f"{name}.weight": 0.02 * torch.randn_like(layer.weight) * (torch.rand_like(layer.weight) < 0.05)
        for name, layer in layers.items()
    }
    slope = {name: torch.randn_like(layer.weight) for name, layer in layers.items()}
    fisher = {name: torch.rand_like(layer.weight) for name, layer in layers.items()}
    made, notes = mansu.permanent(tiny, delta, slope, fisher, budget=budget)
    assert 0 < notes["edited"] <= notes["trained"]
    assert notes["trained"] == pytest.approx(notes["edited"] + notes["dropped"] + notes["unaffordable"])
    assert notes["edited"] == pytest.approx(edits.moved(tiny, made))
    if budget is not None:
        assert notes["unaffordable"] > 0
        assert notes["predicted_rise"] <= budget
        assert notes["predicted_rise"] == pytest.approx(
            fisher_information.predicted(
                fisher, {name.removesuffix(".weight"): change for name, change in made.items()}
            )
        )
    for name in layers:
        assert not (made[f"{name}.weight"] != 0)[delta[f"{name}.weight"] == 0].any()
    n = sum(int((change != 0).sum()) for change in made.values())
    for dtype in (torch.float32, torch.bfloat16):
        assert magnitude_floor.count(tiny, made, dtype) == {"edited": n, "flip": n, "others": 0}
    loose = magnitude_floor.count(tiny, delta)
    assert loose["flip"] < loose["edited"]


SETTINGS = dict(
    learning_rate=1e-2,
    steps=2,
    batch=3,
    retain_batch=4,
    rows=0.2,
    rank=2,
    strength=1.0,
    circuit=0.5,
    share=0.02,
    damping=1.0,
    budget=None,
    reach=0.5,
)


@pytest.mark.parametrize("method", methods.METHODS)
def test_every_method_moves_its_weights_and_leaves_the_model(subject, method, monkeypatch):
    monkeypatch.setattr(forget_set, "answers", lambda *_: rows(6, 9))
    monkeypatch.setattr(probing, "substituted", lambda *_: None)
    subject.domain = forget_set.Domain("", None, None, {})
    settings = SETTINGS | ({"options": {"layer": 2}} if method == "RMU" else {})
    before = {name: p.detach().clone() for name, p in subject.model.named_parameters()}
    delta, _ = methods.unlearn(method, subject, settings)
    assert all(torch.equal(p, before[name]) for name, p in subject.model.named_parameters())
    assert all(torch.isfinite(change).all() for change in delta.values())
    share = edits.moved(subject.model, delta)
    assert share > 0
    if method.startswith("MANSU"):
        assert share <= 0.02
    if method in ("last block", "other answer"):
        assert all("layers.1." in name for name in delta)
    if method == "null space":
        for name, change in delta.items():
            projector = subject.projectors[name.removesuffix(".weight")]
            torch.testing.assert_close(change @ projector, change, rtol=1e-3, atol=1e-6)
    if method not in ("LoRA",):
        again, _ = methods.unlearn(method, subject, settings)
        assert all(torch.equal(change, again[name]) for name, change in delta.items())


def test_the_task_vector_is_subtracted(subject):
    delta, _ = methods.unlearn("task vector", subject, SETTINGS)

    def logp():
        return sum(facts.log_probs(subject.model, [row])[0].sum().item() for row in subject.rows[0])

    before = logp()
    with edits.applied(subject.model, delta):
        assert logp() < before


@pytest.mark.parametrize(
    ("most", "shares", "steps"), [(30, [0.9, 0.6, 0.2], 8), (5, [0.9], 5), (4, [], 4), (9, [0.3], 4)]
)
def test_training_goes_on_in_rounds_until_enough_is_forgotten(subject, monkeypatch, most, shares, steps):
    left = iter(shares)
    monkeypatch.setattr(facts, "score", lambda *_: pd.DataFrame({"correct": [next(left)]}))
    subject.questions = None
    before = {name: p.detach().clone() for name, p in subject.model.named_parameters()}
    delta, notes = methods.unlearn("NPO", subject, SETTINGS | {"steps": 4, "until": 0.3, "most": most})
    assert notes["steps"] == steps
    assert next(left, None) is None  # asked once a round, but not after the last that is allowed
    assert all(torch.equal(p, before[name]) for name, p in subject.model.named_parameters())
    if steps == most == 4:
        plain, _ = methods.unlearn("NPO", subject, SETTINGS | {"steps": 4})
        assert all(torch.equal(change, plain[name]) for name, change in delta.items())


def test_weights_kept_in_bfloat16_lose_updates_below_its_spacing(subject):
    subject.model.load_state_dict({name: p.bfloat16().float() for name, p in subject.model.state_dict().items()})
    small = SETTINGS | {"learning_rate": 1e-6}
    full, _ = methods.unlearn("NPO", subject, small)
    rounded, _ = methods.unlearn("NPO", subject, small | {"master": "bfloat16"})
    before = dict(subject.model.named_parameters())
    assert edits.moved(subject.model, rounded) < 0.1 * edits.moved(subject.model, full)
    for name, change in rounded.items():
        after = before[name] + change
        torch.testing.assert_close(after, after.bfloat16().float(), rtol=1e-6, atol=0)


def test_unknown_methods_and_endless_training_are_refused(subject):
    with pytest.raises(ValueError, match="unknown method 'GD': choose one of GA"):
        methods.unlearn("GD", subject, SETTINGS)
    with pytest.raises(ValueError, match="until needs most"):
        methods.unlearn("NPO", subject, SETTINGS | {"until": 0.3})


def test_a_domain_keeps_what_is_trained_and_asked_apart(embedded, monkeypatch):
    model, tokenizer = embedded
    monkeypatch.setattr(facts, "known", lambda model, tokenizer, table: table)
    found = forget_set.domain(model, tokenizer, "country_capital", "Europe", seed=1)
    key = ["relation", "subject"]
    parts = {kind: part[key].drop_duplicates() for kind, part in found.asked.items()}
    trained = found.retain[key]
    assert trained.merge(parts["near"]).empty
    assert trained.merge(parts["far"]).empty
    assert trained.merge(found.forget[key]).empty
    assert len(parts["forget"].merge(found.forget[key])) == len(found.forget)
    assert set(parts["near"].relation) == {"country_capital"}
    assert "country_capital" not in set(parts["far"].relation)
    forgotten = set(found.forget.object)
    assert not forgotten & {*found.retain.subject, *parts["far"].subject}
    assert len(found.retain) == 100
    forget, kept = found.rows(tokenizer)
    assert len(forget) == 3 * len(found.forget)
    assert len(kept) == 300
    small = forget_set.domain(model, tokenizer, "country_capital", "Europe", pool=20, near=3, far=4)
    assert len(small.retain) == 10
    assert [len(part) for part in small.asked.values()] == [2 * len(found.forget), 6, 8]
    listed = facts.load()
    unasked = forget_set.domain(None, tokenizer, "country_capital", "Europe", seed=1, forget=7, known=listed)
    assert len(unasked.forget) == 7
    assert len(unasked.retain) == 100
    assert not set(unasked.retain.subject) & set(unasked.forget.object)
    with pytest.raises(ValueError, match="there is no fact of relation 'country_capital' and domain 'Atlantis'"):
        forget_set.domain(model, tokenizer, "country_capital", "Atlantis")
    monkeypatch.setattr(facts, "known", lambda model, tokenizer, table: table[table.relation != "country_capital"])
    with pytest.raises(ValueError, match="the model knows 0 facts to forget"):
        forget_set.domain(model, tokenizer, "country_capital", "Europe", pool=20)


def test_contrast_pairs_answer_differently(embedded):
    table = facts.load().query("relation == 'element_symbol' and domain == 'metal'")
    pairs = probing.contrast(embedded[1], table)
    assert sum(map(len, pairs)) > 0.8 * len(table)
    for part in pairs:
        assert part.clean.shape == part.corrupt.shape
        assert (part.right != part.wrong).all()
        assert (part.clean != part.corrupt).any(1).all()


def test_contrast_keeps_relations_apart(embedded):
    table = facts.load().query("domain in ('Europe', 'metal') and relation in ('country_capital', 'element_symbol')")
    parts = [probing.contrast(embedded[1], part) for _, part in table.groupby("relation")]
    pairs = probing.contrast(embedded[1], table)
    assert sum(map(len, pairs)) == sum(len(pair) for part in parts for pair in part)


def test_substituted_answers_are_other_facts(embedded):
    table = facts.load().query("relation == 'country_capital' and domain == 'Europe'")
    asked = probing.substituted(table)
    right = asked.subject.map(dict(zip(table.subject, table.object, strict=True)))
    assert (asked.object != right).all()
    assert set(asked.object) == set(table.object)


def test_the_probe_finds_a_planted_direction_and_nothing_else(monkeypatch):
    draw = np.random.default_rng(0)
    right = np.tile([True, False, False, False], 60)

    def planted(model, tokenizer, asked, layers):
        x = draw.normal(size=(2, len(right), 20)).astype(np.float32)
        x[1, :, 3] += 4 * right  # the second layer holds it
        return x, right

    monkeypatch.setattr(probing, "states", planted)
    found = probing.probe(None, None, None, None, [5, 9])
    assert found[9] > 0.95
    assert 0.35 < found[5] < 0.65


def test_states_are_those_of_each_option_alone(tiny, monkeypatch):
    some = [facts.Row((3, 4, 5), ((6,), (7, 8), (9,), (10, 11))), facts.Row((12,), ((13,), (14,), (15,), (16, 17)))]
    monkeypatch.setattr(facts, "encode", lambda *_: some)
    asked = pd.DataFrame({"prompt": ["", ""], "options": ["", ""]})
    x, right = probing.states(tiny, None, asked, [1, 2])
    assert x.shape == (2, 8, tiny.config.hidden_size)
    assert right.tolist() == [True, False, False, False] * 2
    pairs = [(row, option) for row in some for option in row.options]
    for i, (row, option) in enumerate(pairs):
        made = tiny(torch.tensor([[*row.prompt, *option]]), output_hidden_states=True).hidden_states
        np.testing.assert_allclose(x[1, i], made[2][0, -1].detach().numpy(), rtol=1e-3, atol=1e-5)


def test_relearning_brings_back_and_leaves_the_model(tiny, monkeypatch):
    taught = rows(4, 5)
    monkeypatch.setattr(forget_set, "answers", lambda *_: taught)
    monkeypatch.setattr(facts, "questions", lambda **_: None)
    monkeypatch.setattr(
        facts, "score", lambda model, *_: pd.DataFrame({"correct": [facts.log_probs(model, taught)[0].mean().item()]})
    )
    before = {name: p.detach().clone() for name, p in tiny.named_parameters()}
    table = pd.DataFrame({"subject": list("abcd")})
    found = probing.relearn(tiny, None, table, looks=(0, 2, 4), learning_rate=2e-3, batch=2)
    assert found.step.tolist() == [0, 2, 4]
    assert found.accuracy.is_monotonic_increasing
    assert all(torch.equal(p, before[name]) for name, p in tiny.named_parameters())


def test_methods_that_name_a_part_of_the_model_find_it_or_say_so(subject):
    from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

    found = methods.masks("RMU", subject, {"options": {"layer": 2}})
    assert list(found) == [f"model.layers.{i}.mlp.down_proj.weight" for i in (0, 1)]
    for layer in (0, -1, 3):
        with pytest.raises(ValueError, match=f"layer is {layer}: it must be from 1 to 2"):
            methods.masks("RMU", subject, {"options": {"layer": layer}})
    other = Subject(
        GPTNeoXForCausalLM(
            GPTNeoXConfig(
                vocab_size=97, hidden_size=64, intermediate_size=64, num_hidden_layers=3, num_attention_heads=4
            )
        ),
        None,
        None,
    )
    found = methods.masks("RMU", other, {"options": {"layer": 3}})
    assert list(found) == [f"gpt_neox.layers.{i}.mlp.dense_4h_to_h.weight" for i in (0, 1, 2)]
    mixed = torch.nn.Module()
    mixed.experts = torch.nn.ModuleList(torch.nn.Linear(64, 64) for _ in range(2))
    mixed.forward = lambda x: sum(expert(x) for expert in mixed.experts)
    dense, other.model.gpt_neox.layers[1].mlp = other.model.gpt_neox.layers[1].mlp, mixed
    with pytest.raises(ValueError, match="block 1 of this GPTNeoXForCausalLM has no linear layer with which an MLP"):
        methods.masks("RMU", other, {"options": {"layer": 3}})
    other.model.gpt_neox.layers[1].mlp = dense
    assert {name.split(".")[2] for name in methods.masks("last block", other, {})} == {"2"}
    with pytest.raises(ValueError, match="no rows"):
        mansu.gradient(subject.model, [])


def test_gradients_and_fisher_information_do_not_depend_on_memory(subject):
    rows = subject.rows[0][:5]
    sizes = [layer.weight.numel() for layer in models.linear_layers(subject.model).values()]
    for made in (mansu.gradient, fisher_information.diagonal):
        whole, cut = made(subject.model, rows), made(subject.model, rows, memory=9 * max(sizes) * 1e-9)
        assert list(whole) == list(cut)
        for name, value in whole.items():
            torch.testing.assert_close(cut[name], value, rtol=1e-4, atol=1e-8)
