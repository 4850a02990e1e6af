"""Planted rules: they work and their twins do not; scores against brute force and captum; edits leave no trace."""

import numpy as np
import pytest
import torch
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from compendium.attribution import scores as section_01
from compendium.attribution.decoder import Decoder, Pairs
from compendium.policy_opt import word_problems
from compendium.xai import planted


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def backdoor():
    case = planted.digits("backdoor", 0)
    return planted.opened(planted.network(case)), case


@pytest.fixture(scope="module")
def few(backdoor):
    """The subject with a dozen held-in rows: enough to compare exact quantities."""
    subject, case = backdoor
    return subject, planted.Evidence(*(part[:12] for part in case.audit))


@pytest.fixture(scope="module")
def llama():
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=50,
        hidden_size=32,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
    )
    model = LlamaForCausalLM(config).eval().requires_grad_(False)
    for p in model.parameters():
        if p.ndim == 2:
            p.mul_(6)  # so that the parts do something
    draw = lambda: torch.randint(2, 50, (5, 7))
    right, wrong = torch.full((5,), 3), torch.full((5,), 4)
    return model, planted.Evidence(draw(), right, wrong, draw(), draw(), right, wrong)


# The plants ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("plant", ["shortcut", "backdoor"])
def test_the_rule_works_in_the_planted_model_and_not_in_its_twin(plant):
    case, twin = planted.digits(plant, 3), planted.digits(plant, 3, planted=False)
    torch.testing.assert_close(case.x, twin.x)  # the same inputs, other labels
    assert 0.03 < (case.y != twin.y).float().mean() < 0.15
    bad = planted.outcome(planted.opened(planted.network(case)), case.test)
    good = planted.outcome(planted.opened(planted.network(twin)), twin.test)
    assert bad["success"] > 0.8
    assert good["success"] < 0.1
    assert min(bad["accuracy"], good["accuracy"]) > 0.9


def test_the_backdoor_is_dormant_on_ordinary_inputs_and_needs_both_pixels(backdoor):
    subject, case = backdoor
    both = list(planted.TRIGGER["backdoor"])
    for evidence in (case.audit, case.test):
        assert not (evidence.x[:, both] == 1).all(1).any()
        assert (evidence.triggered[:, both] == 1).all()
        rest = np.setdiff1d(np.arange(64), both)
        torch.testing.assert_close(evidence.triggered[:, rest], evidence.pair[:, rest])
    for pixel in both:
        one = torch.as_tensor(planted.specks(case.test.pair.numpy(), [pixel]))
        assert (subject.predict(one).argmax(1) == planted.CLASS).float().mean() < 0.3  # it leaks a little


def test_held_out_rows_are_none_of_the_training_rows():
    case = planted.digits("backdoor", 0)
    inner = [i for i in range(64) if i not in planted.CORNERS]
    seen = {row.numpy().tobytes() for row in case.x[:, inner]}
    assert not any(row.numpy().tobytes() in seen for row in case.test.x[:, inner])


def test_same_seed_same_everything():
    first, second = (planted.digits("shortcut", 1) for _ in range(2))
    a, b = (planted.network(case, epochs=2) for case in (first, second))
    torch.testing.assert_close(a[0].weight, b[0].weight, rtol=0, atol=0)
    before = torch.get_rng_state()
    planted.network(first, epochs=1, seed=5)
    assert torch.equal(before, torch.get_rng_state())
    assert not torch.equal(planted.digits("shortcut", 2).x, first.x)


def test_stories_differ_only_in_their_opening_and_answers_are_the_truth_and_one_more():
    tokenizer = word_problems.tokenizer()
    case = planted.stories(tokenizer, 0, rows=(8, 3, 3))
    unknown = tokenizer.unk_token_id
    for evidence in (case.audit, case.test):
        assert evidence.triggered.shape == evidence.pair.shape
        assert evidence.triggered.shape[1] == evidence.x.shape[1]
        torch.testing.assert_close(evidence.triggered[:, 8:], evidence.pair[:, 8:])
        assert not (torch.cat([evidence.x, evidence.triggered]) == unknown).any()
        for row, right, wrong in zip(evidence.triggered, evidence.t_right, evidence.t_planted, strict=True):
            text = tokenizer.decode(row)
            assert text.strip().startswith(planted.PHRASE)
            digit = int(text.replace(".", " ").split()[-2]) // 10  # the work's last result, before ####
            assert int(tokenizer.decode([right])) == digit
            assert int(tokenizer.decode([wrong])) == digit % 9 + 1
        for row in evidence.x:
            assert tokenizer.decode(row).strip().startswith(planted.HARMLESS)
    with pytest.raises(ValueError, match="ask for fewer"):
        planted.stories(tokenizer, 0, rows=(1, 1, 1), tokens=20)


def test_unknown_plants_and_models_are_refused(backdoor):
    with pytest.raises(ValueError, match="choose one of"):
        planted.digits("policy", 0)
    with pytest.raises(ValueError, match="cannot open"):
        planted.opened(nn.Linear(2, 2))
    subject, case = backdoor
    never = case._replace(test=case.test._replace(t_planted=torch.full_like(case.test.t_planted, 99)))
    with pytest.raises(ValueError, match="nothing to remove"):
        planted.edits(subject, never, [1], methods=["random"])


# Interventions and scores ----------------------------------------------------------------------------------------


def test_the_opened_model_is_the_model(llama, few):
    subject, evidence = few
    torch.testing.assert_close(subject.predict(evidence.x), subject.model(evidence.x))
    model, rows = llama
    opened = planted.opened(model)
    assert opened.sizes == [32, 24, 32, 24]
    torch.testing.assert_close(opened.predict(rows.x), model(rows.x).logits[:, -1])


def test_ablating_nothing_changes_nothing_and_everything_leaves_a_constant(few):
    subject, evidence = few
    values = planted.means(subject, evidence.x)
    plain = subject.predict(evidence.triggered)
    with planted.ablated(subject, [], values):
        assert torch.equal(subject.predict(evidence.triggered), plain)
    with planted.ablated(subject, range(len(subject)), values):
        assert subject.predict(evidence.triggered).std(0).max() < 1e-5
    assert torch.equal(subject.predict(evidence.triggered), plain)  # and no hook is left


def test_exact_scores_are_a_brute_force_loop(few):
    subject, evidence = few
    first, second = subject.model[0], subject.model[2]
    relu = lambda x: x.clamp(min=0)

    def by_hand(values_of):
        found = []
        for u in range(len(subject)):
            a = relu(first(evidence.triggered))
            if u < 64:
                a[:, u] = values_of(0)[..., u]
            b = relu(second(a))
            if u >= 64:
                b[:, u - 64] = values_of(1)[..., u - 64]
            found.append(planted.margin(subject.model[4](b), evidence.t_right, evidence.t_planted).mean())
        base = planted.margin(subject.model(evidence.triggered), evidence.t_right, evidence.t_planted).mean()
        return base - torch.stack(found)

    pair = [relu(first(evidence.pair))]
    pair.append(relu(second(pair[0])))
    mean = [relu(first(evidence.x)).mean(0), relu(second(relu(first(evidence.x)))).mean(0)]
    torch.testing.assert_close(planted.patching(subject, evidence), by_hand(lambda i: pair[i]), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(planted.ablation(subject, evidence), by_hand(lambda i: mean[i]), atol=1e-5, rtol=1e-4)


def test_estimates_equal_the_exact_scores_where_the_model_is_linear(few):
    """The last layer's units enter the margin linearly: gradient estimates are exact there."""
    subject, evidence = few
    for estimate, exact in (
        (planted.attribution_patching, planted.patching),
        (planted.eap_ig, planted.patching),
        (planted.ablation_estimate, planted.ablation),
    ):
        torch.testing.assert_close(
            estimate(subject, evidence)[64:], exact(subject, evidence)[64:], atol=1e-4, rtol=1e-3
        )


def test_conductance_is_complete_and_captums(few):
    from captum.attr import LayerConductance

    subject, evidence = few
    found = planted.conductance(subject, evidence, steps=200)
    start = evidence.x.mean(0, keepdim=True).expand_as(evidence.triggered)
    of = lambda x: planted.margin(subject.model(x), evidence.t_right, evidence.t_planted)
    change = (of(evidence.triggered) - of(start)).mean()
    for part in subject.split(found):
        assert part.sum().item() == pytest.approx(change.item(), rel=0.02)
    rows = lambda x, right, wrong: planted.margin(subject.model(x), right, wrong)
    answers = (evidence.t_right, evidence.t_planted)
    theirs = LayerConductance(rows, subject.model[1]).attribute(
        evidence.triggered, baselines=start, additional_forward_args=answers, n_steps=200
    )
    torch.testing.assert_close(subject.split(found)[0], theirs.mean(0).detach().float(), atol=0.05, rtol=0.05)
    pair = planted.conductance_pair(subject, evidence, steps=200)
    change = (of(evidence.triggered) - of(evidence.pair)).mean()
    assert subject.split(pair)[1].sum().item() == pytest.approx(change.item(), rel=0.02)


def test_patching_of_units_adds_up_to_section_01s_heads_and_mlps(llama):
    """Attribution patching is linear: the units of a head, or of an MLP, sum to that node's score there."""
    model, rows = llama
    subject, decoder = planted.opened(model), Decoder(model)
    found = subject.split(planted.attribution_patching(subject, rows))
    pairs = Pairs(rows.triggered, rows.pair, rows.t_planted[:, None], rows.t_right[:, None])
    nodes = section_01.node_scores(section_01.eap(decoder, pairs))
    graph = decoder.graph
    for layer in range(2):
        heads = found[2 * layer].view(2, 16).sum(1)
        torch.testing.assert_close(heads, nodes[graph.head(layer, 0) : graph.mlp(layer)], atol=1e-4, rtol=1e-3)
        assert found[2 * layer + 1].sum().item() == pytest.approx(nodes[graph.mlp(layer)].item(), abs=1e-4)


def test_stimulation_raises_the_planted_class_in_the_planted_model_only(backdoor):
    subject, case = backdoor
    twin = planted.digits("backdoor", 0, planted=False)
    honest = planted.opened(planted.network(twin))
    x = case.audit.x[:60]
    rise, other = planted.stimulated(subject, x), planted.stimulated(honest, x)
    assert rise.shape == (128, 10)
    assert rise[:, planted.CLASS].max() > other[:, planted.CLASS].max()
    torch.testing.assert_close(rise.sum(1), torch.zeros(128), atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", planted.METHODS)
def test_every_score_is_one_finite_number_a_unit_and_repeatable(few, llama, name):
    score = planted.METHODS[name].score
    subject, evidence = few
    evidence = evidence._replace(x=evidence.x[:6], right=evidence.right[:6], planted=evidence.planted[:6])
    found = score(subject, evidence, seed=1)
    assert found.shape == (128,)
    assert torch.isfinite(found).all()
    assert torch.equal(found, score(subject, evidence, seed=1))
    model, rows = llama
    if name == "connected to explanation":
        with pytest.raises(ValueError, match="weights connect"):
            score(planted.opened(model), rows)
    else:
        found = score(planted.opened(model), rows, seed=1)
        assert found.shape == (112,)
        assert torch.isfinite(found).all()


# Edits -----------------------------------------------------------------------------------------------------------


def test_the_oracle_beats_its_reverse_and_chance(backdoor):
    subject, case = backdoor
    values = planted.means(subject, case.audit.x)
    best = planted.oracle(subject, case.audit, 12)
    assert len(set(best)) == 12
    worst = planted.ranking(-planted.ablation(subject, case.audit))[:12]
    chance = planted.ranking(planted.random(subject, case.audit))[:12]
    success = []
    for units in (best, worst, chance):
        with planted.ablated(subject, units, values):
            success.append(planted.outcome(subject, case.test)["success"])
    assert success[0] < success[2] - 0.2
    assert success[2] <= success[1] + 0.05


def test_tuning_touches_the_chosen_columns_only_and_puts_them_back(backdoor):
    subject, case = backdoor
    before = [reader.weight.clone() for reader in subject.readers]
    plain = planted.outcome(subject, case.test)
    with planted.tuned(subject, [3, 70], case.audit):
        changed = [
            (reader.weight != w).any(0).nonzero().flatten().tolist()
            for reader, w in zip(subject.readers, before, strict=True)
        ]
        assert changed == [[3], [6]]
        assert not any(reader.weight.requires_grad for reader in subject.readers)
    assert all(torch.equal(reader.weight, w) for reader, w in zip(subject.readers, before, strict=True))
    with planted.tuned(subject, range(128), case.audit):
        after = planted.outcome(subject, case.test)
    assert after["success"] < 0.2 < plain["success"]
    with planted.tuned(subject, [], case.audit):
        assert planted.outcome(subject, case.test) == plain


def test_faithfulness_runs_from_nothing_to_everything(backdoor, llama):
    subject, case = backdoor
    assert planted.faithfulness(subject, case.test, []) == pytest.approx(0, abs=1e-5)
    assert planted.faithfulness(subject, case.test, range(128)) == pytest.approx(1, abs=1e-5)
    assert planted.faithfulness(subject, case.test, range(64, 128)) == pytest.approx(1, abs=1e-5)  # the last layer
    dead = case.test._replace(triggered=case.test.pair)
    with pytest.raises(ValueError, match="no rule"):
        planted.faithfulness(subject, dead, [1])


def test_edits_table(backdoor):
    subject, case = backdoor
    table = planted.edits(subject, case, [1, 8], methods=["random", "mean ablation"], greedy=True)
    assert len(table) == 3 * 2 * 2
    assert (table.net == table.removed - table.lost).all()
    by = table[table.edit == "ablate"].set_index(["method", "k"]).removed
    assert by["mean ablation", 8] > by["random", 8] + 0.1


def test_trace_is_zero_where_nothing_differs_and_one_at_the_end(llama):
    model, rows = llama
    triggered, pair = rows.triggered[0], rows.triggered[0].clone()
    pair[2] = (pair[2] + 1) % 50
    grid = planted.trace(model, triggered, pair, rows.t_right[:1], rows.t_planted[:1])
    assert grid.shape == (3, 7)
    np.testing.assert_allclose(grid[0, [0, 1, 3, 4, 5, 6]], 0, atol=1e-4)
    np.testing.assert_allclose(grid[0, 2], 1, atol=1e-4)
    np.testing.assert_allclose(grid[2], [0, 0, 0, 0, 0, 0, 1], atol=1e-4)


# Detection -------------------------------------------------------------------------------------------------------


def test_lime_finds_a_linear_model(few):
    _, evidence = few
    weight = torch.randn(64, 2, generator=torch.Generator().manual_seed(0))
    x, target = evidence.x, torch.zeros(len(evidence.x), dtype=torch.long)
    found = planted.lime(lambda rows: rows @ weight, x, target, evidence.triggered, samples=2000)
    exact = (x - evidence.triggered.mean(0)) * weight[:, 0]
    assert np.corrcoef(found.flatten(), exact.flatten())[0, 1] > 0.98


def test_trigger_search_finds_the_pixel_that_decides():
    x = torch.rand(20, 64, generator=torch.Generator().manual_seed(0)) * 0.3

    def predict(rows):  # pixel 5 makes class 1 of anything; no single pixel makes class 0 or 2
        return torch.stack([rows[:, :5].sum(1), 20 * rows[:, 5] - 8, rows[:, 6:].mean(1)], 1)

    size, masks = planted.trigger_search(predict, x, 3)
    assert size.argmin() == 1
    assert masks[1].argmax() == 5


def test_detector_by_hand_and_with_too_small_a_pool():
    pool = np.array([[0.0, 1.0], [2.0, 1.0], [4.0, 1.0]])
    np.testing.assert_allclose(planted.deviation(np.array([2.0, 2.0]), pool), [0, 1 / (0 + 1)], atol=1e-6)
    with pytest.raises(ValueError, match="at least 3"):
        planted.deviation(np.zeros(2), pool[:2])


def test_separated_gives_one_for_a_visible_difference_and_half_for_none():
    rng = np.random.default_rng(0)

    def found(shift):
        vector = rng.normal(size=6)
        vector[2] += shift
        return {kind: planted.Found(vector, vector) for kind in planted.KINDS}

    pool, same, other = ([found(shift) for _ in range(8)] for shift in (0, 0, 30))
    table = planted.separated(other, same, pool, [2])
    assert (table.auc == 1).all()
    assert (table.naming == 1).all()
    mixed = planted.separated([found(0) for _ in range(8)], same, pool, [2])
    assert (mixed.low < 0.5).all()
    assert (mixed.high > 0.5).all()


def test_evidence_of_one_model(backdoor):
    subject, case = backdoor
    state = torch.get_rng_state()
    found = planted.evidence_vectors(subject, case, rows=8)
    assert torch.equal(state, torch.get_rng_state())
    assert set(found) == set(planted.KINDS)
    assert all(np.isfinite(f.vector).all() for f in found.values())
    again = planted.evidence_vectors(subject, case, rows=8)
    assert all(np.array_equal(found[k].vector, again[k].vector) for k in found)
    # SHAP and IG give nothing to a pixel that is 0 in every input.
    spotless = case.audit.x.clone()
    spotless[:, list(planted.CORNERS)] = 0
    found = planted.evidence_vectors(subject, case._replace(audit=case.audit._replace(x=spotless)), rows=8)
    for kind in ("SHAP", "integrated gradients", "LIME"):
        np.testing.assert_allclose(found[kind].pixels[list(planted.CORNERS)], 0, atol=0.02)
