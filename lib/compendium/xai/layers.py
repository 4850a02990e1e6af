"""Layers that `endings` puts behind a net, to make what it gives the raw scores of classes."""

import torch
from torch import nn


class Settled(nn.Sequential):
    """A net in standard form: raw scores (n, K), which times `sharper` go through the softmax, or `values` (n, 1)."""

    def __init__(self, *layers: nn.Module, sharper: float = 1.0, values: bool = False, training: bool = False):
        super().__init__(*layers)
        self.sharper, self.values, self.training = sharper, values, training


class Read(nn.Module):
    """The tensor (n, K) in an output: its `logits` if it is no tensor, and a column if it is (n,)."""

    def forward(self, out):
        from compendium.xai.calls import scores

        z = scores(out)
        return z[:, None] if z.ndim == 1 else z


class Log(nn.Module):
    """Logarithms of probabilities, whose softmax they are."""

    def forward(self, p):
        return p.clamp_min(torch.finfo(p.dtype).tiny).log()


class LogOdds(nn.Module):
    """Logit of a probability."""

    def forward(self, p):
        return torch.logit(p, eps=torch.finfo(p.dtype).eps / 2)


def plus_minus(net: nn.Module) -> nn.Linear:
    """s -> (-s, s), in the net's type and on its device."""
    like = next(net.parameters(), torch.zeros(()))
    layer = nn.utils.skip_init(nn.Linear, 1, 2, bias=False, dtype=like.dtype, device=like.device)  # draws nothing
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[-1.0], [1.0]]))
    return layer.requires_grad_(False).eval()
