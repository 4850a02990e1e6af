"""Rank the edges and nodes of a model by how much they carry a behaviour, one signature for every method:

    scores = eap_ig(decoder, pairs, metric)          # (sources, destinations)
    node_scores(scores)                              # (sources,)

A score estimates how much the metric falls, averaged over pairs, when an edge (or node) carries its value from the
corrupt prompt while the rest of the model sees the clean one; positive means that the edge helps.

- `patching`: the exact answer by activation patching, one forward pass a node. Slow, and the reference for the others.
- `eap`: edge attribution patching (Syed et al. 2023), the first-order estimate at the clean prompt:
  -(z_corrupt - z_clean) . dmetric/dinput, all edges from one backward pass.
- `eap_ig`: EAP with integrated gradients (Hanna et al. 2024): the gradient is averaged over `steps` embeddings
  interpolated from corrupt (k = 0) to clean. This follows the authors' code, k = 0 ... steps - 1; the paper sums
  1 ... steps.
- `information_flow`: gradient-free (after Ferrando & Voita 2024): how much a source moves the stream towards
  what the destination reads. It does not know the metric.
- `magnitude`, `random`: controls.

Edge gradients are not taken by giving each head its own copy of the stream. One backward pass gives the gradient at
every head's q, k and v; a head's projection and RMSNorm's vector-Jacobian product carry it back to the stream; and a
matrix product with all source differences gives every edge of the layer at once. Tokens that clean and corrupt prompts
begin with alike run once (`Decoder.prefix`).
"""

import torch
from torch import Tensor
from tqdm import tqdm

from compendium.attribution import norms
from compendium.attribution.decoder import Decoder, Pairs, logit_difference, measure

BLOCK = 1 << 18  # columns of a product that are turned to float32 at once


def eap(decoder: Decoder, pairs: Pairs, metric=logit_difference, *, progress: bool = False) -> Tensor:
    """Edge attribution patching: (sources, destinations), gradients at the clean prompts."""
    return _attribute(decoder, pairs, metric, [1.0], progress)


def eap_ig(
    decoder: Decoder, pairs: Pairs, metric=logit_difference, *, steps: int = 5, progress: bool = False
) -> Tensor:
    """EAP with integrated gradients over `steps` input interpolations: (sources, destinations)."""
    if steps < 1:
        raise ValueError("steps must be at least 1")
    return _attribute(decoder, pairs, metric, [k / steps for k in range(steps)], progress)


def _attribute(decoder, pairs, metric, points, progress) -> Tensor:
    """Mean over `points` (0: corrupt embedding, 1: clean) of source differences times input gradients."""
    graph = decoder.graph
    total = torch.zeros(graph.n_sources, graph.n_destinations, device=decoder.model.device)
    _, at_once = decoder.at_once(pairs, len(points))
    rounds = list(decoder.chunks(pairs, len(points)))
    for chunk in tqdm(rounds, desc="attributing", leave=False, disable=None if progress else True):
        n = len(chunk)
        past, *rest = decoder.prefix(chunk)
        embeddings = decoder.embed(torch.cat(rest), past)
        writes, _ = decoder.outputs(embeddings, past)
        difference = (writes[:, n:] - writes[:, :n]).flatten(1)  # (sources, n t d)
        del writes
        clean, corrupt = embeddings[:n], embeddings[n:]
        for start in range(0, len(points), at_once):
            part = torch.tensor(points[start : start + at_once], dtype=clean.dtype, device=clean.device)
            stream = corrupt + part.view(-1, 1, 1, 1) * (clean - corrupt)  # (steps, n, t, d)
            _add_products(decoder, chunk, metric, past, stream, difference, total)
    return total.div_(-len(points) * len(pairs)) * graph.possible.to(total.device)


def _add_products(decoder, pairs, metric, past, streams, difference, total) -> None:
    """Add difference . dmetric/dinput, summed over steps, pairs, positions and width, for every edge."""
    graph, reads = decoder.graph, []
    steps, n = streams.shape[:2]
    repeated = Pairs(*(getattr(pairs, name).repeat(steps, 1) for name in ("clean", "corrupt", "right", "wrong")))
    with torch.enable_grad(), _frozen(decoder.model):
        final = decoder.forward(streams.flatten(0, 1).detach().requires_grad_(True), past=past, reads=reads)
        value = measure(metric, decoder.logits(final), repeated).sum()
        wanted = [tensor for read in reads for tensor in (read.q, read.k, read.v, read.mlp)]
        gradients = torch.autograd.grad(value, [*wanted, final])

    def over_steps(x: Tensor) -> Tensor:
        return x.unflatten(0, (steps, n)).sum(0)

    with torch.no_grad():
        total[:, graph.logits] += product(difference, over_steps(gradients[-1]).flatten())
        for layer, read in enumerate(reads):
            *heads, mlp = gradients[4 * layer : 4 * layer + 4]
            at_norm = torch.cat(
                [
                    torch.einsum("nthe,hed->nthd", g, decoder.weight(layer, kind))
                    for g, kind in zip(heads, "qkv", strict=True)
                ],
                2,
            )  # (steps n, t, 3 heads, d)
            norm = decoder.family.attention_norm(layer)
            at_stream = over_steps(norms.norm_vjp(norm, read.stream, at_norm)).movedim(2, -1)
            sources = graph.before(layer, "attention")
            total[:sources, graph.reads(layer, "attention")] += product(difference[:sources], at_stream.flatten(0, 2))
            sources = graph.before(layer, "mlp")
            total[:sources, graph.reads(layer, "mlp")] += product(difference[:sources], over_steps(mlp).flatten())[
                :, None
            ]


def product(a: Tensor, b: Tensor) -> Tensor:
    """a @ b, added up in float32 at least."""
    high = torch.promote_types(a.dtype, torch.float32)
    if a.dtype == high:
        return a @ b
    width, total = a.shape[1], 0
    for i in range(0, width, BLOCK):  # never all of `a` twice
        total = total + a[:, i : i + BLOCK].to(high) @ b[i : i + BLOCK].to(high)
    return total


class _frozen:
    """No gradients of parameters while inside: they would cost as much again and nobody asks for them."""

    def __init__(self, model):
        self.wanted = [p for p in model.parameters() if p.requires_grad]

    def __enter__(self):
        for p in self.wanted:
            p.requires_grad_(False)

    def __exit__(self, *_):
        for p in self.wanted:
            p.requires_grad_(True)


@torch.no_grad()
def information_flow(decoder: Decoder, pairs: Pairs, metric=None, *, progress: bool = False) -> Tensor:
    """Share of what a destination reads that a source accounts for on clean prompts: (sources, destinations).

    Proximity max(0, |x|_1 - |x - z_u|_1) of source z_u to the stream x, normalised over sources, mean over positions
    and pairs. All readers of one stream share it. `metric` is accepted and ignored.
    """
    graph = decoder.graph
    total = torch.zeros(graph.n_sources, graph.n_destinations, device=decoder.model.device)
    for chunk in tqdm(
        list(decoder.chunks(pairs, whole=True)), desc="flow", leave=False, disable=None if progress else True
    ):
        writes, _ = decoder.outputs(decoder.embed(chunk.clean))

        def share(sources, writes=writes):
            stream = writes[:sources].sum(0)
            near = (stream.abs().sum(-1) - (stream - writes[:sources]).abs().sum(-1)).clamp(min=0)  # (sources, n, t)
            return (near / near.sum(0).clamp(min=1e-9)).mean(2).sum(1)[:, None]

        for layer in range(graph.layers):
            for kind in ("attention", "mlp"):
                sources = graph.before(layer, kind)
                total[:sources, graph.reads(layer, kind)] += share(sources)
        total[:, graph.logits] += share(graph.n_sources)[:, 0]
    return total / len(pairs)


@torch.no_grad()
def patching(decoder: Decoder, pairs: Pairs, metric=logit_difference, *, progress: bool = False) -> Tensor:
    """Exact node scores by activation patching: (sources,).

    The clean run with one source's output replaced by the corrupt run's; the fall of the metric, mean over pairs. All
    heads of a layer are patched side by side in one batch, from that layer on.
    """
    graph = decoder.graph
    falls = torch.zeros(graph.n_sources, device=decoder.model.device)
    for chunk in decoder.chunks(pairs):
        n = len(chunk)
        past, *rest = decoder.prefix(chunk)
        writes, final = decoder.outputs(decoder.embed(torch.cat(rest), past), past)
        base = measure(metric, decoder.logits(final[:n]), chunk)
        falls[0] += (base - measure(metric, decoder.logits(final[n:]), chunk)).sum()
        stream = writes[0, :n].clone()
        for layer in tqdm(range(graph.layers), desc="patching", leave=False, disable=None if progress else True):
            first, mlp = graph.head(layer, 0), graph.mlp(layer)
            middle = stream + writes[first:mlp, :n].sum(0) + decoder.constant(layer)
            patched = middle + writes[first:mlp, n:] - writes[first:mlp, :n]  # (heads, n, t, d)
            flat = patched.flatten(0, 1)
            own = writes[mlp, :n].repeat(graph.heads, 1, 1) if graph.parallel else decoder.mlp(layer, flat)
            after = flat + own
            stream = middle + writes[mlp, :n]
            swapped = middle + writes[mlp, n:]
            ends = decoder.logits(decoder.forward(torch.cat([after, swapped]), past=past, start=layer + 1))
            for u, logits in zip(range(first, mlp + 1), ends.split(n), strict=True):
                falls[u] += (base - measure(metric, logits, chunk)).sum()
    return falls / len(pairs)


def node_scores(scores: Tensor) -> Tensor:
    """Score of every source from edge scores: the sum over its outgoing edges, (sources,).

    Exact for gradient methods: the stream adds its sources, so the gradient at a source's output is the sum of the
    gradients at everything that reads it.
    """
    return scores.sum(1)


@torch.no_grad()
def magnitude(decoder: Decoder, pairs: Pairs, metric=None, *, progress: bool = False) -> Tensor:
    """Control: how much a source's output differs between the prompts (L2), whatever reads it. `metric` is ignored."""
    total = torch.zeros(decoder.graph.n_sources, device=decoder.model.device)
    for chunk in decoder.chunks(pairs, whole=True):
        n = len(chunk)
        writes, _ = decoder.outputs(decoder.embed(torch.cat([chunk.clean, chunk.corrupt])))
        total += (writes[:, n:] - writes[:, :n]).norm(dim=-1).mean(2).sum(1)
    return (total / len(pairs))[:, None] * decoder.graph.possible.to(total.device)


def random(decoder: Decoder, pairs: Pairs, metric=None, *, seed: int = 0, progress: bool = False) -> Tensor:
    """Control: uniform random scores; pairs and metric are ignored."""
    possible = decoder.graph.possible
    return (torch.rand(possible.shape, generator=torch.Generator().manual_seed(seed)) * possible).to(
        decoder.model.device
    )
