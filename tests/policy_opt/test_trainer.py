"""The trainer: one step against `losses` on the same completions, exact zeros, dynamic sampling."""

import pytest
import torch

pytest.importorskip("trl")

from compendium.policy_opt import (
    config,
    credit,
    divergences,
    losses,
    mirror,
    policy,
    policy_trainer,
    trainer,
    word_problems,
)
from compendium.policy_opt.policy_trainer import GRPOTrainer

SMALL = dict(width=64, layers=2, heads=2, inner=64)
GROUP, ROWS, LENGTH, PROBLEMS = 4, 8, 60, 16


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    """A folder with a small random policy."""
    folder = tmp_path_factory.mktemp("start")
    model, tokenizer = policy.fresh(3, **SMALL)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def build(start, tmp_path, **changes):
    base = dict(model=start, problems=PROBLEMS, batch=ROWS, group=GROUP, length=LENGTH, steps=1, learning_rate=1e-3)
    return trainer.build(config.make(base | changes), tmp_path)


@pytest.fixture
def answered(monkeypatch):
    """Completions as a fair policy writes them, whatever the model: right, wrong, or cut off."""
    known = {p.question: p.solution for p in word_problems.problems(PROBLEMS)}
    tokenizer = word_problems.tokenizer()

    def answer(self, prompt_ids, *_, **__):
        made = []
        for i, ids in enumerate(prompt_ids):
            solution = known[tokenizer.decode(ids)[1:]]
            solution = solution[:-1] + str((int(solution[-1]) + i % GROUP) % 10)
            made.append([*tokenizer(solution)["input_ids"], tokenizer.eos_token_id][: LENGTH if i % 5 else 25])
        return made, None

    monkeypatch.setattr(GRPOTrainer, "_generate_single_turn", answer)


@pytest.fixture
def weighed(monkeypatch):
    """The token weights that the trainer asked for, by prompt and completion."""
    found, original = {}, credit.credit

    def spy(model, tokenizer, prompts, completions, **options):
        made = original(model, tokenizer, prompts, completions, **options)
        found.update({(*p, *c): w for p, c, w in zip(prompts, completions, made.weights, strict=True)})
        return made

    monkeypatch.setattr(policy_trainer.credits, "credit", spy)
    return found


def generated(made):
    """The micro-batches of the first generation, after which the policy has moved, so that ratios are not 1."""
    made.model.train()
    made.current_gradient_accumulation_steps = made.args.gradient_accumulation_steps
    made._prepare_inputs(next(iter(made.get_train_dataloader())))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in made.model.parameters():
            weight += 0.02 * torch.randn(weight.shape, generator=generator)
    return made._buffered_inputs


def joined(parts):
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0] if name != "num_items_in_batch"}


def unpadded(inputs, name):
    return [ids[mask.bool()].tolist() for ids, mask in zip(inputs[f"{name}_ids"], inputs[f"{name}_mask"], strict=True)]


def logps(model, inputs):
    """(rows, tokens), by the shortest way."""
    ids = torch.cat([inputs["prompt_ids"], inputs["completion_ids"]], 1)
    mask = torch.cat([inputs["prompt_mask"], inputs["completion_mask"]], 1)
    found = model(input_ids=ids, attention_mask=mask).logits.log_softmax(-1)[:, :-1].gather(2, ids[:, 1:, None])
    return found[:, -inputs["completion_ids"].shape[1] :, 0]


def by_hand(inputs, scale):
    """(rows,) advantages, from the texts alone; TRL has shuffled the rows."""
    tokenizer, known = word_problems.tokenizer(), {p.question: p.answer for p in word_problems.problems(PROBLEMS)}
    questions = [tokenizer.decode(ids)[1:] for ids in unpadded(inputs, "prompt")]
    texts = tokenizer.batch_decode(unpadded(inputs, "completion"), skip_special_tokens=True)
    scores = torch.tensor([float(word_problems.correct(t, known[q])) for t, q in zip(texts, questions, strict=True)])
    order = torch.tensor(sorted(range(ROWS), key=questions.__getitem__))
    found = torch.empty(ROWS)
    found[order] = losses.group_advantages(scores[order], GROUP, scale=scale)
    assert found.abs().sum() > 1
    return found


DIVERGENCES = divergences.DIVERGENCES | {"mirror": lambda p, q: mirror.divergence(mirror.initial(7), p, q)}


@pytest.mark.parametrize(
    ("method", "divergence", "mode", "parts"),
    [
        ("grpo", "none", "vanilla", 2),
        ("grpo", "k3", "vanilla", 2),
        ("grpo", "prob_l2", "counterfactual", 1),
        ("dr_grpo", "log_l2", "vanilla", 2),
        ("dr_grpo", "mirror", "shuffled", 1),
        ("dapo", "mirror", "vanilla", 2),
        ("dapo", "prob_l2", "counterfactual", 2),
        ("dapo", "none", "random", 1),
        ("gspo", "k3", "vanilla", 2),
    ],
)
def test_one_step_is_that_of_the_losses(start, tmp_path, answered, weighed, method, divergence, mode, parts):
    coefficient = 0.0 if divergence == "none" else 0.5
    made = build(
        start,
        tmp_path,
        method=method,
        divergence=divergence,
        coefficient=coefficient,
        credit=mode,
        updates=2,
        micro_batches=parts,
        mirror=7,
    )
    micro = generated(made)
    found = sum(made.compute_loss(made.model, part) for part in micro)
    gradient = torch.autograd.grad(found, list(made.model.parameters()))

    inputs, reference = joined(micro), policy.load(start)[0]
    now, then = logps(made.model, inputs), logps(reference, inputs).detach()  # the reference wrote them, too
    advantages = by_hand(inputs, scale=method != "dr_grpo")
    weights = torch.ones_like(now)
    keys = [(*p, *c) for p, c in zip(unpadded(inputs, "prompt"), unpadded(inputs, "completion"), strict=True)]
    for row, key, advantage in zip(weights, keys, advantages, strict=True):
        assert (key in weighed) == (mode != "vanilla" and advantage != 0)
        if key in weighed:
            row[: len(weighed[key])] = weighed[key]
    if mode != "vanilla":
        assert weights.std() > 0.05
    options = dict(divergence=DIVERGENCES[divergence], coefficient=coefficient) if coefficient else {}
    if method == "dr_grpo":
        options["length"] = LENGTH
    expected = losses.LOSSES[method](
        now, then, then, advantages, inputs["completion_mask"], weights.detach(), **options
    )
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-6)
    for one, other in zip(gradient, torch.autograd.grad(expected, list(made.model.parameters())), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=2e-6)


def test_token_weights_are_those_of_the_policy_that_wrote(start, tmp_path, answered, weighed):
    inputs = joined(generated(build(start, tmp_path, method="dapo", credit="counterfactual")))
    model, tokenizer = policy.load(start)
    prompts, completions = unpadded(inputs, "prompt"), unpadded(inputs, "completion")
    expected = credit.credit(model, tokenizer, prompts, completions).weights
    for row, p, c in zip(expected, prompts, completions, strict=True):
        if (*p, *c) in weighed:
            torch.testing.assert_close(weighed[(*p, *c)][: len(c)], row[: len(c)])
    assert weighed


def test_equal_rewards_leave_the_policy_as_it_is(start, tmp_path):
    made = build(start, tmp_path, rewards={f"{__name__}:tenth": 1.0}, steps=2, batch=6, group=3)
    before = [weight.detach().clone() for weight in made.model.parameters()]
    made.train()
    assert all(torch.equal(*pair) for pair in zip(before, made.model.parameters(), strict=True))


def tenth(completions, **_):
    """0.1, whose mean over three is not 0.1 in float32."""
    return [0.1] * len(completions)


def unknown(completions, **_):
    """No reward for the last completion of every group, 1 for the first."""
    return [{0: 1.0, GROUP - 1: None}.get(i % GROUP, 0.0) for i in range(len(completions))]


def endless(completions, **_):
    return [float("inf")] + [0.0] * (len(completions) - 1)


def test_a_missing_reward_is_left_out_and_an_infinite_one_refused(start, tmp_path):
    inputs = joined(generated(build(start, tmp_path, rewards={f"{__name__}:unknown": 2.0})))
    third = 2 / 3  # of the three known rewards 2, 0, 0
    assert sorted(inputs["advantages"].tolist()) == pytest.approx(sorted([2 - third, -third, -third, 0] * 2), abs=1e-6)
    with pytest.raises(ValueError, match="reward 'endless' is infinite for completion 0"):
        generated(build(start, tmp_path, rewards={f"{__name__}:endless": 1.0}))


def test_a_weight_counts_once(start, tmp_path, answered):
    given = {"correct": 0.5, "marker": 0.25, "calculations": 3.0}
    made = build(start, tmp_path, rewards=given)
    generated(made)
    table = torch.tensor([list(made._logs["rewards"][name]) for name in given]).T
    torch.testing.assert_close(made._totals, table @ torch.tensor(list(given.values())))
    assert table.max() == 1
    assert len(table.unique(dim=0)) > 1


def test_dynamic_sampling_replaces_prompts_that_teach_nothing(start, tmp_path, answered, monkeypatch):
    hard = {p.question for p in word_problems.problems(PROBLEMS)[: PROBLEMS - 4]}
    reward = lambda prompts, **_: [0.0 if p in hard else float(i % 2) for i, p in enumerate(prompts)]
    monkeypatch.setattr(trainer.rewards, "build", lambda *_, **__: ([reward], [1.0]))
    reward.__name__ = "sometimes"
    plain = joined(generated(build(start, tmp_path)))
    made = build(start, tmp_path, dynamic_sampling=50)
    inputs = joined(generated(made))
    assert (plain["advantages"] == 0).any()
    assert (inputs["advantages"] != 0).all()
    prompts = made.processing_class.batch_decode(unpadded(inputs, "prompt"))
    assert all(prompt[1:] not in hard for prompt in prompts)
    assert all(prompts.count(prompt) % GROUP == 0 for prompt in prompts)
    assert made._metrics["train"]["drawn"][0] > 1
    again = joined(generated(build(start, tmp_path, dynamic_sampling=50)))
    assert torch.equal(inputs["completion_ids"], again["completion_ids"])


def test_where_no_prompt_teaches_the_run_goes_on(start, tmp_path, answered, monkeypatch):
    reward = lambda prompts, **_: [1.0] * len(prompts)
    reward.__name__ = "always"
    monkeypatch.setattr(trainer.rewards, "build", lambda *_, **__: ([reward], [1.0]))
    inputs = joined(generated(build(start, tmp_path, dynamic_sampling=2)))
    assert len(inputs["advantages"]) == ROWS
    assert (inputs["advantages"] == 0).all()


def test_overlong_completions(start, tmp_path, answered):
    made = build(start, tmp_path, mask_overlong=True, overlong_buffer=30)
    inputs = joined(generated(made))
    ends = inputs["completion_ids"].eq(made.processing_class.eos_token_id).any(1)
    assert not ends.all()
    assert torch.equal(inputs["completion_mask"].any(1), ends)
    penalties = torch.tensor(list(made._logs["rewards"]["overlong"]))
    assert penalties.min() < 0
    assert penalties.max() == 0


def test_credit_is_refused_where_it_could_not_act(start, tmp_path):
    made = build(start, tmp_path, method="gspo")
    with pytest.raises(ValueError, match="no effect with sequence ratios"):
        policy_trainer.PolicyTrainer(
            made.model,
            made.reward_funcs,
            made.args,
            credit="random",
            processing_class=made.processing_class,
            train_dataset=made.train_dataset,
        )


def test_a_model_whose_positions_padding_would_shift_is_not_reinforced(start, tmp_path):
    import transformers

    tokenizer = word_problems.tokenizer()
    sizes = dict(hidden_size=64, num_hidden_layers=2, num_attention_heads=4, vocab_size=len(tokenizer))
    made = transformers.GPT2LMHeadModel(
        transformers.GPT2Config(pad_token_id=0, eos_token_id=1, bos_token_id=1, **sizes)
    )
    made.save_pretrained(tmp_path / "gpt2")
    tokenizer.save_pretrained(tmp_path / "gpt2")
    with pytest.raises(ValueError, match="shifted log-probabilities; choose a model with rotary positions"):
        build(str(tmp_path / "gpt2"), tmp_path / "a")
    assert build(str(tmp_path / "gpt2"), tmp_path / "b", method="sft")
