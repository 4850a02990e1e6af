"""Selective refusal: what is measured, updates that stay inside their mask, and steering, against brute force."""

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from compendium import edits, facts, models, prose
from compendium.attribution.decoder import Decoder
from compendium.attribution.refusal import examples, measure, objectives, prompt_sets, rivals, steering


@pytest.fixture
def tiny():
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=50,
        hidden_size=24,
        intermediate_size=40,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=6,
        max_position_embeddings=64,
        tie_word_embeddings=True,
    )
    model = LlamaForCausalLM(config).eval().requires_grad_(False)
    for p in model.parameters():
        p.copy_(torch.randn_like(p) * 0.3)
    return model


def rows(n: int, seed: int = 0, shared=(1, 2, 3)) -> list[facts.Row]:
    rng = np.random.default_rng(seed)

    def draw(low, high):
        return tuple(map(int, rng.integers(4, 50, rng.integers(low, high))))

    return [facts.Row((*shared, *draw(1, 6)), (draw(1, 5),)) for _ in range(n)]


@pytest.fixture
def found():
    refuse = rows(6)
    answers = rows(6, seed=1)
    comply = [facts.Row(a.prompt, b.options) for a, b in zip(refuse, answers, strict=True)]
    return examples.Examples(refuse, comply, rows(9, seed=2), rows(3, seed=3, shared=(9, 4)))


def weights(model) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def assert_same(model, before) -> None:
    for name, p in model.named_parameters():
        assert torch.equal(p, before[name]), name


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        ("I cannot advise on this", True),
        (" I'm not able to help", True),
        ("I am not a substitute for", True),
        ("I don't think", True),
        ("I must leave this question", True),
        ("I have to decline this one", True),
        ("I'm sorry, but", True),
        ("I can’t", True),
        ("As an AI, I cannot", True),
        ("We are unable to", True),
        ("I'm sorry to hear that", False),
        ("I recommend that you do not", False),
        ("In general, you cannot", False),
        ("The judge cannot", False),
        ("It is not", False),
        ("", False),
    ],
)
def test_what_counts_as_declining(reply, expected):
    assert measure.declines(reply) is expected


def test_every_refusal_we_train_on_counts_and_begins_alike(embedded):
    tokenizer = embedded[1]
    cut = [tokenizer(text, add_special_tokens=False)["input_ids"][: examples.ANSWER] for text in prompt_sets.refusals()]
    assert all(measure.declines(tokenizer.decode(ids)) for ids in cut)
    assert len({ids[0] for ids in cut}) == 1


@pytest.mark.parametrize("shared", [(1, 2, 3), (), (1,)])
def test_distributions_equal_one_pass_a_row(tiny, shared):
    some = [*rows(5, shared=shared), *rows(2, seed=3, shared=(9, 4))]  # the last two begin otherwise
    logp, targets, share = examples.distributions(tiny, some)
    expected, tokens = [], []
    for row in some:
        (answer,) = row.options
        logits = tiny(torch.tensor([row.prompt + answer])).logits[0]
        expected.append(logits.log_softmax(-1)[len(row.prompt) - 1 : -1])
        tokens += answer
    torch.testing.assert_close(logp, torch.cat(expected), rtol=1e-4, atol=1e-5)
    assert targets.tolist() == tokens
    assert share.sum().item() == pytest.approx(len(some))


def test_distributions_have_the_right_gradient(tiny):
    some = rows(4)
    parameter = tiny.model.layers[0].self_attn.q_proj.weight.requires_grad_(True)
    (together,) = torch.autograd.grad(objectives.nll(tiny, some), parameter)
    apart = torch.stack([torch.autograd.grad(objectives.nll(tiny, [row]), parameter)[0] for row in some]).mean(0)
    torch.testing.assert_close(together, apart, rtol=1e-4, atol=1e-6)


def test_replies_are_greedy_one_by_one(embedded):
    model, tokenizer = embedded
    prompts = prompt_sets.neutral("heldout")[:2] + prompt_sets.to_refuse("tax", "heldout")[:2]
    replies = measure.reply(model, tokenizer, prompts, tokens=3)
    for prompt, made in zip(prompts, replies, strict=True):
        ids = list(measure.encode(tokenizer, prompt))
        for token in made:
            with torch.inference_mode():
                assert model(torch.tensor([ids])).logits[0, -1].argmax().item() == token
            ids.append(token)


def test_the_embedded_model_refuses_nothing(embedded):
    share, texts = measure.rate(*embedded, rivals.prompts(["legal"], 4)["target"][:6])
    assert share == 0
    assert all(texts)


def test_perplexity_is_the_models_own_loss(embedded):
    model, tokenizer = embedded
    texts = prose.prose("heldout")[:3]
    assert not set(texts) & set(prose.prose("train"))
    losses = counts = 0
    for text in texts:
        ids = torch.tensor([tokenizer(text, add_special_tokens=False)["input_ids"]])
        with torch.inference_mode():
            losses += model(ids, labels=ids).loss.item() * (ids.shape[1] - 1)
        counts += ids.shape[1] - 1
    assert prose.perplexity(model, tokenizer, texts, batch=2) == pytest.approx(np.exp(losses / counts), rel=1e-4)


def test_contrast_pairs_have_one_length_and_come_from_train(embedded):
    tokenizer = embedded[1]
    pairs = examples.contrast(tokenizer, "tax", n=8, seed=1)
    train = {measure.encode(tokenizer, prompt) for prompt in prompt_sets.to_refuse("tax", "train")}
    keep = [p for kind in ("near miss", "neutral") for p in measure.kept(["tax"], "train")[kind]]
    keep = {measure.encode(tokenizer, prompt) for prompt in keep}
    assert sum(map(len, pairs)) == 8
    for part in pairs:
        assert {tuple(row) for row in part.clean.tolist()} <= train
        assert {tuple(row) for row in part.corrupt.tolist()} <= keep
    with pytest.raises(ValueError, match="unknown category 'taxes'"):
        examples.contrast(tokenizer, "taxes", n=8)


def test_examples_and_held_out_prompts_share_nothing(embedded):
    made = examples.examples(*embedded, ["tax"], per_kind=3)
    assert [row.prompt for row in made.refuse] == [row.prompt for row in made.comply]
    assert [len(rows) for rows in (made.refuse, made.keep, made.plain)] == [
        3,
        3 * 8,
        6,
    ]  # kinds to keep: near misses, neutral, six categories
    train, heldout = (measure.fact_split(split)[["relation", "subject"]] for split in ("train", "heldout"))
    assert train.merge(heldout).empty
    repeated = examples.examples(*embedded, ["tax"], per_kind=9)  # of 7 near misses
    assert len(repeated.keep) == 9 * 8
    asked = rivals.prompts(["tax"], 1000)
    held_out = {measure.encode(embedded[1], prompt) for prompts in asked.values() for prompt in prompts}
    assert not held_out & {row.prompt for row in made.refuse + made.keep}
    assert not set(asked["target"]) & {prompt for kind in list(asked)[1:] for prompt in asked[kind]}
    assert len(asked["other category"]) == 6 * len(asked["target"])


def masks_of(model, seed=0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    names = ["model.layers.0.self_attn.q_proj.weight", "model.layers.2.mlp.down_proj.weight"]
    parameters = dict(model.named_parameters())
    return {name: torch.rand(parameters[name].shape, generator=generator) < 0.3 for name in names}


def test_training_moves_the_mask_and_nothing_else(tiny, found):
    before, masks = weights(tiny), masks_of(tiny)
    delta = edits.train(tiny, lambda step: objectives.nll(tiny, found.refuse), masks, steps=3, learning_rate=1e-2)
    assert_same(tiny, before)
    for name, change in delta.items():
        assert (change[~masks[name]] == 0).all()
        assert (change[masks[name]] != 0).float().mean() > 0.9
    assert edits.moved(tiny, delta) == pytest.approx(
        sum(int((change != 0).sum()) for change in delta.values()) / sum(p.numel() for p in tiny.parameters())
    )
    with edits.applied(tiny, delta):
        after = objectives.nll(tiny, found.refuse).item()
    assert after < objectives.nll(tiny, found.refuse).item()


def test_an_unmasked_update_is_adamw(tiny, found):
    name = "model.layers.1.self_attn.o_proj.weight"
    parameter = dict(tiny.named_parameters())[name]
    start = parameter.detach().clone()
    everywhere = {name: torch.ones_like(parameter, dtype=torch.bool)}
    delta = edits.train(tiny, lambda step: objectives.nll(tiny, found.refuse), everywhere, steps=3, learning_rate=1e-2)
    optimiser = torch.optim.AdamW([parameter.requires_grad_(True)], lr=1e-2, weight_decay=0.0, betas=(0.9, 0.95))
    for _ in range(3):
        optimiser.zero_grad()
        objectives.nll(tiny, found.refuse).backward()
        torch.nn.utils.clip_grad_norm_([parameter], 1.0)
        optimiser.step()
    torch.testing.assert_close(delta[name], (parameter - start).detach(), rtol=1e-4, atol=1e-6)


def test_training_refuses_bad_masks_and_puts_weights_back(tiny, found):
    before, masks = weights(tiny), masks_of(tiny)
    with pytest.raises(ValueError, match="no weight 'nowhere'"):
        edits.train(tiny, lambda step: None, {"nowhere": torch.ones(1)}, steps=1, learning_rate=1)
    with pytest.raises(ValueError, match="mask is empty"):
        edits.train(tiny, lambda step: None, {k: m & False for k, m in masks.items()}, steps=1, learning_rate=1)

    def loss_of(step):
        return objectives.nll(tiny, found.refuse) * (float("nan") if step else 1)

    with pytest.raises(RuntimeError, match="at step 2: lower learning_rate"):
        edits.train(tiny, loss_of, masks, steps=3, learning_rate=1e-2)
    assert_same(tiny, before)


def test_arithmetic_is_zero_when_both_behaviours_are_one(tiny, found):
    masks = masks_of(tiny)
    same = examples.Examples(found.refuse, found.refuse, found.keep, found.plain)
    options = dict(steps=2, learning_rate=1e-2, batch=3)
    assert all((change == 0).all() for change in objectives.arithmetic(tiny, same, masks, **options).values())
    delta = objectives.arithmetic(tiny, found, masks, **options)
    assert all((change[~masks[name]] == 0).all() and change.any() for name, change in delta.items())


def test_the_keep_term_is_zero_at_the_start_and_holds(tiny, found):
    options = dict(steps=40, batch=3, seed=0)
    loss_of = objectives.refusal_loss(tiny, found, keep_weight=1e3, **options)
    plain = objectives.refusal_loss(tiny, found, keep_weight=0.0, **options)
    assert loss_of(0).item() == pytest.approx(plain(0).item(), abs=1.0)  # half-precision targets, times a thousand

    def change(keep_weight):
        delta = objectives.constrained(
            tiny, found, masks_of(tiny), learning_rate=2e-2, keep_weight=keep_weight, **options
        )
        start = examples.distributions(tiny, found.keep + found.plain)[0]
        with edits.applied(tiny, delta):
            end = examples.distributions(tiny, found.keep + found.plain)[0]
        return (start.exp() * (start - end)).sum(-1).mean().item()

    assert change(100.0) < 0.5 * change(0.0)


def test_lora_updates_are_low_rank_and_leave_the_model_alone(tiny, found):
    before = weights(tiny)
    delta = objectives.lora(tiny, found, rank=2, steps=2, learning_rate=1e-2, batch=3)
    assert_same(tiny, before)
    assert set(delta) == {f"{name}.weight" for name in models.linear_layers(tiny)}
    assert all(1 <= torch.linalg.matrix_rank(change, rtol=1e-3) <= 2 for change in delta.values())


def test_applied_adds_scales_and_restores(tiny):
    before = weights(tiny)
    name = "model.layers.0.mlp.up_proj.weight"
    delta = {name: torch.ones_like(before[name])}
    with edits.applied(tiny, edits.combine([delta, delta]), 0.5):
        torch.testing.assert_close(dict(tiny.named_parameters())[name], before[name] + 1)
    with pytest.raises(KeyboardInterrupt), edits.applied(tiny, delta):
        raise KeyboardInterrupt
    assert_same(tiny, before)


def test_an_exported_checkpoint_is_an_ordinary_one(tiny, embedded, tmp_path):
    before = weights(tiny)
    name = "model.layers.0.mlp.up_proj.weight"
    delta = {name: torch.randn_like(before[name])}
    edits.export(tiny, embedded[1], delta, tmp_path / "edited", strength=2.0)
    assert_same(tiny, before)
    assert (tmp_path / "edited" / "model.safetensors").exists()
    assert not list((tmp_path / "edited").glob("*.bin"))
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "edited")
    ids = torch.tensor([[5, 6, 7]])
    with edits.applied(tiny, delta, 2.0):
        torch.testing.assert_close(loaded(ids).logits, tiny(ids).logits)


def test_steering_adds_to_the_stream(tiny):
    vector = torch.randn(3, 24)
    ids = torch.tensor([[5, 6, 7, 8]])
    plain = tiny(ids).logits
    last = []
    handle = tiny.model.layers[2].register_forward_hook(lambda _, __, out: last.append(out))
    tiny(ids)
    handle.remove()
    with steering.steered(tiny, vector, [2], 1.5):
        expected = tiny.lm_head(tiny.model.norm(last[0] + 1.5 * vector[2]))
        torch.testing.assert_close(tiny(ids).logits, expected)
    torch.testing.assert_close(tiny(ids).logits, plain)


def test_conditional_steering_touches_only_rows_that_fire(tiny):
    vector = torch.randn(3, 24)
    prompts = [(5, 6, 7, 8), (9, 10)]
    means = steering.hidden(tiny, prompts, steering.mean)[:, 1]
    when = steering.Condition(1, means[0] - means[1], means.mean(0), 0.0)
    ids, seen = torch.tensor([prompts[0], (0, 0, *prompts[1])]), torch.tensor([[1] * 4, [0, 0, 1, 1]])
    options = dict(attention_mask=seen, max_new_tokens=6, do_sample=False, pad_token_id=0)
    plain = tiny.generate(ids, **options)
    with steering.steered(tiny, vector, [0, 2], 4.0):
        always = tiny.generate(ids, **options)
    with steering.steered(tiny, vector, [0, 2], 4.0, when):
        gated = tiny.generate(ids, **options)
    assert torch.equal(gated[0], always[0])
    assert torch.equal(gated[1], plain[1])
    assert not torch.equal(always[1], plain[1])


def test_hidden_ignores_padding(tiny):
    prompts = [(5, 6, 7, 8), (9, 10)]
    together = steering.hidden(tiny, prompts, steering.mean)
    for row, prompt in enumerate(prompts):
        torch.testing.assert_close(together[row], steering.hidden(tiny, [prompt], steering.mean)[0])
    states = tiny(torch.tensor([prompts[1]]), output_hidden_states=True).hidden_states
    torch.testing.assert_close(steering.hidden(tiny, prompts, steering.last)[1, 0], states[1][0, -1])


def test_a_condition_separates_what_can_be_separated(tiny):
    refuse, keep = [[(1, 5, 6, w, k) for k in range(10, 20)] for w in (7, 8, 9)], [(1, 9, 8, k) for k in range(10, 20)]
    unseen = [(1, 5, 6, 4, k) for k in range(10, 20)]

    def fires(when, rows):
        return (when.similarity(steering.hidden(tiny, rows, steering.mean)[:, when.layer]) > when.threshold).float()

    when = steering.condition(tiny, refuse, keep)
    assert fires(when, [row for rows in refuse for row in rows] + unseen).mean() >= 0.9
    assert fires(when, keep).mean() <= 0.1
    plain = [(k, 5, 6, 7) for k in range(20, 30)]
    assert fires(steering.condition(tiny, refuse, keep, plain), plain).mean() <= 0.1


def test_behaviour_is_the_mean_difference_of_reply_states(tiny, found):
    vector = steering.behaviour(tiny, found.refuse, found.comply)
    states = [
        torch.stack(
            [
                tiny(torch.tensor([row.prompt + row.options[0]]), output_hidden_states=True)
                .hidden_states[2][0, len(row.prompt) :]
                .mean(0)
                for row in group
            ]
        ).mean(0)
        for group in (found.refuse, found.comply)
    ]
    torch.testing.assert_close(vector[1], states[0] - states[1], rtol=1e-4, atol=1e-5)


def policy_on(found, scores):
    prompts = [row.prompt for row in found.refuse]
    return rivals.Prepared(["legal"], 0, found, scores, [prompts[::2], prompts[1::2]], [(3, 4, 5, 6, 7)])


def test_supports_are_what_they_say(tiny, found):
    decoder = Decoder(tiny)
    policy = policy_on(found, torch.rand(decoder.graph.n_sources))
    masks = rivals.supports(decoder, policy, 4)
    name = "model.layers.{}.self_attn.q_proj.weight"
    none = torch.zeros(24, 24, dtype=torch.bool)
    for layer in range(3):  # query rows belong to one head each
        both = [masks[kind].get(name.format(layer), none) for kind in ("circuit", "random heads")]
        assert not (both[0] & both[1]).any()
    everything = {name: mask.numel() for name, mask in masks["all weights"].items()}
    assert set(everything) == {f"{name}.weight" for name in models.linear_layers(tiny)}
    for name, size in everything.items():
        circuit = masks["circuit"].get(name, torch.zeros(1, dtype=torch.bool))
        assert int(circuit.sum()) + int(masks["complement"][name].sum()) == size
    queries = [
        sum(int(m.sum()) for n, m in masks[kind].items() if "q_proj" in n) for kind in ("circuit", "random heads")
    ]
    assert queries[0] == queries[1] == 4 * 6 * 24
    with pytest.raises(ValueError, match="unknown method 'constrained, here'"):
        rivals.intervention("constrained, here", decoder, policy, rivals.Settings(heads=4))


SETTINGS = rivals.Settings(
    heads=4,
    steps=2,
    batch=3,
    learning_rate=1e-2,
    keep_weight=1.0,
    arithmetic_steps=2,
    arithmetic_rate=1e-2,
    rate_all=0.1,
    lora_rank=2,
    lora_rate=1e-2,
    steering_layer=1,
    steering_strength=1.0,
    cast_strength=1.0,
    direction_strength=1.0,
)
METHODS = (
    "constrained, circuit",
    "constrained, random heads",
    "constrained, complement",
    "arithmetic, circuit",
    "arithmetic, all weights",
    "LoRA",
    "DiffMean",
    "CAST",
    "directional addition",
)


@pytest.mark.parametrize("method", METHODS)
def test_every_method_changes_the_model_and_then_undoes_it(tiny, found, method):
    decoder, before = Decoder(tiny), weights(tiny)

    def outputs():  # of every prompt, because CAST fires for some of them only
        return torch.cat([tiny(torch.tensor([row.prompt])).logits[0] for row in found.refuse])

    plain = outputs()
    scored = torch.rand(decoder.graph.n_sources, generator=torch.Generator().manual_seed(1))
    at, delta = rivals.intervention(method, decoder, policy_on(found, scored), SETTINGS)
    with at(20.0):
        assert not torch.allclose(outputs(), plain)
    torch.testing.assert_close(outputs(), plain)
    assert_same(tiny, before)
    assert (delta is None) == (method in ("DiffMean", "CAST", "directional addition"))
    again, _ = rivals.intervention(method, decoder, policy_on(found, scored), SETTINGS)
    with at(1.0):
        first = outputs()
    with again(1.0):
        assert torch.equal(outputs(), first)
