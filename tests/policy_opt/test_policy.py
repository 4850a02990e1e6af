"""The tiny policy and what is asked of policies."""

import copy

import pandas as pd
import pytest
import torch

from compendium import formats
from compendium.policy_opt import mbpp, policy, word_problems

SMALL = dict(width=64, layers=2, heads=2, inner=64)


@pytest.fixture(scope="module")
def small():
    return policy.fresh(1, **SMALL)


@pytest.fixture(scope="module")
def asked():
    return [problem.question for problem in word_problems.problems(6)]


def test_the_tiny_policy_is_tiny_and_seeded():
    before = torch.random.get_rng_state()
    model, tokenizer = policy.fresh(0)
    assert torch.equal(before, torch.random.get_rng_state())
    assert 0.7e6 < model.num_parameters() < 1.0e6
    assert len(tokenizer) == model.config.vocab_size == 84
    same, other = policy.fresh(0)[0], policy.fresh(1)[0]
    weights = lambda m: m.model.layers[0].mlp.up_proj.weight
    assert torch.equal(weights(model), weights(same))
    assert not torch.equal(weights(model), weights(other))


def test_the_tiny_policy_can_be_stored_in_four_bits(small):
    model, _ = small
    before = model.model.layers[0].mlp.up_proj.weight.clone()
    with formats.quantised(model, "nf4"):
        stored = model.model.layers[0].mlp.up_proj.weight.clone()
    assert 0.01 < (stored - before).norm() / before.norm() < 0.2
    assert torch.equal(before, model.model.layers[0].mlp.up_proj.weight)


def test_generation_is_seeded_and_leaves_the_random_state(small, asked):
    model, tokenizer = small
    before = torch.random.get_rng_state()
    options = dict(samples=3, temperature=1.0, length=12)
    made = policy.generate(model, tokenizer, asked, seed=5, **options)
    assert torch.equal(before, torch.random.get_rng_state())
    assert len(made) == 18
    assert made == policy.generate(model, tokenizer, asked, seed=5, **options)
    assert made != policy.generate(model, tokenizer, asked, seed=6, **options)
    assert made[0] != made[1]
    assert all(len(ids) <= 12 and tokenizer.eos_token_id not in ids[:-1] for ids in made)
    model.train()
    policy.generate(model, tokenizer, asked[:1], length=2)
    assert model.training


def test_a_models_own_generation_settings_do_not_count(small, asked):
    model, tokenizer = small
    plain = policy.generate(model, tokenizer, asked, length=8)
    drawn = policy.generate(model, tokenizer, asked, length=8, temperature=1.0)
    own, model.generation_config = model.generation_config, copy.deepcopy(model.generation_config)
    try:
        model.generation_config.update(do_sample=True, temperature=5.0, top_k=3, top_p=0.5, repetition_penalty=2.0)
        assert policy.generate(model, tokenizer, asked, length=8) == plain
        assert policy.generate(model, tokenizer, asked, length=8, temperature=1.0) == drawn
    finally:
        model.generation_config = own


def test_greedy_answers_do_not_depend_on_the_batch(small, asked):
    model, tokenizer = small
    whole = policy.generate(model, tokenizer, asked, length=8)
    assert whole == [policy.generate(model, tokenizer, [q], length=8)[0] for q in asked]
    assert whole == policy.generate(model, tokenizer, asked, length=8, batch=4)


def test_log_probabilities_are_those_of_the_sequence_alone(small, asked):
    model, tokenizer = small
    made = policy.generate(model, tokenizer, asked, temperature=1.0, length=10)
    made[2] = []
    found = policy.logps(model, tokenizer, asked, made, batch=4)
    for question, completion, logp in zip(asked, made, found, strict=True):
        n = len(tokenizer(question)["input_ids"])
        ids = torch.tensor([tokenizer(question)["input_ids"] + completion])
        with torch.no_grad():
            expected = model.eval()(ids).logits[0, :-1].log_softmax(-1).gather(1, ids[0, 1:, None])[n - 1 :, 0]
        torch.testing.assert_close(logp, expected, rtol=1e-4, atol=1e-5)


def test_drift_is_zero_from_oneself_and_positive_from_others(small, asked):
    model, tokenizer = small
    made = policy.generate(model, tokenizer, asked, temperature=1.0, length=10)
    assert policy.drift(model, model, tokenizer, asked, made) == 0
    assert policy.drift(model, policy.fresh(2, **SMALL)[0], tokenizer, asked, made) > 0


def test_answers_are_judged_and_summed_up(small):
    _, tokenizer = small
    problems = word_problems.problems(4)
    right = [[*tokenizer(p.solution)["input_ids"], tokenizer.eos_token_id] for p in problems]
    answers = policy.judged(tokenizer, problems, right, 64)
    assert answers.correct.tolist() == [1] * 4
    assert answers.finished.tolist() == [1] * 4
    found = policy.summary(answers)
    assert (found["accuracy"], found["n"]) == (1, 4)
    assert found["low"] == pytest.approx(0.5101, abs=1e-3)  # Wilson's interval for four of four
    halves = policy.judged(tokenizer, problems, [ids for r in right for ids in (r, r[:-2])], 64)
    assert halves.correct.tolist() == [0.5] * 4
    assert halves.finished.tolist() == [1] * 4  # shorter than the limit: it ended by itself
    shares = pd.DataFrame({"correct": [0.5, 1.0, 0.0, 0.75], "length": 3.0, "finished": 1.0})
    found = policy.summary(shares)
    assert found["low"] < found["accuracy"] < found["high"]


def test_programs_are_judged_by_their_tests():
    task = mbpp.Program("double", "", ("assert double(2) == 4",))
    assert policy.right("def double(x): return x + x", task)
    assert not policy.right("def double(x): return x", task)


def test_chat_needs_a_template(small):
    _, tokenizer = small
    assert policy.prompts(tokenizer, ["why?"], instruction="be brief.") == ["why?\nbe brief."]
    with pytest.raises(ValueError, match="no chat template"):
        policy.prompts(tokenizer, ["why?"], chat=True)
