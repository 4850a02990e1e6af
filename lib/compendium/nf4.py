"""The geometry of NF4: which of 16 levels a weight takes, and how far it is from taking another.

NF4 (Dettmers et al. 2023, QLoRA, section 3 and appendix E) cuts the flattened weights into blocks of 64, divides each
block by its largest magnitude (absmax), and replaces every weight by the nearest of 16 fixed levels in [-1, 1]. A
weight's *code* is the number of its level, 0 to 15. A code changes only when the weight crosses the midpoint between
two levels, its *decision boundary*; so an edit survives quantisation weight by weight exactly where it crosses one.

    g = nf4.geometry(weight)
    g.codes              # level of each weight
    g.distance_up        # how much to add to reach the next code up (infinite in the top cell)
    g.gap_up             # how far apart the two levels are: what the dequantised weight would move by

Distances hold while the block's absmax stays what it is: moving the absmax weight itself rescales the whole block, so
`g.is_absmax` marks the weights whose edits cannot be judged alone.

Codes are computed with the same float32 operations as bitsandbytes and agree with it exactly.
"""

from typing import NamedTuple

import torch
from torch import Tensor

BLOCK = 64

# Levels as published with the data type: quantiles of a standard normal, normalised, with an exact zero.
LEVELS = torch.tensor(
    [
        -1.0,
        -0.6961928009986877,
        -0.5250730514526367,
        -0.39491748809814453,
        -0.28444138169288635,
        -0.18477343022823334,
        -0.09105003625154495,
        0.0,
        0.07958029955625534,
        0.16093020141124725,
        0.24611230194568634,
        0.33791524171829224,
        0.44070982933044434,
        0.5626170039176941,
        0.7229568362236023,
        1.0,
    ]
)
BOUNDARIES = (LEVELS[:-1] + LEVELS[1:]) / 2  # (15,) decision boundaries, midway between levels
GAPS = LEVELS[1:] - LEVELS[:-1]  # (15,) distance between neighbouring levels, in units of absmax
MEAN_GAP = 2 / 15

_INFINITY = torch.tensor([torch.inf])
_NAN = torch.tensor([torch.nan])
# Tables by code, so that one lookup gives each weight its neighbours; the end cells have none outside.
_UPPER = torch.cat([BOUNDARIES, _INFINITY])
_LOWER = torch.cat([-_INFINITY, BOUNDARIES])
_GAP_UP = torch.cat([GAPS, _NAN])
_GAP_DOWN = torch.cat([_NAN, GAPS])


class Geometry(NamedTuple):
    """Where each weight sits in its NF4 cell. All but `absmax` have the shape of the weight."""

    codes: Tensor  # uint8, 0..15
    absmax: Tensor  # (n / 64,) float32, scale of each block
    distance_up: Tensor  # float32, weight units: to the boundary above; inf where there is none
    distance_down: Tensor  # float32, weight units: to the boundary below; inf where there is none
    gap_up: Tensor  # float32, weight units: from this level to the next above; nan where there is none
    gap_down: Tensor  # float32, weight units: from this level to the next below; nan where there is none
    is_absmax: Tensor  # bool: magnitude equals the block's scale
    is_end: Tensor  # bool: code 0 or 15, which can leave its cell inwards only


def check(weight: Tensor) -> None:
    """Raise ValueError, saying what to do, unless `weight` can be cut into blocks of 64 finite floats."""
    if not weight.is_floating_point() or weight.element_size() < 2:
        raise ValueError(f"expected floating-point weights, got {weight.dtype}: dequantise the model first")
    if weight.numel() == 0 or weight.numel() % BLOCK:
        raise ValueError(
            f"a tensor of shape {tuple(weight.shape)} has {weight.numel():,} values, not a multiple of {BLOCK}: "
            f"leave this layer unquantised or pad it to a whole number of blocks"
        )
    if not torch.isfinite(weight.abs().amax()):  # a maximum passes on NaN and infinity, and costs less than a mask
        bad = int((~torch.isfinite(weight)).sum())
        raise ValueError(
            f"{bad:,} of {weight.numel():,} weights are NaN or infinite: one would spoil its whole block of {BLOCK}; "
            "go back to a checkpoint from before training diverged"
        )


def block_absmax(weight: Tensor) -> Tensor:
    """Scale of each block of 64 consecutive weights: (n / 64,) float32. Raises ValueError as `check` does."""
    check(weight)
    return weight.float().reshape(-1, BLOCK).abs().amax(1)


def normalise(weight: Tensor, absmax: Tensor | None = None) -> Tensor:
    """Weights over their block's absmax, in [-1, 1]: (n / 64, 64) float32.

    Multiplies by the reciprocal, as bitsandbytes does: dividing differs in the last bit and so in codes near a tie.
    """
    absmax = block_absmax(weight) if absmax is None else absmax
    reciprocal = 1.0 / absmax.clamp(min=1e-38)
    return (weight.float().reshape(-1, BLOCK) * reciprocal[:, None]).clamp(-1, 1)


def codes(weight: Tensor, absmax: Tensor | None = None) -> Tensor:
    """Code 0..15 of each weight, uint8, shaped like `weight`; a tie goes to the lower level.

    absmax: use these block scales in place of the weight's own, to ask which codes move when scales are held fixed.
    Raises ValueError as `check` does.
    """
    position = normalise(weight, absmax).flatten()
    cell = torch.zeros(position.shape, dtype=torch.uint8, device=weight.device)
    for boundary in BOUNDARIES.tolist():  # fifteen vectorised comparisons beat one binary search per weight
        cell += position > boundary
    return cell.reshape(weight.shape)


def dequantise(codes: Tensor, absmax: Tensor) -> Tensor:
    """Level of each code times its block's scale: float32, shaped like `codes`."""
    levels = LEVELS.to(codes.device).index_select(0, codes.flatten().int())
    return (levels.reshape(-1, BLOCK) * absmax[:, None]).reshape(codes.shape)


def geometry(weight: Tensor) -> Geometry:
    """Codes, distances to decision boundaries and gaps to neighbouring levels of every weight.

    weight: any shape with a multiple of 64 values, any float dtype. Raises ValueError as `check` does.
    """
    absmax = block_absmax(weight)
    cells = codes(weight, absmax)
    index = cells.flatten().int()
    scale = absmax[:, None]
    value = weight.float().reshape(-1, BLOCK)

    def lookup(table: Tensor) -> Tensor:
        return table.to(weight.device).index_select(0, index).view(-1, BLOCK).mul_(scale)

    def shaped(x: Tensor) -> Tensor:
        return x.reshape(weight.shape)

    return Geometry(
        codes=cells,
        absmax=absmax,
        distance_up=shaped(lookup(_UPPER).sub_(value)),
        distance_down=shaped(lookup(_LOWER).neg_().add_(value)),
        gap_up=shaped(lookup(_GAP_UP)),
        gap_down=shaped(lookup(_GAP_DOWN)),
        is_absmax=shaped(value.abs() == scale),
        is_end=(cells == 0) | (cells == 15),
    )
