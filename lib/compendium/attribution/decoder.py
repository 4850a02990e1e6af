"""Run a Llama-style decoder so that every connection of its graph can be read, differentiated and replaced.

The weights are the transformers model's own, used in place; only the order of operations is written out, because
per-head inputs and outputs have no module to hook. `Decoder(model)` refuses architectures whose forward pass it does
not reproduce, and compares itself with the model once, on a few tokens, before it is trusted.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from compendium.attribution.graph import Graph

SUPPORTED = ("LlamaForCausalLM", "MistralForCausalLM", "Qwen2ForCausalLM")


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


class Decoder:
    """A transformers decoder, laid open. Raises ValueError for an architecture it does not reproduce."""

    @torch.no_grad()
    def __init__(self, model):
        name = type(model).__name__
        attention = model.get_decoder().layers[0].self_attn if name in SUPPORTED else None
        sliding = getattr(model.config, "sliding_window", None) and getattr(model.config, "use_sliding_window", True)
        if attention is None or sliding or hasattr(attention, "q_norm") or attention.o_proj.bias is not None:
            raise ValueError(f"{name} is not supported: choose a full-attention model among {', '.join(SUPPORTED)}")
        self.model = model
        self.body = model.get_decoder()
        self.head_dim = attention.head_dim
        self.groups = attention.num_key_value_groups
        self.graph = Graph(model.config.num_hidden_layers, model.config.num_attention_heads)
        self.d_model = model.config.hidden_size
        tokens = torch.arange(1, 6, device=model.device)[None]
        ours = self.logits(self.forward(self.embed(tokens)))
        theirs = model(tokens).logits[:, -1]
        if not torch.allclose(ours, theirs, rtol=1e-3, atol=1e-3 * float(theirs.abs().max())):
            raise ValueError(f"this {name} computes something that the written-out forward pass does not reproduce")

    def embed(self, tokens: Tensor) -> Tensor:
        return self.body.embed_tokens(tokens.to(self.model.device))

    def logits(self, stream: Tensor) -> Tensor:
        """Logits at the last position, (n, vocabulary), from the final residual stream (n, t, d)."""
        logits = self.model.get_output_embeddings()(self.body.norm(stream[:, -1]))
        return logits.to(torch.promote_types(logits.dtype, torch.float32))

    def rotate(self, x: Tensor, start: int = 0) -> Tensor:
        """Rotary position embedding of (n, t, heads, d_head) at positions start, start + 1, ..."""
        positions = torch.arange(start, start + x.shape[1], device=x.device)[None]
        cos, sin = (part[:, :, None] for part in self.body.rotary_emb(x, positions))
        first, second = x.chunk(2, -1)
        return x * cos + torch.cat([-second, first], -1) * sin

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, past: list | None = None) -> Tensor:
        """Head outputs before the output projection: (n, t, heads, d_head). past: from `prefix`, tiled to n."""
        start = past[layer][0].shape[1] if past else 0
        q, k = self.rotate(q, start), self.rotate(k, start)
        mask = None
        if start:
            k, v = (
                torch.cat([old.repeat(len(q) // len(old), 1, 1, 1), new], 1)
                for old, new in zip(past[layer], (k, v), strict=True)
            )
            mask = torch.ones(q.shape[1], k.shape[1], dtype=torch.bool, device=q.device).tril(start)
        q, k, v = (x.transpose(1, 2) for x in (q, k, v))
        scale = self.body.layers[layer].self_attn.scaling
        z = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=mask is None, scale=scale)
        return z.transpose(1, 2)

    def project(self, layer: int, normed: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """q, k, v of every query head from one normalised input (n, t, d)."""
        part = self.body.layers[layer].self_attn
        q, k, v = (
            projection(normed).unflatten(-1, (-1, self.head_dim))
            for projection in (part.q_proj, part.k_proj, part.v_proj)
        )
        return q, k.repeat_interleave(self.groups, 2), v.repeat_interleave(self.groups, 2)

    def weight(self, layer: int, kind: str) -> Tensor:
        """Projection of every query head: (heads, d_head, d) for kind "q", "k", "v"; (heads, d, d_head) for "o"."""
        part = self.body.layers[layer].self_attn
        if kind == "o":
            return part.o_proj.weight.unflatten(1, (-1, self.head_dim)).transpose(0, 1)
        matrix = getattr(part, f"{kind}_proj").weight.unflatten(0, (-1, self.head_dim))
        return matrix if kind == "q" else matrix.repeat_interleave(self.groups, 0)

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
            block = self.body.layers[layer]
            q, k, v = self.project(layer, block.input_layernorm(stream))
            z = self.attend(layer, q, k, v, past)
            if writes is not None:
                out = torch.einsum("nthe,hde->hntd", z, self.weight(layer, "o"))
                writes[graph.head(layer, 0) : graph.mlp(layer)] = out
            middle = stream + block.self_attn.o_proj(z.flatten(2))
            mlp_input = middle.view_as(middle)  # its own autograd node: the gradient there is the MLP's alone
            out = block.mlp(block.post_attention_layernorm(mlp_input))
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
        return [(self.rotate(read.k), read.v) for read in reads], pairs.clean[:, p:], pairs.corrupt[:, p:]

    def norm_vjp(self, norm, stream: Tensor, gradient: Tensor) -> Tensor:
        """Gradients at RMSNorm's input from gradients at its output.

        stream: (n, t, d); gradient: (n, t, h, d), one for each of h readers. With r = (mean x^2 + eps)^(-1/2) and
        y = weight * gradient: r y - x r^3 mean(x y).
        """
        x = stream.to(torch.promote_types(stream.dtype, torch.float32))
        r = torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + norm.variance_epsilon)
        y = gradient * norm.weight
        along = torch.einsum("ntd,nthd->nth", x, y) * r.pow(3) / x.shape[-1]
        return y.mul_(r[:, :, None]).addcmul_(x[:, :, None], along[..., None], value=-1)
