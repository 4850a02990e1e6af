"""Run a decoder so that every connection of its graph can be read, differentiated and replaced.

The weights are the transformers model's own, used in place; only the order of operations is written out, because
per-head inputs and outputs have no module to hook. `families` and `fused` say how each kind of model is put together.
`Decoder(model)` refuses architectures whose forward pass it does not reproduce, and compares itself with the model
once, on a few tokens, before it is trusted.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from compendium.attribution import memory as account
from compendium.attribution import norms
from compendium.attribution.fused import FAMILIES
from compendium.attribution.graph import Graph


@dataclass(frozen=True)
class Pairs:
    """Contrast pairs: prompts that differ in what decides the answer, of one length.

    clean, corrupt: (n, t) token ids. right, wrong: (n, k) ids of tokens that count for and against the clean answer at
    the next position, padded with -1.
    """

    clean: Tensor
    corrupt: Tensor
    right: Tensor
    wrong: Tensor

    def __post_init__(self):
        if self.clean.ndim != 2 or self.clean.shape != self.corrupt.shape:
            raise ValueError(
                f"clean {tuple(self.clean.shape)} and corrupt {tuple(self.corrupt.shape)} prompts must have one shape "
                "(n, tokens): group pairs by length, and drop those whose two prompts differ in length"
            )
        if len(self.clean) == 0:
            raise ValueError("no pairs: every one was screened out, or the task file is empty")
        if len(self.right) != len(self.clean) or len(self.wrong) != len(self.clean):
            raise ValueError("right and wrong need one row per pair")
        if (self.right < 0).all(1).any() or (self.wrong < 0).all(1).any():
            raise ValueError("every pair needs at least one right and one wrong token")

    def __len__(self) -> int:
        return len(self.clean)

    def __getitem__(self, index) -> "Pairs":
        return Pairs(self.clean[index], self.corrupt[index], self.right[index], self.wrong[index])

    def chunks(self, size: int):
        """The pairs in batches of at most `size`."""
        for start in range(0, len(self), size):
            yield self[start : start + size]


def logit_difference(logits: Tensor, pairs: Pairs) -> Tensor:
    """Mean logit of the right tokens minus mean logit of the wrong ones: (n,). logits: (n, vocabulary)."""

    def mean(tokens: Tensor) -> Tensor:
        kept = tokens >= 0
        return (logits.gather(1, tokens.clamp(min=0)) * kept).sum(1) / kept.sum(1)

    return mean(pairs.right) - mean(pairs.wrong)


def measure(metric, logits: Tensor, pairs: Pairs) -> Tensor:
    """The metric of every pair; raises ValueError unless it gives one number a pair."""
    values = metric(logits, pairs)
    if not isinstance(values, Tensor) or values.shape != (len(pairs),):
        found = tuple(values.shape) if isinstance(values, Tensor) else type(values).__name__
        raise ValueError(
            f"the metric returned {found}; it must return one value per pair, shape ({len(pairs)},): do not average"
        )
    return values


class Reads(NamedTuple):
    """What the parts of one layer read, as autograd sees it."""

    stream: Tensor  # (n, t, d) residual stream that attention reads
    q: Tensor  # (n, t, heads, d_head) before rotation
    k: Tensor  # (n, t, heads, d_head) repeated for every query head, before rotation
    v: Tensor  # (n, t, heads, d_head) repeated for every query head
    mlp: Tensor  # (n, t, d) residual stream that the MLP reads


TOLERANCE = {torch.float32: 1e-3, torch.float64: 1e-3, torch.bfloat16: 5e-2, torch.float16: 1e-2}


class Decoder:
    """A transformers decoder, laid open. Raises ValueError for an architecture it does not reproduce.

    memory: gigabytes that passes may take beside the weights; None: 20 pairs and 5 steps share a pass.
    """

    @torch.no_grad()
    def __init__(self, model, memory: float | None = None):
        name = type(model).__name__
        if name not in FAMILIES:
            raise ValueError(f"{name} is not supported: choose a model among {', '.join(FAMILIES)}")
        self.model, self.memory = model, memory
        self.family = part = FAMILIES[name](model)
        self.head_dim, self.groups, self.d_model = part.head_dim, part.groups, part.d_model
        self.graph = Graph(len(part.layers), part.heads, part.parallel)
        if any(
            part.attention_post(i) is not None and torch.is_tensor(part.bias(i, "o")) for i in range(len(part.layers))
        ):
            raise ValueError(f"this {name} norms an attention output that has a bias, which is not supported")
        tokens = torch.arange(1, 6, device=model.device)[None] % model.config.vocab_size
        ours = self.logits(self.forward(self.embed(tokens)))
        theirs = model(tokens).logits[:, -1].to(ours.dtype)
        off = TOLERANCE.get(model.dtype, 5e-2)
        if not torch.allclose(ours, theirs, rtol=off, atol=off * float(theirs.abs().max())):
            raise ValueError(f"this {name} computes something that the written-out forward pass does not reproduce")

    def at_once(self, pairs: Pairs, steps: int = 1, *, whole: bool = False) -> tuple[int, int]:
        """How many pairs, and how many steps of interpolation of `steps`, share a pass within the memory allowed.

        whole: the pass reads whole prompts, also what a pair begins with alike.
        """
        same = 0 if whole else (pairs.clean == pairs.corrupt).all(0).long().cumprod(0).sum().item()
        tokens = max(1, pairs.clean.shape[1] - same)
        steps = min(steps, account.STEPS)
        return account.fit(account.Shape.of(self.model), tokens=tokens, gigabytes=self.memory, steps=steps)

    def chunks(self, pairs: Pairs, steps: int = 1, *, whole: bool = False):
        """The pairs in batches that fit the memory allowed; steps, whole: as `at_once` takes them."""
        return pairs.chunks(self.at_once(pairs, steps, whole=whole)[0])

    def embed(self, tokens: Tensor, past: list | None = None) -> Tensor:
        """Embeddings of tokens that follow those of `past`."""
        return self.family.embed(tokens.to(self.model.device), past[0][0].shape[1] if past else 0)

    def logits(self, stream: Tensor) -> Tensor:
        """Logits at the last position, (n, vocabulary), from the final residual stream (n, t, d)."""
        logits = self.model.get_output_embeddings()(self.family.final_norm(stream[:, -1]))
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        cap = self.family.final_cap
        return logits if cap is None else cap * torch.tanh(logits / cap)

    def keys(self, layer: int, k: Tensor, start: int = 0) -> Tensor:
        """Keys as attention compares them: normed where the family does, and rotated."""
        return self.family.rotate(layer, self.family.qk_norm(layer, "k", k), start)

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, past: list | None = None) -> Tensor:
        """Head outputs before the output projection: (n, t, heads, d_head). past: from `prefix`, tiled to n."""
        part = self.family
        start = past[layer][0].shape[1] if past else 0
        q, k = part.rotate(layer, part.qk_norm(layer, "q", q), start), self.keys(layer, k, start)
        if start:
            k, v = (
                torch.cat([old.repeat(len(q) // len(old), 1, 1, 1), new], 1)
                for old, new in zip(past[layer], (k, v), strict=True)
            )
        window, mask = part.window(layer), None
        if start or (window and k.shape[1] > window):
            mask = torch.ones(q.shape[1], k.shape[1], dtype=torch.bool, device=q.device).tril(start)
            if window:
                mask = mask.triu(start - window + 1)
        q, k, v = (x.transpose(1, 2) for x in (q, k, v))
        if part.cap is not None:
            return self._capped(layer, q, k, v, mask).transpose(1, 2)
        z = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=mask is None, scale=part.scale(layer))
        return z.transpose(1, 2)

    def _capped(self, layer: int, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        """Attention whose products are bounded by a soft cap (Gemma 2)."""
        cap = self.family.cap
        products = cap * torch.tanh(q @ k.transpose(-1, -2) * self.family.scale(layer) / cap)
        if mask is None:
            mask = torch.ones(q.shape[2], k.shape[2], dtype=torch.bool, device=q.device).tril()
        products = products.masked_fill(~mask, -torch.inf)
        return products.softmax(-1, dtype=torch.promote_types(q.dtype, torch.float32)).to(q.dtype) @ v

    def weight(self, layer: int, kind: str) -> Tensor:
        """Projection of every query head: (heads, d_head, d) for kind "q", "k", "v"; (heads, d, d_head) for "o"."""
        return self.family.weight(layer, kind)

    def normed(self, layer: int, stream: Tensor) -> Tensor:
        """What the projections of a layer's heads are given, from the stream that they read."""
        norm = self.family.attention_norm(layer)
        return stream if norm is None else norm(stream)

    def mlp(self, layer: int, stream: Tensor) -> Tensor:
        """What a layer's MLP adds to the stream, from the stream that it reads."""
        before, after = self.family.mlp_norm(layer), self.family.mlp_post(layer)
        out = self.family.mlp(layer)(stream if before is None else before(stream))
        return out if after is None else after(out)

    def heads(self, layer: int, z: Tensor) -> Tensor:
        """What each head adds to the stream, (heads, n, t, d), from its output; the common bias is left out.

        Where a norm follows attention, a head's share is its output times the factor by which the norm scales the sum.
        """
        out = torch.einsum("nthe,hde->hntd", z, self.weight(layer, "o"))
        norm = self.family.attention_post(layer)
        return out if norm is None else norms.share(norm, out.sum(0), out)

    def attention(self, layer: int, z: Tensor) -> Tensor:
        """What all heads of a layer and their common bias add to the stream: (n, t, d)."""
        out, norm = self.family.out(layer, z), self.family.attention_post(layer)
        return out if norm is None else norm(out)

    def constant(self, layer: int):
        """What a layer's attention adds whatever it reads: its bias, (d,) or 0."""
        return self.family.bias(layer, "o")

    def forward(
        self,
        stream: Tensor,
        *,
        past: list | None = None,
        reads: list | None = None,
        writes: Tensor | None = None,
        start: int = 0,
    ) -> Tensor:
        """The final residual stream (n, t, d) from the embedding, or from the input of layer `start`.

        past: keys and values of tokens before these, from `prefix`. reads: a list to which each layer's `Reads` are
        appended. writes: (sources, n, t, d), filled with what every source adds to the stream.
        """
        graph = self.graph
        if writes is not None:
            writes[0] = stream
        for layer in range(start, graph.layers):
            q, k, v = self.family.project(layer, self.normed(layer, stream))
            z = self.attend(layer, q, k, v, past)
            if writes is not None:
                writes[graph.head(layer, 0) : graph.mlp(layer)] = self.heads(layer, z)
            middle = stream + self.attention(layer, z)
            read = stream if graph.parallel else middle
            mlp_input = read.view_as(read)  # its own autograd node: the gradient there is the MLP's alone
            out = self.mlp(layer, mlp_input)
            if writes is not None:
                writes[graph.mlp(layer)] = out
            if reads is not None:
                reads.append(Reads(stream, q, k, v, mlp_input))
            stream = middle + out
        return stream

    @torch.no_grad()
    def outputs(self, stream: Tensor, past: list | None = None) -> tuple[Tensor, Tensor]:
        """What every source writes, (sources, n, t, d), and the final stream, starting from an embedding (n, t, d)."""
        writes = stream.new_empty(self.graph.n_sources, *stream.shape)
        return writes, self.forward(stream, past=past, writes=writes)

    @torch.no_grad()
    def prefix(self, pairs: Pairs) -> tuple[list, Tensor, Tensor]:
        """Run what clean and corrupt prompts begin with alike once: (past, rest of clean, rest of corrupt).

        Nothing can differ between the two runs before the first token that does, so scores need the rest only: of
        "The capital of France is", two tokens of six. past: for every layer, keys (n, p, heads, d_head), rotated, and
        values; empty when the prompts differ from the start.
        """
        same = (pairs.clean == pairs.corrupt).all(0)
        p = min(int(same.long().cumprod(0).sum()), len(same) - 1)
        if p == 0:
            return [], pairs.clean, pairs.corrupt
        reads = []
        self.forward(self.embed(pairs.clean[:, :p]), reads=reads)
        past = [(self.keys(layer, read.k), read.v) for layer, read in enumerate(reads)]
        return past, pairs.clean[:, p:], pairs.corrupt[:, p:]
