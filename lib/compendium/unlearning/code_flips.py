"""What an update does to the NF4 codes of a model.

An update Delta moves weight i to another code when it crosses a decision boundary. Three questions, from weak to
strong evidence that unlearning is lost in quantisation:

1. How large is the *bin width* beside the update? `ratio_*` = mean bin width / mean |Delta|.
2. How many codes move? `flips`, beside `flips_predicted`: where weights have a smooth density f of positions
   x = w / absmax, a small step crosses a boundary with probability E|Delta / absmax| * sum_k f(boundary_k).
   This needs no step to be as large as a bin. It leaves out that a block's absmax weight moves too and rescales the
   block: harmless when all |Delta| of a block are alike, as AdamW makes them; some 7 % more flips when they are
   Gaussian.
3. Do the codes that move carry the update? Regress what the quantised model gains, D = Q(w + Delta) - Q(w), on Delta.
   `slope` is D.Delta / Delta.Delta: 1 when the quantised model moves along the update as far as the update asks, 0
   when it does not follow it. `correlation` says how much else it moves. Rounding a weight that sits at a random place
   in its bin moves it rarely, but then by a whole gap and in the right direction: slope near 1 at a tiny correlation.

`*_control` repeats 2 and 3 for an update of the same magnitudes and random signs, which carries nothing.
"""

import math
from collections import defaultdict

import torch
from torch import Tensor

from compendium import models, nf4

SAMPLE = 97  # the median |Delta| is taken over every 97th weight


def snapshot(model) -> dict[str, Tensor]:
    """A copy of every quantisable weight, by layer name."""
    return {name: layer.weight.detach().clone() for name, layer in models.linear_layers(model).items()}


def boundary_density(weights: dict[str, Tensor], half_width: float = 0.004) -> float:
    """Sum over the 15 decision boundaries of the density of x = w / absmax there (per unit of absmax).

    Estimated as the share of all weights within `half_width` of a boundary.
    """
    near = total = 0
    for weight in weights.values():
        position = nf4.normalise(weight).flatten()
        for boundary in nf4.BOUNDARIES.tolist():
            near += int(((position - boundary).abs() < half_width).sum())
        total += position.numel()
    return near / total / (2 * half_width)


def describe(weight: Tensor) -> dict[str, float]:
    """Bin widths of one weight matrix, in weight units, averaged over its weights (`gap_*`) or blocks (`absmax`)."""
    g = nf4.geometry(weight)
    local = torch.stack([g.gap_up, g.gap_down]).nanmean(0)
    nearest = torch.minimum(g.distance_up, g.distance_down)
    scale = g.absmax.mean().item()
    return {
        "weights": weight.numel(),
        "std": weight.std().item(),
        "absmax": scale,
        "gap_mean": scale * nf4.MEAN_GAP,
        "gap_min": scale * nf4.GAPS.min().item(),
        "gap_local": local.mean().item(),
        "distance_nearest": nearest.mean().item(),
        "end_share": g.is_end.float().mean().item(),
    }


@torch.no_grad()
def compare(before: dict[str, Tensor], model, *, density: float, seed: int = 0) -> dict[str, float]:
    """Measure the update from `before` to the model's present weights; keys as in the module docstring.

    density: `boundary_density(before)`. seed: of the control's random signs. Raises ValueError when nothing moved.
    """
    sums = defaultdict(float)
    sample = []
    generator = torch.Generator().manual_seed(seed)
    for name, layer in models.linear_layers(model).items():
        old, new = before[name].float(), layer.weight.detach().float()
        delta = new - old
        g = nf4.geometry(old)
        codes = nf4.codes(new)
        gap = torch.where(delta > 0, g.gap_up, g.gap_down)
        sign = torch.randint(0, 2, (delta.numel(),), generator=generator, dtype=torch.int8).mul_(2).sub_(1)
        control = old + delta * sign.view(delta.shape).to(delta.device)
        control_codes = nf4.codes(control)
        start = nf4.dequantise(g.codes, g.absmax)
        gain = nf4.dequantise(codes, nf4.block_absmax(new)).sub_(start)
        control_gain = nf4.dequantise(control_codes, nf4.block_absmax(control)).sub_(start)
        size = delta.abs()
        sample.append(size.flatten()[::SAMPLE])
        inside = ~gap.isnan()
        for key, value in {
            "n": delta.numel(),
            "size": size.sum(),
            "relative": (size.view(-1, nf4.BLOCK).sum(1) / g.absmax.clamp(min=1e-30)).sum(),
            "gap_local": gap[inside].sum(),
            "local_n": inside.sum(),
            "scale": g.absmax.sum(),
            "blocks": g.absmax.numel(),
            "flips": (codes != g.codes).sum(),
            "flips_control": (control_codes != g.codes).sum(),
            "bf16": (new.bfloat16() != old.bfloat16()).sum(),
            "dot": _dot(gain, delta),
            "self": _dot(delta, delta),
            "gain": _dot(gain, gain),
            "dot_control": _dot(control_gain, delta),
        }.items():
            sums[key] += float(value)
    n, size = sums["n"], sums["size"]
    if size == 0:
        raise ValueError("the model's linear weights equal the ones before: there is no update to measure")
    mean, scale = size / n, sums["scale"] / sums["blocks"]
    return {
        "update_mean": mean,
        "update_median": torch.cat(sample).median().item(),
        "ratio_mean_gap": nf4.MEAN_GAP * scale / mean,
        "ratio_min_gap": nf4.GAPS.min().item() * scale / mean,
        "ratio_local_gap": sums["gap_local"] / sums["local_n"] / mean,
        "flips": sums["flips"] / n,
        "flips_predicted": density * sums["relative"] / n,
        "flips_control": sums["flips_control"] / n,
        "changed_in_bf16": sums["bf16"] / n,
        "slope": sums["dot"] / sums["self"],
        "correlation": sums["dot"] / math.sqrt(sums["self"] * sums["gain"]) if sums["gain"] else 0.0,
        "slope_control": sums["dot_control"] / sums["self"],
    }


def _dot(a: Tensor, b: Tensor) -> float:
    return torch.dot(a.flatten(), b.flatten()).item()
