"""Absolute-contribution relevance: the output's score handed back, layer by layer, in proportion to |weight x input|.

A unit j receives contributions c_i = w_ji x_i from below, P = sum of the positive ones, N = sum of the sizes of the
negative ones, and has a bias b_j. It hands its relevance R_j down as

    R_i <- R_j |c_i| / (P + N + |b_j|),        and |b_j| / (P + N + |b_j|) of it stays with the bias.

That is what the default mode of DLBacktrace (arXiv 2411.12643) comes to when its two cases, for positive and negative
inputs, are put together; derived here from the formulas, not from their code. Activations, dropout and flattening pass
relevance on, max pooling gives it to the largest cell (ties share), average pooling is a layer of equal weights, and
batch normalisation is folded into the layer before it. So input relevance + shares of the biases = start, in every row.

How to read it. **Relevance has no sign**: a feature that speaks against the class gets as much as one that speaks for
it, and replacing weights by others of the same size changes little. `gates=True` adds the saturation gate: a unit below
the range in which its activation responds hands nothing to positive contributions, one above it nothing to negative
ones. In a ReLU network it does nothing, since a unit below 0 is silent and receives nothing to begin with.

The contrastive mode of older releases sends two streams down: `positive` starts at the target, `negative` at the other
classes in proportion to their probabilities. In a unit with contributions of both signs one stream follows the positive
ones and the other the negative ones (which, see `streams`); biases take no share, so each stream is conserved, save
where a unit has no contribution or is exactly at a tie. `contrastive` is positive minus negative. It has a sign, but
not that of evidence for and against: what decides for one class and against another draws both streams. Starting at
a class that was not predicted is our extension.

    relevance(model, X, target)      # (n, ...) as X, at least 0
    contrastive(model, X, target)    # (n, ...) as X, signed

Models are nn.Sequential, nested if need be, of Linear, Conv2d, ReLU and other pointwise activations, Flatten,
MaxPool2d, AvgPool2d, AdaptiveAvgPool2d, Dropout, BatchNorm. Layers of your own that treat every feature by itself, such
as standardisation, take part if they have the attribute `elementwise = True`.
"""

from collections.abc import Callable
from copy import deepcopy
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from compendium.xai.tables import numbers, targets

# The range of t = sum of contributions + bias in which an activation responds (their values).
RANGES = {nn.ReLU: (0.0, np.inf), nn.Tanh: (-2.0, 2.0), nn.Sigmoid: (-4.0, 4.0)}
SILENT = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Identity)  # do nothing in evaluation
POINTWISE = (nn.ReLU, nn.Tanh, nn.Sigmoid, nn.GELU, nn.SiLU, nn.ELU, nn.LeakyReLU, nn.Softplus)
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)
LINEAR = (nn.Linear, nn.Conv2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d)


class Flow(NamedTuple):
    """Where the start went; inputs.sum() + bias + lost = start in every row."""

    inputs: np.ndarray  # as X
    bias: np.ndarray  # (n,) what the biases kept
    lost: np.ndarray  # (n,) what closed gates held back, or units without any contribution


class Streams(NamedTuple):
    """Both streams of the contrastive mode, each >= 0 and as X."""

    positive: np.ndarray
    negative: np.ndarray


def relevance(model: nn.Module, X, target, *, background=None, seed: int = 0, start=1.0, gates: bool = False):
    """Absolute-contribution relevance of one class per row: an array as X, at least 0, with no sign.

    X: (n, d) or (n, channels, h, w). target: class number, or one a row. start: what the target's output is given, a
    number or (n,). The rule compares with no background and draws nothing: `background` and `seed` are not used.
    Raises ValueError for bad input and for layers it has no rule for.
    """
    return flow(model, X, target, start=start, gates=gates).inputs


def contrastive(model: nn.Module, X, target, *, background=None, seed: int = 0, start=1.0):
    """Positive minus negative stream of the contrastive mode: an array as X, signed. Arguments as for `relevance`."""
    found = streams(model, X, target, start=start)
    return found.positive - found.negative


def flow(model: nn.Module, X, target, *, start=1.0, gates: bool = False) -> Flow:
    """Relevance together with what did not arrive at the inputs."""
    layers, inputs, target = _record(model, X, target)
    n = len(target)
    R = torch.zeros_like(inputs[-1])
    R[torch.arange(n), target] = torch.as_tensor(start, dtype=R.dtype)
    bias, lost = torch.zeros(n, dtype=R.dtype), torch.zeros(n, dtype=R.dtype)
    for k, layer in reversed(list(enumerate(layers))):
        if not isinstance(layer, LINEAR):
            R = _passed(layer, inputs[k], R)
            continue
        parts = Contributions(layer, inputs[k])
        b = parts.bias.abs()
        share = _ratio(R, parts.P + parts.N + b)
        up = un = share
        if gates:
            low, high = _range(layers[k + 1 :])
            up, un = share * (parts.t >= low), share * (parts.t <= high)
        below = parts.spread(up, un)
        kept = (share * b).flatten(1).sum(1)
        lost += R.flatten(1).sum(1) - kept - below.flatten(1).sum(1)
        bias += kept
        R = below
    return Flow(R.numpy(), bias.numpy(), lost.numpy())


def streams(model: nn.Module, X, target, *, start=1.0) -> Streams:
    """The two streams of the contrastive mode.

    In a unit with contributions of both signs and t = P - N + b, the positive stream follows the positive contributions
    if (t > 0 and it is the larger stream) or (t < 0 and it is the smaller), and the negative contributions otherwise;
    the negative stream takes the others. With contributions of one sign both streams follow them.
    """
    layers, inputs, target = _record(model, X, target)
    rows = torch.arange(len(target))
    others = inputs[-1].softmax(1)
    if others.shape[1] < 2:
        raise ValueError("the contrastive mode compares classes: the model needs at least two outputs")
    others[rows, target] = 0
    plus = torch.zeros_like(others)
    plus[rows, target] = torch.as_tensor(start, dtype=plus.dtype)
    minus = _ratio(others, others.sum(1, keepdim=True)) * plus.sum(1, keepdim=True)
    for k, layer in reversed(list(enumerate(layers))):
        if not isinstance(layer, LINEAR):
            plus, minus = _passed(layer, inputs[k], plus), _passed(layer, inputs[k], minus)
            continue
        parts = Contributions(layer, inputs[k])
        P, N, t = parts.P, parts.N, parts.t
        mixed = (P > 0) & (N > 0)
        straight = ((t > 0) & (plus > minus)) | ((t < 0) & (plus < minus))
        to_P, to_N = mixed & straight, mixed & ~straight & (t != 0)
        alone = lambda R: _ratio(R, P + N) * ~mixed  # noqa: B023 - used before the next turn
        up, un = alone(plus) + _ratio(plus, P) * to_P, alone(plus) + _ratio(plus, N) * to_N
        vp, vn = alone(minus) + _ratio(minus, P) * to_N, alone(minus) + _ratio(minus, N) * to_P
        plus, minus = parts.spread(up, un), parts.spread(vp, vn)
    return Streams(plus.numpy(), minus.numpy())


class Contributions:
    """The contributions of one layer's inputs x to its units, sorted by sign; never held as a (units, inputs) matrix.

    P, N: sums of the positive contributions and of the sizes of the negative ones, each as the layer's output.
    """

    def __init__(self, layer: nn.Module, x: Tensor):
        grow, shrink, self.bias = _signed(layer)
        with torch.enable_grad():
            self.high = x.clamp(min=0).requires_grad_()
            self.low = x.clamp(max=0).requires_grad_()
            self._P = grow(self.high) + shrink(self.low)
            self._N = -(shrink(self.high) + grow(self.low))
        self.P, self.N = self._P.detach(), self._N.detach()
        self.t = self.P - self.N + self.bias

    def spread(self, up: Tensor, un: Tensor) -> Tensor:
        """sum_j up_j c+_ij + un_j |c-_ij| for every input i: one backward pass, since contributions are linear in x."""
        g = torch.autograd.grad([self._P, self._N], [self.high, self.low], [up, un], retain_graph=True)
        return self.high.detach() * g[0] + self.low.detach() * g[1]


def _signed(layer: nn.Module) -> tuple[Callable, Callable, Tensor]:
    """(the layer with its positive weights only, with its negative ones only, its bias), both without bias."""
    if isinstance(layer, (nn.AvgPool2d, nn.AdaptiveAvgPool2d)):
        return layer, lambda x: 0 * layer(x), torch.zeros((), dtype=torch.float64)
    W = layer.weight
    b = torch.zeros(len(W), dtype=W.dtype) if layer.bias is None else layer.bias
    if isinstance(layer, nn.Linear):
        apply = lambda w: lambda x: F.linear(x, w)
    else:
        b = b[:, None, None]
        apply = lambda w: lambda x: F.conv2d(x, w, None, layer.stride, layer.padding, layer.dilation, layer.groups)
    return apply(W.clamp(min=0)), apply(W.clamp(max=0)), b


def _passed(layer: nn.Module, x: Tensor, R: Tensor) -> Tensor:
    """Relevance handed through a layer that has no weights to share it by."""
    if not isinstance(layer, nn.MaxPool2d):
        return R.reshape(x.shape)
    size, stride, padding = layer.kernel_size, layer.stride, layer.padding
    wide = lambda v: (v, v) if isinstance(v, int) else tuple(v)
    (h, w), (ph, pw) = wide(size), wide(padding)
    n, channels = x.shape[:2]
    padded = F.pad(x, (pw, pw, ph, ph), value=-torch.inf)
    cut = dict(kernel_size=size, stride=stride)
    windows = F.unfold(padded, **cut).reshape(n, channels, h * w, -1)  # (n, channels, cells of a window, windows)
    largest = (windows == windows.amax(2, keepdim=True)).to(R.dtype)
    share = largest / largest.sum(2, keepdim=True) * R.reshape(n, channels, 1, -1)
    whole = F.fold(share.reshape(n, channels * h * w, -1), padded.shape[2:], **cut)
    return whole[:, :, ph : ph + x.shape[2], pw : pw + x.shape[3]]


def _ratio(a: Tensor, b: Tensor) -> Tensor:
    """a / b, and 0 where b is 0."""
    return torch.where(b == 0, 0.0, a / torch.where(b == 0, 1.0, b))


def _range(after: list[nn.Module]) -> tuple[float, float]:
    """The range of the activation that directly follows a layer; without one it responds everywhere."""
    return RANGES.get(type(after[0]), (-np.inf, np.inf)) if after else (-np.inf, np.inf)


def _record(model: nn.Module, X, target) -> tuple[list[nn.Module], list[Tensor], Tensor]:
    """(layers in float64, what goes into each and out of the last, (n,) targets)."""
    layers = unrolled(model)
    x = torch.as_tensor(numbers(X))
    if x.ndim < 2 or len(x) == 0:
        raise ValueError(f"X must be (n, d) or (n, channels, h, w) with at least one row, not {tuple(x.shape)}")
    if not torch.isfinite(x).all():
        raise ValueError("X holds missing or infinite values: fill them before explaining")
    inputs = [x]
    with torch.no_grad():
        for layer in layers:
            inputs.append(layer(inputs[-1]))
    if inputs[-1].ndim != 2:
        raise ValueError(f"the model must give logits (n, classes), not {tuple(inputs[-1].shape)}")
    with torch.no_grad():
        whole = deepcopy(model).double().cpu().eval()(x)
    if whole.shape != inputs[-1].shape or not torch.allclose(whole, inputs[-1], rtol=1e-6, atol=1e-9):
        raise ValueError(
            "the model does more than its layers one after the other (a forward of its own): no rule for that"
        )
    return layers, inputs, torch.as_tensor(targets(target, len(x), inputs[-1].shape[1]))


def unrolled(model: nn.Module) -> list[nn.Module]:
    """The model's layers in order: copies in float64 and evaluation mode, batch norms folded, idle layers left out.

    Raises ValueError for a layer that relevance has no rule for.
    """
    found = []

    def walk(module):
        if isinstance(module, nn.Sequential):
            for child in module:
                walk(child)
        elif isinstance(module, NORMS) and found and isinstance(found[-1], (nn.Linear, nn.Conv2d)):
            found[-1] = _folded(found[-1], module)
        elif not isinstance(module, SILENT):
            _supported(module)
            found.append(module)

    walk(deepcopy(model).double().cpu().eval().requires_grad_(False))
    if not found:
        raise ValueError("the model has no layers")
    return found


def _supported(module: nn.Module) -> None:
    known = (*LINEAR, *POINTWISE, *NORMS, nn.Flatten, nn.MaxPool2d)
    if not (isinstance(module, known) or getattr(module, "elementwise", False)):
        raise ValueError(
            f"relevance has no rule for {type(module).__name__}: the model must be nn.Sequential of Linear, Conv2d, "
            "pointwise activations, Flatten, MaxPool2d, AvgPool2d, AdaptiveAvgPool2d, Dropout and BatchNorm"
        )
    if isinstance(module, nn.Conv2d) and module.padding_mode != "zeros":
        raise ValueError(f"relevance has no rule for padding_mode={module.padding_mode!r}: use zeros")
    if isinstance(module, nn.MaxPool2d) and (module.dilation != 1 or module.ceil_mode):
        raise ValueError("relevance has no rule for MaxPool2d with dilation or ceil_mode")


def _folded(layer: nn.Module, norm: nn.Module) -> nn.Module:
    """The layer with the batch norm that follows it in its weights."""
    scale = (norm.running_var + norm.eps).rsqrt()
    shift = -norm.running_mean * scale
    if norm.affine:
        scale, shift = scale * norm.weight, shift * norm.weight + norm.bias
    bias = torch.zeros_like(shift) if layer.bias is None else layer.bias
    layer.weight = nn.Parameter(layer.weight * scale.reshape(-1, *[1] * (layer.weight.ndim - 1)), requires_grad=False)
    layer.bias = nn.Parameter(bias * scale + shift, requires_grad=False)
    return layer
