"""Several sequences in one row of a batch: who sees whom is the attention mask's matter.

A row is made of blocks. The tokens of a block see the first `trunk` tokens of the row and, of their own block, what is
not after them. So the options of one question share its prompt, a trunk carries branches, and rows of any lengths
lie end to end without padding. Models must take a mask of this shape: `tokens.check_packs`.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor


class Packed(NamedTuple):
    """One row of a batch. Numbers are places in the row."""

    ids: Sequence[int]
    positions: Sequence[int]  # of each token in its own sequence
    blocks: Sequence[tuple[int, int, int]]  # start, end, trunk


def visible(row: Packed, length: int | None = None) -> np.ndarray:
    """(length, length) bool: whether a token sees another; padding sees itself, so that no softmax is empty."""
    n = len(row.ids) if length is None else length
    sees = np.eye(n, dtype=bool)
    for start, end, trunk in row.blocks:
        sees[start:end, :trunk] = True
        sees[start:end, start:end] = True
    return sees & np.tri(n, dtype=bool)


def inputs(rows: Sequence[Packed], dtype, device) -> dict[str, Tensor]:
    """Arguments of a model for one pass: input_ids and position_ids (b, t), attention_mask (b, 1, t, t), added in
    `dtype`. Shorter rows are filled up on the right. Raises ValueError for no rows."""
    if not rows:
        raise ValueError("there are no rows to read")
    length = max(len(row.ids) for row in rows)
    ids, positions = np.zeros((2, len(rows), length), np.int64)
    for r, row in enumerate(rows):
        ids[r, : len(row.ids)] = row.ids
        positions[r, : len(row.ids)] = row.positions
    sees = torch.from_numpy(np.stack([visible(row, length) for row in rows]))
    mask = torch.zeros(len(rows), 1, length, length, dtype=dtype, device=device)
    mask.masked_fill_(~sees.to(device)[:, None], torch.finfo(dtype).min)
    return {
        "input_ids": torch.from_numpy(ids).to(device),
        "position_ids": torch.from_numpy(positions).to(device),
        "attention_mask": mask,
    }
