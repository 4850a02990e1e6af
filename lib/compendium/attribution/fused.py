"""Families that keep queries, keys and values in one matrix (Phi-3, GPT-2, GPT-NeoX), and the table of all families."""

import torch
from torch import Tensor, nn

from compendium.attribution.families import Gemma, Llama, Olmo2


class Phi3(Llama):
    """Phi-3: one matrix for queries, keys and values, one for gate and up; part of each head is rotated."""

    def _parts(self) -> dict[str, slice]:
        q, kv = self.heads * self.head_dim, self.heads // self.groups * self.head_dim
        return {"q": slice(0, q), "k": slice(q, q + kv), "v": slice(q + kv, q + 2 * kv)}

    def _matrices(self, i: int):
        weight = self._attention(i).qkv_proj.weight
        return {kind: (weight[rows], None) for kind, rows in self._parts().items()}

    def project(self, i: int, normed: Tensor):
        whole = self._attention(i).qkv_proj(normed)
        q, k, v = (whole[..., rows].unflatten(-1, (-1, self.head_dim)) for rows in self._parts().values())
        return q, k.repeat_interleave(self.groups, 2), v.repeat_interleave(self.groups, 2)

    def head_weights(self, i: int, head: int):
        part, size, every = self._attention(i), self.head_dim, slice(None)
        found = []
        for kind, rows in self._parts().items():
            place = head if kind == "q" else head // self.groups
            found.append(
                (part.qkv_proj.weight, slice(rows.start + place * size, rows.start + (place + 1) * size), every)
            )
        return [*found, (part.o_proj.weight, every, slice(head * size, (head + 1) * size))]

    def mlp_weights(self, i: int, neurons=slice(None)):
        mlp, every = self.mlp(i), slice(None)
        rows = neurons if isinstance(neurons, slice) else torch.cat([neurons, neurons])
        return [(mlp.gate_up_proj.weight, rows, every), (mlp.down_proj.weight, every, neurons)]


def _is_linear(module) -> bool:
    return isinstance(module, nn.Linear)


def _owned(module, rows, columns):
    """(weight, rows, columns) in the way round in which the module stores its weight; given as of a linear layer."""
    return (module.weight, rows, columns) if _is_linear(module) else (module.weight, columns, rows)


class GPT2(Llama):
    """GPT-2: learned positions, LayerNorm, biases everywhere, weights often stored the other way round (Conv1D)."""

    def __init__(self, model):
        super().__init__(model)
        if self.config.add_cross_attention:
            raise ValueError("a GPT-2 that attends to an encoder is no decoder by itself")

    def _layers(self):
        return self.body.h

    def _attention(self, i: int):
        return self.layers[i].attn

    def embed(self, tokens: Tensor, start: int = 0) -> Tensor:
        positions = torch.arange(start, start + tokens.shape[1], device=tokens.device)[None]
        return self.body.wte(tokens) + self.body.wpe(positions)

    def final_norm(self, stream: Tensor) -> Tensor:
        return self.body.ln_f(stream)

    def attention_norm(self, i: int):
        return self.layers[i].ln_1

    def mlp_norm(self, i: int):
        return self.layers[i].ln_2

    def query_key_norms(self, i: int):
        return None

    def rotate(self, i: int, x: Tensor, start: int) -> Tensor:
        return x

    def window(self, i: int) -> None:
        return None

    def _matrices(self, i: int):
        part, d = self._attention(i).c_attn, self.d_model
        weight = part.weight if _is_linear(part) else part.weight.T
        return {kind: (weight[k * d : (k + 1) * d], part.bias[k * d : (k + 1) * d]) for k, kind in enumerate("qkv")}

    def _out(self, i: int):
        part = self._attention(i).c_proj
        return part.weight if _is_linear(part) else part.weight.T, part.bias

    def project(self, i: int, normed: Tensor):
        return tuple(x.unflatten(-1, (-1, self.head_dim)) for x in self._attention(i).c_attn(normed).chunk(3, -1))

    def out(self, i: int, z: Tensor) -> Tensor:
        return self._attention(i).c_proj(z.flatten(2))

    def head_weights(self, i: int, head: int):
        part, size, every = self._attention(i), self.head_dim, slice(None)
        own = slice(head * size, (head + 1) * size)
        parts = [slice(k * self.d_model + own.start, k * self.d_model + own.stop) for k in range(3)]
        return [*(_owned(part.c_attn, rows, every) for rows in parts), _owned(part.c_proj, every, own)]

    def mlp_weights(self, i: int, neurons=slice(None)):
        mlp, every = self.mlp(i), slice(None)
        return [_owned(mlp.c_fc, neurons, every), _owned(mlp.c_proj, every, neurons)]


class NeoX(Llama):
    """GPT-NeoX and Pythia: attention and MLP read the same stream, q, k and v of a head lie together, LayerNorm."""

    def __init__(self, model):
        self.parallel = model.config.use_parallel_residual
        super().__init__(model)

    def _attention(self, i: int):
        part = self.layers[i].attention
        part.head_dim = part.head_size
        return part

    def final_norm(self, stream: Tensor) -> Tensor:
        return self.body.final_layer_norm(stream)

    def window(self, i: int) -> None:
        return None

    def query_key_norms(self, i: int):
        return None

    def _matrices(self, i: int):
        part = self._attention(i).query_key_value
        weight = part.weight.unflatten(0, (self.heads, 3, self.head_dim))
        bias = None if part.bias is None else part.bias.unflatten(0, (self.heads, 3, self.head_dim))
        return {
            kind: (weight[:, k].flatten(0, 1), None if bias is None else bias[:, k].flatten())
            for k, kind in enumerate("qkv")
        }

    def _out(self, i: int):
        projection = self._attention(i).dense
        return projection.weight, projection.bias

    def project(self, i: int, normed: Tensor):
        whole = self._attention(i).query_key_value(normed).unflatten(-1, (self.heads, 3 * self.head_dim))
        return whole.chunk(3, -1)

    def out(self, i: int, z: Tensor) -> Tensor:
        return self._attention(i).dense(z.flatten(2))

    def head_weights(self, i: int, head: int):
        part, size, every = self._attention(i), self.head_dim, slice(None)
        rows = slice(3 * head * size, 3 * (head + 1) * size)
        return [
            (part.query_key_value.weight, rows, every),
            (part.dense.weight, every, slice(head * size, (head + 1) * size)),
        ]

    def mlp_weights(self, i: int, neurons=slice(None)):
        mlp, every = self.mlp(i), slice(None)
        return [(mlp.dense_h_to_4h.weight, neurons, every), (mlp.dense_4h_to_h.weight, every, neurons)]


FAMILIES = {
    "LlamaForCausalLM": Llama,
    "MistralForCausalLM": Llama,
    "Qwen2ForCausalLM": Llama,
    "Qwen3ForCausalLM": Llama,
    "SmolLM3ForCausalLM": Llama,
    "Gemma2ForCausalLM": Gemma,
    "Gemma3ForCausalLM": Gemma,
    "Olmo2ForCausalLM": Olmo2,
    "Phi3ForCausalLM": Phi3,
    "GPT2LMHeadModel": GPT2,
    "GPTNeoXForCausalLM": NeoX,
}
