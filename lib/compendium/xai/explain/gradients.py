"""Explainers by gradients, by captum: gradient, integrated gradients, SmoothGrad, DeepLIFT."""

import warnings
from collections.abc import Callable

import numpy as np

from compendium.xai import additivity
from compendium.xai.additivity import STEPS
from compendium.xai.calls import evaluating, to_tensor
from compendium.xai.explain.preparation import (
    background_rows,
    baseline_row,
    check,
    differentiable,
    need,
    net_behind,
    restarting,
    wrapped,
)
from compendium.xai.explain.shapley import precise
from compendium.xai.predictions import ROWS_AT_ONCE, predictor
from compendium.xai.tables import table


def _by_captum(name: str, model, X, target, output: str, attribute: Callable) -> np.ndarray:
    """attribute(net, function, X tensor, target tensor, tensor of any array) -> attributions, all in batch."""
    import torch

    X, target = check(model, X, target)
    need(name, model, output)
    net, function = differentiable(model, output)
    precise(name, net)
    tensor = lambda a: to_tensor(a, net)
    with evaluating(net):
        found = attribute(
            net, function, tensor(X).requires_grad_(), torch.from_numpy(target).to(tensor(0).device), tensor
        )
    return found.detach().double().cpu().numpy()


def _adds_up(name, found, model, X, target, start, output, tolerance, remedy) -> None:
    """Raise ValueError unless contributions sum to f(x) - f(baseline)."""
    if tolerance == np.inf:
        return
    X, target = check(model, X, target)
    predict, rows = predictor(model, output), np.arange(len(X))
    additivity.check(name, found, predict(X)[rows, target], predict(start)[rows, target], tolerance, remedy)


@wrapped
def gradient(model, X, target, *, background=None, seed=0, output="probability", baseline=None) -> np.ndarray:
    """The slope in every feature: per unit of the feature, unlike contributions."""
    from captum.attr import Saliency

    work = lambda net, f, x, t, tensor: Saliency(f).attribute(x, target=t, abs=False)
    return _by_captum("gradient", model, X, target, output, work)


@wrapped
def input_x_gradient(model, X, target, *, background=None, seed=0, output="probability", baseline=None) -> np.ndarray:
    """Slope times value, so relative to 0 whatever 0 means in the column."""
    from captum.attr import InputXGradient

    work = lambda net, f, x, t, tensor: InputXGradient(f).attribute(x, target=t)
    return _by_captum("input x gradient", model, X, target, output, work)


@wrapped
def integrated_gradients(
    model,
    X,
    target,
    *,
    background=None,
    seed=0,
    output="probability",
    baseline=None,
    steps: int = 64,
    tolerance: float = STEPS,
) -> np.ndarray:
    """Gradients averaged over `steps` points between baseline and x (Gauss-Legendre), times x - baseline.

    Raises ValueError where sums miss the change in the output by more than `tolerance` times the largest output; inf
    does not ask, for models with steps, which have no gradient there.
    """
    from captum.attr import IntegratedGradients

    start = baseline_row(baseline, background, table(X))

    def work(net, f, x, t, tensor):
        explainer = IntegratedGradients(f)
        return explainer.attribute(
            x, baselines=tensor(start), target=t, n_steps=steps, internal_batch_size=max(ROWS_AT_ONCE, len(x))
        )

    found = _by_captum("integrated gradients", model, X, target, output, work)
    remedy = f"more than steps={steps} are needed, or the net has jumps, which gradients do not see (tolerance=)"
    _adds_up("integrated gradients", found, model, X, target, start, output, tolerance, remedy)
    return found


@wrapped
def smoothgrad(
    model,
    X,
    target,
    *,
    background=None,
    seed=0,
    output="probability",
    baseline=None,
    samples: int = 32,
    noise: float = 0.15,
) -> np.ndarray:
    """The slope averaged over inputs with normal noise of `noise` standard deviations of each feature."""
    from captum.attr import NoiseTunnel, Saliency

    X = table(X)
    scale = background_rows(background, X).std(0)
    scale[scale == 0] = 1.0

    def work(net, f, x, t, tensor):
        sd = tensor(scale)
        tunnel = NoiseTunnel(Saliency(lambda u: f(u * sd)))  # captum's noise has one size: give it features of sd 1
        slopes = tunnel.attribute(
            (x / sd).detach().requires_grad_(),
            nt_type="smoothgrad",
            nt_samples=samples,
            stdevs=noise,
            target=t,
            abs=False,
            nt_samples_batch_size=max(1, ROWS_AT_ONCE // len(x)),
        )
        return slopes / sd

    with restarting(seed):
        return _by_captum("smoothgrad", model, X, target, output, work)


@wrapped
def deeplift(model, X, target, *, background=None, seed=0, output="probability", baseline=None) -> np.ndarray:
    """DeepLift, rescale rule: of logits by captum, and from there through the softmax along the straight line."""
    import torch
    from captum.attr import DeepLift

    start = baseline_row(baseline, background, table(X))
    through, allowed = net_behind(model), []

    def work(net, f, x, t, tensor):
        b = tensor(start)
        explainer = DeepLift(net)
        allowed.append(additivity.deeplift_tolerance(net, x))
        warnings.filterwarnings("ignore", "Setting forward, backward hooks")
        if output == "logit" or net(x[:1]).shape[1] == 1:
            return additivity.hooked(explainer.attribute, x, baselines=b, target=t)
        logits = torch.stack([explainer.attribute(x, baselines=b, target=k) for k in range(net(x[:1]).shape[1])], -1)
        sharper = through[1]
        with torch.no_grad():
            at, to = sharper * net(b), sharper * net(x)  # (n, K)
            places, weights = np.polynomial.legendre.leggauss(64)
            mean = torch.zeros_like(at)  # d probability of t / d logits, averaged on the line
            for place, weight in zip((places + 1) / 2, weights / 2, strict=True):
                p = (at + place * (to - at)).softmax(-1)
                chosen = p.gather(1, t[:, None])
                mean += weight * chosen * (torch.nn.functional.one_hot(t, p.shape[1]) - p)
        return (logits * (sharper * mean)[:, None]).sum(-1)

    with warnings.catch_warnings():
        found = _by_captum("deeplift", model, X, target, output, work)
    _adds_up("deeplift", found, model, X, target, start, output, allowed[0], additivity.MODULES)
    return found
