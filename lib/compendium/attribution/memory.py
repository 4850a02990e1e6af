"""How much memory attribution takes beside the weights, and how many pairs a pass fit into what there is.

    shape = memory.Shape.of(model)
    memory.peak(shape, pairs=20, tokens=6, steps=5)          # bytes, of the largest of the passes
    memory.fit(shape, tokens=6, steps=5, gigabytes=40)       # (pairs, steps) that share a pass

Two things fill it: what every source writes at every token of every pair, which grows with depth x heads x width, and
the activations that a backward pass keeps. The factors were fitted to peaks measured on models that fit a small machine
(`benchmarks/memory.py` writes what it measured beside it); a test holds them to within a quarter. What patching takes
is counted, not measured.
"""

from dataclasses import dataclass

import torch

PAIRS, STEPS = 20, 5  # that share a pass where nobody says how much memory there is
WRITES = 2.55  # copies of what all sources write: both prompts', their difference and what follows
KEPT = 3.25  # numbers a layer keeps for the way back, for each of its stream, heads and MLP
READERS = 1.25  # copies of the gradients at what the q, k and v of a layer's heads read, in float32
REST = 3e7  # bytes
PATCHED_WIDTH, PATCHED_MLP = 4.0, 3.0  # numbers at once where each head of a layer is patched in a row of its own


@dataclass(frozen=True)
class Shape:
    """The sizes that memory depends on; `number` is bytes a number."""

    layers: int
    heads: int
    head_dim: int
    width: int
    mlp: int
    vocabulary: int
    number: int = 4

    @classmethod
    def of(cls, model) -> "Shape":
        """The shape of a loaded transformers decoder."""
        return cls.read(model.config, torch.finfo(model.dtype).bits // 8)

    @classmethod
    def read(cls, config, number: int = 4) -> "Shape":
        """The shape that a transformers configuration describes, with `number` bytes a number."""
        config = config.get_text_config()
        heads, width = config.num_attention_heads, config.hidden_size
        mlp = getattr(config, "intermediate_size", None) or getattr(config, "n_inner", None) or 4 * width
        head_dim = getattr(config, "head_dim", None) or width // heads
        return cls(config.num_hidden_layers, heads, head_dim, width, mlp, config.vocab_size, number)

    @property
    def sources(self) -> int:
        return 1 + self.layers * (self.heads + 1)


def peak(shape: Shape, *, pairs: int, tokens: int, steps: int = STEPS) -> float:
    """Bytes that scoring, patching or evaluating takes at worst, beside the weights.

    pairs and steps: of interpolation, that share a pass. tokens: of a prompt, less those that its pair begins with.
    """
    row = pairs * tokens * shape.number
    writes = shape.sources * shape.width * row
    layer = KEPT * (shape.width + shape.heads * shape.head_dim + shape.mlp)
    readers = READERS * 3 * shape.heads * shape.width * pairs * tokens * max(4, shape.number)
    scored = steps * (row * shape.layers * layer + readers + pairs * shape.vocabulary * (shape.number + 8))
    patched = shape.heads * row * (PATCHED_WIDTH * shape.width + PATCHED_MLP * shape.mlp)
    patched += shape.heads * pairs * shape.vocabulary * (shape.number + 4)
    return REST + max(WRITES * writes + scored, 2 * writes + patched)


def fit(shape: Shape, *, tokens: int, gigabytes: float | None, steps: int = STEPS) -> tuple[int, int]:
    """(pairs, steps) that share a pass within `gigabytes` beside the weights; PAIRS and `steps` where that is None.

    Pairs are given up before steps. Raises ValueError where one pair and one step do not fit.
    """
    if gigabytes is None:
        return PAIRS, steps
    for at_once in range(steps, 0, -1):
        one = peak(shape, pairs=1, tokens=tokens, steps=at_once)
        if one <= gigabytes * 1e9:
            return min(PAIRS, int((gigabytes * 1e9 - REST) // (one - REST))), at_once
    raise ValueError(
        f"one pair of {tokens} tokens needs {one / 1e9:.2g} GB beside the weights, memory says {gigabytes:g}: "
        "give more, choose shorter prompts or a dtype of 16 bits"
    )


def groups(sizes: dict[str, int], gigabytes: float | None) -> list[list[str]]:
    """Names in order, cut into runs whose sizes (bytes) add up to at most `gigabytes`, one at least; all for None."""
    if gigabytes is None:
        return [list(sizes)]
    found, held = [[]], 0
    for name, size in sizes.items():
        if found[-1] and held + size > gigabytes * 1e9:
            found.append([])
            held = 0
        found[-1].append(name)
        held += size
    return found
