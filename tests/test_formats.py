"""Round trips through every format, against the reference kernels and slow re-derivations."""

import bitsandbytes as bnb
import pytest
import torch

from compendium import formats, models, nf4


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
