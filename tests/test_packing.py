"""Rows of several sequences: each is read as if it stood alone."""

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from compendium import packing


@st.composite
def trees(draw):
    """A trunk and branches that see some of it: token ids of each branch's whole sequence, and the packed row."""
    token = st.integers(1, 40)
    trunk = draw(st.lists(token, min_size=1, max_size=6))
    ids, positions, blocks, alone = list(trunk), list(range(len(trunk))), [(0, len(trunk), 0)], [trunk]
    for own in draw(st.lists(st.lists(token, min_size=1, max_size=4), max_size=3)):
        seen = draw(st.integers(0, len(trunk)))
        blocks.append((len(ids), len(ids) + len(own), seen))
        positions += range(seen, seen + len(own))
        ids += own
        alone.append([*trunk[:seen], *own])
    return alone, packing.Packed(ids, positions, blocks)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(trees(), min_size=1, max_size=3))
def test_every_block_is_read_as_if_it_stood_alone(tiny, several):
    rows = [row for _, row in several]
    with torch.no_grad():
        found = tiny(**packing.inputs(rows, torch.float32, "cpu")).logits
        for r, (alone, row) in enumerate(several):
            for sequence, (start, end, _) in zip(alone, row.blocks, strict=True):
                truth = tiny(torch.tensor([sequence])).logits[0, -(end - start) :]
                torch.testing.assert_close(found[r, start:end], truth, rtol=1e-4, atol=1e-5)


def test_who_sees_whom():
    row = packing.Packed([1, 2, 3, 4], [0, 1, 1, 2], [(0, 2, 0), (2, 4, 1)])
    truth = [[1, 0, 0, 0, 0], [1, 1, 0, 0, 0], [1, 0, 1, 0, 0], [1, 0, 1, 1, 0], [0, 0, 0, 0, 1]]
    np.testing.assert_array_equal(packing.visible(row, 5), np.array(truth, bool))
    with pytest.raises(ValueError, match="no rows"):
        packing.inputs([], torch.float32, "cpu")
