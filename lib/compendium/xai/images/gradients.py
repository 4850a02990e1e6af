"""Image explainers by gradients: from plain gradients to guided Grad-CAM."""

import warnings

import torch
from torch import Tensor, nn

from compendium.xai import additivity
from compendium.xai.additivity import STEPS
from compendium.xai.images.inputs import adds_up, checked, of_net


def _slope(model, x: Tensor, target: Tensor) -> Tensor:
    x = x.detach().requires_grad_()
    (g,) = torch.autograd.grad(model(x).gather(1, target[:, None]).sum(), x)
    return g


@of_net
def gradient(model, X, target, *, background=None, seed=0):
    """Slope of the target's logit."""
    x, target, _ = checked(model, X, target, background)
    return _slope(model, x, target).double().cpu().numpy()


@of_net
def input_x_gradient(model, X, target, *, background=None, seed=0):
    """(x - background) times the slope."""
    x, target, absent = checked(model, X, target, background)
    return ((x - absent) * _slope(model, x, target)).double().cpu().numpy()


@of_net
def smoothgrad(model, X, target, *, background=None, seed=0, draws: int = 16, noise: float = 0.15):
    """Mean slope over copies with Gaussian noise of `noise` times the image's range."""
    x, target, _ = checked(model, X, target, background)
    spread = noise * (x.amax((1, 2, 3), keepdim=True) - x.amin((1, 2, 3), keepdim=True))
    g = torch.Generator().manual_seed(seed)
    parts = [_slope(model, x + spread * torch.randn(x.shape, generator=g).to(x), target) for _ in range(draws)]
    return torch.stack(parts).double().mean(0).cpu().numpy()


@of_net
def integrated_gradients(model, X, target, *, background=None, seed=0, steps: int = 24, tolerance: float = STEPS):
    """captum's integrated gradients from the background. Raises ValueError where sums miss the change in the logit by
    more than `tolerance` times the largest logit."""
    from captum.attr import IntegratedGradients

    x, target, absent = checked(model, X, target, background)
    found = IntegratedGradients(model).attribute(
        x, absent.expand_as(x), target=target, n_steps=steps, internal_batch_size=1024
    )
    remedy = f"more than steps={steps} are needed"
    return adds_up("integrated gradients", found, model, x, target, absent, tolerance, remedy)


@of_net
def deeplift(model, X, target, *, background=None, seed=0):
    """captum's DeepLift (rescale rule) against the background. Its rule for max pooling makes sums miss the change in
    the logit a little; ValueError where they miss it by more than `additivity` allows, or activations are hidden."""
    from captum.attr import DeepLift

    x, target, absent = checked(model, X, target, background)
    tolerance = additivity.deeplift_tolerance(model, x)
    with warnings.catch_warnings(action="ignore"):  # that hooks are set, and taken off again
        found = additivity.hooked(DeepLift(model).attribute, x.requires_grad_(), absent.expand_as(x), target=target)
    return adds_up("deeplift", found, model, x, target, absent, tolerance, additivity.MODULES)


@of_net
def guided_backprop(model, X, target, *, background=None, seed=0):
    """captum's guided backpropagation. Raises ValueError for activations other than nn.ReLU modules called once, which
    it would pass unguided."""
    from captum.attr import GuidedBackprop

    x, target, _ = checked(model, X, target, background)
    additivity.guidable(model, x)
    with warnings.catch_warnings(action="ignore"):  # that hooks are set, and taken off again
        found = additivity.hooked(GuidedBackprop(model).attribute, x.requires_grad_(), target=target)
    return found.detach().double().cpu().numpy()


def _last_convolution(model) -> nn.Module:
    found = [module for module in model.modules() if isinstance(module, nn.Conv2d)]
    if not found:
        raise ValueError("Grad-CAM needs a network with a convolution")
    return found[-1]


@of_net
def grad_cam(model, X, target, *, background=None, seed=0, layer=None, relu: bool = True):
    """captum's Grad-CAM of the last convolution (or `layer`), upsampled to the image, in every channel the same."""
    from captum.attr import LayerAttribution, LayerGradCam

    x, target, _ = checked(model, X, target, background)
    cam = LayerGradCam(model, layer or _last_convolution(model)).attribute(
        x.requires_grad_(), target=target, relu_attributions=relu
    )
    cam = LayerAttribution.interpolate(cam, tuple(x.shape[2:]), "bilinear")
    return cam.detach().expand_as(x).double().cpu().numpy()


@of_net
def guided_grad_cam(model, X, target, *, background=None, seed=0, layer=None):
    """Guided backpropagation times Grad-CAM."""
    kw = dict(background=background, seed=seed)
    return guided_backprop(model, X, target, **kw) * grad_cam(model, X, target, layer=layer, **kw)
