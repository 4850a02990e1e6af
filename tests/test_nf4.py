"""NF4 geometry against bitsandbytes, brute force and its own definitions."""

import numpy as np
import pytest
import torch
from bitsandbytes.functional import get_4bit_type, quantize_4bit
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import norm

from compendium import models, nf4

BLOCKS = arrays(np.float32, (2, 64), elements=st.floats(-8, 8, width=32))


def bitsandbytes_codes(weight):
    packed, state = quantize_4bit(weight.contiguous(), blocksize=64, quant_type="nf4", compress_statistics=False)
    packed = packed.flatten()
    return torch.stack([packed >> 4, packed & 15], 1).flatten().view(weight.shape), state.absmax


def test_levels_are_bitsandbytes_and_normal_quantiles():
    assert torch.equal(nf4.LEVELS, get_4bit_type("nf4", device="cpu"))
    tail = 0.9677083
    upper = norm.ppf(np.linspace(tail, 0.5, 9)[:-1])[::-1]
    lower = -norm.ppf(np.linspace(tail, 0.5, 8)[:-1])
    levels = np.concatenate([lower, [0], upper]) / upper.max()
    np.testing.assert_allclose(nf4.LEVELS, levels, atol=2e-6)
    assert pytest.approx(nf4.GAPS.mean().item()) == nf4.MEAN_GAP


@given(BLOCKS)
@settings(max_examples=100, deadline=None)
def test_codes_equal_bitsandbytes(block):
    weight = torch.from_numpy(block)
    theirs, absmax = bitsandbytes_codes(weight)
    assert torch.equal(nf4.codes(weight), theirs)
    assert torch.equal(nf4.block_absmax(weight), absmax)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_codes_equal_bitsandbytes_on_many_random_blocks(dtype):
    weight = (torch.randn(10_000, 64, generator=torch.Generator().manual_seed(0)) * 0.02).to(dtype)
    assert torch.equal(nf4.codes(weight), bitsandbytes_codes(weight)[0])


def test_codes_equal_bitsandbytes_on_every_layer_of_the_real_model(embedded):
    layers = models.linear_layers(embedded[0])
    assert len(layers) == 210
    for name, layer in layers.items():
        assert torch.equal(nf4.codes(layer.weight.detach()), bitsandbytes_codes(layer.weight.detach())[0]), name


@given(BLOCKS)
@settings(max_examples=50, deadline=None)
def test_codes_are_the_nearest_level_and_monotone(block):
    weight = torch.from_numpy(block)
    x = nf4.normalise(weight)
    chosen = (x - nf4.LEVELS[nf4.codes(weight).int()]).abs()
    nearest = (x[..., None] - nf4.LEVELS).abs().amin(-1)
    torch.testing.assert_close(chosen, nearest, atol=1e-6, rtol=0)
    order = torch.from_numpy(np.sort(block, axis=1))
    assert (nf4.codes(order).int().diff(dim=1) >= 0).all()


@given(BLOCKS)
@settings(max_examples=50, deadline=None)
def test_quantising_twice_changes_nothing(block):
    weight = torch.from_numpy(block)
    codes, absmax = nf4.codes(weight), nf4.block_absmax(weight)
    once = nf4.dequantise(codes, absmax)
    assert torch.equal(nf4.codes(once), codes) or absmax.min() < 1e-30
    assert torch.equal(nf4.dequantise(nf4.codes(once, absmax), absmax), once)


def test_distances_are_what_it_takes_to_change_a_code():
    weight = torch.randn(512, 64, generator=torch.Generator().manual_seed(1)) * 0.02
    g = nf4.geometry(weight)
    interior = ~g.is_absmax
    for distance, gap, sign in ((g.distance_up, g.gap_up, 1), (g.distance_down, g.gap_down, -1)):
        reachable = interior & distance.isfinite()
        assert (distance[reachable] >= 0).all()
        short = torch.where(reachable, weight + sign * (distance * 0.999 - 2e-8).clamp(min=0), weight)
        # One weight of a block at a time would be exact; holding the scales fixed is the same and tests all at once.
        assert torch.equal(nf4.codes(short, g.absmax)[reachable], g.codes[reachable])
        far = torch.where(reachable, weight + sign * (distance * 1.001 + 1e-7), weight)
        moved = nf4.codes(far, g.absmax).int() - g.codes.int()
        assert (moved[reachable] == sign).all()
        step = nf4.dequantise(nf4.codes(far, g.absmax), g.absmax) - nf4.dequantise(g.codes, g.absmax)
        torch.testing.assert_close(step[reachable].abs(), gap[reachable])
    assert g.distance_up[g.codes == 15].isinf().all()
    assert g.gap_down[g.codes == 0].isnan().all()
    assert torch.equal(g.is_end, (g.codes == 0) | (g.codes == 15))
    assert g.is_absmax.sum() >= 512


def test_a_block_of_zeros_is_exact():
    g = nf4.geometry(torch.zeros(64))
    assert (g.codes == 7).all()
    assert torch.equal(nf4.dequantise(g.codes, g.absmax), torch.zeros(64))


@pytest.mark.parametrize(
    ("weight", "message"),
    [
        (torch.zeros(65), "not a multiple of 64"),
        (torch.zeros(0), "not a multiple of 64"),
        (torch.zeros(64, dtype=torch.int64), "dequantise the model first"),
        (torch.tensor([float("nan")] + [0.0] * 63), "1 of 64 weights are NaN or infinite"),
        (torch.tensor([float("inf")] + [0.0] * 63), "1 of 64 weights are NaN or infinite"),
    ],
)
def test_bad_tensors_are_refused(weight, message):
    with pytest.raises(ValueError, match=message):
        nf4.geometry(weight)
