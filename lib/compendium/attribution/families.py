"""What differs between families of decoders, one small adapter each: who reads what, in which order, by which weights.

A transformers model holds the modules; an adapter says how they are put together, so that `Decoder` can read,
differentiate and replace every connection. Weights are used in place. All shapes below are (n, t, heads, d_head) for
parts of heads and (n, t, d) for the residual stream.
"""

import torch
from torch import Tensor, nn


class Llama:
    """Llama, Mistral, Qwen2, Qwen3 and SmolLM3: norms before attention and MLP, rotary positions, shared key heads."""

    parallel = False  # whether the MLP reads the stream before its layer's attention has written to it

    def __init__(self, model):
        self.model, self.config = model, model.config
        self.body = model.get_decoder()
        self.layers = list(self._layers())
        self.heads = self.config.num_attention_heads
        self.head_dim = self._attention(0).head_dim
        self.groups = self.heads // (getattr(self.config, "num_key_value_heads", None) or self.heads)
        self.d_model = self.config.hidden_size
        self.cap, self.final_cap = None, getattr(self.config, "final_logit_softcapping", None)

    def _layers(self):
        return self.body.layers

    def _attention(self, i: int):
        return self.layers[i].self_attn

    def embed(self, tokens: Tensor, start: int = 0) -> Tensor:
        """The embedding of tokens at positions start, start + 1, ..."""
        return self.model.get_input_embeddings()(tokens)

    def final_norm(self, stream: Tensor) -> Tensor:
        return self.body.norm(stream)

    def attention_norm(self, i: int):
        """The norm before attention; None where there is none."""
        return self.layers[i].input_layernorm

    def mlp_norm(self, i: int):
        """The norm before the MLP; None where there is none."""
        return self.layers[i].post_attention_layernorm

    def attention_post(self, i: int):
        """The norm of what attention adds to the stream; None where there is none."""
        return None

    def mlp_post(self, i: int):
        """The norm of what the MLP adds to the stream; None where there is none."""
        return None

    def mlp(self, i: int) -> nn.Module:
        return self.layers[i].mlp

    def query_key_norms(self, i: int):
        """The norms of queries and keys before their rotation, or None."""
        part = self._attention(i)
        return (part.q_norm, part.k_norm) if getattr(part, "q_norm", None) is not None else None

    def qk_norm(self, i: int, kind: str, x: Tensor) -> Tensor:
        """Queries or keys after their norm, each head by itself."""
        norms = self.query_key_norms(i)
        return x if norms is None else norms["qk".index(kind)](x)

    def rotate(self, i: int, x: Tensor, start: int) -> Tensor:
        """Rotary position embedding of the first dimensions of each head; the rest stays."""
        if not getattr(self._attention(i), "use_rope", True):
            return x
        positions = torch.arange(start, start + x.shape[1], device=x.device)[None]
        cos, sin = (part[:, :, None] for part in self._angles(i, x, positions))
        turned, rest = x[..., : cos.shape[-1]], x[..., cos.shape[-1] :]
        first, second = turned.chunk(2, -1)
        turned = (turned * cos + torch.cat([-second, first], -1) * sin).to(x.dtype)
        return turned if rest.shape[-1] == 0 else torch.cat([turned, rest], -1)

    def _angles(self, i: int, x: Tensor, positions: Tensor):
        return self.body.rotary_emb(x, positions)

    def window(self, i: int) -> int | None:
        """How many tokens back a layer looks, itself included; None for all."""
        part = self._attention(i)
        if hasattr(part, "sliding_window"):
            return part.sliding_window
        window = getattr(self.config, "sliding_window", None)
        return window if window and getattr(self.config, "use_sliding_window", True) else None

    def scale(self, i: int) -> float:
        return self._attention(i).scaling

    def _matrices(self, i: int) -> dict[str, tuple[Tensor, Tensor | None]]:
        """For "q", "k" and "v": weight (rows of all its heads, d) and bias or None."""
        part = self._attention(i)
        return {kind: (p.weight, p.bias) for kind in "qkv" for p in [getattr(part, f"{kind}_proj")]}

    def _out(self, i: int) -> tuple[Tensor, Tensor | None]:
        """The output projection: weight (d, heads d_head) and bias or None."""
        projection = self._attention(i).o_proj
        return projection.weight, projection.bias

    def weight(self, i: int, kind: str) -> Tensor:
        """(heads, d_head, d) for "q", "k", "v" of every query head; (heads, d, d_head) for "o"."""
        if kind == "o":
            return self._out(i)[0].unflatten(1, (-1, self.head_dim)).transpose(0, 1)
        matrix = self._matrices(i)[kind][0].unflatten(0, (-1, self.head_dim))
        return matrix if kind == "q" else matrix.repeat_interleave(self.groups, 0)

    def bias(self, i: int, kind: str) -> Tensor | int:
        """(heads, d_head) for "q", "k", "v" of every query head, (d,) for "o"; 0 where there is none."""
        bias = self._out(i)[1] if kind == "o" else self._matrices(i)[kind][1]
        if bias is None:
            return 0
        if kind == "o":
            return bias
        bias = bias.unflatten(0, (-1, self.head_dim))
        return bias if kind == "q" else bias.repeat_interleave(self.groups, 0)

    def project(self, i: int, normed: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """q, k, v of every query head from one normalised input, before their norms and rotation."""
        part = self._attention(i)
        q, k, v = (
            projection(normed).unflatten(-1, (-1, self.head_dim))
            for projection in (part.q_proj, part.k_proj, part.v_proj)
        )
        return q, k.repeat_interleave(self.groups, 2), v.repeat_interleave(self.groups, 2)

    def out(self, i: int, z: Tensor) -> Tensor:
        """What all heads together write, from their outputs, before any norm of it."""
        return self._attention(i).o_proj(z.flatten(2))

    def head_weights(self, i: int, head: int) -> list[tuple[Tensor, slice, slice]]:
        """(weight, rows, columns) that belong to a head, with those that it shares with its group."""
        part, size, every = self._attention(i), self.head_dim, slice(None)
        own = slice(head * size, (head + 1) * size)
        shared = slice(head // self.groups * size, (head // self.groups + 1) * size)
        return [
            (part.q_proj.weight, own, every),
            (part.k_proj.weight, shared, every),
            (part.v_proj.weight, shared, every),
            (part.o_proj.weight, every, own),
        ]

    def mlp_weights(self, i: int, neurons=slice(None)) -> list[tuple[Tensor, slice, slice]]:
        """(weight, rows, columns) of an MLP, or of some of its neurons."""
        mlp, every = self.mlp(i), slice(None)
        return [
            (mlp.gate_proj.weight, neurons, every),
            (mlp.up_proj.weight, neurons, every),
            (mlp.down_proj.weight, every, neurons),
        ]


class Gemma(Llama):
    """Gemma 2 and 3: norms before and after both parts, soft caps, local layers with rotary angles of their own."""

    def __init__(self, model):
        super().__init__(model)
        self.cap = getattr(self.config, "attn_logit_softcapping", None)

    def mlp_norm(self, i: int):
        return self.layers[i].pre_feedforward_layernorm

    def attention_post(self, i: int):
        return self.layers[i].post_attention_layernorm

    def mlp_post(self, i: int):
        return self.layers[i].post_feedforward_layernorm

    def _angles(self, i: int, x: Tensor, positions: Tensor):
        if hasattr(self.body.rotary_emb, "layer_types"):
            return self.body.rotary_emb(x, positions, self.config.layer_types[i])
        return self.body.rotary_emb(x, positions)


class Olmo2(Llama):
    """OLMo 2: no norm before attention and MLP, one after each; queries and keys are normed over all heads at once."""

    def attention_norm(self, i: int):
        return None

    def mlp_norm(self, i: int):
        return None

    def attention_post(self, i: int):
        return self.layers[i].post_attention_layernorm

    def mlp_post(self, i: int):
        return self.layers[i].post_feedforward_layernorm

    def qk_norm(self, i: int, kind: str, x: Tensor) -> Tensor:
        norm = self.query_key_norms(i)["qk".index(kind)]
        weight = norm.weight.unflatten(0, (-1, self.head_dim))
        if kind == "k":  # every key head stands here once for each query head of its group, so the mean is the same
            weight = weight.repeat_interleave(self.groups, 0)
        high = x.to(torch.promote_types(x.dtype, torch.float32))
        return (weight * (high * torch.rsqrt(high.pow(2).mean((-2, -1), keepdim=True) + norm.variance_epsilon))).to(
            x.dtype
        )
