"""Round trips through every format, against the reference kernels and slow re-derivations."""

import bitsandbytes as bnb
import peft
import pytest
import torch
import transformers

from compendium import edits, facts, formats, models, nf4
from compendium.attribution.refusal import steering
from compendium.unlearning import code_flips, fisher_information, mansu


def random_weight(rows=64, columns=128, seed=0):
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed)) * 0.02


@pytest.mark.parametrize("fmt", formats.FORMATS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_shape_dtype_and_error_size(fmt, dtype):
    weight = random_weight().to(dtype)
    stored = formats.roundtrip(weight, fmt)
    assert stored.shape == weight.shape
    assert stored.dtype == dtype
    error = (stored - weight).float().std() / weight.float().std()
    assert 0 < error < (0.02 if fmt in ("int8", "q8_0") else 0.15)


@pytest.mark.parametrize("fmt", ["nf4", "fp4", "int8", "q4_0", "q8_0"])
def test_storing_twice_changes_almost_nothing(fmt):
    once = formats.roundtrip(random_weight(), fmt)
    # GGUF scales are float16, and the bitsandbytes int8 kernel takes float16: allow their last bits.
    torch.testing.assert_close(formats.roundtrip(once, fmt), once, rtol=2e-3, atol=2e-5)


def test_nf4_is_geometry():
    weight = random_weight()
    assert torch.equal(formats.roundtrip(weight, "nf4"), nf4.dequantise(nf4.codes(weight), nf4.block_absmax(weight)))


def test_nf4_equals_the_layer_that_4bit_loaders_use():
    weight, x = random_weight(64, 128), torch.randn(5, 128, generator=torch.Generator().manual_seed(1))
    layer = bnb.nn.Linear4bit(
        128, 64, bias=False, quant_type="nf4", compress_statistics=False, compute_dtype=torch.float32
    )
    layer.weight = bnb.nn.Params4bit(weight, requires_grad=False, quant_type="nf4", compress_statistics=False)
    torch.testing.assert_close(layer.to("cpu")(x), x @ formats.roundtrip(weight, "nf4").T, rtol=1e-4, atol=1e-5)


def test_int8_is_the_nearest_of_255_levels_of_each_row():
    weight = random_weight()
    step = weight.abs().amax(1, keepdim=True) / 127
    error = (formats.roundtrip(weight, "int8") - weight).abs()
    assert (error <= step * 0.5 * 1.07).all()  # the kernel sees float16 weights: up to 127 / 2048 of a step more


def test_q8_0_and_q4_0_against_the_format_definitions():
    blocks = random_weight().reshape(-1, 32)
    largest = blocks.gather(1, blocks.abs().argmax(1, keepdim=True))
    d8 = largest.abs() / 127
    q8 = (blocks / d8).round() * d8.half().float()
    torch.testing.assert_close(formats.roundtrip(blocks, "q8_0"), q8, rtol=0, atol=1e-6)
    d4 = largest / -8
    q4 = ((blocks / d4 + 8.5).floor().clamp(0, 15) - 8) * d4.half().float()
    torch.testing.assert_close(formats.roundtrip(blocks, "q4_0"), q4, rtol=0, atol=1e-6)


def test_the_embedded_weights_lie_on_their_q4_1_grid(embedded):
    weight = models.linear_layers(embedded[0])["model.layers.3.mlp.up_proj"].weight.detach()
    assert (formats.roundtrip(weight, "q4_1") - weight).abs().max() < 1e-3 * weight.std()
    assert (formats.roundtrip(weight, "q4_0") - weight).std() > 0.05 * weight.std()


def test_zero_rows_stay_zero():
    for fmt in formats.FORMATS:
        assert torch.equal(formats.roundtrip(torch.zeros(2, 64), fmt), torch.zeros(2, 64)), fmt


def test_a_model_is_quantised_for_the_block_only(tiny):
    before = {name: layer.weight.clone() for name, layer in models.linear_layers(tiny).items()}
    head = tiny.lm_head.weight.clone()
    with formats.quantised(tiny, "nf4"):
        for name, layer in models.linear_layers(tiny).items():
            assert torch.equal(layer.weight, formats.roundtrip(before[name], "nf4"))
        assert torch.equal(tiny.lm_head.weight, head)
    assert all(torch.equal(layer.weight, before[name]) for name, layer in models.linear_layers(tiny).items())


def test_a_bad_layer_is_named_and_the_model_restored(tiny):
    layers = models.linear_layers(tiny)
    name, layer = list(layers.items())[-1]
    with torch.no_grad():
        layer.weight[0, 0] = float("nan")
    first = next(iter(layers.values()))
    before = first.weight.clone()
    with pytest.raises(ValueError, match=rf"{name}: 1 of .* NaN"), formats.quantised(tiny, "nf4"):
        pass
    assert torch.equal(first.weight, before)


@pytest.mark.parametrize(
    ("weight", "fmt", "message"),
    [
        (torch.zeros(2, 64), "nf5", "choose one of nf4, fp4, int8"),
        (torch.zeros(3, 33), "nf4", "not a multiple of 64"),
        (torch.zeros(3, 33), "q4_0", "blocks of 32"),
        (torch.zeros(64), "int8", "reshape it to two axes"),
        (torch.full((2, 64), float("nan")), "q8_0", "NaN or infinite"),
    ],
)
def test_bad_requests_are_refused(weight, fmt, message):
    with pytest.raises(ValueError, match=message):
        formats.roundtrip(weight, fmt)


SIZES = dict(vocab_size=97, hidden_size=64, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=4)


def made(config):
    torch.manual_seed(0)
    return transformers.AutoModelForCausalLM.from_config(config).eval()


def mixed():
    """A Llama with one of GPT-2's Conv1D among its linear layers."""
    model = made(transformers.LlamaConfig(intermediate_size=128, **SIZES))
    model.model.layers[1].mlp.up_proj = transformers.pytorch_utils.Conv1D(128, 64)
    return model


def adapted():
    model = made(transformers.LlamaConfig(intermediate_size=128, **SIZES))
    return peft.get_peft_model(model, peft.LoraConfig(r=2, target_modules=["q_proj"]))


def shared():
    model = made(transformers.LlamaConfig(intermediate_size=128, **SIZES))
    first, second = model.model.layers
    second.mlp.up_proj.weight = first.mlp.up_proj.weight
    return model


def stored(layer):
    model = made(transformers.LlamaConfig(intermediate_size=128, **SIZES))
    model.model.layers[0].mlp.up_proj = layer
    return model


INCOMPLETE = {
    "GPT-2": (lambda: made(transformers.GPT2Config(vocab_size=97, n_embd=64, n_layer=2, n_head=4)), "a Conv1D"),
    "Mixtral": (lambda: made(transformers.MixtralConfig(intermediate_size=128, num_local_experts=4, **SIZES)), "Experts"),
    "Qwen2-MoE": (
        lambda: made(transformers.Qwen2MoeConfig(intermediate_size=128, moe_intermediate_size=64, num_experts=4,
                                                 shared_expert_intermediate_size=64, **SIZES)),
        "Experts",
    ),
    "some Conv1D": (mixed, "up_proj.weight belongs to a Conv1D"),
    "adapters": (adapted, r"call merge_and_unload\(\) first"),
    "shared weight": (shared, "share one weight"),
    "4-bit layer": (lambda: stored(bnb.nn.Linear4bit(64, 128, quant_type="nf4").to("cpu")), "without quantization_config"),
    "8-bit layer": (lambda: stored(bnb.nn.Linear8bitLt(64, 128, has_fp16_weights=False)), "without quantization_config"),
    "float8 layer": (lambda: stored(torch.nn.Linear(64, 128).to(torch.float8_e4m3fn)), "without quantization_config"),
}  # fmt: skip


@pytest.mark.parametrize("name", INCOMPLETE)
def test_a_model_that_is_not_all_linear_layers_is_refused_everywhere(name):
    build, message = INCOMPLETE[name]
    model = build()
    before = {key: value.clone() for key, value in model.state_dict().items() if torch.is_tensor(value)}
    row = facts.Row((1, 2, 3), ((4,),))
    for use in (
        lambda: models.linear_layers(model),
        lambda: formats.quantised(model, "nf4").__enter__(),
        lambda: edits.everywhere(model),
        lambda: edits.lora(model, None, rank=2, steps=1, learning_rate=1e-3),
        lambda: fisher_information.diagonal(model, [row]),
        lambda: fisher_information.second_moments(model, [row]),
        lambda: code_flips.snapshot(model),
        lambda: mansu.gradient(model, [row]),
    ):
        with pytest.raises(ValueError, match=message) as error:
            use()
        assert "\n" not in str(error.value)
    after = model.state_dict()
    assert all(torch.equal(after[key].view(torch.uint8), value.view(torch.uint8)) for key, value in before.items())


@pytest.mark.parametrize("fmt", formats.FORMATS)
@pytest.mark.parametrize(
    "config",
    [
        lambda: transformers.LlamaConfig(intermediate_size=128, **SIZES),
        lambda: transformers.Qwen2Config(intermediate_size=128, tie_word_embeddings=True, **SIZES),
        lambda: transformers.GPTNeoXConfig(intermediate_size=128, **{k: v for k, v in SIZES.items() if "key" not in k}),
        lambda: transformers.OPTConfig(
            vocab_size=97,
            hidden_size=64,
            ffn_dim=128,
            num_hidden_layers=2,
            num_attention_heads=4,
            word_embed_proj_dim=64,
        ),
    ],
)
def test_every_weight_matrix_but_embeddings_and_head_is_stored(config, fmt):
    model = made(config())
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    with formats.quantised(model, fmt):
        for name, parameter in model.named_parameters():
            same = "embed" in name or "lm_head" in name or parameter.ndim < 2
            assert torch.equal(parameter, before[name]) == same, name
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())


def test_weights_beyond_a_format_are_refused_not_made_nan():
    large = random_weight() * 1e10
    for fmt in ("q4_0", "q4_1", "q8_0"):
        with pytest.raises(ValueError, match=f"{fmt} cannot hold weights as large as"):
            formats.roundtrip(large, fmt)
    for weight in (torch.ones(2, 64, dtype=torch.int8), torch.ones(2, 64).to(torch.float8_e4m3fn)):
        for fmt in formats.FORMATS:
            with pytest.raises(ValueError, match="dequantise the model first"):
                formats.roundtrip(weight, fmt)


def test_edits_reach_what_they_name_or_say_so(tiny):
    name = "model.layers.0.mlp.up_proj.weight"
    weight = dict(tiny.named_parameters())[name]
    mask, row = torch.ones_like(weight, dtype=torch.bool), facts.Row((1, 2, 3), ((4,),))
    loss = lambda step: -facts.log_probs(tiny, [row])[0].sum()
    train = lambda masks, loss=loss: edits.train(tiny, loss, masks, steps=1, learning_rate=1e-3)
    wrong = {
        "has shape": lambda: train({name: mask[:1]}),
        "must be bool": lambda: train({name: mask.float()}),
        "has no weight 'nowhere'": lambda: train({"nowhere": mask}),
        "the mask is empty": lambda: train({name: ~mask}),
        "does not depend on": lambda: train({name: mask}, lambda step: tiny.lm_head.weight.requires_grad_(True).sum()),
        "in this model, not": lambda: edits.applied(tiny, {name: torch.zeros(128, 1)}).__enter__(),
        "have shapes": lambda: edits.combine([{name: weight.detach()}, {name: torch.zeros(128, 1)}]),
    }
    for message, use in wrong.items():
        with pytest.raises(ValueError, match=message):
            use()
    assert (train({name: mask})[name] != 0).any()


@pytest.mark.parametrize("layers", [[], [1], [-1], [7]])
def test_steering_no_layer_or_one_that_is_not_there_is_refused(tiny, layers):
    with (
        pytest.raises(ValueError, match="name at least one, from 0 to 0"),
        steering.steered(tiny, torch.ones(1, 64), layers, 1.0),
    ):
        pass
    with pytest.raises(ValueError, match="does not fit"), steering.steered(tiny, torch.ones(3, 64), [0], 1.0):
        pass


@pytest.mark.parametrize(
    ("width", "mlp", "fmt", "message"),
    [
        (40, 64, "q4_0", r"q_proj: q4_0 stores rows in blocks of 32, and \(40, 40\) is no multiple"),
        (36, 33, "nf4", r"q_proj: nf4 stores blocks of 64 weights, and \(36, 36\)"),
        (64, 33, "q8_0", r"down_proj: q8_0 stores rows in blocks of 32, and \(64, 33\)"),
    ],
)
def test_a_shape_that_a_format_cannot_hold_is_named_before_any_work(width, mlp, fmt, message, monkeypatch):
    from transformers import LlamaConfig, LlamaForCausalLM

    sizes = dict(vocab_size=61, hidden_size=width, intermediate_size=mlp, num_hidden_layers=2, num_attention_heads=2)
    model = LlamaForCausalLM(LlamaConfig(**sizes))
    monkeypatch.setattr(formats, "roundtrip", lambda *_: pytest.fail("work began"))
    with pytest.raises(ValueError, match=message), formats.quantised(model, fmt):
        pass
    formats.storable(model, "int8")
    with pytest.raises(ValueError, match="unknown format 'q9'"):
        formats.storable(model, "q9")
