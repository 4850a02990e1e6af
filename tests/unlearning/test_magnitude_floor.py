"""The guarantee of the magnitude floor: every edited weight changes its NF4 code, no other does, in bitsandbytes."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from compendium import formats, nf4
from compendium.unlearning import magnitude_floor


def guarantee(weight, edit) -> float:
    """Assert it in float32 and after a bfloat16 save, by what bitsandbytes stores; returns the share edited."""
    edited = edit != 0
    for dtype in (torch.float32, torch.bfloat16):
        before, after = weight.to(dtype), (weight + edit).to(dtype)
        old, new = (nf4.codes(formats.roundtrip(w.float(), "nf4")) for w in (before, after))
        assert torch.equal(nf4.block_absmax(before), nf4.block_absmax(after)), "a scale moved"
        assert torch.equal(old != new, edited), f"{dtype}: {int(((old != new) ^ edited).sum())} codes"
    return edited.float().mean().item()


@pytest.mark.parametrize("scale", [1e-6, 1e-2, 1.0])
def test_ten_thousand_random_blocks(scale):
    generator = torch.Generator().manual_seed(0)
    weight = 0.02 * torch.randn(10_000, nf4.BLOCK, generator=generator)
    update = scale * torch.randn(weight.shape, generator=generator)
    update[torch.rand(update.shape, generator=generator) < 0.5] = 0
    share = guarantee(weight, magnitude_floor.floored(weight, update))
    assert 0.45 < share < 0.5


@settings(deadline=None, max_examples=60)
@given(
    hnp.arrays("float32", (2, nf4.BLOCK), elements=st.floats(-1, 1, width=32)),
    hnp.arrays("float32", (2, nf4.BLOCK), elements=st.floats(-3, 3, width=32)),
)
def test_any_blocks_any_update(weight, update):
    weight, update = torch.from_numpy(weight), torch.from_numpy(update)
    guarantee(weight, magnitude_floor.floored(weight, update))


def test_the_floor_is_the_least_that_works():
    generator = torch.Generator().manual_seed(1)
    weight = 0.02 * torch.randn(500, nf4.BLOCK, generator=generator)
    sign = torch.randint(0, 2, weight.shape, generator=generator) * 2.0 - 1
    least = magnitude_floor.needed(weight, sign, margin=0.0)
    can = least.isfinite()
    codes, absmax = nf4.codes(weight), nf4.block_absmax(weight)
    for factor, moved in ((0.999, False), (1.001, True)):
        step = torch.where(can, sign * least * factor + sign * (factor - 1) * 1e-6, 0.0)
        assert ((nf4.codes(weight + step, absmax) != codes)[can] == moved).all()


def test_an_update_that_asks_for_more_keeps_its_size():
    generator = torch.Generator().manual_seed(2)
    weight = 0.02 * torch.randn(50, nf4.BLOCK, generator=generator)
    update = 0.01 * torch.randn(weight.shape, generator=generator)
    made = magnitude_floor.floored(weight, update)
    least = magnitude_floor.needed(weight, update.sign())
    kept = (made != 0) & (update.abs() > least) & (weight + update).abs().lt(0.9 * weight.abs().amax(1, keepdim=True))
    assert kept.any()
    torch.testing.assert_close(made[kept], update[kept])
    assert (made[made != 0].sign() == update[made != 0].sign()).all()


def test_what_cannot_be_guaranteed_is_dropped():
    weight = torch.linspace(-0.5, 0.5, nf4.BLOCK)
    weight[0], weight[1], weight[2], weight[3] = 1.0, 0.95, 0.2, 0.0
    outward = magnitude_floor.needed(weight, torch.ones(nf4.BLOCK))
    assert outward[0].isinf()  # it sets the scale
    assert outward[1].isinf()  # top cell, pushed up
    assert outward[2].isfinite()
    assert magnitude_floor.needed(weight, -torch.ones(nf4.BLOCK))[1].isfinite()
    assert magnitude_floor.needed(weight, torch.zeros(nf4.BLOCK)).isinf().all()
    on_boundary = weight.clone()
    on_boundary[5] = torch.nextafter(nf4.BOUNDARIES[9], torch.tensor(1.0))
    assert magnitude_floor.needed(on_boundary, torch.ones(nf4.BLOCK))[5].isinf()  # bfloat16 puts it on the other side
    with pytest.raises(ValueError, match="one shape"):
        magnitude_floor.needed(weight, torch.ones(1))
