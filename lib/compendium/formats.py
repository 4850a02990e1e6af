"""Does it survive? Weights through any quantised format and back, behind one signature.

    formats.roundtrip(weight, "nf4")             # what the weight becomes once stored in that format
    with formats.quantised(model, "q4_1"):       # the whole model, for as long as the block lasts
        facts.score(model, ...)

| format | bits | scale | done by |
|---|---|---|---|
| nf4, fp4 | 4 | absmax of 64 consecutive weights | bitsandbytes |
| int8 | 8 | absmax of a row (LLM.int8, without its outlier columns) | bitsandbytes |
| q4_0, q4_1, q8_0 | 4, 4, 8 | 32 consecutive weights; q4_1 with an offset | gguf |

Weights are dequantised again and the forward pass runs in the model's own dtype, so any difference is the format's
rounding and nothing else. Embeddings and the output head are left alone, as 4-bit loaders do.
"""

import logging
from contextlib import contextmanager
from functools import partial

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from compendium import nf4
from compendium.models import linear_layers

BLOCK_4BIT = nf4.BLOCK
BLOCK_GGUF = 32


def _four_bit(weight: Tensor, kind: str) -> Tensor:
    nf4.check(weight)
    # Its CPU backend logs that an optional faster matrix product is missing; quantising does not use it.
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    from bitsandbytes.functional import dequantize_4bit, quantize_4bit

    packed, state = quantize_4bit(weight.contiguous(), blocksize=BLOCK_4BIT, quant_type=kind, compress_statistics=False)
    return dequantize_4bit(packed, state)


def _int8(weight: Tensor) -> Tensor:
    if weight.ndim != 2 or weight.numel() == 0:
        raise ValueError(f"int8 scales each row of a matrix; got shape {tuple(weight.shape)}: reshape it to two axes")
    _check_finite(weight)
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    from bitsandbytes.functional import int8_vectorwise_dequant, int8_vectorwise_quant

    # Its kernel takes float16 and divides by the row's absmax: scale rows into range and keep empty rows from 0 / 0.
    scale = weight.float().abs().amax(1, keepdim=True).clamp(min=1e-30)
    integers, row_absmax, _ = int8_vectorwise_quant((weight.float() / scale).half())
    return int8_vectorwise_dequant(integers, row_absmax).float() * scale


def _gguf(weight: Tensor, kind: str) -> Tensor:
    if weight.ndim == 0 or weight.numel() == 0 or weight.shape[-1] % BLOCK_GGUF:
        raise ValueError(
            f"{kind.lower()} stores rows in blocks of {BLOCK_GGUF}; got shape {tuple(weight.shape)}: "
            "leave this layer unquantised or pad its rows"
        )
    _check_finite(weight)
    from gguf import GGMLQuantizationType, quants

    kind = GGMLQuantizationType[kind]
    with np.errstate(over="ignore", invalid="ignore"):  # `roundtrip` looks at the result
        stored = quants.quantize(weight.detach().float().cpu().numpy(), kind)
        return torch.from_numpy(quants.dequantize(stored, kind)).to(weight.device)


def _check_finite(weight: Tensor) -> None:
    bad = int((~torch.isfinite(weight)).sum())
    if bad:
        raise ValueError(f"{bad:,} of {weight.numel():,} weights are NaN or infinite: go back to an earlier checkpoint")


FORMATS = {
    "nf4": partial(_four_bit, kind="nf4"),
    "fp4": partial(_four_bit, kind="fp4"),
    "int8": _int8,
    "q4_0": partial(_gguf, kind="Q4_0"),
    "q4_1": partial(_gguf, kind="Q4_1"),
    "q8_0": partial(_gguf, kind="Q8_0"),
}


@torch.no_grad()
def roundtrip(weight: Tensor, fmt: str) -> Tensor:
    """`weight` after storage in format `fmt`: same shape, dtype and device.

    Raises ValueError for an unknown format, a shape the format cannot block, or weights that are not finite or too
    large for the format.
    """
    if fmt not in FORMATS:
        raise ValueError(f"unknown format {fmt!r}: choose one of {', '.join(FORMATS)}")
    if not weight.is_floating_point() or weight.element_size() < 2:
        raise ValueError(f"expected floating-point weights, got {weight.dtype}: dequantise the model first")
    stored = FORMATS[fmt](weight).reshape(weight.shape).to(weight.dtype)  # bitsandbytes returns vectors as one row
    if not torch.isfinite(stored.abs().amax()):
        raise ValueError(
            f"{fmt} cannot hold weights as large as {weight.abs().max().item():.3g}: its scales, or {weight.dtype}, "
            "overflow; go back to an earlier checkpoint"
        )
    return stored


def storable(model, fmt: str) -> None:
    """Raise ValueError naming the first linear layer whose shape `fmt` cannot hold, before any is stored."""
    if fmt not in FORMATS:
        raise ValueError(f"unknown format {fmt!r}: choose one of {', '.join(FORMATS)}")
    for name, layer in linear_layers(model).items():
        shape = tuple(layer.weight.shape)
        if fmt in ("nf4", "fp4") and layer.weight.numel() % BLOCK_4BIT:
            raise ValueError(f"{name}: {fmt} stores blocks of {BLOCK_4BIT} weights, and {shape} is no multiple of that")
        if fmt.startswith("q") and shape[-1] % BLOCK_GGUF:
            raise ValueError(f"{name}: {fmt} stores rows in blocks of {BLOCK_GGUF}, and {shape} is no multiple of that")


@contextmanager
def quantised(model, fmt: str, progress: bool = False):
    """Within the block, every linear layer of `model` (not the head) holds its weights as `fmt` would; then undone.

    Costs one more copy of those weights. Yields the model. Raises ValueError naming the layer that cannot be stored,
    and as `models.linear_layers` for a model that is not made of linear layers: none is ever left as it was in silence.
    """
    layers = linear_layers(model)
    storable(model, fmt)
    kept = {}
    try:
        for name, layer in tqdm(layers.items(), desc=fmt, leave=False, disable=None if progress else True):
            try:
                stored = roundtrip(layer.weight.detach(), fmt)
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from None
            kept[name] = layer.weight.data
            layer.weight.data = stored
        yield model
    finally:
        for name, weight in kept.items():
            layers[name].weight.data = weight
