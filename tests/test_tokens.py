"""Tokenizers of every make, and batches that count as if each row ran alone."""

import pytest
import torch
import transformers
from tokenizers import Tokenizer, decoders, normalizers, pre_tokenizers, processors
from tokenizers import models as kinds
from transformers import PreTrainedTokenizerFast

from compendium import facts, prose, tokens
from compendium.attribution import contrast_pairs
from compendium.attribution.refusal import examples
from compendium.policy_opt import credit, policy, regions, word_problems
from compendium.unlearning import objectives

WORDS = list(
    dict.fromkeys(
        [
            *" ".join([*facts.load().subject, *facts.load().object]).split(), *contrast_pairs.NAMES, *contrast_pairs.NOUNS,
            *(f"{noun}s" for noun in contrast_pairs.NOUNS), *contrast_pairs.EVENTS, *contrast_pairs.PLACES, *contrast_pairs.SHOPS, *contrast_pairs.GIFTS,
            *"The capital of is near the lasted from year to When and went gave a are was were".split(),
        ]
    )
)  # fmt: skip
LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789,.?:'-"


def sentencepiece(template: str, alone: bool) -> PreTrainedTokenizerFast:
    """A unigram tokenizer like Llama 2's (alone: " Paris" by itself is "▁" and "▁Paris") or T5's."""
    pieces = [("<unk>", 0.0), ("<s>", 0.0), ("</s>", 0.0), ("▁", -12.0), *((f"▁{word}", -5.0) for word in WORDS)]
    made = Tokenizer(kinds.Unigram([*pieces, *((letter, -14.0) for letter in LETTERS)], unk_id=0))
    if alone:
        made.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
        made.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    else:
        made.pre_tokenizer, made.decoder = pre_tokenizers.Metaspace(prepend_scheme="first"), decoders.Metaspace()
    made.post_processor = processors.TemplateProcessing(template, special_tokens=[("<s>", 1), ("</s>", 2)])
    return PreTrainedTokenizerFast(tokenizer_object=made, bos_token="<s>", eos_token="</s>", unk_token="<unk>")


def wordpiece() -> PreTrainedTokenizerFast:
    """Like BERT's: [CLS] before, [SEP] after, small letters, no spaces."""
    pieces = ["[UNK]", "[CLS]", "[SEP]", *(w.lower() for w in WORDS), *LETTERS[:26], *"0123456789,.?:'-"]
    pieces = dict.fromkeys([*pieces, *(f"##{letter}" for letter in [*LETTERS[:26], *"0123456789"])])
    made = Tokenizer(kinds.WordPiece({piece: i for i, piece in enumerate(pieces)}, unk_token="[UNK]"))
    made.normalizer, made.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    made.post_processor = processors.TemplateProcessing("[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)])
    return PreTrainedTokenizerFast(tokenizer_object=made, unk_token="[UNK]", cls_token="[CLS]", eos_token="[SEP]")


def blind() -> PreTrainedTokenizerFast:
    """One that knows no word."""
    made = Tokenizer(kinds.WordLevel({"<unk>": 0, "<s>": 1, "</s>": 2}, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=made, unk_token="<unk>", eos_token="</s>")


MADE = {
    "Llama 2": lambda: sentencepiece("<s> $A", True),
    "Llama 2 with an end": lambda: sentencepiece("<s> $A </s>", True),
    "T5": lambda: sentencepiece("$A </s>", False),
    "BERT": wordpiece,
}


@pytest.mark.parametrize("name", MADE)
def test_options_and_prompts_end_with_their_text(name):
    tokenizer = MADE[name]()
    asked = facts.questions("country_capital").head(6)
    for row, options in zip(facts.encode(tokenizer, asked.prompt, asked.options), asked.options, strict=True):
        for ids, option in zip(row.options, options, strict=True):
            assert 2 not in ids
            assert tokenizer.decode(list(ids)).strip().lower() == option.lower()
    (ids,) = policy._ids(tokenizer, ["The capital of France is"])
    assert ids[-1] != 2
    assert tokenizer.decode(ids, skip_special_tokens=True).lower().endswith("france is")
    assert tokens.continuation(tokenizer, "The capital of France is", " Paris") == list(
        facts.encode(tokenizer, ["The capital of France is"], [("Paris",)])[0].options[0]
    )


@pytest.mark.parametrize("name", MADE)
@pytest.mark.parametrize("task", contrast_pairs.TASKS)
def test_contrast_pairs_of_any_tokenizer(name, task):
    tokenizer = MADE[name]()
    pairs = contrast_pairs.pairs(task, tokenizer, n=8)
    assert len(pairs) == 8
    read = lambda ids: tokenizer.convert_ids_to_tokens([i for i in ids.tolist() if i >= 0])
    for right, wrong in zip(pairs.right, pairs.wrong, strict=True):
        said = read(right) + read(wrong)
        assert "▁" not in said
        assert len(said) == len(set(said))
        if task == "greater_than":
            assert {piece.removeprefix("##") for piece in said} <= set("0123456789")
            assert not any(piece.startswith("▁") for piece in said)


@pytest.mark.parametrize("task", contrast_pairs.TASKS)
def test_a_tokenizer_without_the_words_is_refused_in_one_line(task):
    with pytest.raises(ValueError, match="tokenizer") as error:
        contrast_pairs.pairs(task, blind(), n=5)
    assert "\n" not in str(error.value)


def test_options_that_are_the_same_tokens_are_refused():
    with pytest.raises(ValueError, match="does not tell the options 'Paris', 'Rome' apart"):
        facts.encode(blind(), ["The capital of France is"], [("Paris", "Rome")])


# Batches ---------------------------------------------------------------------------------------------------------


SIZES = dict(hidden_size=64, num_hidden_layers=2, num_attention_heads=4, pad_token_id=0, eos_token_id=1)
MODELS = {
    "GPT-2": transformers.GPT2Config,
    "GPT-Neo": lambda **k: transformers.GPTNeoConfig(attention_types=[[["global"], 2]], **k),
    "GPT-NeoX": transformers.GPTNeoXConfig,
    "GPT-J": lambda **k: transformers.GPTJConfig(rotary_dim=8, **k),
    "OPT": lambda **k: transformers.OPTConfig(word_embed_proj_dim=64, ffn_dim=128, **k),
    "BLOOM": transformers.BloomConfig,
    "Llama": transformers.LlamaConfig,
}
PACKED = [name for name in MODELS if name != "BLOOM"]


def model_of(name, **more):
    torch.manual_seed(0)
    config = MODELS[name](vocab_size=84, bos_token_id=None, **SIZES, **more)
    made = transformers.AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.mul_(4 if parameter.ndim > 1 else 1)  # sharp enough for a wrong position to show
    return made


def alone(model, prompt, completion):
    """Log-probabilities of a completion's tokens, one sequence, nothing padded."""
    ids = torch.tensor([[*prompt, *completion]])
    with torch.no_grad():
        logs = model(ids).logits[0, :-1].float().log_softmax(-1)
    return logs.gather(1, ids[0, 1:, None])[len(prompt) - 1 :, 0]


ASKED = [
    "ann",
    "tom has 12 apples.",
    "sam starts with 48 coins. then sam buys 7 coins. how many coins does sam have now?",
]


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("name", MODELS)
def test_log_probabilities_do_not_depend_on_the_batch(name, side):
    model, tokenizer = model_of(name), word_problems.tokenizer()
    tokenizer.padding_side = side
    prompts = tokenizer(ASKED)["input_ids"]
    made = policy.generate(model, tokenizer, ASKED, temperature=1.0, length=9)
    for prompt, completion, found in zip(prompts, made, policy.logps(model, tokenizer, ASKED, made), strict=True):
        torch.testing.assert_close(found, alone(model, prompt, completion), rtol=1e-5, atol=1e-5)
    greedy = policy.generate(model, tokenizer, ASKED, length=6)
    assert greedy == [policy.generate(model, tokenizer, [text], length=6)[0] for text in ASKED]


def test_a_tokenizer_without_a_padding_token_pads_all_the_same():
    model, tokenizer = model_of("GPT-2"), word_problems.tokenizer()
    expected = policy.generate(model, tokenizer, ASKED, length=6)
    tokenizer.pad_token = None
    assert policy.generate(model, tokenizer, ASKED, length=6) == expected
    assert len(policy.logps(model, tokenizer, ASKED, expected)) == 3


@pytest.mark.parametrize("name", PACKED)
def test_packed_rows_are_as_if_alone(name):
    model = model_of(name)
    rows = [facts.Row((5, 6, 7, 8), ((10, 11), (12,))), facts.Row((5, 9), ((13,), (14, 15, 16)))]
    expected = torch.stack([torch.stack([alone(model, r.prompt, o).sum() for o in r.options]) for r in rows])
    single = [facts.Row(r.prompt, r.options[:1]) for r in rows]
    with torch.no_grad():
        torch.testing.assert_close(facts.log_probs(model, rows)[0], expected, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(objectives.log_probs(model, single)[0], expected[:, 0], rtol=1e-5, atol=1e-5)
        logp, targets, _ = examples.distributions(model, single)
    assert logp.gather(1, targets[:, None]).sum().item() == pytest.approx(expected[:, 0].sum().item(), abs=1e-4)


def test_models_that_cannot_pack_or_place_say_so():
    model, tokenizer = model_of("BLOOM"), word_problems.tokenizer()
    row = facts.Row((5, 6), ((7,),))
    logp = model(torch.tensor([[5, 6, 7]])).logits[0].log_softmax(-1)
    torch.testing.assert_close(facts.log_probs(model, [row])[0][0, 0], logp[1, 7])  # read alone, not packed
    for function in (objectives.log_probs, examples.distributions):
        with pytest.raises(ValueError, match="full-attention model"):
            function(model, [row])
    ids = tokenizer(" 3 + 4 = 7. #### 7")["input_ids"]
    with pytest.raises(ValueError, match="full-attention model"):
        credit.drops(model, [ids], [ids], [regions.regions(tokenizer, ids)])
    with pytest.raises(ValueError, match="longer than the model's 16 positions"):
        policy.logps(model_of("GPT-2", n_positions=16), tokenizer, ASKED, [[5]] * 3)
    turned = model_of(
        "Llama", max_position_embeddings=16, rope_parameters={"rope_type": "dynamic", "factor": 4.0, "rope_theta": 1e4}
    )
    with pytest.raises(ValueError, match="say batch=1"):
        policy.logps(turned, tokenizer, ASKED, [[5]] * 3)
    assert len(policy.logps(turned, tokenizer, ASKED, [[5]] * 3, batch=1)) == 3


def test_perplexity_does_not_depend_on_the_batch():
    model, tokenizer = model_of("GPT-2"), word_problems.tokenizer()
    whole = torch.cat([alone(model, ids[:1], ids[1:]) for ids in tokenizer(ASKED[1:])["input_ids"]])
    assert prose.perplexity(model, tokenizer, ASKED[1:]) == pytest.approx((-whole.mean()).exp().item(), rel=1e-5)
    with pytest.raises(ValueError, match="at least two tokens"):
        prose.perplexity(model, tokenizer, [])


SMALL = dict(hidden_size=64, num_hidden_layers=2, num_attention_heads=4, vocab_size=84, eos_token_id=1)
SCALED = {
    "Cohere": lambda: transformers.CohereConfig(intermediate_size=64, logit_scale=0.25, pad_token_id=0, **SMALL),
    "Granite": lambda: transformers.GraniteConfig(intermediate_size=64, logits_scaling=4.0, pad_token_id=0, **SMALL),
}


def random_model(config):
    torch.manual_seed(0)
    return transformers.AutoModelForCausalLM.from_config(config).eval()


@pytest.mark.parametrize("name", SCALED)
def test_models_that_scale_their_logits_are_read_with_the_scale(name):
    model = random_model(SCALED[name]())
    rows = [facts.Row((5, 6, 7, 8), ((10, 11),)), facts.Row((5, 9), ((13,),))]
    expected = torch.stack([alone(model, row.prompt, row.options[0]).sum() for row in rows])
    for function in (facts.log_probs, objectives.log_probs):
        torch.testing.assert_close(function(model, rows)[0].flatten(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", [transformers.BertConfig, transformers.RobertaConfig])
def test_models_with_more_than_an_output_layer_are_refused(kind):
    model = random_model(kind(is_decoder=True, pad_token_id=0, **SMALL))
    row = [facts.Row((5, 6), ((7,),))]
    for read in (
        lambda: facts.log_probs(model, row),
        lambda: objectives.kl(model, objectives.Reference(model), row),
        lambda: prose.perplexity(model, word_problems.tokenizer(), ASKED[1:]),
    ):
        with pytest.raises(ValueError, match="more after its last block"):
            read()


@pytest.mark.parametrize(
    "config",
    [
        transformers.RwkvConfig(vocab_size=84, hidden_size=64, num_hidden_layers=2, eos_token_id=1),
        transformers.BartConfig(
            vocab_size=84,
            d_model=64,
            decoder_layers=2,
            decoder_ffn_dim=64,
            decoder_attention_heads=4,
            pad_token_id=0,
            eos_token_id=1,
            is_decoder=True,
        ),
    ],
    ids=["RWKV", "BART"],
)
def test_models_that_read_padding_take_one_row_at_a_time(config):
    model, tokenizer = random_model(config), word_problems.tokenizer()
    for ask in (policy.logps, lambda *given: policy.generate(*given[:3])):
        with pytest.raises(ValueError, match="batch=1"):
            ask(model, tokenizer, ASKED, [[5, 6]] * 3)
    for text, found in zip(ASKED, policy.logps(model, tokenizer, ASKED, [[5, 6]] * 3, batch=1), strict=True):
        expected = alone(model, tokenizer(text)["input_ids"], [5, 6])
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_looking_at_a_model_draws_nothing_and_leaves_its_mode():
    model = model_of("GPT-2").train()
    before = torch.get_rng_state()
    tokens.check_packs(model, "rows")
    tokens.check_padding(model)
    assert model.training
    assert torch.equal(torch.get_rng_state(), before)
