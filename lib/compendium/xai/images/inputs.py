"""What explainers of images take: nets as users have them, images, targets and a background, checked in one place."""

from collections.abc import Callable
from functools import wraps

import numpy as np
import torch
from torch import Tensor, nn

from compendium.xai import additivity, calls, endings
from compendium.xai.tables import numbers, targets


def of_net(function: Callable) -> Callable:
    """An explainer of nets as users have them: what their outputs mean is settled (see `endings`), they are in
    evaluation mode meanwhile, and afterwards every module is in the mode it was."""

    @wraps(function)
    def explain(model, X, target, **options):
        if not calls.is_net(model):
            raise ValueError(f"images are explained for torch nets, not {type(model).__name__}")
        model = endings.resolved(model, images(X).numpy())
        with calls.evaluating(model):
            return function(model, X, target, **options)

    return explain


def images(X) -> Tensor:
    return torch.tensor(array(X), dtype=torch.float32)


def array(X, name: str = "X") -> np.ndarray:
    """Images (n, channels, h, w) as float64, at least one, without missing values. Raises ValueError otherwise."""
    x = numbers(X, name)
    if x.ndim != 4 or len(x) == 0:
        raise ValueError(f"{name} must be images (n, channels, h, w), at least one, not {x.shape}")
    if not np.isfinite(x).all():
        raise ValueError(f"{name} holds missing or infinite values: fill them before explaining")
    return x


def checked(model: nn.Module, X, target, background=None) -> tuple[Tensor, Tensor, Tensor]:
    """(x (n, c, h, w), target (n,), the image that stands for absent (1, c, h, w)), x and absent as the model's."""
    x = images(X)
    target = torch.as_tensor(targets(target, len(x), logits(model, x[:1]).shape[1]))
    like = _like(model)
    if background is None:
        absent = torch.zeros_like(x[:1])
    else:
        background = torch.as_tensor(array(background, "background"), dtype=torch.float32)
        if background.shape[1:] != x.shape[1:]:
            raise ValueError(f"background must be images {tuple(x.shape[1:])}, not {tuple(background.shape[1:])}")
        absent = background.mean(0, keepdim=True)
    return x.to(like), target.to(like.device), absent.to(like)


def adds_up(name: str, found, model, x: Tensor, target: Tensor, absent: Tensor, tolerance: float, remedy: str):
    """The attributions as an array, after checking that they sum to the logit at x less that of the background."""
    found = found.detach().double().cpu().numpy()
    at = logits(model, x.detach()).gather(1, target[:, None])[:, 0].double().cpu().numpy()
    to = logits(model, absent)[:, target][0].double().cpu().numpy()
    additivity.check(name, found, at, to, tolerance, remedy)
    return found


def shares(model, z: Tensor) -> Tensor:
    factor = calls.sharper(model)
    return (z if factor == 1 else factor * z).softmax(1)


def logits(model, x: Tensor, batch: int = 1024) -> Tensor:
    with torch.no_grad(), calls.evaluating(model):
        return torch.cat([calls.scores(model(part.to(_like(model)))).to(x) for part in x.split(batch)])


def _like(model) -> Tensor:
    """A weight of the model, whose type and device its inputs need."""
    return next(model.parameters(), torch.zeros(()))
