"""The magnitude floor: edits that NF4 cannot undo, because each crosses its weight's own decision boundary.

MANSU (arXiv 2605.15138) raises every edited weight's update to a floor "past the bin width"; how far that is the
available text does not say. A floor of half a gap flips half of the codes, a floor of a whole gap nearly all, and both
move weights further than they must. Where a weight is in its cell is known, so ours is exact: to just past the boundary
on the side the update points to, and no further than the update itself asks if that is more.

What cannot be guaranteed is dropped, not forced:

- the weight that sets its block's scale: moving it re-quantises all 64;
- an update that would make a weight the new scale;
- a weight in an end cell that is pushed outward: there is no boundary on that side;
- a weight whose code depends on whether the model is stored in float32 or bfloat16: it sits on a boundary already.

`MARGIN` is how far past the boundary, in units of the block's scale. Rounding to bfloat16 moves a weight by up to 2^-8
of its size and the scale by as much, so 2^-7 is past it still, whatever the weight.
"""

import torch
from torch import Tensor

from compendium import formats, nf4

MARGIN = 2**-7


def needed(weight: Tensor, sign: Tensor, *, margin: float = MARGIN) -> Tensor:
    """How far each weight must move along `sign` (+1, -1; 0: nowhere) to pass its boundary; inf where none can.

    weight, sign: one shape, a multiple of 64 values. Returns float32, weight units. Raises ValueError as
    `nf4.check` does.
    """
    if weight.shape != sign.shape:
        raise ValueError(f"weight {tuple(weight.shape)} and sign {tuple(sign.shape)} must have one shape")
    g = nf4.geometry(weight)
    scale = g.absmax.repeat_interleave(nf4.BLOCK).view(weight.shape)
    size = torch.where(sign > 0, g.distance_up, g.distance_down) + margin * scale
    undecided = nf4.codes(weight.bfloat16()) != g.codes
    outside = (weight.float() + sign * size).abs() > (1 - margin) * scale
    return size.masked_fill(g.is_absmax | undecided | outside | (sign == 0), torch.inf)


def floored(weight: Tensor, update: Tensor, *, margin: float = MARGIN) -> Tensor:
    """The update with every entry raised past its weight's boundary, and 0 where that cannot be guaranteed.

    Entries that are 0 stay 0. An update that asks for more than the floor keeps its size, short of the block's scale.
    """
    sign = update.sign().float()
    least = needed(weight, sign, margin=margin)
    scale = nf4.block_absmax(weight).repeat_interleave(nf4.BLOCK).view(weight.shape)
    most = (1 - margin) * scale - sign * weight.float()
    size = torch.maximum(update.abs().float(), least).minimum(most)
    return torch.where(least.isfinite(), sign * size, 0.0).to(update.dtype)


def count(model, update: dict[str, Tensor], dtype=torch.float32) -> dict[str, int]:
    """The guarantee, counted: weights `edited`, those of them that `flip` their code, and `others` that do.

    Codes are what bitsandbytes stores of the model, saved in `dtype`, before and after. update: changes by parameter
    name, to be added to the model's weights.
    """
    parameters, found = dict(model.named_parameters()), {"edited": 0, "flip": 0, "others": 0}
    for name, change in update.items():
        edited = (change != 0).reshape(-1, nf4.BLOCK)
        touched = edited.any(1)  # what is stored of any other block is a function of the same numbers as before
        if not touched.any():
            continue
        edited = edited[touched]
        weight, moved = (w.reshape(-1, nf4.BLOCK)[touched] for w in (parameters[name].detach(), change))
        old, new = (
            nf4.codes(formats.roundtrip(w.to(dtype).float(), "nf4")) for w in (weight, weight + moved.to(weight.dtype))
        )
        flipped = old != new
        for key, part in (("edited", edited), ("flip", edited & flipped), ("others", flipped & ~edited)):
            found[key] += int(part.sum())
    return found
