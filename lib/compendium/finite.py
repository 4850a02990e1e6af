"""A training that diverges is stopped where it happens, in one line that says what to lower.

    finite.check("the loss", loss, step=step, lower=f"learning_rate ({rate:g})")
    norm = finite.clip(weights, 1.0, step=step, lower=...)      # clipped gradients, if they have a norm at all
    finite.check("a weight", weights, step=step, lower=...)     # after the last step, which no further loss would show

Losses, gradients and weights that are not finite are never averaged, logged as 0 or returned. Checks read numbers and
change none.
"""

import math
from collections.abc import Iterable

import torch
from torch import Tensor


class Diverged(RuntimeError, ValueError):
    """A training whose loss, gradient or weights are no longer finite; the message says at which step, and what to
    lower. A ValueError as well, because it is the settings that have to change."""


def check(what: str, values: float | Tensor | Iterable[Tensor], *, step: int, lower: str) -> None:
    """Raise Diverged unless a number, a tensor, or every one of several tensors is finite.

    what: the name of the value, such as "the loss". step: counted from 1. lower: what to lower, with its value.
    """
    parts = [values] if isinstance(values, Tensor | float | int) else values
    for part in parts:
        part = part.detach() if isinstance(part, Tensor) else torch.tensor(float(part))
        fine = part.isfinite()
        if not fine.all():
            value = part[~fine].flatten()[0].item()
            raise Diverged(f"{what} is {value} at step {step}: lower {lower}")


def clip(weights: Iterable[Tensor], most: float, *, step: int, lower: str) -> float:
    """Clip the gradients of `weights` at norm `most`, as torch does; returns their norm before. Raises Diverged."""
    norm = float(torch.nn.utils.clip_grad_norm_(weights, most))
    if not math.isfinite(norm):
        raise Diverged(f"the gradient norm is {norm} at step {step}: lower {lower}")
    return norm
