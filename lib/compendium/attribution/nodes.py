"""Node scores of any transformers decoder, also of those that `Decoder` does not lay open.

    nodes = Nodes(model)
    scores = nodes.eap_ig(pairs)                 # (sources,), as nodes.names
    exact = nodes.patching(pairs)                # (sources,), by replacing one part's output at a time

What a head writes passes through its slice of the input of attention's output projection, so hooks there and at the
MLP's output see every part. Edges, the ablated forward pass and parameter masks need more: they are for `Decoder`.

Where parts are written to the stream as they are, the scores equal `scores.node_scores(scores.eap_ig(...))`. Where
a norm follows (Gemma, OLMo 2), ours are taken before it and go through its gradient; `Decoder` takes what comes out.
"""

import re
from contextlib import contextmanager
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor, nn

from compendium.attribution.decoder import Pairs, logit_difference, measure

PAIRS = 20  # to a pass


class Part(NamedTuple):
    """A module whose input, in `heads` slices, or whose output (heads 0) is what a layer's part adds."""

    name: str
    module: nn.Module
    heads: int
    weights: int  # numbers in the matrices of the part, all heads together


def blocks(model) -> list[nn.Module]:
    """The blocks of a decoder, in order. Raises ValueError where they are not found."""
    body = model.get_decoder() if hasattr(model, "get_decoder") else model.base_model
    lists = [module for module in (body or model).modules() if isinstance(module, nn.ModuleList) and len(module)]
    count = getattr(model.config.get_text_config(), "num_hidden_layers", None)
    found = next((blocks for blocks in lists if len(blocks) == count), None)
    if found is None:
        raise ValueError(f"the blocks of this {type(model).__name__} are not found: it has no list of {count} modules")
    return list(found)


def _matrix(module) -> bool:
    return isinstance(module, nn.Linear) or type(module).__name__ == "Conv1D"


def _first(output):
    return output[0] if isinstance(output, tuple) else output


def _with_first(output, value):
    return (value, *output[1:]) if isinstance(output, tuple) else value


@torch.no_grad()
def parts(model) -> list[tuple[Part | None, Part | None]]:
    """(attention, MLP) of every block, None where a block has no such part, found by watching one pass.

    Attention's is the last linear layer that runs inside it, the MLP's the last that runs after: where its matrices are
    linear layers; of a mixture of experts it is the output of the whole. Raises ValueError as `blocks` does, and where
    a block runs nothing that writes to the stream.
    """
    layers, width = blocks(model), model.get_input_embeddings().weight.shape[1]
    heads = getattr(model.config.get_text_config(), "num_attention_heads", 1)
    ran, handles = {i: [] for i in range(len(layers))}, []
    for i, block in enumerate(layers):
        for name, module in block.named_modules():
            if name:

                def note(module, _, output, i=i, name=name):
                    value = _first(output)
                    if torch.is_tensor(value) and value.shape[-1] == width:
                        ran[i].append((name, module))

                handles.append(module.register_forward_hook(note))
    try:
        model(torch.arange(1, 6, device=model.device)[None] % model.config.get_text_config().vocab_size)
    finally:
        for handle in handles:
            handle.remove()
    return [(_attention(ran[i], block, heads, i), _mlp(ran[i], block, i)) for i, block in enumerate(layers)]


def _is_norm(module) -> bool:
    return "norm" in type(module).__name__.lower()


def _is_attention(name: str, module) -> bool:
    return bool(re.search("attn|attention", name.split(".")[0])) and not _is_norm(module)


def _held(module) -> int:
    return sum(p.numel() for p in module.parameters() if p.ndim > 1)


def _attention(ran, block, heads: int, i: int) -> Part | None:
    own = [(name, module) for name, module in ran if _is_attention(name, block.get_submodule(name.split(".")[0]))]
    if not own:
        return None
    whole = block.get_submodule(own[0][0].split(".")[0])
    out = next((module for _, module in reversed(own) if _matrix(module)), None)
    wide = 0 if out is None else (out.in_features if isinstance(out, nn.Linear) else out.nx)
    if wide == 0 or wide % heads:
        return Part(f"a{i}", whole, 0, _held(whole))
    return Part(f"a{i}", out, heads, _held(whole))


def _mlp(ran, block, i: int) -> Part | None:
    after = [
        (name, module)
        for name, module in ran
        if not _is_attention(name, block.get_submodule(name.split(".")[0])) and not _is_norm(module) and _held(module)
    ]
    if not after:
        return None
    name = after[-1][0].split(".")[0]
    child = block.get_submodule(name)
    # The block's children that are matrices themselves (OPT's fc1 and fc2) belong to one MLP.
    weights = sum(_held(m) for m in block.children() if _matrix(m)) if _matrix(child) else _held(child)
    plain = {id(m.weight) for m in child.modules() if _matrix(m)}
    if all(id(p) in plain for p in child.parameters() if p.ndim > 1) and not any("experts" in n for n, _ in after):
        child = next(module for inner, module in reversed(after) if inner.split(".")[0] == name and _matrix(module))
    return Part(f"m{i}", child, 0, weights)


class Nodes:
    """The heads and MLPs of a decoder, reached by hooks. Raises ValueError where its parts are not found."""

    def __init__(self, model):
        self.model = model
        self.parts = [part for pair in parts(model) for part in pair if part is not None]

    @cached_property
    def names(self) -> list[str]:
        """Of the sources: the embedding, "input", then each layer's heads and MLP, as `Graph.source_names` has them."""
        inner = [[f"{p.name}.h{h}" for h in range(p.heads)] if p.heads else [p.name] for p in self.parts]
        return ["input", *(name for names in inner for name in names)]

    @cached_property
    def weights(self) -> Tensor:
        """(sources,) numbers in the matrices of each node; heads of a layer are taken to hold equal parts of it."""
        inner = [p.weights / max(1, p.heads) for p in self.parts for _ in range(max(1, p.heads))]
        return torch.tensor([0.0, *inner])

    def circuit(self, scores: Tensor, share: float) -> Tensor:
        """(sources,) bool: nodes by absolute score until they hold `share` of all nodes' weights, at least one."""
        order = scores[1:].abs().cpu().argsort(descending=True) + 1
        held = self.weights[order].cumsum(0) / self.weights.sum()
        kept = torch.zeros(len(scores), dtype=torch.bool)
        kept[order[: 1 + int((held < share).sum())]] = True
        return kept

    @contextmanager
    def _hooked(self, embed=None, part=None):
        """Within the block, passes replace the embedding's output by embed(output) and part n's by part(n, value)."""
        handles = []
        if embed is not None:
            hook = self.model.get_input_embeddings().register_forward_hook(lambda _, __, output: embed(output))
            handles.append(hook)
        for n, (_, module, heads, _) in enumerate(self.parts if part is not None else ()):
            if heads:

                def before(_, args, n=n):
                    return part(n, args[0]), *args[1:]

                handles.append(module.register_forward_pre_hook(before))
            else:

                def after(_, __, output, n=n):
                    return _with_first(output, part(n, _first(output)))

                handles.append(module.register_forward_hook(after))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _logits(self, tokens: Tensor) -> Tensor:
        logits = self.model(input_ids=tokens.to(self.model.device), use_cache=False).logits[:, -1]
        return logits.to(torch.promote_types(logits.dtype, torch.float32))

    @torch.no_grad()
    def _values(self, tokens: Tensor) -> tuple[Tensor, dict[int, Tensor], Tensor]:
        """Embedding, value of every part, and logits of one pass."""
        found, embedded = {}, []
        with self._hooked(lambda x: embedded.append(x) or x, lambda n, x: found.setdefault(n, x)):
            logits = self._logits(tokens)
        return embedded[0], found, logits

    def _products(self, differences: dict[int, Tensor], gradients: dict[int, Tensor]) -> list[Tensor]:
        made = []
        for n, part in enumerate(self.parts):
            product = (differences[n].float() * gradients[n].float()).flatten(0, -2).sum(0)
            made.append(product.view(max(1, part.heads), -1).sum(1))
        return made

    def eap_ig(self, pairs: Pairs, metric=logit_difference, *, steps: int = 5) -> Tensor:
        """EAP with integrated gradients over `steps` input interpolations, as `scores.eap_ig`: (sources,).

        Raises ValueError for fewer than one step, and for a metric that does not return a value a pair.
        """
        if steps < 1:
            raise ValueError("steps must be at least 1")
        total = torch.zeros(len(self.names), device=self.model.device)
        wanted = [p for p in self.model.parameters() if p.requires_grad]
        self.model.requires_grad_(False)
        try:
            for chunk in pairs.chunks(PAIRS):
                (clean, values, _), (corrupt, others, _) = map(self._values, (chunk.clean, chunk.corrupt))
                differences = {n: others[n] - value for n, value in values.items()}
                for k in range(steps):
                    start = (corrupt + k / steps * (clean - corrupt)).requires_grad_(True)
                    seen = {}
                    with torch.enable_grad(), self._hooked(lambda _, s=start: s, self._kept(seen)):
                        value = measure(metric, self._logits(chunk.clean), chunk).sum()
                    order = sorted(seen)
                    first, *rest = torch.autograd.grad(value, [start, *(seen[n] for n in order)])
                    own = ((corrupt - clean).float() * first.float()).sum()[None]
                    total -= torch.cat([own, *self._products(differences, dict(zip(order, rest, strict=True)))])
        finally:
            for parameter in wanted:
                parameter.requires_grad_(True)
        return total / (steps * len(pairs))

    @staticmethod
    def _kept(seen: dict):
        def keep(n, value):
            seen[n] = value.view_as(value)
            return seen[n]

        return keep

    @torch.no_grad()
    def patching(self, pairs: Pairs, metric=logit_difference) -> Tensor:
        """Exact node scores: the fall of the metric when one node's output is the corrupt prompt's, (sources,)."""
        falls = []
        for chunk in pairs.chunks(PAIRS):
            _, others, bad = self._values(chunk.corrupt)
            base = measure(metric, self._logits(chunk.clean), chunk)
            ends = [measure(metric, bad, chunk)]
            for n, part in enumerate(self.parts):
                for head in range(max(1, part.heads)):
                    with self._hooked(None, self._swapped(n, head, others[n])):
                        ends.append(measure(metric, self._logits(chunk.clean), chunk))
            falls.append(torch.stack([base - end for end in ends]))
        return torch.cat(falls, 1).mean(1)

    def _swapped(self, which: int, head: int, other: Tensor):
        heads = max(1, self.parts[which].heads)

        def swap(n, value):
            if n != which:
                return value
            made = value.clone().view(*value.shape[:-1], heads, -1)
            made[..., head, :] = other.view(made.shape)[..., head, :]
            return made.view(value.shape)

        return swap
