"""RMSNorm, Gemma's and LayerNorm from outside: their gain, their gradient, and what they make of parts of a sum."""

import torch
from torch import Tensor, nn


def norm_vjp(norm, stream: Tensor, gradient: Tensor) -> Tensor:
    """Gradients at a norm's input from gradients at its output.

    norm: an RMSNorm, one of Gemma's, a LayerNorm, or None. stream: (n, t, d); gradient: (n, t, h, d), one for each of
    h readers. RMSNorm, with r = (mean x^2 + eps)^(-1/2) and y = weight * gradient: r y - x r^3 mean(x y). LayerNorm
    is the same of x - mean x, without the mean of the result.
    """
    if norm is None:
        return gradient
    x = stream.to(torch.promote_types(stream.dtype, torch.float32))
    layer_norm = isinstance(norm, nn.LayerNorm)
    if layer_norm:
        x = x - x.mean(-1, keepdim=True)
    eps = getattr(norm, "variance_epsilon", None) or norm.eps
    r = torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + eps)
    y = gradient.to(x.dtype) * gain(norm).to(x.dtype)
    along = torch.einsum("ntd,nthd->nth", x, y) * r.pow(3) / x.shape[-1]
    found = y.mul_(r[:, :, None]).addcmul_(x[:, :, None], along[..., None], value=-1)
    return found - found.mean(-1, keepdim=True) if layer_norm else found


def gain(norm) -> Tensor:
    """What an RMSNorm or LayerNorm multiplies the normed stream by: Gemma's stores it less one."""
    return 1 + norm.weight if type(norm).__name__.startswith("Gemma") else norm.weight


def share(norm, whole: Tensor, parts: Tensor) -> Tensor:
    """What each part of a sum is after the sum's norm: parts (..., n, t, d) times the norm's own factor on `whole`."""
    if norm is None:
        return parts
    x = whole.to(torch.promote_types(whole.dtype, torch.float32))
    eps = getattr(norm, "variance_epsilon", None) or norm.eps
    return (parts * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + eps) * gain(norm)).to(parts.dtype)
